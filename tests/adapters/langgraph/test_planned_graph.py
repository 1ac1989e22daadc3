"""Graphs with static edges alone are planned in full: who runs, who hears whom, who decides."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest
from graphs import LARGE, LLAMA, MINI, NAMES, WIDE, Always, Bench, chain_of, speakers
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Overwrite, interrupt
from pydantic import BaseModel

from agentbalance_plugin import Budget, LateGate, Plan
from agentbalance_plugin.adapters.langgraph import balance

THREAD: Any = {"configurable": {"thread_id": "one"}}


class Listener:
    """An agent that notes what it hears, without a simulator's reply in it."""

    def __init__(self, bench: Bench, name: str, says: str) -> None:
        self.heard: list[list[str]] = []
        self._model = bench.model()
        self._name = name
        self._says = says

    async def __call__(self, state: MessagesState) -> Any:
        self.heard.append(speakers(state))
        await self._model.ainvoke([("system", f"[[agent:{self._name}]]"), *state["messages"]])
        return {"messages": [AIMessage(self._says, name=self._name)]}


def full(bench: Bench, plan: Plan | None, builder: Any, **more: Any) -> Any:
    more.setdefault("budget", WIDE)
    policy = bench.policy() if plan is None else Always(plan)
    return balance(builder, backbones=bench.catalog(), policy=policy, mode="full", **more)


def listeners(bench: Bench, **says: str) -> dict[str, Listener]:
    return {name: Listener(bench, name, text) for name, text in says.items()}


FOUR = {"planner": "Answer: 1", "solver": "Answer: 2", "critic": "Answer: 2", "writer": "Answer: 3"}


@pytest.mark.virtual_time
async def test_agents_that_wait_for_nobody_run_at_once_and_joins_are_exact(bench: Bench) -> None:
    plan = Plan(
        {"planner": MINI, "solver": LARGE, "critic": LLAMA, "writer": MINI},
        edges=(("planner", "writer"), ("solver", "writer"), ("critic", "writer")),
        decider="writer",
    )
    nodes = listeners(bench, **FOUR)
    app = full(bench, plan, chain_of(nodes)).compile()
    result = await app.ainvoke(bench.ask())
    starts = {call.agent: call.started_s for call in app.report.calls}
    ends = {call.agent: call.ended_s for call in app.report.calls}
    assert starts["planner"] == starts["solver"] == starts["critic"]
    assert starts["writer"] == max(ends[name] for name in NAMES[:3])
    assert sorted(nodes["writer"].heard[0]) == ["critic", "human", "planner", "solver"]
    assert nodes["solver"].heard == [["human"]]
    assert speakers(result)[-1] == "writer"
    assert app.report.chosen == "writer"
    assert dict(bench.called()) == dict(plan.assignment)


@pytest.mark.virtual_time
async def test_messages_are_visible_along_planned_edges_alone(bench: Bench) -> None:
    plan = Plan(
        dict.fromkeys(NAMES, MINI),
        edges=(("planner", "solver"), ("solver", "writer"), ("critic", "writer")),
        decider="writer",
    )
    nodes = listeners(bench, **FOUR)
    result = await full(bench, plan, chain_of(nodes)).compile().ainvoke(bench.ask())
    assert nodes["solver"].heard == [["human", "planner"]]
    assert nodes["critic"].heard == [["human"]]
    assert sorted(nodes["writer"].heard[0]) == ["critic", "human", "solver"]
    assert len(result["messages"]) == 5


@dataclasses.dataclass
class AsDataclass:
    messages: Annotated[list[AnyMessage], add_messages]


class AsModel(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = []


RESULTS: dict[str, tuple[type[Any], Callable[[Any, list[AnyMessage]], Any]]] = {
    "dict": (MessagesState, lambda seen, said: {"messages": said}),
    "one message": (MessagesState, lambda seen, said: {"messages": said[0]}),
    "Command": (MessagesState, lambda seen, said: Command(update={"messages": said})),
    "Command of pairs": (MessagesState, lambda seen, said: Command(update=[("messages", said)])),
    "Commands and updates": (MessagesState, lambda seen, said: [Command(), {"messages": said}]),
    "dataclass": (AsDataclass, lambda seen, said: AsDataclass(said)),
    "Command of a dataclass": (AsDataclass, lambda seen, said: Command(update=AsDataclass(said))),
    "model": (AsModel, lambda seen, said: AsModel(messages=said)),
    "Overwrite": (MessagesState, lambda seen, said: {"messages": Overwrite([*seen, *said])}),
    "Overwrite as JSON": (
        MessagesState,
        lambda seen, said: {"messages": {"__overwrite__": [*seen, *said]}},
    ),
}


@pytest.mark.parametrize("form", RESULTS)
async def test_messages_are_an_agents_own_in_whatever_form_it_returns_them(
    instant: Bench, form: str
) -> None:
    schema, made = RESULTS[form]
    heard: dict[str, list[str]] = {}

    def agent(name: str) -> Any:
        model = instant.model()

        async def speak(state: Any) -> Any:
            seen = state["messages"] if isinstance(state, dict) else state.messages
            heard[name] = [message.text for message in seen[1:]]
            await model.ainvoke("hello")
            return made(seen, [AIMessage(f"Answer: {name}", name=name)])

        return speak

    names = ("a", "b", "c")
    plan = Plan(dict.fromkeys(names, MINI), edges=(("a", "b"), ("b", "c")), decider="b")
    plan = replace(plan, decision="vote", weights={"a": 1.0, "b": 3.0, "c": 1.0})
    app = full(instant, plan, chain_of({name: agent(name) for name in names}, schema)).compile()
    result = await app.ainvoke(instant.ask())
    assert heard == {"a": [], "b": ["Answer: a"], "c": ["Answer: b"]}
    assert app.report.chosen == "b"
    assert result["messages"][-1].text == "Answer: b"


@pytest.mark.virtual_time
async def test_dropped_agents_do_not_run_and_cost_nothing(bench: Bench) -> None:
    plan = Plan({"solver": LARGE, "writer": MINI}, edges=(("solver", "writer"),), decider="writer")
    app = full(bench, plan, bench.chain()).compile()
    result = await app.ainvoke(bench.ask())
    assert speakers(result) == ["human", "solver", "writer"]
    assert [agent for agent, _ in bench.called()] == ["solver", "writer"]
    status = {agent.name: agent.status for agent in app.report.agents}
    assert status == {
        "planner": "dropped",
        "solver": "done",
        "critic": "dropped",
        "writer": "done",
    }


@pytest.mark.virtual_time
@pytest.mark.parametrize(("second", "closed"), [("Answer: 1", True), ("Answer: 7", False)])
async def test_a_late_gate_opens_when_those_it_watches_disagree(
    bench: Bench, second: str, closed: bool
) -> None:
    nodes = listeners(bench, planner="Answer: 1", solver=second, writer="Answer: 7")
    plan = Plan(
        {"planner": MINI, "solver": MINI, "writer": LARGE},
        decision="vote",
        decider="writer",
        late_gates={"writer": LateGate(("planner", "solver"), 0.8)},
    )
    app = full(bench, plan, chain_of(nodes)).compile()
    result = await app.ainvoke(bench.ask())
    status = {agent.name: agent.status for agent in app.report.agents}
    assert status["writer"] == ("closed" if closed else "done")
    assert len(bench.called()) == (2 if closed else 3)
    assert result["messages"][-1].content == ("Answer: 1" if closed else "Answer: 7")
    assert app.report.complete


@pytest.mark.virtual_time
async def test_a_votes_winner_is_the_last_message(bench: Bench) -> None:
    nodes = listeners(bench, **FOUR)
    plan = Plan(dict.fromkeys(NAMES, MINI), decision="vote", decider="writer")
    app = full(bench, plan, chain_of(nodes)).compile()
    result = await app.ainvoke(bench.ask())
    assert result["messages"][-1].content == "Answer: 2"
    assert app.report.chosen == "solver"
    assert app.report.confidence is not None


@pytest.mark.virtual_time
async def test_the_decision_stays_out_of_streams(bench: Bench) -> None:
    plan = Plan(dict.fromkeys(NAMES, MINI), decision="vote", decider="writer")
    app = full(bench, plan, chain_of(listeners(bench, **FOUR))).compile()
    stream = app.astream(bench.ask(), stream_mode="updates")
    updates = [update async for update in stream]
    assert sorted(name for update in updates for name in update) == sorted(NAMES)
    assert {key for update in updates for value in update.values() for key in value} == {"messages"}


@pytest.mark.virtual_time
async def test_the_shipped_policy_plans_and_keeps_the_budget(bench: Bench) -> None:
    app = full(bench, None, bench.chain(), budget=Budget(cost_usd=0.004, latency_s=60)).compile()
    for number in range(4):
        result = await app.ainvoke(bench.ask(number))
        assert app.report.within_budget
        assert isinstance(result["messages"][-1], AIMessage)
        assert len(result["messages"]) >= 2
    assert app.report.plan.expected is not None


@pytest.mark.virtual_time
async def test_what_stands_before_and_after_the_agents_stays_there(bench: Bench) -> None:
    def said(text: str) -> Any:
        return lambda state: {"messages": [AIMessage(text, name=text)]}

    builder = StateGraph(MessagesState)
    builder.add_node("before", said("before"))
    builder.add_node("a", bench.node("a"))
    builder.add_node("b", bench.node("b"))
    builder.add_node("after", said("after"))
    builder.add_edge(START, "before")
    builder.add_edge("before", "a")
    builder.add_edge("before", "b")
    builder.add_node("c", bench.node("c"))
    builder.add_edge(["a", "b"], "c")
    builder.add_edge("c", "after")
    builder.add_edge("after", END)
    plan = Plan({"b": MINI, "c": MINI}, edges=(("b", "c"),), decider="c")
    result = await full(bench, plan, builder).compile().ainvoke(bench.ask())
    assert speakers(result) == ["human", "before", "b", "c", "after"]


@pytest.mark.virtual_time
async def test_an_agent_the_budget_leaves_out_is_not_waited_for(bench: Bench) -> None:
    plan = Plan(
        {"planner": MINI, "solver": LARGE, "writer": MINI},
        edges=(("planner", "solver"), ("solver", "writer")),
        decider="writer",
        output_caps={"planner": 100, "writer": 300},
    )
    app = full(bench, plan, bench.chain(), budget=Budget(cost_usd=0.0006)).compile()
    result = await app.ainvoke(bench.ask())
    assert speakers(result) == ["human", "planner", "writer"]
    assert [agent.status for agent in app.report.agents] == ["done", "skipped", "dropped", "done"]
    assert app.report.within_budget


@pytest.mark.virtual_time
async def test_a_crash_in_the_middle_is_resumed_on_the_same_plan(bench: Bench) -> None:
    saver, broken, speak = InMemorySaver(), [True], bench.node("solver")

    async def solver(state: Any) -> Any:
        if broken:
            broken.pop()
            raise RuntimeError("broken")
        return await speak(state)

    plan = Plan(
        {"planner": MINI, "solver": LARGE, "writer": MINI},
        edges=(("planner", "writer"), ("solver", "writer")),
        decider="writer",
    )
    builder = bench.chain(solver=solver)
    app = full(bench, plan, builder, agents=NAMES).compile(checkpointer=saver)
    with pytest.raises(RuntimeError, match="broken"):
        await app.ainvoke(bench.ask(), THREAD)
    other = Plan(
        {"critic": LARGE, "writer": LARGE}, edges=(("critic", "writer"),), decider="writer"
    )
    resumed = full(bench, other, builder, agents=NAMES).compile(checkpointer=saver)
    result = await resumed.ainvoke(None, THREAD)
    assert sorted(speakers(result)[1:3]) == ["planner", "solver"]
    assert speakers(result)[-1] == "writer"
    assert sorted(bench.called()) == [("planner", MINI), ("solver", LARGE), ("writer", MINI)]
    # The planner's first call was cancelled before it reached the server, and booked in full.
    assert resumed.report.spend.calls == 4
    assert resumed.report.spend.nanodollars > bench.billed()


@pytest.mark.virtual_time
async def test_the_next_task_of_a_thread_hears_the_last_ones_messages(bench: Bench) -> None:
    nodes = listeners(bench, **FOUR)
    plan = Plan({"solver": MINI, "writer": MINI}, edges=(("solver", "writer"),), decider="writer")
    app = full(bench, plan, chain_of(nodes)).compile(checkpointer=InMemorySaver())
    await app.ainvoke(bench.ask(0), THREAD)
    await app.ainvoke(bench.ask(1), THREAD)
    assert nodes["solver"].heard[1] == ["human", "solver", "writer", "human"]


async def test_synchronous_graphs_are_planned_in_full_as_well(instant: Bench) -> None:
    plan = Plan(
        {"planner": MINI, "solver": LARGE, "writer": MINI},
        edges=(("planner", "writer"), ("solver", "writer")),
        decider="writer",
    )
    app = full(instant, plan, instant.chain(blocking=True)).compile()
    result = await asyncio.to_thread(app.invoke, instant.ask())
    assert speakers(result)[-1] == "writer"
    assert sorted(instant.called()) == [("planner", MINI), ("solver", LARGE), ("writer", MINI)]


@pytest.mark.virtual_time
async def test_inside_another_balanced_graph_the_users_edges_hold(bench: Bench) -> None:
    nodes = listeners(bench, **FOUR)
    plan = Plan({"solver": MINI, "writer": MINI}, edges=(("solver", "writer"),), decider="writer")
    inner = full(bench, plan, chain_of(nodes)).compile()
    app = bench.balance(chain_of({"team": inner})).compile(checkpointer=InMemorySaver())
    result = await app.ainvoke(bench.ask(), THREAD)
    assert speakers(result) == ["human", *NAMES]
    assert nodes["critic"].heard == [["human", "planner", "solver"]]
    assert app.report.spend.calls == 4


@pytest.mark.virtual_time
async def test_a_thread_is_not_resumed_by_another_layout(bench: Bench) -> None:
    saver = InMemorySaver()
    plan = Plan({"solver": MINI, "writer": MINI}, edges=(("solver", "writer"),), decider="writer")
    app = full(bench, plan, bench.chain()).compile(checkpointer=saver, interrupt_before=["writer"])
    await app.ainvoke(bench.ask(), THREAD)
    other = bench.balance(bench.chain()).compile(checkpointer=saver)
    with pytest.raises(ValueError, match="compile it with mode='full' to resume"):
        await other.ainvoke(None, THREAD)
    fewer = full(bench, plan, bench.chain(("planner", "writer"))).compile(checkpointer=saver)
    with pytest.raises(ValueError, match="no agents of this graph"):
        await fewer.ainvoke(None, THREAD)
    assert speakers(await app.ainvoke(None, THREAD))[-1] == "writer"


@pytest.mark.virtual_time
async def test_an_interrupt_of_a_planned_agent_is_answered(bench: Bench) -> None:
    async def solver(state: MessagesState) -> Any:
        return {"messages": [AIMessage(f"Answer: {interrupt('which?')}", name="solver")]}

    plan = Plan({"solver": MINI, "writer": MINI}, edges=(("solver", "writer"),), decider="writer")
    app = full(bench, plan, bench.chain(solver=solver), agents=NAMES).compile(
        checkpointer=InMemorySaver()
    )
    result = await app.ainvoke(bench.ask(), THREAD)
    assert [each.value for each in result["__interrupt__"]] == ["which?"]
    result = await app.ainvoke(Command(resume="7"), THREAD)
    assert speakers(result) == ["human", "solver", "writer"]
    assert result["messages"][1].content == "Answer: 7"
    assert app.report.complete


@pytest.mark.virtual_time
async def test_an_edited_state_goes_on_along_the_plan(bench: Bench) -> None:
    plan = Plan(
        {"planner": MINI, "solver": MINI, "writer": MINI},
        edges=(("planner", "writer"), ("solver", "writer")),
        decider="writer",
    )
    app = full(bench, plan, bench.chain()).compile(checkpointer=InMemorySaver())
    await app.ainvoke(bench.ask(), THREAD)
    history = [each async for each in app.aget_state_history(THREAD)]
    before = next(each for each in history if each.next == ("writer",))
    edited = await app.aupdate_state(
        before.config, {"messages": [AIMessage("edited", id="edited")]}, as_node="solver"
    )
    result = await app.ainvoke(None, edited)
    assert result["messages"][-2].content == "edited"
    assert speakers(result)[-1] == "writer"


async def test_several_are_asked_only_while_their_answers_can_be_compared(instant: Bench) -> None:
    given: list[str | None] = [None]
    app = instant.balance(
        instant.chain(),
        mode="full",
        policy=instant.policy(),
        budget=Budget(cost_usd=0.05, latency_s=1000),
        answer=lambda _: given[0],
    ).compile()

    async def agents() -> int:
        await app.ainvoke(instant.ask())
        return len(app.report.plan.assignment)

    assert await agents() > 1
    # A vote could only take the last one's message.
    assert [await agents(), await agents()] == [1, 1]
    assert len(app.explain(instant.task()).plan.assignment) == 1
    given[0] = "42"
    assert await agents() == 1
    assert await agents() > 1
