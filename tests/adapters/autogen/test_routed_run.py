"""Chats that route by themselves: Swarm, MagenticOne, GraphFlow, Selector by backbones alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import Handoff, TaskResult, TerminationCondition
from autogen_agentchat.conditions import HandoffTermination, MaxMessageTermination
from autogen_agentchat.messages import StopMessage
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_core import CancellationToken
from autogen_core.model_context import UnboundedChatCompletionContext
from autogen_core.models import UserMessage
from autogen_ext.models.replay import ReplayChatCompletionClient
from chats import LARGE, LLAMA, MINI, Bench, Echo, cancel_before_start, chain, texts

from agentbalance_plugin import Backbone, Budget, BudgetExceeded, Plan
from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam

pytestmark = pytest.mark.virtual_time


def flow(bench: Bench, *names: str, **more: Any) -> GraphFlow:
    agents = [bench.assistant(name) for name in names]
    builder = DiGraphBuilder()
    for agent in agents:
        builder.add_node(agent)
    for before, after in pairwise(agents):
        builder.add_edge(before, after)
    return GraphFlow(agents, graph=builder.build(), **more)


def fixed(assignment: dict[str, str | None]) -> Plan:
    """For a team that routes by itself the assignment alone counts."""
    return Plan(assignment=assignment, decision="vote", decider=None, hop_limit=99)


async def test_a_graph_flow_keeps_its_routing_and_gets_backbones(bench: Bench) -> None:
    team = bench.wrap(flow(bench, "first", "second"), fixed({"first": MINI, "second": LLAMA}))
    result = await team.run(task=bench.task())
    assert [(e.agent, e.backbone) for e in bench.simulator.books.entries] == [
        ("first", MINI),
        ("second", LLAMA),
    ]
    assert [source for source, _ in texts(result.messages)][:3] == ["user", "first", "second"]
    report = team.report
    assert report.complete
    assert report.spend.nanodollars == bench.billed()
    assert [(agent.name, agent.status) for agent in report.agents] == [
        ("first", "done"),
        ("second", "done"),
    ]


async def test_the_policy_plans_backbones_for_a_graph_flow(bench: Bench) -> None:
    budget = Budget(cost_usd=0.01)
    team = bench.wrap(flow(bench, "first", "second"), budget=budget)
    for number in range(3):
        bench.simulator.books.clear()
        result = await team.run(task=bench.task(number))
        assert team.report.complete, result.stop_reason
        assert bench.billed() <= 10_000_000
        await team.reset()


async def test_a_swarm_hands_off_by_itself(bench: Bench) -> None:
    first = AssistantAgent(
        "first",
        bench.client(),
        system_message="[[agent:first]] Hand off.",
        handoffs=[Handoff(target="second")],
    )
    swarm = Swarm(
        [first, bench.assistant("second")], termination_condition=MaxMessageTermination(6)
    )
    team = bench.wrap(swarm, fixed({"first": MINI, "second": LLAMA}))
    result = await team.run(task=f"[[tool:transfer_to_second {{}}]] {bench.task()}")
    called = {(entry.agent, entry.backbone) for entry in bench.simulator.books.entries}
    assert called == {("first", MINI), ("second", LLAMA)}
    assert "second" in [source for source, _ in texts(result.messages)]
    assert team.report.spend.nanodollars == bench.billed()


async def test_a_swarm_that_hands_back_to_the_user_can_be_resumed(bench: Bench) -> None:
    first = AssistantAgent(
        "first",
        bench.client(),
        system_message="[[agent:first]] Hand off.",
        handoffs=[Handoff(target="user")],
    )
    swarm = Swarm([first], termination_condition=HandoffTermination("user"))
    team = bench.wrap(swarm, fixed({"first": MINI}))
    result = await team.run(task=f"[[tool:transfer_to_user {{}}]] {bench.task()}")
    assert "Handoff to user" in (result.stop_reason or "")
    state = await team.save_state()
    assert "first" in state["agent_states"]


async def test_the_selectors_own_calls_are_bound_and_reported(bench: Bench) -> None:
    chat = SelectorGroupChat(
        [bench.assistant("first"), bench.assistant("second")],
        model_client=bench.client(),
        termination_condition=MaxMessageTermination(3),
        max_selector_attempts=1,
    )
    plan = fixed({"first": MINI, "second": MINI, "selector": LLAMA})
    team = bench.wrap(chat, plan, mode="backbones")
    await team.run(task=bench.task())
    spent = {agent.name: agent.spend.calls for agent in team.report.agents}
    assert spent["selector"] >= 1
    assert team.report.spend.nanodollars == bench.billed()
    backbones = {entry.backbone for entry in bench.simulator.books.entries}
    assert backbones == {MINI, LLAMA}


async def test_a_selector_planned_in_full_makes_no_selector_calls(bench: Bench) -> None:
    chat = SelectorGroupChat(
        [bench.assistant("solver"), bench.assistant("decider")], model_client=bench.client()
    )
    with pytest.raises(ValueError, match="decider: a SelectorGroupChat has no fixed last speaker"):
        bench.wrap(chat)
    plan = chain({"solver": MINI, "decider": LLAMA})
    team = bench.wrap(chat, plan, decider="decider")
    await team.run(task=bench.task())
    assert [entry.agent for entry in bench.simulator.books.entries] == ["solver", "decider"]


def ledger(*, satisfied: bool) -> str:
    keys = ("is_request_satisfied", "is_progress_being_made", "is_in_loop")
    entry: dict[str, Any] = {key: {"reason": "-", "answer": satisfied} for key in keys}
    entry["is_progress_being_made"]["answer"] = True
    entry["is_in_loop"]["answer"] = False
    entry["instruction_or_question"] = {"reason": "-", "answer": "Solve it."}
    entry["next_speaker"] = {"reason": "-", "answer": "worker"}
    return json.dumps(entry)


async def test_magentic_one_runs_to_its_answer_under_the_budget(bench: Bench) -> None:
    script = ["facts", "plan", ledger(satisfied=False), "It is 7.", ledger(satisfied=True), "7"]
    client = ReplayChatCompletionClient(script)
    backbone = Backbone("scripted", Decimal(1), Decimal(2), capabilities=frozenset({"text"}))
    chat = MagenticOneGroupChat([bench.assistant("worker")], model_client=bench.client())
    plan = fixed({"worker": "scripted", "orchestrator": "scripted"})
    budget = Budget(cost_usd=0.2)
    team = bench.wrap(chat, plan, backbones=[(backbone, client)], budget=budget)
    result = await team.run(task="What is 3 + 4?")
    assert result.messages[-1].to_text() == "7"
    assert [text for source, text in texts(result.messages) if source == "user"] == [
        "What is 3 + 4?"
    ]
    calls = {agent.name: agent.spend.calls for agent in team.report.agents}
    assert calls == {"worker": 1, "orchestrator": 5}
    assert team.report.complete
    assert team.report.within_budget
    assert bench.simulator.books.entries == []


async def test_magentic_one_without_money_says_so(bench: Bench) -> None:
    chat = MagenticOneGroupChat([bench.assistant("worker")], model_client=bench.client())
    plan = fixed({"worker": LARGE, "orchestrator": LARGE})
    team = bench.wrap(chat, plan, budget=Budget(cost_usd=0.012))
    result = await team.run(task=bench.task())
    assert (result.stop_reason or "").startswith("Budget exhausted")
    assert bench.billed() <= 12_000_000
    assert "orchestrator" in {agent.name for agent in team.report.agents}


async def test_runs_carry_the_conversation_and_reset_forgets_it(bench: Bench) -> None:
    echo = Echo()
    builder = DiGraphBuilder()
    solver = bench.assistant("solver")
    builder.add_node(solver).add_node(echo).add_edge(solver, echo)
    chat = GraphFlow([solver, echo], graph=builder.build())
    team = bench.wrap(chat, fixed({"solver": MINI, "echo": None}))
    await team.run(task=bench.task(0))
    first = await team.save_state()
    await team.run(task=bench.task(1))
    second = await team.save_state()
    history = [_context(state, "solver") for state in (first, second)]
    assert len(history[1]) > len(history[0])
    await team.reset()
    await team.run(task=bench.task(0))
    assert _context(await team.save_state(), "solver")[0]["content"] == history[0][0]["content"]
    other = bench.wrap(flow(bench, "solver", "second"), fixed({"solver": MINI, "second": MINI}))
    await other.load_state(await bench.wrap(flow(bench, "solver", "second")).save_state())
    assert (await other.run(task=bench.task())).messages


async def test_what_is_done_to_agents_between_runs_holds(bench: Bench) -> None:
    context = UnboundedChatCompletionContext()
    shared = bench.assistant("solver", model_context=context)

    def swarm() -> WrappedTeam:
        return bench.wrap(Swarm([shared], max_turns=1), fixed({"solver": MINI}))

    one, other = swarm(), swarm()
    await one.run(task=bench.task(0))
    await other.run(task=bench.task(1))
    await one.run(task=bench.task(2))
    # It knows what it said in either chat.
    assert len(await context.get_messages()) == 6
    await context.add_message(UserMessage(content="Mind the units.", source="user"))
    await one.run(task=bench.task(3))
    assert len(await context.get_messages()) == 9
    await shared.on_reset(CancellationToken())
    await one.run(task=bench.task(0))
    assert len(await context.get_messages()) == 2


def _context(state: Any, agent: str) -> list[Any]:
    held = state["agent_states"][agent]
    held = held.get("agent_state", held)
    return held["llm_context"]["messages"]


async def test_a_state_that_is_none_is_refused_and_changes_nothing(bench: Bench) -> None:
    team = bench.wrap(flow(bench, "first"), fixed({"first": MINI}))
    await team.run(task=bench.task())
    state = await team.save_state()
    wrong: list[Any] = [{"agent_states": {}}, {"nonsense": 1}, None]
    for each in wrong:
        with pytest.raises(ValueError, match="state"):
            await team.load_state(each)
    assert await team.save_state() == state
    assert (await team.run(task=bench.task(1))).messages


async def test_what_an_agents_state_leaves_out_goes_on_too(bench: Bench) -> None:
    class Own(AssistantAgent):
        rounds = 0

        async def on_messages_stream(self, messages, cancellation_token):  # type: ignore[no-untyped-def]
            self.rounds += 1
            async for event in super().on_messages_stream(messages, cancellation_token):
                yield event

    own, client = Own("solver", bench.client(), handoffs=["solver"]), bench.client()
    own._model_client = client
    team = bench.wrap(Swarm([own], max_turns=1), fixed({"solver": MINI}))
    for number in range(2):
        await team.run(task=bench.task(number))
    assert own.rounds == 2
    assert own._model_client is client


async def test_a_second_run_at_the_same_time_is_refused_with_autogens_error(bench: Bench) -> None:
    team = bench.wrap(flow(bench, "first", "second"), fixed({"first": MINI, "second": MINI}))
    running = asyncio.create_task(team.run(task=bench.task()))
    await asyncio.sleep(0.1)
    with pytest.raises(ValueError, match="already running"):
        await team.run(task=bench.task())
    with pytest.raises(RuntimeError, match="running"):
        await team.reset()
    await running
    await team.reset()


async def test_after_an_error_or_a_cancellation_the_next_run_works(bench: Bench) -> None:
    echo = Echo(fail=True)
    builder = DiGraphBuilder()
    solver = bench.assistant("solver")
    builder.add_node(solver).add_node(echo).add_edge(solver, echo)
    team = bench.wrap(
        GraphFlow([solver, echo], graph=builder.build()), fixed({"solver": MINI, "echo": None})
    )
    with pytest.raises(RuntimeError, match="the echo is broken"):
        await team.run(task=bench.task())
    assert team.report.spend.nanodollars == bench.billed() > 0
    assert not team.report.complete
    echo.fail = False
    assert (await team.run(task=bench.task())).messages
    token = CancellationToken()
    running = asyncio.create_task(team.run(task=bench.task(), cancellation_token=token))
    await asyncio.sleep(0.1)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    solver_line, _ = team.report.agents
    assert (solver_line.status, solver_line.reason) == ("skipped", "its call was cut off")
    # What the endpoint may bill for it is in the books.
    assert solver_line.spend.nanodollars > 0
    assert (await team.run(task=bench.task())).messages


async def test_a_run_that_is_cancelled_before_it_starts_ends_at_once(bench: Bench) -> None:
    team = bench.wrap(flow(bench, "first"), fixed({"first": MINI}))
    await cancel_before_start(bench, team)


@pytest.mark.parametrize("latency_s", [0.5, 3.0, 5.0])
async def test_the_deadline_ends_a_chat_that_routes_by_itself(
    bench: Bench, latency_s: float
) -> None:
    plan = fixed({"first": LARGE, "second": LARGE})
    team = bench.wrap(flow(bench, "first", "second"), plan, budget=Budget(latency_s=latency_s))
    began = asyncio.get_running_loop().time()
    result = await team.run(task=bench.task(3, "math_l5"))
    assert asyncio.get_running_loop().time() - began <= latency_s + 1e-6
    assert isinstance(result, TaskResult)
    assert not team.report.complete
    assert "deadline" in (result.stop_reason or "")


async def test_the_cap_ends_a_chat_that_routes_by_itself(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plan = fixed({"first": MINI, "second": LARGE})
    budget = Budget(cost_usd=0.0006)
    team = bench.wrap(flow(bench, "first", "second"), plan, budget=budget)
    result = await team.run(task=bench.task())
    assert bench.billed() <= 600_000
    assert not team.report.complete
    assert (result.stop_reason or "").startswith("Budget exhausted")
    assert [source for source, _ in texts(result.messages)] == ["user", "first"]
    assert "Error processing" not in caplog.text
    raising = bench.wrap(
        flow(bench, "first", "second"),
        plan,
        budget=Budget(cost_usd=0.0006, on_exceeded="raise"),
    )
    with pytest.raises(BudgetExceeded):
        await raising.run(task=bench.task())


async def test_a_condition_starts_anew_after_a_run_that_the_budget_ended(bench: Bench) -> None:
    class Twice(TerminationCondition):
        seen = 0

        @property
        def terminated(self) -> bool:
            return self.seen >= 2

        async def __call__(self, messages: Sequence[Any]) -> StopMessage | None:
            self.seen += 1
            return StopMessage(content="twice", source="twice") if self.terminated else None

        async def reset(self) -> None:
            self.seen = 0

    first = bench.assistant("first", "Long. " * 1000, handoffs=["first"])
    swarm = Swarm([first], termination_condition=Twice())
    team = bench.wrap(swarm, fixed({"first": LARGE}), budget=Budget(cost_usd=0.01))
    for _ in range(2):
        result = await team.run(task=bench.task())
        assert (result.stop_reason or "").startswith("Budget exhausted")


async def test_pause_and_resume_reach_the_agents(bench: Bench) -> None:
    echo = Echo()
    builder = DiGraphBuilder()
    solver = bench.assistant("solver")
    builder.add_node(solver).add_node(echo).add_edge(solver, echo)
    chat = GraphFlow([solver, echo], graph=builder.build())
    team = bench.wrap(chat, fixed({"solver": MINI, "echo": None}))
    running = asyncio.create_task(team.run(task=bench.task()))
    await asyncio.sleep(0.1)
    await team.pause()
    await team.resume()
    await running
    assert echo.pauses == 1
    await team.pause()
    assert echo.pauses == 1


async def test_the_stream_of_a_routed_chat_ends_with_its_result(bench: Bench) -> None:
    plan = fixed({"first": MINI, "second": MINI})
    team = bench.wrap(flow(bench, "first", "second"), plan)
    items = [item async for item in team.run_stream(task=bench.task())]
    result = items[-1]
    assert isinstance(result, TaskResult)
    assert list(result.messages) == items[:-1]
    assert team.report_of(result).complete
