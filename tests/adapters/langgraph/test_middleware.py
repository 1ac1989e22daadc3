"""A budget for an agent of `create_agent`, in one line."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from graphs import LARGE, LLAMA, MINI, WIDE, Assign, Bench, chain_of
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware
from langchain.agents.middleware.model_call_limit import ModelCallLimitExceededError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.types import Command, interrupt
from openai import APIStatusError

from agentbalance_plugin import Budget, BudgetExceeded
from agentbalance_plugin.adapters.langgraph import BudgetMiddleware
from agentbalance_plugin.runtime.clock import Clock

KEPT_RUNS = "agentbalance_plugin.adapters.langgraph.kept_runs"
RUN_ID = UUID(int=1)
THREAD: Any = {"configurable": {"thread_id": "one"}}


@tool
def add(x: int) -> str:
    "Adds one."
    return str(x + 1)


def made(bench: Bench, budget: Budget = WIDE, **more: Any) -> BudgetMiddleware:
    more.setdefault("policy", Assign({"agent": LLAMA}))
    return BudgetMiddleware(budget=budget, backbones=bench.catalog(), **more)


def task(bench: Bench, call: str = "") -> Any:
    return {"messages": [("user", bench.task() + call)]}


async def test_every_call_of_the_agent_is_on_its_backbone_and_in_the_books(
    instant: Bench,
) -> None:
    middleware = made(instant)
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    await agent.ainvoke(task(instant, '[[tool:add {"x": 1}]]'))
    assert [backbone for _, backbone in instant.called()] == [LLAMA, LLAMA]
    assert middleware.report.spend.nanodollars == instant.billed()
    assert middleware.report.complete
    assert [(line.status, line.reason) for line in middleware.report.agents] == [("done", "")]
    await asyncio.to_thread(agent.invoke, task(instant))
    assert middleware.report.spend.calls == 1


async def test_models_inside_tools_are_in_the_budget(instant: Bench) -> None:
    inside = instant.model()

    @tool
    def ask(x: int) -> str:
        "Asks another."
        return inside.invoke("[[agent:inside]] hello").text

    middleware = made(instant)
    agent = create_agent(instant.model(), [ask], middleware=[middleware])
    await agent.ainvoke(task(instant, '[[tool:ask {"x": 1}]]'))
    assert LARGE not in [backbone for _, backbone in instant.called()]
    assert middleware.report.spend.nanodollars == instant.billed()
    assert [agent.name for agent in middleware.report.agents] == ["agent", "ask"]


async def test_a_balanced_graph_inside_a_tool_is_part_of_the_agents_run(instant: Bench) -> None:
    graph = instant.balance(instant.chain(("a", "b"))).compile()

    @tool
    async def ask(x: int) -> str:
        "Asks a team."
        return (await graph.ainvoke(instant.ask()))["messages"][-1].text

    middleware = made(instant)
    agent = create_agent(instant.model(), [ask], middleware=[middleware])
    await agent.ainvoke(task(instant, '[[tool:ask {"x": 1}]]'))
    assert middleware.report.spend.calls == 4
    assert middleware.report.spend.nanodollars == instant.billed()
    with pytest.raises(RuntimeError, match="no run has ended"):
        _ = graph.report


async def test_out_of_budget_the_agent_says_so(instant: Bench) -> None:
    middleware = made(instant, Budget(cost_usd=0.00004), policy=Assign({"agent": LARGE}))
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    result = await agent.ainvoke(task(instant))
    assert result["messages"][-1].content.startswith("Stopped: agent: a call of gpt-4o")
    assert not middleware.report.complete
    assert instant.called() == []


async def test_raise_carries_the_report(instant: Bench) -> None:
    budget = Budget(cost_usd=0.00004, on_exceeded="raise")
    middleware = made(instant, budget, policy=Assign({"agent": LARGE}))
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    with pytest.raises(BudgetExceeded) as caught:
        await agent.ainvoke(task(instant), {"run_id": RUN_ID})
    assert caught.value.report.spend.calls == 0
    assert middleware.report_of({"run_id": RUN_ID}) is caught.value.report


@pytest.mark.parametrize("on_exceeded", ["finish", "raise"])
async def test_a_denial_that_a_tool_swallows_is_still_one(instant: Bench, on_exceeded: Any) -> None:
    inside = instant.model()

    @tool
    def ask(x: int) -> str:
        "Asks another."
        with suppress(Exception):
            return inside.invoke("hello " * 40_000).text
        return "nothing"

    middleware = made(instant, Budget(cost_usd=0.003, on_exceeded=on_exceeded))
    agent = create_agent(instant.model(), [ask], middleware=[middleware])
    asked = task(instant, '[[tool:ask {"x": 1}]]')
    if on_exceeded == "finish":
        await agent.ainvoke(asked)
        assert not middleware.report.complete
    else:
        with pytest.raises(BudgetExceeded):
            await agent.ainvoke(asked)
    line = middleware.report.agents[1]
    assert (line.name, line.status) == ("ask", "skipped")
    assert line.reason.startswith("1 call denied (ask: a call of")


@tool
def fails(x: int) -> str:
    "Fails."
    raise OSError("the disk is full")


class ToolsAgain(AgentMiddleware[Any, Any, Any]):
    """Tries tools that fail once more."""

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        with suppress(OSError):
            return await handler(request)
        return await handler(request)


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_run_that_fails_has_a_report(
    instant: Bench, blocking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbalance_plugin.runtime.failures._FIRST_DELAY_S", 0.0)
    middleware = made(instant)
    agent = create_agent(
        instant.model(), [fails], middleware=[middleware], checkpointer=InMemorySaver()
    )
    for ask, reason, kind in (
        ("", None, None),
        ('[[tool:fails {"x": 1}]]', "Failed: OSError: the disk is full", OSError),
        ("[[fault:500]]", "Failed: ", APIStatusError),
    ):
        with nullcontext() if kind is None else pytest.raises(kind):
            if blocking:
                await asyncio.to_thread(agent.invoke, task(instant, ask), THREAD)
            else:
                await agent.ainvoke(task(instant, ask), THREAD)
        for report in (middleware.report, middleware.report_of(THREAD)):
            assert report.stop_reason.startswith(reason or "Graph complete")
            assert report.complete == (reason is None)
            assert report.spend.calls == (9 if "500" in ask else 1)


async def test_a_run_that_other_middleware_ends_has_a_report(instant: Bench) -> None:
    middleware = made(instant)
    limit = ModelCallLimitMiddleware(thread_limit=1, exit_behavior="error")
    agent = create_agent(
        instant.model(), [add], middleware=[middleware, limit], checkpointer=InMemorySaver()
    )
    call = '[[tool:add {"x": 1}]]'
    for calls in (1, 0):
        with pytest.raises(ModelCallLimitExceededError):
            await agent.ainvoke(task(instant, call), THREAD)
        for report in (middleware.report, middleware.report_of(THREAD)):
            assert report.stop_reason == "Left before its end"
            assert report.spend.calls == calls


async def test_a_run_whose_tool_is_tried_again_goes_on(instant: Bench) -> None:
    tried: list[int] = []

    @tool
    def add(x: int) -> str:
        "Adds one."
        tried.append(x)
        if len(tried) == 1:
            raise OSError("the disk is full")
        return str(x + 1)

    middleware = made(instant)
    agent = create_agent(instant.model(), [add], middleware=[ToolsAgain(), middleware])
    await agent.ainvoke(task(instant, '[[tool:add {"x": 1}]]'))
    assert len(tried) == 2
    assert middleware.report.complete
    assert middleware.report.stop_reason == "Graph complete"
    assert middleware.report.spend.calls == 2


async def test_runs_that_failed_are_forgotten_before_those_that_are_waited_for(
    instant: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{KEPT_RUNS}._KEPT", 2)
    monkeypatch.setattr(f"{KEPT_RUNS}._SILENT_S", 0.0)
    inside = instant.model()

    @tool
    def ask(x: int) -> str:
        "Asks another, then a person."
        inside.invoke("hello")
        return interrupt("approve?")

    middleware, saver = made(instant), InMemorySaver()
    options: Any = {"middleware": [middleware], "checkpointer": saver}
    agent = create_agent(instant.model(), [ask, fails], **options)
    await agent.ainvoke(task(instant, '[[tool:ask {"x": 1}]]'), THREAD)
    for number in range(3):
        with pytest.raises(OSError, match="disk"):
            other: Any = {"configurable": {"thread_id": str(number)}}
            await agent.ainvoke(task(instant, '[[tool:fails {"x": 1}]]'), other)
    await agent.ainvoke(Command(resume="yes"), THREAD)
    # The tool's first call is in no checkpoint.
    assert middleware.report_of(THREAD).spend.calls == 4


async def test_a_tool_that_loses_its_context_is_told_of(instant: Bench) -> None:
    inside = instant.model()

    @tool
    async def ask(x: int) -> str:
        "Asks another, in a thread that does not know for whom."
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(None, inside.invoke, "hello")).text

    agent = create_agent(instant.model(), [ask], middleware=[made(instant)])
    with pytest.warns(RuntimeWarning, match=r"asyncio.to_thread instead of loop.run_in_executor"):
        await agent.ainvoke(task(instant, '[[tool:ask {"x": 1}]]'))


@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
async def test_what_a_tool_called_before_it_was_left_is_in_the_report(
    instant: Bench, how: str
) -> None:
    inside, asked = instant.model(), asyncio.Event()

    @tool
    async def ask(x: int) -> str:
        "Asks another, and waits."
        await inside.ainvoke("hello")
        if how == "interrupted":
            return interrupt("approve?")
        asked.set()
        return await asyncio.Future()

    middleware = made(instant)
    options: Any = {"middleware": [middleware], "checkpointer": InMemorySaver()}
    agent = create_agent(instant.model(), [ask], **options)
    run = asyncio.create_task(agent.ainvoke(task(instant, '[[tool:ask {"x": 1}]]'), THREAD))
    if how == "interrupted":
        await run
    else:
        await asked.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert middleware.report.spend.calls == 2
    assert middleware.report.spend.nanodollars == instant.billed()
    assert not middleware.report.complete


async def test_what_a_tool_called_before_the_last_step_ended_is_in_the_report(
    instant: Bench,
) -> None:
    inside = instant.model()

    @tool
    async def ask(x: int) -> str:
        "Asks another."
        return (await inside.ainvoke("hello")).text

    middleware = made(instant)
    agent = create_agent(instant.model(), [ask], middleware=[middleware])
    # What begins the run, the agent, what follows it, and its tool.
    asked = task(instant, '[[tool:ask {"x": 1}]]')
    with pytest.raises(GraphRecursionError):
        await agent.ainvoke(asked, {"recursion_limit": 4})
    assert middleware.report.spend.calls == 2
    assert middleware.report.spend.nanodollars == instant.billed()


async def test_runs_that_are_under_way_are_never_forgotten(
    instant: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{KEPT_RUNS}._KEPT", 1)
    inside, all_here = instant.model(), asyncio.Barrier(4)

    @tool
    async def ask(x: int) -> str:
        "Asks another, and waits."
        said = await inside.ainvoke("hello")
        await all_here.wait()
        return said.text

    middleware = made(instant)
    agent = create_agent(instant.model(), [ask], middleware=[middleware])
    threads: list[Any] = [{"configurable": {"thread_id": str(number)}} for number in range(4)]
    asked = task(instant, '[[tool:ask {"x": 1}]]')
    await asyncio.gather(*(agent.ainvoke(asked, thread) for thread in threads))
    reports = [middleware.report_of(thread) for thread in threads]
    assert [report.spend.calls for report in reports] == [3] * 4
    assert sum(report.spend.nanodollars for report in reports) == instant.billed()


async def test_runs_that_do_not_come_back_are_forgotten_in_the_end(
    instant: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{KEPT_RUNS}._KEPT", 1)
    monkeypatch.setattr(f"{KEPT_RUNS}._SILENT_S", 0.0)

    @tool
    async def ask(x: int) -> str:
        "Asks a person."
        return interrupt("approve?")

    middleware = made(instant)
    options: Any = {"middleware": [middleware], "checkpointer": InMemorySaver()}
    agent = create_agent(instant.model(), [ask], **options)
    for number in range(3):
        thread: Any = {"configurable": {"thread_id": str(number)}}
        await agent.ainvoke(task(instant, '[[tool:ask {"x": 1}]]'), thread)
    assert len(middleware._runs) == 1


@pytest.mark.parametrize("on_exceeded", ["finish", "raise"])
@pytest.mark.parametrize("blocking", [True, False])
async def test_a_tool_whose_model_is_denied_says_so(
    instant: Bench, blocking: bool, on_exceeded: Any
) -> None:
    inside = instant.model()

    @tool
    def ask(x: int) -> str:
        "Asks another."
        return inside.invoke("hello " * 40_000).text

    middleware = made(instant, Budget(cost_usd=0.003, on_exceeded=on_exceeded))
    agent = create_agent(instant.model(), [ask], middleware=[middleware])
    asked = task(instant, '[[tool:ask {"x": 1}]]')

    async def run() -> Any:
        if blocking:
            return await asyncio.to_thread(agent.invoke, asked)
        return await agent.ainvoke(asked)

    if on_exceeded == "raise":
        with pytest.raises(BudgetExceeded, match="ask: a call of"):
            await run()
    else:
        result = await run()
        assert result["messages"][-2].content.startswith("Stopped: ask: a call of")
        assert "Answer:" in result["messages"][-1].text
    assert not middleware.report.complete
    assert middleware.report.spend.nanodollars == instant.billed()


async def test_a_resumed_agent_goes_on_with_its_books_in_another_process(instant: Bench) -> None:
    @tool
    def approve(x: int) -> str:
        "Asks a person."
        return interrupt("approve?")

    saver = InMemorySaver()
    first, second = made(instant), made(instant, policy=Assign({"agent": MINI}))
    asked = task(instant, '[[tool:approve {"x": 1}]]')
    agent = create_agent(instant.model(), [approve], middleware=[first], checkpointer=saver)
    result = await agent.ainvoke(asked, THREAD)
    assert [each.value for each in result["__interrupt__"]] == ["approve?"]
    again = create_agent(instant.model(), [approve], middleware=[second], checkpointer=saver)
    await again.ainvoke(Command(resume="yes"), THREAD)
    assert [backbone for _, backbone in instant.called()] == [LLAMA, LLAMA]
    assert second.report_of(THREAD).spend.nanodollars == instant.billed()
    assert second.report.spend.calls == 2


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_thread_that_was_begun_without_a_budget_goes_on_under_one(
    instant: Bench, blocking: bool
) -> None:
    inside = instant.model()

    @tool
    def approve(x: int) -> str:
        "Asks a person, then a model."
        return interrupt("approve?") + inside.invoke("[[agent:inside]] hello").text

    saver = InMemorySaver()
    agent = create_agent(instant.model(), [approve], checkpointer=saver)
    await agent.ainvoke(task(instant, '[[tool:approve {"x": 1}]]'), THREAD)
    before, middleware = instant.billed(), made(instant)
    agent = create_agent(instant.model(), [approve], middleware=[middleware], checkpointer=saver)
    if blocking:
        result = await asyncio.to_thread(agent.invoke, Command(resume="yes"), THREAD)
    else:
        result = await agent.ainvoke(Command(resume="yes"), THREAD)
    called = [backbone for _, backbone in instant.called()]
    assert LARGE not in called[1:]
    assert called[2:] == [LLAMA]
    assert middleware.report_of(THREAD).spend.nanodollars == instant.billed() - before
    assert middleware.report.complete
    assert "agentbalance_task" not in result


@pytest.mark.virtual_time
async def test_time_that_a_person_takes_to_answer_is_not_the_agents(bench: Bench) -> None:
    @tool
    def approve(x: int) -> str:
        "Asks a person."
        return interrupt("approve?")

    middleware = made(bench, Budget(cost_usd=1, latency_s=60))
    agent = create_agent(
        bench.model(), [approve], middleware=[middleware], checkpointer=InMemorySaver()
    )
    await agent.ainvoke(task(bench, '[[tool:approve {"x": 1}]]'), THREAD)
    await asyncio.sleep(1000)
    result = await agent.ainvoke(Command(resume="yes"), THREAD)
    assert "Stopped" not in result["messages"][-1].text
    report = middleware.report_of(THREAD)
    assert report.spend.calls == 2
    assert report.spend.nanodollars == bench.billed()
    assert report.within_budget


class AsksTwice(BaseChatModel):
    """Calls a tool twice at once, then is done."""

    @property
    def _llm_type(self) -> str:
        return "asks twice"

    def bind_tools(self, tools: Any, **more: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **more: Any) -> ChatResult:
        usage = UsageMetadata(input_tokens=3, output_tokens=2, total_tokens=5)
        calls = [ToolCall(name="ask", args={"x": n}, id=str(n)) for n in range(2)]
        is_new = messages[-1].type == "human" and "hello" not in messages[-1].text
        reply = AIMessage("", usage_metadata=usage, tool_calls=calls if is_new else [])
        return ChatResult(generations=[ChatGeneration(message=reply)])


class Meets(Clock):
    """Holds a run up while it is made, until another is made beside it or it was long enough."""

    def __init__(self) -> None:
        super().__init__()
        self.both: threading.Barrier | None = None

    def now(self) -> float:
        if self.both is not None:
            with suppress(threading.BrokenBarrierError):
                self.both.wait(0.2)
        return super().now()


def test_parallel_tools_of_a_resumed_agent_share_its_books(instant: Bench) -> None:
    inside, clock = AsksTwice(), Meets()

    @tool
    def ask(x: int) -> str:
        "Asks a person, then another model."
        interrupt("approve?")
        return inside.invoke("hello").text

    backbones = [(replace(instant.catalog(MINI)[MINI], endpoint=None), AsksTwice())]
    options: Any = {"backbones": backbones, "policy": Assign({}), "clock": clock}
    saver = InMemorySaver()
    for _ in range(2):
        middleware = BudgetMiddleware(budget=Budget(cost_usd=1), **options)
        agent = create_agent(AsksTwice(), [ask], middleware=[middleware], checkpointer=saver)
        waiting = agent.get_state(THREAD).interrupts
        if not waiting:
            agent.invoke({"messages": [("user", "ask")]}, THREAD)
        else:
            clock.both = threading.Barrier(2)
            agent.invoke(Command(resume={each.id: "yes" for each in waiting}), THREAD)
            assert middleware.report.spend.calls == 4


async def test_inside_a_balanced_graph_the_agent_is_part_of_its_run(instant: Bench) -> None:
    middleware = made(instant)
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    app = instant.balance(chain_of({"solver": agent}), policy=Assign({"solver": MINI})).compile()
    await app.ainvoke(task(instant))
    assert [backbone for _, backbone in instant.called()] == [MINI]
    assert app.report.spend.calls == 1
    with pytest.raises(RuntimeError, match="no run has ended"):
        _ = middleware.report


async def test_concurrent_agents_have_a_budget_each(instant: Bench) -> None:
    middleware = made(instant)
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    configs: list[Any] = [{"configurable": {"thread_id": str(n)}} for n in range(3)]
    await asyncio.gather(*(agent.ainvoke(instant.ask(n), c) for n, c in enumerate(configs)))
    for number, config in enumerate(configs):
        billed = instant.simulator.books.spend(instant.key(number)).nanodollars
        assert middleware.report_of(config).spend.nanodollars == billed


def test_what_it_can_not_do_is_refused(instant: Bench) -> None:
    with pytest.raises(ValueError, match="takes hard caps"):
        made(instant, Budget.average(cost_usd=0.1, max_cost_usd=1))
    with pytest.raises(ValueError, match="needs: no backbone has"):
        made(instant, needs=frozenset({"vision"}))
