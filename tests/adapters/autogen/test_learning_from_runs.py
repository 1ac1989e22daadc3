"""What a chat's earlier runs took is known to the plans of the next."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.teams import RoundRobinGroupChat, Swarm
from chats import MINI, Bench, chain

from agentbalance_plugin import Budget, RunReport
from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam

pytestmark = pytest.mark.virtual_time
AMPLE = Budget(cost_usd=0.05)


def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


def with_tools(bench: Bench) -> RoundRobinGroupChat:
    agent = bench.assistant("solver", tools=[double], reflect_on_tool_use=True)
    return RoundRobinGroupChat([agent], max_turns=1)


def surprise(report: RunReport) -> float:
    """How many times more or less a run cost than was expected, as a logarithm."""
    assert report.plan is not None
    assert report.plan.expected is not None
    return abs(math.log(report.spend.nanodollars / 1e9 / report.plan.expected.cost_usd))


async def report_of_new(team: WrappedTeam, task: str) -> RunReport:
    await team.reset()
    await team.run(task=task)
    return team.report


async def test_costs_that_tools_add_are_expected_from_the_second_run_on(bench: Bench) -> None:
    call = '[[tool:double {"number": 21}]]'
    team = bench.wrap(with_tools(bench), budget=AMPLE, backbones=bench.catalog(MINI))
    usual = team.explain(bench.task()).plan.expected
    for _ in range(3):
        report = await report_of_new(team, f"{call} {bench.task()}")
        assert report.spend.calls == 2
    await team.reset()
    expected = team.explain(bench.task()).plan.expected
    assert expected is not None
    assert usual is not None
    assert expected.cost_usd == pytest.approx(2 * usual.cost_usd, rel=0.02)
    assert expected.latency_s == pytest.approx(2 * usual.latency_s, rel=0.02)
    assert expected.success == pytest.approx(usual.success)


async def test_what_one_process_learned_another_goes_on_from(bench: Bench) -> None:
    budget = Budget.average(cost_usd=0.01, max_cost_usd=0.05)
    call = '[[tool:double {"number": 21}]]'
    team = bench.wrap(with_tools(bench), budget=budget, backbones=bench.catalog(MINI))
    for _ in range(3):
        await report_of_new(team, f"{call} {bench.task()}")
    await team.reset()
    fresh = bench.wrap(with_tools(bench), budget=budget, backbones=bench.catalog(MINI))
    assert fresh.explain(bench.task()).plan != team.explain(bench.task()).plan
    fresh.learn(json.loads(json.dumps(team.learned)))
    assert fresh.learned == team.learned
    assert fresh.explain(bench.task()).plan.expected == team.explain(bench.task()).plan.expected
    # Other conversations of the same service know it, too.
    assert fresh.another(with_tools(bench)).learned == team.learned


async def test_a_chat_that_goes_round_again_is_expected_to(bench: Bench) -> None:
    end = TextMentionTermination("that will do")
    agents: list[Any] = [bench.assistant("one")]
    chat = RoundRobinGroupChat(agents, max_turns=3, termination_condition=end)
    team = bench.wrap(chat, budget=AMPLE, backbones=bench.catalog(MINI))
    costs: list[float] = []
    for _ in range(3):
        report = await report_of_new(team, bench.task())
        assert report.spend.calls == 3
        assert report.plan is not None
        assert report.plan.expected is not None
        costs.append(report.plan.expected.cost_usd)
    # What was said in the rounds before is read again.
    assert 3 * costs[0] <= costs[1] < 5 * costs[0]


async def test_agents_of_a_swarm_that_are_not_handed_to_cost_nothing(bench: Bench) -> None:
    agents = [bench.assistant(f"agent{n}") for n in range(5)]
    chat = Swarm(agents, termination_condition=MaxMessageTermination(2))
    team = bench.wrap(chat, budget=AMPLE, backbones=bench.catalog(MINI))
    seen = [surprise(await report_of_new(team, bench.task())) for _ in range(4)]
    assert team.report.spend.calls == 1
    assert seen[0] > math.log(5)
    assert max(seen[2:]) < seen[0] / 2


async def test_runs_of_a_plan_that_predicts_nothing_teach_nothing(bench: Bench) -> None:
    team = bench.wrap(bench.chat(), chain(dict.fromkeys(("planner", "solver"), MINI)))
    for number in range(2):
        report = await report_of_new(team, bench.task(number))
    assert report.complete
    assert report.plan is not None
    assert report.plan.expected is None
