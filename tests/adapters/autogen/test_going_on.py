"""Runs that go on where the one before stopped, as in the chat itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow, RoundRobinGroupChat
from autogen_core import CancellationToken
from chats import LARGE, MINI, Bench, Echo, chain, texts

from agentbalance_plugin import Budget, Plan, Policy
from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.runtime.call import CallRecord

pytestmark = pytest.mark.virtual_time
REVIEW = ("writer", "reviewer", "editor")


def on_mini(*names: str) -> Plan:
    """For a team that routes by itself the assignment alone counts."""
    return Plan(assignment=dict.fromkeys(names, MINI), decision="vote", hop_limit=99)


async def speakers(team: Any, task: str | None) -> list[str]:
    return [source for source, _ in texts((await team.run(task=task)).messages)]


class Heard(Policy):
    """Notes what it is told of prompts."""

    asked: list[int]

    def plan(self, *arguments: Any, **named: Any) -> Plan:
        if arguments[0]:
            self.asked.append(arguments[5].beside_bytes)
        return super().plan(*arguments, **named)


@pytest.mark.parametrize("mode", ["full", "backbones"])
async def test_plans_are_told_how_long_a_chat_has_become(bench: Bench, mode: str) -> None:
    policy = Heard.load("default", RecordedEncoder(bench.replay.traces))
    policy.asked = asked = []
    budget = Budget(cost_usd=0.05, latency_s=1000)
    one, two = bench.assistant("one"), bench.assistant("two")
    graph = DiGraphBuilder().add_node(one).add_node(two).add_edge(one, two)
    chat: Any = bench.chat() if mode == "full" else GraphFlow([one, two], graph=graph.build())

    def wrapped() -> WrappedTeam:
        return bench.wrap(chat, policy=policy, budget=budget)

    team = wrapped()
    for number in range(3):
        await team.run(task=bench.task(number))
    last = {call.agent: call for call in team.report.calls}.values()
    catalog = bench.replay.traces.profiled_candidates()

    def heard(call: CallRecord) -> int:
        spoken = catalog[call.backbone].reasoning == "no"
        return call.prompt_tokens + spoken * call.completion_tokens

    longest = max(heard(call) for call in last)
    assert asked[0] == 0
    assert min(asked[1:]) > 0
    assert team.explain(bench.task(3)).plan.expected is not None
    assert asked[3] == pytest.approx(4.2 * longest, rel=0.3)
    # A chat that is restored, here in another process as it were, is as long.
    restored = wrapped()
    await restored.load_state(json.loads(json.dumps(await team.save_state())))
    asked.clear()
    await restored.run(task=bench.task(3))
    assert asked[0] > 500
    for each in (team, restored):
        await each.reset()
        asked.clear()
        await each.run(task=bench.task(3))
        # No more than what one agent of this chat hears of another.
        assert asked[0] < 300


async def test_several_are_asked_only_while_their_answers_can_be_compared(bench: Bench) -> None:
    given: list[str | None] = [None]
    team = bench.wrap(
        bench.chat(),
        policy=bench.policy(),
        budget=Budget(cost_usd=0.05, latency_s=1000),
        answer=lambda _: given[0],
    )

    async def agents(number: int) -> int:
        await team.reset()
        await team.run(task=bench.task(number))
        plan = team.report.plan
        assert plan is not None
        return len(plan.assignment)

    assert await agents(0) > 1
    # A vote could only take the last one's message.
    assert [await agents(number) for number in (0, 1, 2)] == [1, 1, 1]
    assert len(team.explain(bench.task()).plan.assignment) == 1
    given[0] = "42"
    assert await agents(0) == 1
    assert await agents(0) > 1


def loop(bench: Bench) -> GraphFlow:
    """Reviewed again and again, four messages a run."""
    agents = [bench.assistant(name) for name in REVIEW]
    writer, reviewer, editor = agents
    graph = DiGraphBuilder().add_node(writer)
    graph.add_node(reviewer).add_node(editor).set_entry_point(writer)
    graph.add_edge(writer, reviewer)
    graph.add_edge(reviewer, writer, condition=lambda message: True)
    graph.add_edge(reviewer, editor, condition=lambda message: False)
    return GraphFlow(agents, graph=graph.build(), termination_condition=MaxMessageTermination(4))


async def test_a_loop_that_its_bound_stopped_goes_on(bench: Bench) -> None:
    team, stock = bench.wrap(loop(bench), on_mini(*REVIEW)), loop(bench)
    for task in (bench.task(), None, None):
        spoke = await speakers(team, task)
        assert spoke == await speakers(stock, task)
        assert len(spoke) == 4


async def test_a_cancelled_run_leaves_nothing_in_the_next_ones_graph(bench: Bench) -> None:
    start, quick, slow, end = [bench.assistant(n) for n in ("start", "quick", "slow", "end")]
    graph = DiGraphBuilder().add_node(start).add_node(quick).add_node(slow)
    graph.add_node(end).add_edge(start, quick).add_edge(start, slow)
    for before in (quick, slow):
        graph.add_edge(before, end, activation_condition="any")
    chat = GraphFlow([start, quick, slow, end], graph=graph.build())
    plan = Plan(
        assignment={"start": MINI, "quick": MINI, "slow": LARGE, "end": MINI},
        decision="vote",
        hop_limit=99,
    )
    team = bench.wrap(chat, plan)
    whole = await speakers(team, bench.task())
    token = CancellationToken()
    with pytest.raises(asyncio.CancelledError):
        async for event in team.run_stream(task=bench.task(1), cancellation_token=token):
            if getattr(event, "source", "") == "quick":
                # Virtual time moves when the chat has done what there is to do on that message.
                await asyncio.sleep(0.001)
                token.cancel()
    assert [entry.agent for entry in bench.simulator.books.entries if entry.aborted] == ["slow"]
    assert await speakers(team, bench.task(2)) == whole


async def test_a_chat_that_ran_before_it_was_wrapped_goes_on(bench: Bench) -> None:
    chat = loop(bench)
    assert await speakers(chat, bench.task()) == ["user", "writer", "reviewer", "writer"]
    team = bench.wrap(chat, on_mini(*REVIEW))
    assert await speakers(team, None) == ["reviewer", "writer", "reviewer", "writer"]


async def test_a_team_among_the_agents_goes_on_from_run_to_run(bench: Bench) -> None:
    def wrapped() -> WrappedTeam:
        inner = RoundRobinGroupChat(
            [bench.assistant(name) for name in ("early", "late", "night")],
            max_turns=1,
            name="shifts",
        )
        chat = RoundRobinGroupChat([inner, bench.assistant("decider")], max_turns=2)
        return bench.wrap(chat, chain({"shifts": MINI, "decider": MINI}))

    team = wrapped()
    for shift in ("early", "late"):
        assert shift in await speakers(team, bench.task())
    state = json.loads(json.dumps(await team.save_state()))
    other = wrapped()
    await other.load_state(state)
    for each in (team, other):
        assert "night" in await speakers(each, bench.task())
    await team.reset()
    assert "early" in await speakers(team, bench.task())


async def test_an_agent_whose_state_cannot_be_saved_loses_no_result(bench: Bench) -> None:
    class Stateless(Echo):
        async def save_state(self) -> Mapping[str, Any]:
            raise NotImplementedError("a socket can't be saved")

    solver, echo = bench.assistant("solver"), Stateless()
    graph = DiGraphBuilder().add_node(solver).add_node(echo).add_edge(solver, echo)
    plan = Plan(assignment={"solver": MINI, "echo": None}, decision="vote", hop_limit=99)
    team = bench.wrap(GraphFlow([solver, echo], graph=graph.build()), plan)
    for _ in range(2):
        with pytest.warns(UserWarning, match="can't be saved"):
            assert await speakers(team, bench.task()) == ["user", "solver", "echo"]
        assert team.report.complete


async def test_a_task_that_nobody_could_be_asked_is_forgotten(bench: Bench) -> None:
    # The cheapest backbone could read it, the plan's can not.
    plan, budget = chain({"one": LARGE, "two": LARGE}), Budget(cost_usd=0.02)
    team = bench.wrap(bench.chat(("one", "two")), plan, budget=budget)
    await team.run(task=bench.task())
    before = await team.save_state()
    left_out = await team.run(task="a word, " * 3000)
    assert texts(left_out.messages)[1:] == []
    assert team.report.spend.calls == 0
    assert await team.save_state() == before
    again = await team.run(task=bench.task(1))
    assert [source for source, _ in texts(again.messages)] == ["user", "one", "two"]
    assert team.report.complete
