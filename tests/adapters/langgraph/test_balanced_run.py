"""A balanced graph runs like the user's, on planned backbones and under its budget."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphs import LARGE, LLAMA, MINI, NAMES, Assign, Bench, chain_of, speakers
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.graph import MessagesState

from agentbalance_plugin import Budget, BudgetExceeded, Plan
from agentbalance_plugin.adapters.langgraph.internals import control_of
from agentbalance_plugin.adapters.langgraph.options import overrides_of
from agentbalance_plugin.adapters.langgraph.run import BudgetControl
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy, PolicyError


@pytest.mark.virtual_time
async def test_every_agent_runs_on_its_planned_backbone(bench: Bench) -> None:
    planner = Assign({"planner": MINI, "solver": LARGE, "critic": LLAMA})
    app = bench.balance(bench.chain(), policy=planner).compile()
    result = await app.ainvoke(bench.ask())
    assert speakers(result) == ["human", "planner", "solver", "critic", "writer"]
    assert bench.called() == [
        ("planner", MINI),
        ("solver", LARGE),
        ("critic", LLAMA),
        ("writer", MINI),
    ]
    assert planner.asked[0][0] == bench.task()


@pytest.mark.virtual_time
async def test_the_report_says_what_the_server_billed(bench: Bench) -> None:
    app = bench.balance(bench.chain()).compile()
    await app.ainvoke(bench.ask())
    report = app.report
    assert report.spend.nanodollars == bench.billed()
    assert report.complete
    assert report.chosen == "writer"
    assert [agent.status for agent in report.agents] == ["done"] * 4
    assert all(call.metered and not call.overrun for call in report.calls)


@pytest.mark.virtual_time
async def test_the_users_own_graph_is_left_as_it_is(bench: Bench) -> None:
    builder = bench.chain()
    stock = builder.compile()
    bench.balance(builder).compile()
    await stock.ainvoke(bench.ask())
    await builder.compile().ainvoke(bench.ask())
    assert {backbone for _, backbone in bench.called()} == {LARGE}


@pytest.mark.virtual_time
async def test_an_agent_without_budget_is_left_out_and_the_last_still_answers(
    bench: Bench,
) -> None:
    app = bench.balance(bench.chain(), budget=Budget(cost_usd=0.0002)).compile()
    result = await app.ainvoke(bench.ask())
    assert app.report.within_budget
    assert bench.billed() <= app.report.budget.nanodollars
    assert app.report.stop_reason.startswith("Budget exhausted")
    assert speakers(result)[-1] == "writer"


@pytest.mark.virtual_time
async def test_raise_carries_the_report(bench: Bench) -> None:
    budget = Budget(cost_usd=0.0002, on_exceeded="raise")
    app = bench.balance(bench.chain(), budget=budget).compile()
    with pytest.raises(BudgetExceeded) as caught:
        await app.ainvoke(bench.ask())
    assert caught.value.report.spend.nanodollars == bench.billed() > 0


@pytest.mark.virtual_time
async def test_the_deadline_ends_the_run_with_what_there_is(bench: Bench) -> None:
    app = bench.balance(bench.chain(), budget=Budget(latency_s=9)).compile()
    result = await app.ainvoke(bench.ask())
    assert asyncio.get_running_loop().time() <= 9.1
    assert app.report.within_budget
    assert not app.report.complete
    assert "planner" in speakers(result)


@pytest.mark.virtual_time
async def test_the_deadline_does_not_cancel_who_reads_the_stream(bench: Bench) -> None:
    app = bench.balance(bench.chain(), budget=Budget(latency_s=9)).compile()
    seen: list[str] = []
    async for item in app.astream(bench.ask(), stream_mode="updates"):
        seen.extend(item)
        await asyncio.sleep(100)
    assert seen == ["planner"]
    assert app.report.stop_reason == "Budget exhausted: cancelled at the deadline"


@pytest.mark.virtual_time
async def test_a_run_that_is_cancelled_at_its_deadline_is_cancelled(bench: Bench) -> None:
    builder = chain_of({"waits": _waits_for_ever})
    app = bench.balance(builder, agents=["waits"], budget=Budget(latency_s=9)).compile()
    running = asyncio.create_task(app.ainvoke(bench.ask()))
    asyncio.get_running_loop().call_later(9, running.cancel)
    with pytest.raises(asyncio.CancelledError):
        await running


async def _waits_for_ever(state: MessagesState) -> Any:
    await asyncio.Event().wait()


async def test_synchronous_graphs_run_the_same_way(instant: Bench) -> None:
    app = instant.balance(instant.chain(blocking=True), policy=Assign({"solver": LARGE})).compile()
    result = await asyncio.to_thread(app.invoke, instant.ask())
    assert speakers(result)[-1] == "writer"
    assert instant.called()[1] == ("solver", LARGE)
    assert app.report.spend.nanodollars == instant.billed()


async def test_a_synchronous_call_that_never_ends_is_left_at_the_deadline(instant: Bench) -> None:
    app = instant.balance(instant.chain(blocking=True), budget=Budget(latency_s=0.3)).compile()
    task = {"messages": [("user", f"{instant.task()} [[fault:timeout]]")]}
    result: Any = await asyncio.to_thread(app.invoke, task)
    assert speakers(result) == ["human"]
    assert not app.report.complete
    assert app.report.spend.nanodollars > 0


class _Frees(BaseCallbackHandler):
    """Gives time that was kept for another agent back while a call runs."""

    def __init__(self, config: RunnableConfig, seconds: float) -> None:
        control = control_of(config)
        assert isinstance(control, BudgetControl)
        self._meter = control.run.meter
        self._meter.protect("another", seconds=seconds)

    def on_chat_model_start(self, *args: Any, **more: Any) -> None:
        self._meter.unprotect("another")


@pytest.mark.virtual_time
@pytest.mark.parametrize("streamed", [False, True])
async def test_time_that_another_agent_leaves_does_not_hide_the_deadline(
    bench: Bench, streamed: bool
) -> None:
    model = bench.model()

    async def hangs(state: MessagesState, config: RunnableConfig) -> Any:
        freeing: RunnableConfig = {"callbacks": [_Frees(config, 12.0)]}
        if not streamed:
            return {"messages": [await model.ainvoke("[[fault:timeout]]", freeing)]}
        return {"messages": [c async for c in model.astream("[[fault:timeout]]", freeing)]}

    builder = bench.chain(("planner", "writer"), planner=hangs)
    app = bench.balance(builder, budget=Budget(latency_s=20)).compile()
    result = await app.ainvoke(bench.ask())
    assert speakers(result) == ["human", "writer"]
    assert app.report.agents[0].reason == "planner: the deadline came during the call"


@pytest.mark.parametrize("streamed", [False, True])
async def test_nor_does_it_in_a_synchronous_graph(instant: Bench, streamed: bool) -> None:
    model = instant.model()

    def hangs(state: MessagesState, config: RunnableConfig) -> Any:
        freeing: RunnableConfig = {"callbacks": [_Frees(config, 0.7)]}
        if not streamed:
            return {"messages": [model.invoke("[[fault:timeout]]", freeing)]}
        return {"messages": list(model.stream("[[fault:timeout]]", freeing))}

    builder = instant.chain(("planner", "writer"), blocking=True, planner=hangs)
    app = instant.balance(builder, budget=Budget(latency_s=1.0)).compile()
    await asyncio.to_thread(app.invoke, instant.ask())
    assert app.report.agents[0].reason == "planner: the deadline came during the call"


@pytest.mark.parametrize("longest_s", [0.0, 1e9])
@pytest.mark.parametrize("mode", ["full", "backbones"])
async def test_what_takes_long_to_plan_is_planned_beside_the_loop(
    instant: Bench, monkeypatch: pytest.MonkeyPatch, longest_s: float, mode: str
) -> None:
    monkeypatch.setattr("agentbalance_plugin.adapters.planning._LONGEST_IN_LOOP_S", longest_s)
    policy = Watched.load("default", RecordedEncoder(instant.replay.traces))
    assert isinstance(policy, Watched)
    app = instant.balance(instant.chain(), policy=policy, mode=mode).compile()
    policy.threads.clear()
    await asyncio.gather(*(app.ainvoke(instant.ask(number)) for number in range(3)))
    beside = {thread != threading.get_ident() for thread in policy.threads}
    assert beside == {longest_s == 0}


async def test_what_a_call_brings_along_is_planned_beside_the_loop(
    instant: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A price for its budget and a team that needs other backbones have not been seen before."""
    monkeypatch.setattr("agentbalance_plugin.adapters.planning._LONGEST_IN_LOOP_S", 1e9)
    policy = Watched.load("default", RecordedEncoder(instant.replay.traces))
    assert isinstance(policy, Watched)
    catalog = instant.catalog(capabilities=("text", "tools", "vision"))
    app = instant.balance(instant.chain(), policy=policy, backbones=catalog).compile()
    policy.threads.clear()
    mean = Budget.average(cost_usd=0.01, max_cost_usd=0.1)
    await app.ainvoke(instant.ask(), context={"agentbalance": {"budget": mean}})
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    text = {"type": "text", "text": instant.task()}
    await app.ainvoke({"messages": [("user", [text, picture])]})
    assert len(policy.threads) == 2
    assert threading.get_ident() not in policy.threads


async def test_the_mean_that_calls_bring_along_holds_over_them(instant: Bench) -> None:
    policy = Assign(dict.fromkeys(NAMES, LARGE))
    app = instant.balance(instant.chain(), policy=policy).compile()
    mean = Budget.average(cost_usd=0.002, max_cost_usd=0.02)
    for number in range(4):
        before = instant.billed()
        # The same, though another object.
        brought = {"agentbalance": {"budget": replace(mean)}}
        await app.ainvoke(instant.ask(number), {"configurable": brought})
        assert app.report.spend.nanodollars == instant.billed() - before
        assert instant.billed() <= 2_000_000 * (number + 2)
    assert not app.report.complete
    # The graph's own budget is as it was.
    await app.ainvoke(instant.ask())
    assert app.report.complete


class Watched(Policy):
    """Notes where its plans are made."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.threads: list[int] = []

    def plan(self, *arguments: Any, **options: Any) -> Plan:
        self.threads.append(threading.get_ident())
        return super().plan(*arguments, **options)


@pytest.mark.virtual_time
async def test_concurrent_runs_have_a_budget_each(bench: Bench) -> None:
    app = bench.balance(bench.chain()).compile()
    configs = [{"configurable": {"thread_id": str(number)}} for number in range(3)]
    await asyncio.gather(
        *(app.ainvoke(bench.ask(number), config) for number, config in enumerate(configs))
    )
    spent = [app.report_of(config).spend.nanodollars for config in configs]
    billed = [bench.simulator.books.spend(bench.key(n)).nanodollars for n in range(3)]
    assert spent == billed


@pytest.mark.virtual_time
async def test_a_budget_that_affords_no_call_is_refused_before_any(bench: Bench) -> None:
    app = bench.balance(bench.chain(), budget=Budget(cost_usd=0.000002)).compile()
    with pytest.raises(ValueError, match="one call of the cheapest backbone"):
        await app.ainvoke(bench.ask())
    assert bench.called() == []


async def test_a_task_that_is_no_text_is_refused_before_any_call(instant: Bench) -> None:
    app = instant.balance(instant.chain(("a", "b")), query=lambda state: state["messages"])
    with pytest.raises(ValueError, match="query must return the task's text, got \\[Human"):
        await app.compile().ainvoke(instant.ask())
    assert instant.called() == []


@pytest.mark.virtual_time
async def test_a_call_overrides_the_budget_and_the_policy(bench: Bench) -> None:
    app = bench.balance(bench.chain()).compile()
    changed = {"budget": {"cost_usd": 1.0}, "policy": Assign({"writer": LARGE})}
    await app.ainvoke(bench.ask(), {"configurable": {"agentbalance": changed}})
    assert app.report.budget == Budget(cost_usd=1.0)
    assert bench.called()[-1] == ("writer", LARGE)
    await app.ainvoke(bench.ask(1), context={"agentbalance": {"budget": Budget(tokens=10**6)}})
    assert app.report.budget == Budget(tokens=10**6)
    with pytest.raises(ValueError, match="unknown \\['bugdet'\\]"):
        await app.ainvoke(bench.ask(), {"configurable": {"agentbalance": {"bugdet": 1}}})


async def test_a_policy_that_a_call_names_is_read_again_when_it_was_trained_anew(
    instant: Bench, tmp_path: Path
) -> None:
    Policy.load("default").save(tmp_path)
    app = instant.balance(instant.chain(("a", "b"))).compile()
    asked = {"configurable": {"agentbalance": {"policy": str(tmp_path)}}}
    first = overrides_of(asked, None).planner
    await app.ainvoke(instant.ask(), asked)
    assert overrides_of(asked, None).planner is first
    written = (tmp_path / "policy.json").stat().st_mtime_ns
    Policy.load("default").save(tmp_path)
    os.utime(tmp_path / "policy.json", ns=(written, written + 1))
    assert overrides_of(asked, None).planner is not first
    (tmp_path / "policy.json").unlink()
    with pytest.raises(PolicyError, match=r"policy\.json"):
        await app.ainvoke(instant.ask(), asked)


async def test_one_graph_serves_one_event_loop_after_another(instant: Bench) -> None:
    app = instant.balance(instant.chain(("a", "b"))).compile()

    def three_loops() -> list[tuple[int, bool]]:
        seen: list[tuple[int, bool]] = []
        for number in range(3):
            asyncio.run(app.ainvoke(instant.ask(number)))
            seen.append((app.report.spend.calls, app.report.complete))
        return seen

    assert await asyncio.to_thread(three_loops) == [(2, True)] * 3
    assert len(instant.called()) == 6


async def test_event_loops_that_are_closed_are_let_go_of(instant: Bench) -> None:
    app = instant.balance(instant.chain(("a",))).compile()
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def ask(number: int) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await app.ainvoke(instant.ask(number))

    def three_loops() -> list[bool]:
        for number in range(3):
            asyncio.run(ask(number))
        gc.collect()
        return [each() is None for each in loops]

    assert (await asyncio.to_thread(three_loops))[:2] == [True, True]
