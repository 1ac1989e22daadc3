"""Teams and agents inside those that take part, when they are stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen_agentchat.agents import SocietyOfMindAgent
from autogen_agentchat.conditions import TextMentionTermination
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow, RoundRobinGroupChat
from autogen_agentchat.tools import AgentTool
from chats import LARGE, MINI, Bench, Echo, texts

from agentbalance_plugin import Budget, Plan

pytestmark = pytest.mark.virtual_time


async def test_a_team_inside_a_team_that_runs_out_of_budget_holds_nothing_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    dear = bench.assistant("dear", "Long. " * 1000)
    deep: Any = dear
    for depth in ("inmost", "inner", "outer"):
        deep = RoundRobinGroupChat([deep], max_turns=1, name=depth)
    plan = Plan(assignment={"solver": MINI, "outer": LARGE}, decision="vote", decider="solver")
    chat = RoundRobinGroupChat([bench.assistant("solver"), deep], max_turns=2)
    budget = Budget(cost_usd=0.01)
    team = bench.wrap(chat, plan, budget=budget)
    result = await asyncio.wait_for(team.run(task=bench.task()), 1000)
    assert {agent.name: agent.status for agent in team.report.agents}["outer"] == "skipped"
    assert result.messages[-1].source == "solver"
    mind = SocietyOfMindAgent("mind", team=deep, model_client=bench.client())
    routed = bench.wrap(
        GraphFlow([mind], graph=DiGraphBuilder().add_node(mind).build()),
        Plan(assignment={"mind": LARGE}, decision="vote"),
        budget=budget,
    )
    ended = await asyncio.wait_for(routed.run(task=bench.task()), 1000)
    assert (ended.stop_reason or "").startswith("Budget exhausted: mind")
    # Nothing is left behind that waits.
    await asyncio.sleep(1)
    names = [str(task.get_coro()) for task in asyncio.all_tasks()]
    assert not [name for name in names if "autogen" in name.lower()]
    assert "Error processing" not in caplog.text


async def test_an_agent_with_a_tool_that_was_not_waited_for_runs_in_the_next_pass(
    bench: Bench,
) -> None:
    class Slow(Echo):
        async def on_messages(self, messages, cancellation_token):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0.5)
            return await super().on_messages(messages, cancellation_token)

    helper = bench.assistant("helper")
    late = bench.assistant("late", tools=[AgentTool(helper)])
    chat = RoundRobinGroupChat(
        [Slow("one"), Slow("two"), late],
        max_turns=6,
        termination_condition=TextMentionTermination("never said"),
    )
    plan = Plan(
        assignment={"one": None, "two": None, "late": MINI},
        decision="vote",
        decider="late",
        stop_at=0.6,
    )
    team = bench.wrap(chat, plan)
    result = await team.run(task=bench.task())
    assert [source for source, _ in texts(result.messages)].count("one") >= 2
    assert [entry.agent for entry in bench.simulator.books.entries] == ["late", "late"]


async def test_all_that_a_team_says_is_heard_as_in_the_chat_itself(bench: Bench) -> None:
    async def heard(wrapped: bool) -> list[list[str]]:
        listener = Echo("listener")
        inner = RoundRobinGroupChat([Echo("first"), Echo("second")], max_turns=2, name="pair")
        chat = RoundRobinGroupChat([inner, listener], max_turns=2)
        plan = Plan(
            assignment={"pair": None, "listener": None},
            edges=(("pair", "listener"),),
            decider="listener",
        )
        await (bench.wrap(chat, plan) if wrapped else chat).run(task=bench.task())
        return listener.heard

    assert await heard(wrapped=True) == [["user", "first", "second"]]
    assert await heard(wrapped=True) == await heard(wrapped=False)


async def test_what_a_team_said_before_it_ran_out_of_budget_is_in_the_result(bench: Bench) -> None:
    dear = bench.assistant("second", "Long. " * 1000)
    inner = RoundRobinGroupChat([bench.assistant("first"), dear], max_turns=2, name="pair")
    chat = RoundRobinGroupChat([bench.assistant("solver"), inner], max_turns=2)
    plan = Plan(assignment={"solver": MINI, "pair": LARGE}, decision="vote", decider="solver")
    team = bench.wrap(chat, plan, budget=Budget(cost_usd=0.01))
    result = await team.run(task=bench.task())
    assert {agent.name: agent.status for agent in team.report.agents}["pair"] == "skipped"
    assert {entry.agent for entry in bench.simulator.books.entries} == {"solver", "first"}
    assert "first" in [source for source, _ in texts(result.messages)]
    assert result.messages[-1].source == "solver"


@pytest.mark.parametrize("place", ["planned", "routed", "mind"])
async def test_a_team_that_calls_no_model_runs_again_after_the_deadline(
    bench: Bench, place: str
) -> None:
    class Late(Echo):
        late = True

        async def on_messages(self, messages, cancellation_token):  # type: ignore[no-untyped-def]
            if self.late:
                await asyncio.Event().wait()
            return await super().on_messages(messages, cancellation_token)

    late = Late("late")
    inner: Any = RoundRobinGroupChat([late], max_turns=1, name="inner")
    if place == "mind":
        inner = SocietyOfMindAgent("mind", team=inner, model_client=bench.client())
    # With fewer turns than agents a chat routes by itself.
    chat = RoundRobinGroupChat(
        [inner, bench.assistant("solver")], max_turns=1 if place == "routed" else 2
    )
    team = bench.wrap(chat, mode="backbones", budget=Budget(cost_usd=1, latency_s=100))
    await team.run(task=bench.task())
    assert not team.report.complete
    late.late = False
    result = await team.run(task=bench.task())
    assert "late" in [source for source, _ in texts(result.messages)]
    assert team.report.complete
