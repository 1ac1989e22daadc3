"""No run spends more than its hard cap, however it calls and whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from graphs import (
    LARGE,
    LLAMA,
    MINI,
    NAMES,
    Always,
    Assign,
    Bench,
    OllamaServer,
    calling,
    chain_of,
    ollama,
    speakers,
)
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import RunControl
from openai import LengthFinishReasonError
from pydantic import BaseModel

from agentbalance_plugin import Budget, BudgetExceeded, LateGate, Plan, balanced

MIXED = {"planner": LLAMA, "solver": LARGE, "critic": MINI, "writer": LARGE}
CAPS = (0.00001, 0.0001, 0.0003, 0.0006, 0.001, 0.002, 0.003, 0.005)


@pytest.mark.virtual_time
@pytest.mark.parametrize("usd", CAPS)
async def test_asynchronous_graphs_keep_it(bench: Bench, usd: float) -> None:
    budget = Budget(cost_usd=usd, tokens=20_000, latency_s=12)
    for mode, plan in (("backbones", Assign(MIXED)), ("full", _voters())):
        app = bench.balance(bench.chain(), policy=plan, mode=mode, budget=budget).compile()
        bench.simulator.books.clear()
        started = asyncio.get_running_loop().time()
        try:
            result = await app.ainvoke(bench.ask())
        except ValueError:
            assert bench.billed() == 0
            continue
        _check(app, bench, budget)
        # Besides latencies, virtual time passes only while a socket is looked at once more.
        assert asyncio.get_running_loop().time() - started <= budget.latency_s + 0.01
        assert speakers(result)[0] == "human"


@pytest.mark.parametrize("usd", CAPS)
@pytest.mark.parametrize("fault", ["", "[[fault:500*2]]", "[[fault:no_usage]]", "[[fault:429*1]]"])
async def test_synchronous_and_streamed_graphs_keep_it(
    instant: Bench, usd: float, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbalance_plugin.runtime.failures._FIRST_DELAY_S", 0.0)
    monkeypatch.setattr("agentbalance_plugin.runtime.failures._retry_after", _at_once)
    budget = Budget(cost_usd=usd)
    builder = instant.chain(blocking=True)
    app = instant.balance(builder, policy=Assign(MIXED), budget=budget).compile()
    task = {"messages": [("user", instant.task() + fault)]}
    for run in (lambda: app.invoke(task), lambda: list(app.stream(task, stream_mode="messages"))):
        instant.simulator.books.clear()
        try:
            await asyncio.to_thread(run)
        except ValueError:
            assert instant.billed() == 0
            continue
        _check(app, instant, budget)


def _at_once(error: Exception) -> float:
    return 0.0


async def test_no_deadline_is_too_far_away(instant: Bench) -> None:
    budget = Budget(latency_s=1e300)
    app = instant.balance(instant.chain(blocking=True), budget=budget).compile()
    await asyncio.to_thread(app.invoke, instant.ask())
    assert app.report.complete
    assert app.report.spend.nanodollars == instant.billed() > 0


@pytest.mark.virtual_time
async def test_parallel_agents_do_not_starve_each_other(bench: Bench) -> None:
    plan = Plan(
        dict.fromkeys(NAMES, LARGE),
        edges=tuple((name, "writer") for name in NAMES[:3]),
        decider="writer",
    )
    budget = Budget(cost_usd=0.012)
    app = bench.balance(bench.chain(), policy=Always(plan), mode="full", budget=budget).compile()
    result = await app.ainvoke(bench.ask())
    assert [agent.status for agent in app.report.agents] == ["done"] * 4
    assert speakers(result)[-1] == "writer"
    _check(app, bench, budget)


async def test_an_agent_with_tools_is_left_out_when_its_budget_is_gone(instant: Bench) -> None:
    inside = instant.model()

    @tool
    def ask(x: int) -> str:
        "Asks another."
        return inside.invoke("[[agent:inside]] " + "hello " * 500).text

    agent = create_agent(instant.model(), [ask], name="solver")
    builder = instant.chain(("solver", "writer"), solver=agent)
    budget = Budget(cost_usd=0.0004)
    app = instant.balance(builder, policy=Assign({"solver": LLAMA}), budget=budget).compile()
    task = {"messages": [("user", instant.task() + '[[tool:ask {"x": 1}]]')]}
    result = await app.ainvoke(task)
    assert result["messages"][-1].name == "writer"
    _check(app, instant, budget)


async def test_a_command_routed_agent_ends_the_run_when_its_call_is_denied(
    instant: Bench,
) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("a", instant.node("a"))
    builder.add_node("b", instant.node("b"))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: "b", ["b"])
    budget = Budget(cost_usd=0.0004)
    planner = Assign({"b": LARGE})
    app = instant.balance(builder, policy=planner, budget=budget).compile()
    result = await app.ainvoke(instant.ask())
    assert speakers(result) == ["human", "a"]
    assert app.report.stop_reason.startswith("Budget exhausted: b: a call of gpt-4o")
    _check(app, instant, budget)


def _side_by_side(bench: Bench, *, blocking: bool) -> StateGraph[Any, Any, Any, Any]:
    """Code routes to a cheap and a dear agent at once, from both to a third by what they say."""
    make = bench.blocking if blocking else bench.node

    def onward(state: MessagesState) -> str:
        assert state["messages"][-1].type == "ai", "nothing was said"
        return "after"

    builder = StateGraph(MessagesState)
    for name in ("cheap", "dear", "after"):
        builder.add_node(name, make(name))
    builder.add_conditional_edges(START, lambda state: ["cheap", "dear"], ["cheap", "dear"])
    builder.add_conditional_edges("cheap", onward, ["after"])
    builder.add_conditional_edges("dear", onward, ["after"])
    return builder


@pytest.mark.parametrize("blocking", [False, True])
async def test_what_was_paid_for_beside_a_denied_agent_is_in_the_result(
    instant: Bench, blocking: bool
) -> None:
    budget = Budget(cost_usd=0.0004)
    builder = _side_by_side(instant, blocking=blocking)
    app = instant.balance(builder, policy=Assign({"dear": LARGE}), budget=budget).compile()
    if blocking:
        result = await asyncio.to_thread(app.invoke, instant.ask())
    else:
        result = await app.ainvoke(instant.ask())
    assert speakers(result) == ["human", "cheap"]
    assert [agent for agent, _ in instant.called()] == ["cheap"]
    assert app.report.stop_reason.startswith("Budget exhausted: dear: a call of gpt-4o")
    assert not app.report.complete
    _check(app, instant, budget)


async def test_a_resumed_run_asks_the_denied_agent_again_and_not_those_beside_it(
    instant: Bench,
) -> None:
    builder = _side_by_side(instant, blocking=False)
    small, thread = Budget(cost_usd=0.0004), {"thread_id": "1"}
    app = instant.balance(builder, policy=Assign({"dear": LARGE}), budget=small)
    app = app.compile(checkpointer=InMemorySaver())
    await app.ainvoke(instant.ask(), {"configurable": thread})
    assert app.report.stop_reason.startswith("Budget exhausted: dear")
    wide = {"budget": {"cost_usd": 1.0}}
    result = await app.ainvoke(None, {"configurable": {**thread, "agentbalance": wide}})
    assert sorted(speakers(result)) == ["after", "cheap", "dear", "human"]
    assert sorted(agent for agent, _ in instant.called()) == ["after", "cheap", "dear"]


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_run_that_its_user_drains_says_so(instant: Bench, blocking: bool) -> None:
    control = RunControl()

    def node(state: MessagesState) -> Any:
        control.request_drain("maintenance")
        return {"messages": [AIMessage("later", name="first")]}

    make = instant.blocking if blocking else instant.node
    app = instant.balance(chain_of({"first": node, "second": make("second")})).compile()
    with pytest.raises(GraphDrained, match="maintenance"):
        if blocking:
            await asyncio.to_thread(app.invoke, instant.ask(), control=control)
        else:
            await app.ainvoke(instant.ask(), control=control)
    assert app.report.stop_reason == "Left before its end"
    assert instant.called() == []


async def test_events_of_version_three_are_refused_for_models_and_work_for_graphs(
    instant: Bench,
) -> None:
    model = instant.model()

    async def node(state: MessagesState) -> Any:
        events = await model.astream_events(state["messages"], version="v3")
        return {"messages": [await events.output]}

    refused = instant.balance(chain_of({"a": node})).compile()
    with pytest.raises(ValueError, match="can't be budgeted"):
        await refused.ainvoke(instant.ask())
    app = instant.balance(instant.chain(("a", "b"))).compile()
    run = await app.astream_events(instant.ask(), version="v3")
    assert speakers(await run.output()) == ["human", "a", "b"]
    assert app.report.spend.nanodollars == instant.billed()


def _voters() -> Always:
    return Always(
        Plan(
            dict.fromkeys(NAMES, MINI) | {"writer": LARGE},
            decision="vote",
            decider="writer",
            late_gates={"writer": LateGate(NAMES[:3], 0.99)},
        )
    )


def _check(app: Any, bench: Bench, budget: Budget) -> None:
    assert app.report.within_budget
    assert app.report.budget == budget
    assert bench.billed() <= app.report.spend.nanodollars <= (budget.nanodollars or 0)


@pytest.mark.parametrize("blocking", [False, True])
async def test_what_a_cache_answers_costs_nothing(instant: Bench, *, blocking: bool) -> None:
    app = instant.balance(instant.chain(blocking=blocking)).compile()
    task = {"messages": [("user", instant.task())]}
    runs: list[Any] = []
    set_llm_cache(InMemoryCache())
    try:
        for _ in range(2):
            if blocking:
                runs.append(await asyncio.to_thread(app.invoke, task))
            else:
                runs.append(await app.ainvoke(task))
            spend = app.report.spend
            assert spend.calls == (len(NAMES) if len(runs) == 1 else 0)
            assert spend.nanodollars == (instant.billed() if len(runs) == 1 else 0)
    finally:
        set_llm_cache(None)
    said = [[m.content for m in run["messages"]] for run in runs]
    assert said[0] == said[1]
    assert all(agent.status == "done" for agent in app.report.agents)


async def test_who_says_a_reply_was_free_without_a_cache_is_booked(instant: Bench) -> None:
    class Boasting(ChatOpenAI):
        async def _agenerate(self, *args: Any, **more: Any) -> Any:
            result = await super()._agenerate(*args, **more)
            result.generations[0].message.usage_metadata["total_cost"] = 0
            return result

    model = Boasting(
        model=MINI, base_url=instant.simulator.base_url, api_key="local", max_retries=0
    )
    pairs = [(instant.replay.catalog[MINI], model)]
    app = instant.balance(instant.chain(["solver"]), backbones=pairs).compile()
    await app.ainvoke({"messages": [("user", instant.task())]})
    assert app.report.spend.nanodollars == instant.billed() > 0


@pytest.mark.parametrize("room", [True, False])
async def test_a_denial_that_a_node_swallows_is_still_one(instant: Bench, room: bool) -> None:
    model = instant.model()

    async def swallows(state: MessagesState) -> Any:
        said = "nothing"
        if room:
            said = (await model.ainvoke(state["messages"])).text
        for _ in range(2):
            with suppress(Exception):
                said = (await model.ainvoke("hello " * 4000)).text
        return {"messages": [said]}

    budget = Budget(cost_usd=0.003)
    app = instant.balance(chain_of({"a": swallows}), budget=budget).compile()
    await app.ainvoke(instant.ask())
    report = app.report
    assert report.spend.calls == room
    assert not report.complete
    assert report.stop_reason.startswith("Budget exhausted: Graph complete, without 2 calls (a: ")
    assert report.agents[0].status == "done"
    assert report.agents[0].reason.startswith("2 calls denied (a: a call of gpt-4o-mini")
    raising = {"agentbalance": {"budget": {"cost_usd": 0.003, "on_exceeded": "raise"}}}
    with pytest.raises(BudgetExceeded, match="without 2 calls"):
        await app.ainvoke(instant.ask(), {"configurable": raising})


class Answer(BaseModel):
    number: int


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("cut_by", ["the budget", "the plan", "its caller"])
async def test_a_structured_reply_that_the_budget_cuts_is_a_denied_call(
    instant: Bench, cut_by: str, blocking: bool
) -> None:
    own = {"max_tokens": 20} if cut_by == "its caller" else {}
    shaped = instant.model(**own).with_structured_output(Answer)

    async def node(state: MessagesState) -> Any:
        return {"messages": [str(await shaped.ainvoke(state["messages"]))]}

    def blocking_node(state: MessagesState) -> Any:
        return {"messages": [str(shaped.invoke(state["messages"]))]}

    able = ("text", "structured_output")
    app = instant.balance(
        chain_of({"solver": blocking_node if blocking else node}),
        backbones=instant.catalog(MINI, capabilities=able),
        policy=Assign({}, {"solver": 20} if cut_by == "the plan" else {}),
        budget=Budget(cost_usd=0.00010 if cut_by == "the budget" else 1.0),
    ).compile()
    if cut_by == "its caller":
        with pytest.raises(LengthFinishReasonError):
            await app.ainvoke(instant.ask())
    else:
        await app.ainvoke(instant.ask())
    report = app.report
    [call] = report.calls
    assert call.metered
    assert call.cut
    assert report.spend.nanodollars == instant.billed()
    assert not report.complete
    if cut_by != "its caller":
        said = f"the {call.completion_tokens} tokens that the budget had left"
        assert report.agents[0].reason.endswith(said)
        assert report.agents[0].status == "skipped"


@pytest.mark.parametrize("cut_by", ["the budget", "its caller"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_so_is_one_whose_parser_would_make_nothing_of_it(
    instant: Bench, cut_by: str, streaming: bool
) -> None:
    own = {"max_tokens": 20} if cut_by == "its caller" else {}
    model = instant.model(**own, streaming=streaming)
    shaped = model.with_structured_output(Answer, method="function_calling")

    async def node(state: MessagesState) -> Any:
        return {"messages": [str(await shaped.ainvoke(state["messages"]))]}

    app = instant.balance(
        chain_of({"solver": node}),
        backbones=instant.catalog(MINI, capabilities=("text", "tools")),
        budget=Budget(cost_usd=0.00010 if cut_by == "the budget" else 1.0),
    ).compile()
    result = await app.ainvoke(instant.ask())
    [call] = app.report.calls
    assert call.cut
    if cut_by == "its caller":
        # As it is without a budget.
        assert result["messages"][-1].content == "None"
        assert app.report.complete
    else:
        assert len(result["messages"]) == 1
        assert app.report.agents[0].status == "skipped"
        assert "did not fit into the" in app.report.agents[0].reason


async def test_so_is_json_that_is_asked_for_without_a_parser_at_hand(instant: Bench) -> None:
    [(backbone, chat)] = OllamaServer(ends="length").backbones
    able = replace(backbone, capabilities=frozenset({"text", "json"}))
    app = instant.balance(
        chain_of({"solver": calling(ollama(), format="json")}),
        backbones=[(able, chat)],
        policy=Assign({"solver": "llama"}),
        budget=Budget(cost_usd=0.003),
    ).compile()
    result = await app.ainvoke(instant.ask())
    assert len(result["messages"]) == 1
    assert "did not fit into the" in app.report.agents[0].reason
    assert app.report.calls[0].cut


@pytest.mark.parametrize("cut_by", ["the budget", "its caller"])
async def test_so_is_one_that_ends_in_the_middle_of_a_tool_call(
    instant: Bench, cut_by: str
) -> None:
    def cut(request: httpx.Request) -> httpx.Response:
        """The beginning of a long tool call, as many tokens as were allowed."""
        asked = json.loads(request.content)
        used = asked["max_tokens"]
        function = {"name": "remove", "arguments": '{"path": "/home'}
        said = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        }
        choice = {"index": 0, "finish_reason": "length", "message": said}
        usage = {"prompt_tokens": 9, "completion_tokens": used, "total_tokens": 9 + used}
        body = {"id": "1", "created": 1, "model": MINI, "choices": [choice], "usage": usage}
        return httpx.Response(200, json=body)

    @tool
    def remove(path: str) -> str:
        "Removes a file."
        raise AssertionError(f"{path} is not the whole path")

    own = {"max_tokens": 20} if cut_by == "its caller" else {}
    http = httpx.AsyncClient(transport=httpx.MockTransport(cut))
    backbone = instant.catalog(MINI)[MINI]
    with balanced(
        budget=Budget(cost_usd=0.0003 if cut_by == "the budget" else 1.0),
        backbones=[(backbone, instant.model(MINI, http_async_client=http))],
    ):
        app = create_agent(instant.model(**own), [remove])
    result = await app.ainvoke(instant.ask())
    if cut_by == "its caller":
        assert result["messages"][-1].invalid_tool_calls
    else:
        assert len(result["messages"]) == 1
        assert "did not fit into the" in app.report.stop_reason
    assert app.report.complete == (cut_by == "its caller")
