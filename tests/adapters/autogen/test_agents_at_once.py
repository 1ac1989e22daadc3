"""Agents that call at the same time: what one holds the other waits for, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow
from chats import LARGE, MINI, Bench, texts

from agentbalance_plugin import Budget, Plan

pytestmark = pytest.mark.virtual_time

ALL_ON_LARGE = Plan(
    assignment=dict.fromkeys(("first", "left", "right", "last"), LARGE),
    decision="vote",
    hop_limit=99,
)


def diamond(bench: Bench, *, stream: bool = False) -> GraphFlow:
    """Two agents between a first and a last one."""
    names = ("first", "left", "right", "last")
    agents = {name: bench.assistant(name, model_client_stream=stream) for name in names}
    builder = DiGraphBuilder()
    for agent in agents.values():
        builder.add_node(agent)
    for between in ("left", "right"):
        builder.add_edge(agents["first"], agents[between])
        builder.add_edge(agents[between], agents["last"])
    return GraphFlow(list(agents.values()), graph=builder.build())


async def test_an_agent_waits_for_what_those_beside_it_hold(bench: Bench) -> None:
    # A call holds all that is left, for it may answer at length; what it takes is a tenth.
    team = bench.wrap(diamond(bench), ALL_ON_LARGE, budget=Budget(cost_usd=0.02))
    result = await team.run(task=bench.task())
    said = [source for source, _ in texts(result.messages)]
    assert said[:2] == ["user", "first"]
    assert sorted(said[2:4]) == ["left", "right"]
    assert said[4] == "last"
    report = team.report
    assert report.complete
    assert {agent.status for agent in report.agents} == {"done"}
    assert report.spend.nanodollars == bench.billed()
    left, right = (c for c in report.calls if c.agent in ("left", "right"))
    assert right.started_s >= left.ended_s


@pytest.mark.parametrize("stream", [False, True])
async def test_who_is_at_work_beside_a_denied_agent_is_heard(bench: Bench, stream: bool) -> None:
    team = bench.wrap(diamond(bench, stream=stream), ALL_ON_LARGE, budget=Budget(cost_usd=0.0032))
    result = await team.run(task=bench.task())
    kept = [m for m in result.messages if isinstance(m, TextMessage)]
    assert [message.source for message in kept] == ["user", "first", "left"]
    report = team.report
    statuses = {agent.name: agent.status for agent in report.agents}
    assert statuses == {"first": "done", "left": "done", "right": "skipped", "last": "skipped"}
    assert not report.complete
    assert (result.stop_reason or "").startswith("Budget exhausted: right: a call of")
    # Its call has ended by itself and was booked as it was billed.
    assert all(call.metered for call in report.calls)
    assert report.spend.nanodollars == bench.billed() <= 3_200_000
    assert (await team.run(task=bench.task(1))).messages


async def test_who_never_ends_is_not_waited_for_past_the_deadline(bench: Bench) -> None:
    backbones = {**dict.fromkeys(("first", "right", "last"), MINI), "left": LARGE}
    plan = Plan(assignment=backbones, decision="vote", hop_limit=99)
    team = bench.wrap(diamond(bench), plan, budget=Budget(cost_usd=0.02, latency_s=30))
    task = f"[[fault:timeout@{LARGE}]] {bench.task()}"
    started = asyncio.get_running_loop().time()
    result = await team.run(task=task)
    assert asyncio.get_running_loop().time() - started <= 30.01
    assert (result.stop_reason or "").startswith("Budget exhausted")
    assert [source for source, _ in texts(result.messages)][:2] == ["user", "first"]


async def test_agents_that_a_plan_starts_at_once_do_not_starve_each_other(bench: Bench) -> None:
    plan = Plan(
        assignment={"planner": MINI, "solver": LARGE, "decider": MINI},
        edges=(("planner", "decider"), ("solver", "decider")),
        decider="decider",
    )
    chat = bench.chat(["planner", "solver", "decider"])
    team = bench.wrap(chat, plan, budget=Budget(cost_usd=0.005))
    await team.run(task=bench.task())
    assert {agent.status for agent in team.report.agents} == {"done"}
    assert team.report.complete
    assert team.report.spend.nanodollars == bench.billed() <= 5_000_000
