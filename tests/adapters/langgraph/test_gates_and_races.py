"""Late gates are routes of the graph, votes stop waiting, and steps are what a plan takes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from graphs import LARGE, LLAMA, MINI, NAMES, WIDE, Always, Assign, Bench, chain_of, speakers
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from agentbalance_plugin import Agent, Budget, Catalog, LateGate, Plan, Team
from agentbalance_plugin.adapters.langgraph import balance
from agentbalance_plugin.adapters.langgraph.steps import (
    in_steps,
    makespan,
    steps_of,
)
from agentbalance_plugin.adapters.planning import expected_seconds
from agentbalance_plugin.core.design import cascade_plan
from agentbalance_plugin.core.search import Choice
from agentbalance_plugin.core.teamwork import FAMILIES, SHAPES, Family
from agentbalance_plugin.plan import Expected

THREAD: Any = {"configurable": {"thread_id": "one"}}


def says(text: str, name: str) -> Any:
    async def node(state: MessagesState) -> Any:
        return {"messages": [AIMessage(text, name=name)]}

    return node


def full(bench: Bench, plan: Plan, builder: Any, **more: Any) -> Any:
    more.setdefault("budget", WIDE)
    return balance(
        builder,
        backbones=bench.catalog(),
        policy=Always(plan),
        agents=NAMES,
        mode="full",
        **more,
    )


def four(**answers: str) -> Any:
    return chain_of({name: says(answers.get(name, "Answer: 1"), name) for name in NAMES})


GATED = Plan(
    dict.fromkeys(NAMES, MINI),
    decision="vote",
    decider="writer",
    late_gates={
        "critic": LateGate(("planner", "solver"), 0.8),
        "writer": LateGate(("planner", "solver", "critic"), 0.8),
    },
)


async def test_an_agent_behind_a_closed_gate_leaves_no_trace(instant: Bench) -> None:
    app = full(instant, GATED, four()).compile(checkpointer=InMemorySaver())
    updates = [u async for u in app.astream(instant.ask(), THREAD, stream_mode="updates")]
    assert sorted(name for update in updates for name in update) == ["planner", "solver"]
    tasks = [t async for t in app.astream(instant.ask(), THREAD, stream_mode="tasks")]
    assert {task["name"] for task in tasks} == {"planner", "solver"}
    status = {agent.name: agent.status for agent in app.report.agents}
    assert status == {"planner": "done", "solver": "done", "critic": "closed", "writer": "closed"}
    assert app.report.complete


@pytest.mark.parametrize("bound", [False, True])
async def test_a_limit_of_steps_that_fits_the_users_graph_fits_every_plan_of_it(
    instant: Bench, bound: bool
) -> None:
    """Two agents at once, one alone, one alone, with a hidden step before each of the two and one
    after all: six steps where the user's chain has four."""

    def node(name: str, answer: int) -> Any:
        return lambda state: {"messages": [AIMessage(f"Answer: {answer}", name=name)]}

    chain = chain_of({name: node(name, place) for place, name in enumerate(NAMES)})
    limit: Any = {"recursion_limit": 5}
    await chain.compile().ainvoke(instant.ask(), limit)
    app: Any = full(instant, GATED, chain).compile()
    app, config = (app.with_config(limit), None) if bound else (app, limit)
    for result in (
        await app.ainvoke(instant.ask(), config),
        await asyncio.to_thread(app.invoke, instant.ask(), config),
    ):
        assert {*NAMES} <= {*speakers(result)}


async def test_added_nodes_are_marked_as_hidden_in_events_and_say_nothing_twice(
    instant: Bench,
) -> None:
    answers = {"planner": "Answer: 1", "solver": "Answer: 2", "critic": "Answer: 1"}
    app = full(instant, GATED, four(**answers)).compile()
    events = [event async for event in app.astream_events(instant.ask(), version="v2")]
    started = [event["name"] for event in events if event["event"] == "on_chain_start"]
    assert started.count("critic") == 1
    # As LangGraph marks what it adds itself.
    added = [event for event in events if event["name"].startswith("agentbalance_")]
    assert added
    assert all("langsmith:hidden" in event["tags"] for event in added)
    said = [m async for m, _ in app.astream(instant.ask(), stream_mode="messages")]
    assert len(said) == len({message.id for message in said}) == len(app.report.plan.assignment)


async def test_a_gate_behind_a_closed_one_looks_at_those_that_spoke(instant: Bench) -> None:
    plan = Plan(
        dict.fromkeys(NAMES, MINI),
        decision="vote",
        decider="writer",
        late_gates={
            "critic": LateGate(("planner",), 0.5),
            "writer": LateGate(("planner", "solver", "critic"), 0.9),
        },
    )
    result = await full(instant, plan, four()).compile().ainvoke(instant.ask())
    assert "critic" not in speakers(result)
    assert "writer" in speakers(result)


async def test_interrupts_before_a_gated_agent_come_only_if_it_is_to_run(instant: Bench) -> None:
    for last, waits in (("Answer: 1", ()), ("Answer: 2", ("critic",))):
        app = full(instant, GATED, four(solver=last)).compile(
            checkpointer=InMemorySaver(), interrupt_before=["critic"]
        )
        await app.ainvoke(instant.ask(), THREAD)
        assert (await app.aget_state(THREAD)).next == waits
    result = await app.ainvoke(None, THREAD)
    assert "critic" in speakers(result)


async def test_a_crash_behind_an_open_gate_is_resumed_behind_it(instant: Bench) -> None:
    broken = [True]

    async def critic(state: MessagesState) -> Any:
        if broken:
            broken.pop()
            raise RuntimeError("broken")
        return {"messages": [AIMessage("Answer: 2", name="critic")]}

    nodes = {name: says(f"Answer: {place}", name) for place, name in enumerate(NAMES)}
    app = full(instant, GATED, chain_of({**nodes, "critic": critic})).compile(
        checkpointer=InMemorySaver()
    )
    with pytest.raises(RuntimeError, match="broken"):
        await app.ainvoke(instant.ask(), THREAD)
    result = await app.ainvoke(None, THREAD)
    assert speakers(result)[1:5] == list(NAMES)


RACE = Plan(
    {"planner": MINI, "solver": LARGE, "critic": LLAMA},
    decision="vote",
    decider="critic",
    stop_at=0.7,
    weights={"planner": 2.0, "solver": 2.0, "critic": 0.5},
)


@pytest.mark.virtual_time
async def test_a_decided_vote_waits_for_nobody_and_books_what_it_left(bench: Bench) -> None:
    left = asyncio.Event()
    model = bench.model()

    async def slow(state: MessagesState) -> Any:
        try:
            await model.ainvoke([("system", "[[agent:critic]]"), *state["messages"]])
            await asyncio.Event().wait()
        finally:
            left.set()

    nodes = {name: says("Answer: 1", name) for name in NAMES} | {"critic": slow}
    app = full(bench, RACE, chain_of(nodes)).compile()
    result = await asyncio.wait_for(app.ainvoke(bench.ask()), 1000)
    assert result["messages"][-1].content == "Answer: 1"
    await asyncio.wait_for(left.wait(), 10)
    status = {agent.name: agent.status for agent in app.report.agents}
    assert status["critic"] == "closed"
    assert app.report.complete
    assert app.report.spend.calls == 1


@pytest.mark.virtual_time
async def test_an_undecided_vote_waits_for_all(bench: Bench) -> None:
    answers = {"planner": "Answer: 1", "solver": "Answer: 2", "critic": "Answer: 2"}
    result = await full(bench, RACE, four(**answers)).compile().ainvoke(bench.ask())
    assert sorted(speakers(result)[1:4]) == ["critic", "planner", "solver"]
    assert result["messages"][-1].content == "Answer: 2"


@pytest.mark.virtual_time
@pytest.mark.parametrize("stop_at", [None, 0.9])
async def test_the_deadline_leaves_a_vote_what_was_said(
    bench: Bench, stop_at: float | None
) -> None:
    model = bench.model()

    async def hangs(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke("[[agent:critic]] [[fault:timeout]]")]}

    plan = Plan(dict.fromkeys(NAMES, MINI), decision="vote", decider="writer", stop_at=stop_at)
    nodes = {
        "planner": says("Answer: 2", "planner"),
        "solver": says("Answer: 1", "solver"),
        "critic": hangs,
        "writer": says("Answer: 1", "writer"),
    }
    app = full(bench, plan, chain_of(nodes), budget=Budget(latency_s=7.3)).compile()
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await app.ainvoke(bench.ask())
    assert loop.time() - began <= 7.3
    assert sorted(speakers(result)[1:4]) == ["planner", "solver", "writer"]
    assert result["messages"][-1].content == "Answer: 1"
    assert app.report.chosen == "solver"
    assert not app.report.complete
    assert {a.name: a.status for a in app.report.agents}["critic"] == "skipped"


async def test_a_synchronous_vote_gives_up_the_calls_it_does_not_need(instant: Bench) -> None:
    model = instant.model()

    def quick(state: MessagesState) -> Any:
        return {"messages": [AIMessage("Answer: 1")]}

    def slow(state: MessagesState) -> Any:
        prompt = [("system", "[[agent:critic]] [[fault:timeout]]"), *state["messages"]]
        return {"messages": [model.invoke(prompt)]}

    nodes = {"planner": quick, "solver": quick, "critic": slow, "writer": quick}
    app = full(instant, RACE, chain_of(nodes)).compile()
    result = await asyncio.to_thread(app.invoke, instant.ask())
    assert result["messages"][-1].content == "Answer: 1"
    status = {agent.name: agent.status for agent in app.report.agents}
    assert status["critic"] == "closed"


@pytest.mark.virtual_time
async def test_a_race_can_be_cancelled_as_a_whole(bench: Bench) -> None:
    ended: list[str] = []

    def hanging(name: str) -> Any:
        async def node(state: MessagesState) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return node

    app = full(bench, RACE, chain_of({name: hanging(name) for name in NAMES})).compile()
    task = asyncio.create_task(app.ainvoke(bench.ask()))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(1)
    assert sorted(ended) == ["critic", "planner", "solver"]


SLOW_BRANCH = Plan(
    {"planner": MINI, "solver": LARGE, "critic": LARGE, "writer": MINI},
    edges=(("planner", "solver"), ("solver", "writer"), ("critic", "writer")),
    decider="writer",
)


def test_steps_are_those_that_take_less() -> None:
    seconds = {"planner": 1.0, "solver": 9.0, "critic": 9.0, "writer": 1.0}
    steps = steps_of(SLOW_BRANCH, seconds)
    # At once with the planner the critic would make the first step nine seconds long.
    assert steps == {"planner": 0, "solver": 1, "critic": 1, "writer": 2}
    assert makespan(steps, seconds) == 11.0 == SLOW_BRANCH.longest_path(seconds)
    seconds = {"planner": 9.0, "solver": 1.0, "critic": 9.0, "writer": 1.0}
    assert steps_of(SLOW_BRANCH, seconds)["critic"] == 0


async def test_a_plans_latency_is_that_of_its_steps(instant: Bench) -> None:
    catalog = instant.catalog()
    slow, fast = sorted(catalog, key=lambda name: catalog[name].tokens_per_s or 1)[
        :: len(catalog) - 1
    ]
    # Two chains side by side, slow then fast and fast then slow: no levels hide the slow ones.
    plan = Plan(
        {"planner": slow, "solver": fast, "critic": fast, "writer": slow},
        edges=(("planner", "solver"), ("critic", "writer")),
        decision="vote",
        decider="writer",
        expected=Expected(0.9, 0.001, 10.0),
    )
    found, steps = in_steps(plan, catalog)
    assert found.expected is not None
    assert found.expected.latency_s > 10.0
    assert set(steps.values()) == {0, 1}
    chain = Plan(
        dict.fromkeys(NAMES, slow),
        edges=tuple(pairwise(NAMES)),
        decider="writer",
        expected=Expected(0.9, 0.001, 10.0),
    )
    found, _ = in_steps(chain, catalog)
    assert found.expected is not None
    assert found.expected.latency_s == pytest.approx(10.0)


@pytest.mark.parametrize("family", FAMILIES)
async def test_no_step_holds_up_a_plan_of_the_policy(instant: Bench, family: Family) -> None:
    catalog = instant.catalog()
    names, size = list(catalog), SHAPES[family].agents
    team = Team(tuple(map(Agent, NAMES)), decider="writer")
    every = np.zeros(len(names))
    seconds = [expected_seconds(backbone) for backbone in catalog.values()]
    spread = np.argsort(seconds)[np.linspace(0, len(names) - 1, size).astype(int)]
    for columns in permutations(spread.tolist()):
        choice = Choice(family, columns, 0.9, 0.001, 10.0, 0.0)
        plan = cascade_plan(team, choice, names, every, every + 100, {})
        plan.validate(team, catalog)
        found, steps = in_steps(plan, catalog)
        assert found.expected == plan.expected
        assert len(set(steps.values())) == plan.hop_limit


async def test_a_users_graph_takes_what_its_own_steps_take(instant: Bench) -> None:
    builder = StateGraph(MessagesState)
    for name in NAMES:
        builder.add_node(name, instant.node(name))
    builder.add_node("tidy", lambda state: {"messages": []})
    edges = [(START, "planner"), ("planner", "solver"), (START, "tidy"), ("tidy", "critic")]
    for start, end in [*edges, ("writer", END)]:
        builder.add_edge(start, end)
    builder.add_edge(["solver", "critic"], "writer")
    slow, fast = "Llama-3.1-405B-Instruct@hyperbolic", "gemini-1.5-flash"

    class Priced(Assign):
        def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
            plan = super().plan(query, team, budget, catalog)
            return replace(plan, expected=Expected(0.9, 0.001, 10.0))

    async def latency(**backbones: str) -> float:
        catalog = instant.catalog(slow, fast)
        policy = Priced(dict.fromkeys(NAMES, fast) | backbones)
        app = instant.balance(builder, backbones=catalog, policy=policy).compile()
        await app.ainvoke(instant.ask())
        return app.report.plan.expected.latency_s

    assert await latency(planner=slow) == pytest.approx(10.0)
    # The critic's slow step comes after the planner's: the node before it is a step too.
    assert await latency(planner=slow, critic=slow) > 12.0


@pytest.mark.virtual_time
async def test_agents_run_in_the_steps_that_take_less(bench: Bench) -> None:
    app = full(bench, SLOW_BRANCH, bench.chain()).compile()
    await app.ainvoke(bench.ask())
    started = {call.agent: call.started_s for call in app.report.calls}
    assert started["planner"] == 0.0
    assert started["solver"] == started["critic"] > 0.0


async def test_the_users_graph_is_drawn_unless_a_plan_is_asked_for(instant: Bench) -> None:
    builder = instant.chain()
    app = full(instant, GATED, builder).compile()
    assert app.get_graph().to_json() == builder.compile().get_graph().to_json()
    assert (await app.aget_graph(xray=True)).to_json() == builder.compile().get_graph().to_json()
    await app.ainvoke(instant.ask())
    drawn = app.get_graph(plan=app.report.plan)
    gated = {(edge.source, edge.target) for edge in drawn.edges if edge.conditional}
    assert ("planner", "critic") in gated
    assert ("planner", "vote") not in gated
    assert MINI in drawn.draw_mermaid()
