"""No run passes its hard cap or its deadline, whatever the endpoint does."""

from __future__ import annotations

import asyncio

import pytest
from autogen_agentchat.base import Response
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import SystemMessage, UserMessage
from chats import LARGE, MINI, NAMES, Bench, Echo, chain, texts

from agentbalance_plugin import Budget, BudgetExceeded, Plan

pytestmark = pytest.mark.virtual_time

O1 = "o1-mini-2024-09-12"


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("cost_usd", [0.0003, 0.001, 0.004, 0.01, 0.03])
@pytest.mark.parametrize("backbone", [MINI, LARGE, O1])
async def test_no_run_costs_more_than_its_cap(bench: Bench, cost_usd: float, backbone: str) -> None:
    plan = chain(dict.fromkeys(NAMES, backbone))
    for number in range(4):
        bench.simulator.books.clear()
        team = bench.wrap(bench.chat(), plan, budget=Budget(cost_usd=cost_usd))
        await team.run(task=bench.task(number, "math_l5"))
        assert bench.billed() <= round(cost_usd * 1e9)
        assert team.report.spend.nanodollars == bench.billed()
        assert team.report.within_budget


@pytest.mark.parametrize("tokens", [1_000, 2_500, 9_000])
async def test_no_run_takes_more_tokens_than_its_cap(bench: Bench, tokens: int) -> None:
    plan = chain(dict.fromkeys(NAMES, LARGE))
    for number in range(4):
        bench.simulator.books.clear()
        team = bench.wrap(bench.chat(), plan, budget=Budget(tokens=tokens))
        await team.run(task=bench.task(number, "math_l5"))
        assert bench.simulator.books.spend().tokens <= tokens
        assert team.report.spend.tokens == bench.simulator.books.spend().tokens


@pytest.mark.parametrize("latency_s", [0.2, 1.0, 3.0, 6.0, 12.0])
async def test_no_run_returns_after_its_deadline(bench: Bench, latency_s: float) -> None:
    plan = chain(dict.fromkeys(NAMES, LARGE))
    for number in range(4):
        team = bench.wrap(bench.chat(), plan, budget=Budget(latency_s=latency_s))
        began = now()
        result = await team.run(task=bench.task(number, "math_l5"))
        assert now() - began <= latency_s + 1e-6
        assert team.report.spend.latency_s <= latency_s + 1e-6
        # Whatever was said by then is there.
        spoke = {source for source, _ in texts(result.messages)} - {"user"}
        assert spoke >= {a.name for a in team.report.agents if a.status == "done"}


async def test_a_decider_alone_has_all_of_the_time(bench: Bench) -> None:
    takes = bench.replay.reply(bench.key(), LARGE, agent="decider").latency_s
    plan = chain({"decider": LARGE})
    team = bench.wrap(bench.chat(), plan, budget=Budget(latency_s=takes + 0.01))
    assert (await team.run(task=bench.task())).stop_reason == "Plan complete"


async def test_the_policys_own_plans_keep_every_cap(bench: Bench) -> None:
    budgets = (
        Budget(cost_usd=0.0005),
        Budget(cost_usd=0.002, latency_s=4.0),
        Budget(latency_s=2.0),
        Budget(tokens=1_500),
        Budget(cost_usd=0.01, tokens=4_000, latency_s=20.0),
    )
    for budget in budgets:
        team = bench.wrap(bench.chat(), budget=budget)
        for benchmark in ("gsm8k", "crux", "math_l5"):
            for number in range(3):
                bench.simulator.books.clear()
                began = now()
                result = await team.run(task=bench.task(number, benchmark))
                took = now() - began
                spend = bench.simulator.books.spend()
                assert budget.nanodollars is None or spend.nanodollars <= budget.nanodollars
                assert budget.tokens is None or spend.tokens <= budget.tokens
                assert budget.latency_s is None or took <= budget.latency_s + 1e-6
                assert team.report.spend.nanodollars >= spend.nanodollars
                assert result.messages[-1].source == (team.report.chosen or "user")
                await team.reset()


def too_little_time(bench: Bench) -> float:
    """Seconds in which the planner is done and a decider on `O1` is not."""
    planner = bench.replay.reply(bench.key(), MINI, agent="planner").latency_s
    decider = bench.replay.reply(bench.key(), O1, agent="decider").latency_s
    assert decider > planner + 0.2
    return 2 * planner + 0.2


async def test_the_best_answer_so_far_comes_back_with_a_reason(bench: Bench) -> None:
    plan = chain({"planner": MINI, "decider": O1})
    team = bench.wrap(bench.chat(), plan, budget=Budget(latency_s=too_little_time(bench)))
    result = await team.run(task=bench.task())
    report = team.report
    assert not report.complete
    assert report.chosen == result.messages[-1].source == "planner"
    assert (result.stop_reason or "").startswith("Budget exhausted: Best answer so far, by planner")
    statuses = {agent.name: agent.status for agent in report.agents}
    assert statuses["decider"] == "skipped"


async def test_the_decider_is_paid_for_before_anyone_else(bench: Bench) -> None:
    plan = Plan(
        assignment={"planner": O1, "decider": MINI},
        edges=(("planner", "decider"),),
        decider="decider",
    )
    team = bench.wrap(bench.chat(), plan, budget=Budget(cost_usd=0.004))
    await team.run(task=bench.task(0, "math_l5"))
    by_agent = {entry.agent: entry for entry in bench.simulator.books.entries}
    # The planner was capped below what it needed, the decider had its share left.
    assert by_agent["planner"].finish == "length"
    assert by_agent["decider"].finish == "stop"
    assert team.report.chosen == "decider"


async def test_raise_gives_the_report_and_loses_nothing(bench: Bench) -> None:
    plan = chain({"planner": MINI, "decider": O1})
    budget = Budget(latency_s=too_little_time(bench), on_exceeded="raise")
    team = bench.wrap(bench.chat(), plan, budget=budget)
    with pytest.raises(BudgetExceeded) as caught:
        await team.run(task=bench.task())
    report = caught.value.report
    assert report is team.report
    assert report.chosen == "planner"
    assert report.spend.nanodollars >= bench.billed() > 0
    assert "skipped" in str(caught.value)
    with pytest.raises(BudgetExceeded):
        await team.run(task=bench.task())


async def test_a_run_that_stays_inside_does_not_raise(bench: Bench) -> None:
    plan = chain({"planner": MINI, "decider": MINI})
    budget = Budget(cost_usd=0.1, on_exceeded="raise")
    team = bench.wrap(bench.chat(), plan, budget=budget)
    assert (await team.run(task=bench.task())).stop_reason == "Plan complete"


@pytest.mark.parametrize("why", ["money", "time"])
async def test_an_agent_that_hides_a_denied_call_does_not_pass_for_done(
    bench: Bench, why: str
) -> None:
    class Apologetic(Echo):
        def __init__(self) -> None:
            super().__init__("decider")
            self.client = bench.client()

        async def on_messages(self, messages, cancellation_token):  # type: ignore[no-untyped-def]
            text = "\n".join(message.to_model_text() for message in messages)
            try:
                await self.client.create(
                    [
                        SystemMessage(content="[[agent:decider]] Solve."),
                        UserMessage(content=text + " " * 4000, source="user"),
                    ]
                )
            except Exception as error:
                text = f"Sorry: {error}"
            return Response(chat_message=TextMessage(content=text, source=self.name))

    limits = {"money": {"cost_usd": 0.004}, "time": {"latency_s": too_little_time(bench)}}[why]
    chat = RoundRobinGroupChat([bench.assistant("planner"), Apologetic()], max_turns=2)
    plan = chain({"planner": MINI, "decider": O1})
    team = bench.wrap(chat, plan, budget=Budget(**limits))
    result = await team.run(task=bench.task())
    report = team.report
    assert not report.complete
    assert {agent.name: agent.status for agent in report.agents}["decider"] == "skipped"
    assert report.chosen == result.messages[-1].source == "planner"
    raising = bench.wrap(chat, plan, budget=Budget(**limits, on_exceeded="raise"))
    with pytest.raises(BudgetExceeded):
        await raising.run(task=bench.task())


async def test_an_agent_that_does_not_heed_its_cancellation_is_left_behind(bench: Bench) -> None:
    class Stubborn(Echo):
        async def on_messages(self, messages, cancellation_token):  # type: ignore[no-untyped-def]
            while now() < 50.0:
                try:
                    await asyncio.sleep(5.0)
                except asyncio.CancelledError:
                    continue
            return await super().on_messages(messages, cancellation_token)

    chat = RoundRobinGroupChat([bench.assistant("solver"), Stubborn()], max_turns=2)
    plan = Plan(assignment={"solver": MINI, "echo": None}, decision="vote", decider="echo")
    team = bench.wrap(chat, plan, budget=Budget(latency_s=10.0))
    result = await team.run(task=bench.task())
    assert now() <= 10.0 + 1e-6
    assert result.messages[-1].source == "solver"
    await asyncio.sleep(100.0)
    assert team.report.spend.latency_s <= 10.0 + 1e-6


async def test_a_mean_is_never_passed_by_more_than_one_task(bench: Bench) -> None:
    target = 0.001
    team = bench.wrap(bench.chat(), budget=Budget.average(cost_usd=target, max_cost_usd=0.01))
    for number in range(20):
        await team.run(task=bench.task(number % 6, ("gsm8k", "crux", "math_l5")[number % 3]))
        assert bench.billed() <= round(target * 1e9) * (number + 2)
        report = team.report
        assert report.budget.cost_usd is not None
        assert report.budget.cost_usd <= 0.01
        assert report.within_budget
        await team.reset()


async def test_concurrent_runs_of_a_mean_share_the_money(bench: Bench) -> None:
    target = 0.001
    team = bench.wrap(bench.chat(), budget=Budget.average(cost_usd=target, max_cost_usd=0.01))
    results = await asyncio.gather(
        *(team.run(task=bench.task(number, "crux")) for number in range(8)),
        return_exceptions=True,
    )
    assert bench.billed() <= round(target * 1e9) * 9
    assert any(not isinstance(result, BaseException) for result in results)
