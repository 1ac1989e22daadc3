"""AG2 chats on planned backbones: AG2's own loop, our books."""

from __future__ import annotations

from typing import Any

import pytest
from ag2_chats import LARGE, MINI, NAMES, OWN, Assign, Bench, agent, start, user
from autogen import Agent, ConversableAgent, GroupChatManager
from pydantic import BaseModel

from agentbalance_plugin import Budget, BudgetExceeded
from agentbalance_plugin.runtime.clock import Clock


async def test_a_chat_in_turn_runs_on_its_backbones_and_the_books_agree(bench: Bench) -> None:
    planner = Assign({"solver": LARGE})
    manager = bench.wrapped(policy=planner)
    await start(manager, bench.task())
    assert bench.agents_billed() == list(NAMES)
    assert [entry.backbone for entry in bench.simulator.books.entries] == [MINI, LARGE, MINI]
    report = manager.report
    assert report.spend.nanodollars == bench.billed() > 0
    assert report.complete
    assert report.within_budget
    assert [line.status for line in report.agents] == ["done"] * 4
    query, team = planner.asked[0]
    assert query == bench.task()
    assert team.names == (*NAMES, manager.name)
    assert not team.agent(manager.name).calls_backbone
    assert "You are the solver." in team.agent("solver").role
    assert [message["name"] for message in manager.groupchat.messages] == ["user", *NAMES]


async def test_the_policy_plans_and_the_cap_holds(bench: Bench) -> None:
    manager = bench.wrapped(budget=Budget(cost_usd=0.002, latency_s=60), policy="default")
    expected = manager.explain(bench.task()).plan
    assert bench.billed() == 0
    await start(manager, bench.task())
    assert manager.report.plan == expected
    assert 0 < bench.billed() == manager.report.spend.nanodollars <= 2_000_000
    assert manager.learned["runs"] == 1


async def test_in_an_event_loop_it_is_the_same(bench: Bench) -> None:
    manager = bench.wrapped()
    await user().a_initiate_chat(manager, message=bench.task(), silent=True)
    assert bench.agents_billed() == list(NAMES)
    assert manager.report.spend.nanodollars == bench.billed() > 0


async def test_choosing_the_next_speaker_is_inside_the_budget(bench: Bench) -> None:
    planner = Assign({"chat_manager": LARGE})
    manager = bench.wrapped(
        bench.manager(
            turns=2, speaker_selection_method="auto", max_retries_for_selecting_speaker=0
        ),
        policy=planner,
    )
    await start(manager, bench.task())
    assert planner.asked[0][1].agent("chat_manager").calls_backbone
    spent = manager.report.spend
    assert spent.nanodollars == bench.billed()
    lines = {line.name: line for line in manager.report.agents}
    # Once for each turn; what is recorded names nobody, so that AG2 goes on in turn.
    assert lines["chat_manager"].spend.calls == 2
    assert lines["chat_manager"].backbone == LARGE
    assert spent.calls == 4
    assert "_create_internal_agents" not in vars(manager.groupchat)


async def test_tools_and_streams_work_and_usage_is_what_ag2_says(bench: Bench) -> None:
    called: list[int] = []
    solver = agent("solver", llm_config={**OWN, "stream": True})
    runner = user()

    @runner.register_for_execution()
    @solver.register_for_llm(description="Doubles a number.")
    def double(number: int) -> int:
        called.append(number)
        return 2 * number

    manager = bench.wrapped(bench.manager(solver, runner, turns=3))
    await start(manager, f'{bench.task()} [[tool:double {{"number": 21}}]]', runner)
    assert called == [21]
    report = manager.report
    assert report.spend.nanodollars == bench.billed() > 0
    assert all(call.metered for call in report.calls)
    assert report.agents[0].spend.calls == 2
    usage: Any = solver.get_total_usage()
    assert usage["total_cost"] == pytest.approx(report.spend.cost_usd)
    assert usage[MINI]["prompt_tokens"] == report.spend.prompt_tokens
    solver.client.clear_usage_summary()
    assert solver.get_actual_usage() is None


async def test_a_denied_call_ends_the_chat_with_what_was_said(bench: Bench) -> None:
    solver = agent("solver", llm_config={**OWN, "max_tokens": 4000})
    members = agent("planner"), solver, agent("critic")
    budget = Budget(cost_usd=0.0003)
    # The large one's prompt alone costs more than is left.
    manager = bench.wrapped(
        bench.manager(*members), budget=budget, policy=Assign({"solver": LARGE})
    )
    result = await start(manager, bench.task())
    assert bench.agents_billed() == ["planner"]
    assert [message["name"] for message in manager.groupchat.messages] == ["user", "planner"]
    assert result.cost is not None
    report = manager.report
    assert report.spend.nanodollars == bench.billed() > 0
    assert not report.complete
    assert report.stop_reason.startswith("Budget exhausted: solver: ")
    assert [line.status for line in report.agents[:3]] == ["done", "skipped", "skipped"]
    assert report.agents[2].reason == "made no call"


async def test_a_denial_that_a_tool_hides_is_told(bench: Bench) -> None:
    helper, solver, runner = agent("helper"), agent("solver"), user()

    @runner.register_for_execution()
    @solver.register_for_llm(description="Asks for help.")
    def ask() -> str:
        helper.generate_reply([{"role": "user", "content": "Help."}])
        return "helped"

    manager = bench.wrapped(
        bench.manager(solver, runner),
        agents=[helper],
        budget=Budget(cost_usd=0.002),
        policy=Assign({"helper": LARGE}),
        # A word of it costs more than there is.
        backbones=bench.catalog(MINI, dear=LARGE),
    )
    await start(manager, f"{bench.task()} [[tool:ask]]", runner)
    report = manager.report
    assert [line.status for line in report.agents[:3]] == ["done", "done", "skipped"]
    assert report.stop_reason.startswith("Budget exhausted: helper: ")
    assert not report.complete
    # AG2 told the solver of an error, and it went on.
    assert bench.agents_billed() == ["solver", "solver"]


async def test_a_run_that_must_not_end_so_raises_with_its_report(bench: Bench) -> None:
    budget = Budget(cost_usd=0.0003, on_exceeded="raise")
    manager = bench.wrapped(budget=budget, policy=Assign({"solver": LARGE}))
    with pytest.raises(BudgetExceeded) as raised:
        await start(manager, bench.task())
    assert raised.value.report.spend.nanodollars == bench.billed() > 0
    assert raised.value.report == manager.report


@pytest.mark.parametrize("in_loop", [False, True])
async def test_the_deadline_ends_a_call_that_hangs(bench: Bench, in_loop: bool) -> None:
    slow = ConversableAgent("slow", "[[fault:timeout]]", llm_config=dict(OWN), silent=True)
    manager = bench.wrapped(
        bench.manager(slow, agent("solver")), budget=Budget(cost_usd=1.0, latency_s=0.4)
    )
    if in_loop:
        await user().a_initiate_chat(manager, message=bench.task(), silent=True)
    else:
        await start(manager, bench.task())
    report = manager.report
    assert "deadline" in report.stop_reason
    assert [message["name"] for message in manager.groupchat.messages] == ["user"]
    # What hangs may be billed, so that all of it is booked.
    assert report.spend.nanodollars >= bench.billed()
    assert not any(call.metered for call in report.calls)


async def test_after_an_error_agents_are_as_before_and_the_report_is_kept(bench: Bench) -> None:
    members = agent("planner"), agent("solver")

    def fail(*_: Any, **__: Any) -> Any:
        raise LookupError("no such book")

    members[1].register_reply([Agent, None], fail)
    manager = bench.wrapped(bench.manager(*members))
    before = [(type(each), each.client, each.client_cache) for each in (*members, manager)]
    with pytest.raises(LookupError, match="no such book"):
        await start(manager, bench.task())
    assert [(type(each), each.client, each.client_cache) for each in (*members, manager)] == before
    assert manager.report.spend.nanodollars == bench.billed() > 0
    assert "LookupError" in manager.report.stop_reason
    members[1].replace_reply_func(fail, lambda *_, **__: (False, None))
    await start(manager, bench.task())
    assert manager.report.complete


async def test_a_second_run_goes_on_and_pays_from_a_budget_of_its_own(bench: Bench) -> None:
    manager = bench.wrapped()
    asker = user()
    await start(manager, bench.task(), asker)
    first = manager.report.spend
    await start(manager, bench.task(1), asker, clear_history=False)
    assert len(manager.groupchat.messages) == 8
    assert manager.report.spend.calls == 3
    assert first.nanodollars + manager.report.spend.nanodollars == bench.billed()
    # Prompts held what was said before.
    assert manager.report.spend.prompt_tokens > first.prompt_tokens
    usage: Any = manager.groupchat.agents[0].get_total_usage()
    assert usage[MINI]["total_tokens"] > first.tokens / 3


async def test_two_runs_at_once_are_refused_and_the_first_goes_on(bench: Bench) -> None:
    planner, refused = agent("planner"), list[BaseException]()
    manager = bench.wrapped(bench.manager(planner, agent("solver")))
    other = bench.wrapped(bench.manager(planner, agent("critic")))

    def start_others(*_: Any, **__: Any) -> tuple[bool, None]:
        for busy in (manager, other):
            with pytest.raises(RuntimeError) as raised:
                user().initiate_chat(busy, message="Hello.", clear_history=False)
            refused.append(raised.value)
        return False, None

    planner.register_reply([Agent, None], start_others)
    await start(manager, bench.task())
    assert "already running" in str(refused[0])
    assert "'planner' takes part in another run" in str(refused[1])
    assert manager.report.complete
    assert manager.report.spend.nanodollars == bench.billed()


async def test_nested_chats_and_wrapped_ones_inside_are_paid_from_one_budget(bench: Bench) -> None:
    helper = agent("helper")
    inner = bench.wrapped(bench.manager(agent("inner"), agent("other"), turns=1))
    planner = agent("planner")
    manager = bench.manager(planner, agent("solver"), turns=2)
    queue = [
        {"recipient": helper, "message": "Help.", "max_turns": 1},
        {
            "recipient": inner,
            "message": "Discuss.",
            "max_turns": 1,
            "summary_method": "reflection_with_llm",
        },
    ]
    planner.register_nested_chats(queue, trigger=manager)
    wrapped = bench.wrapped(manager)
    await start(wrapped, bench.task())
    report = wrapped.report
    assert {"planner", "solver", "helper", "inner"} <= {line.name for line in report.agents}
    assert report.spend.nanodollars == bench.billed()
    # helper, inner, the summary and solver; planner says what the nested chats came to.
    assert report.spend.calls == 4
    with pytest.raises(RuntimeError, match="no run has ended"):
        _ = inner.report


@pytest.mark.filterwarnings("ignore:Function .look. is being overridden")
async def test_a_tool_that_is_registered_during_a_run_leaves_the_client(bench: Bench) -> None:
    solver = agent("solver")
    signature = {
        "type": "function",
        "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}},
    }

    def learn(*_: Any, **__: Any) -> tuple[bool, None]:
        solver.update_tool_signature(signature, is_remove=False)
        return False, None

    solver.register_reply([Agent, None], learn)
    solver.register_function({"look": lambda: "seen"})
    manager = bench.wrapped(bench.manager(solver, user(), turns=2, speaker_selection_method="auto"))
    await start(manager, f"{bench.task()} [[tool:look]]")
    assert manager.report.spend.nanodollars == bench.billed() > 0
    assert "look" in str(manager.groupchat.messages[1]["tool_calls"])


async def test_where_an_endpoint_fails_another_backbone_answers(bench: Bench) -> None:
    broken = ConversableAgent(
        "broken", f"[[fault:malformed@{MINI}]]", llm_config=dict(OWN), silent=True
    )
    # Between tries it waits, but not in this clock's seconds.
    manager = bench.wrapped(bench.manager(broken, agent("solver"), turns=2), clock=Clock(1e-3))
    await start(manager, bench.task())
    (line, *_) = manager.report.agents
    assert f"{LARGE} answered in its place" in line.reason
    assert manager.report.complete
    usage: Any = broken.get_total_usage()
    assert usage[LARGE]["cost"] > 0


async def test_what_the_agents_shape_asks_for_is_kept(bench: Bench) -> None:
    class Verdict(BaseModel):
        right: bool

        def format(self) -> str:
            return "never reached"

    critic = agent("critic", llm_config={**OWN, "response_format": Verdict})
    planner = Assign()
    manager = bench.wrapped(bench.manager(critic, agent("solver")), policy=planner)
    # What is recorded is no JSON, which AG2 says of such a reply, once it is paid for.
    with pytest.raises(ValueError, match="Verdict"):
        await start(manager, bench.task())
    assert "structured_output" in planner.asked[0][1].agent("critic").needs
    assert manager.report.spend.nanodollars == bench.billed() > 0
    # Its prompt counts for 525 tokens and its reply has 98: a half of that nobody tries to read.
    tight = bench.wrapped(bench.manager(critic, agent("solver")), budget=Budget(tokens=590))
    await start(tight, bench.task())
    assert "did not fit into the" in tight.report.stop_reason
    assert tight.report.calls[0].cut


async def test_a_manager_of_a_kind_of_ones_own_stays_one(bench: Bench) -> None:
    class Moderator(GroupChatManager):
        motto = "in order"

    plain = bench.manager()
    moderator = Moderator(plain.groupchat, llm_config=dict(OWN), silent=True)
    wrapped = bench.wrapped(moderator)
    assert wrapped is moderator
    assert isinstance(wrapped, Moderator)
    await start(wrapped, bench.task())
    assert wrapped.report.complete
    more = wrapped.another(bench.manager())
    await start(more, bench.task())
    # Chats with such agents learn from each other.
    assert more.learned == wrapped.learned
    assert more.learned["runs"] == 2
