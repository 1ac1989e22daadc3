"""Several conversations of one service under one budget."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat, Swarm
from chats import LARGE, MINI, NAMES, Bench, chain, texts

from agentbalance_plugin import Budget, Policy
from agentbalance_plugin.core.encoder import RecordedEncoder

pytestmark = pytest.mark.virtual_time
MEAN = 0.0004
AVERAGE = Budget.average(cost_usd=MEAN, max_cost_usd=0.004)


async def test_the_mean_is_that_of_all_chats_together(bench: Bench) -> None:
    first = bench.wrap(bench.chat(), budget=AVERAGE)
    spent: list[float] = []
    for number in range(12):
        # A conversation each, as a service has them.
        team = first.another(bench.chat())
        await team.run(task=bench.task(number, "math_l5"))
        spent.append(team.report.spend.nanodollars / 1e9)
        assert sum(spent) <= (len(spent) + 1) * MEAN
    assert max(spent) > 2 * MEAN
    assert sum(spent) * 1e9 == pytest.approx(bench.billed())


async def test_chats_at_once_share_the_mean_as_well(bench: Bench) -> None:
    first = bench.wrap(bench.chat(), budget=AVERAGE)
    teams = [first.another(bench.chat()) for _ in range(8)]
    tasks = [team.run(task=bench.task(n, "math_l5")) for n, team in enumerate(teams)]
    await asyncio.gather(*tasks)
    assert bench.billed() / 1e9 <= 9 * MEAN


async def test_what_was_said_and_reported_is_each_chats_own(bench: Bench) -> None:
    first = bench.wrap(bench.chat(), chain({"planner": MINI, "solver": LARGE}))
    second = first.another(bench.chat())
    await first.run(task=bench.task(0))
    with pytest.raises(RuntimeError, match="no run has ended yet"):
        _ = second.report
    result = await second.run(task=bench.task(1))
    assert second.report.spend.prompt_tokens < 2 * first.report.spend.prompt_tokens
    assert [source for source, _ in texts(result.messages)] == ["user", "planner", "solver"]
    third = second.another(bench.chat())
    await third.load_state(await first.save_state())
    again = await third.run(task=bench.task(2))
    assert len(again.messages) == 3


async def test_nothing_is_loaded_again_and_what_was_learned_is_known(bench: Bench) -> None:
    solved: list[Any] = []

    class Counted(Policy):
        def price_for(self, *arguments: Any) -> float:
            solved.append(arguments)
            return super().price_for(*arguments)

    policy = Counted.load("default", RecordedEncoder(bench.replay.traces))

    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    def chat() -> RoundRobinGroupChat:
        tools: Any = {"tools": [double], "reflect_on_tool_use": True}
        return RoundRobinGroupChat([bench.assistant("solver", **tools)], max_turns=1)

    budget = Budget.average(cost_usd=0.01, max_cost_usd=0.05)
    first = bench.wrap(chat(), policy=policy, budget=budget, backbones=bench.catalog(MINI))
    await first.run(task=f'[[tool:double {{"number": 21}}]] {bench.task()}')
    second = first.another(chat())
    assert len(solved) == 1
    plans = [team.explain(bench.task(1)).plan for team in (first, second)]
    assert plans[0].notes["past"] == plans[1].notes["past"]
    assert plans[0].notes["past"]["calls"] == 2.0
    # Other agents have habits of their own.
    other = first.another(bench.chat(NAMES))
    assert "past" not in other.explain(bench.task(1)).plan.notes


async def test_what_holds_for_the_first_holds_for_the_others(bench: Bench) -> None:
    agents = [bench.assistant(name) for name in ("one", "two")]
    chat = SelectorGroupChat(agents, model_client=bench.client(), max_turns=4)
    first = bench.wrap(chat, decider="two", pinned=iter(["one"]), budget=Budget(cost_usd=0.05))
    again = SelectorGroupChat(
        [bench.assistant(name) for name in ("one", "two")], model_client=bench.client(), max_turns=4
    )
    second = first.another(again)
    await second.run(task=bench.task())
    assert set(second.report.plan.assignment) == {"one", "two"}  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="is wrapped already"):
        first.another(second)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decider: 'two' is none of the agents"):
        first.another(RoundRobinGroupChat([bench.assistant("one")], max_turns=1))
    with pytest.raises(ValueError, match="routes and decides by itself"):
        first.another(Swarm([bench.assistant("one"), bench.assistant("two")]))
