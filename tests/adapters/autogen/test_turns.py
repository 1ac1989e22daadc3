"""The chat's own termination condition, its turn limit, and the order of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from autogen_agentchat.base import TerminationCondition
from autogen_agentchat.conditions import (
    ExternalTermination,
    FunctionalTermination,
    MaxMessageTermination,
    SourceMatchTermination,
    TextMentionTermination,
    TextMessageTermination,
    TimeoutTermination,
    TokenUsageTermination,
)
from autogen_agentchat.messages import StopMessage, ThoughtEvent
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from chats import LARGE, LLAMA, MINI, NAMES, Bench, Echo, chain, texts

from agentbalance_plugin import Budget, Plan
from agentbalance_plugin.plan import Expected

pytestmark = pytest.mark.virtual_time


class Counter(Echo):
    """Says DONE the given time it speaks."""

    def __init__(self, name: str, times: int) -> None:
        super().__init__(name)
        self.times = times

    async def on_messages(self, messages, cancellation_token):  # type: ignore[no-untyped-def]
        response = await super().on_messages(messages, cancellation_token)
        if len(self.heard) >= self.times:
            response.chat_message.content += " DONE"  # type: ignore[attr-defined]
        return response


async def test_passes_repeat_until_the_condition_holds(bench: Bench) -> None:
    counter = Counter("counter", times=3)
    chat = RoundRobinGroupChat(
        [bench.assistant("solver"), counter],
        termination_condition=TextMentionTermination("DONE", sources=["counter"]),
    )
    team = bench.wrap(chat, chain({"solver": MINI, "counter": None}))
    result = await team.run(task=bench.task())
    assert [source for source, _ in texts(result.messages)] == ["user"] + ["solver", "counter"] * 3
    assert "DONE" in (result.stop_reason or "")
    assert counter.heard == [["user", "solver"], ["solver"], ["solver"]]
    assert team.report.spend.nanodollars == bench.billed()


async def test_a_condition_keeps_all_that_it_was_made_with(bench: Bench) -> None:
    early, late = Counter("early", times=1), Counter("late", times=3)
    condition = TextMentionTermination("DONE", sources=["late"])
    chat = RoundRobinGroupChat([early, late], termination_condition=condition, max_turns=20)
    await bench.wrap(chat, chain({"early": None, "late": None})).run(task="go")
    assert len(late.heard) == 3


async def test_the_turn_limit_bounds_the_passes(bench: Bench) -> None:
    counter = Counter("counter", times=99)
    chat = RoundRobinGroupChat(
        [bench.assistant("solver"), counter],
        termination_condition=TextMentionTermination("DONE"),
        max_turns=4,
    )
    team = bench.wrap(chat, chain({"solver": MINI, "counter": None}))
    result = await team.run(task=bench.task())
    assert len(counter.heard) == 2
    assert result.stop_reason == "Maximum number of turns reached after 2 passes."


async def test_with_fewer_turns_than_agents_a_run_goes_on_where_the_last_one_stopped(
    bench: Bench,
) -> None:
    runs: list[list[list[str]]] = []
    for chat in (
        bench.chat(NAMES[:3], max_turns=2),
        bench.wrap(bench.chat(NAMES[:3], max_turns=2)),
    ):
        said: list[list[str]] = []
        for task in (bench.task(), None, None):
            result = await chat.run(task=task)
            said.append([source for source, _ in texts(result.messages)])
        await chat.reset()
        said.append([s for s, _ in texts((await chat.run(task=bench.task())).messages)])
        runs.append(said)
    stock, wrapped = runs
    assert wrapped == stock
    assert stock[1] == ["critic", "planner"]


async def test_a_selector_lets_no_more_agents_speak_than_it_has_turns(bench: Bench) -> None:
    chat = SelectorGroupChat(
        [bench.assistant(name) for name in NAMES], model_client=bench.client(), max_turns=2
    )
    team = bench.wrap(chat, decider="decider")
    result = await team.run(task=bench.task())
    assert {agent.name for agent in team.report.agents} == {"planner", "decider"}
    assert len(texts(result.messages)) <= 4


async def test_a_budget_stops_passes_that_would_go_on_for_ever(bench: Bench) -> None:
    counter = Counter("counter", times=10**9)
    chat = RoundRobinGroupChat(
        [bench.assistant("solver"), counter],
        termination_condition=TextMentionTermination("DONE"),
    )
    budget = Budget(cost_usd=0.004)
    team = bench.wrap(chat, chain({"solver": MINI, "counter": None}), budget=budget)
    result = await team.run(task=bench.task())
    assert len(counter.heard) > 2
    assert (result.stop_reason or "").startswith("Budget exhausted")
    assert bench.billed() <= 4_000_000
    assert team.report.within_budget
    assert result.messages[-1].source in ("solver", "counter")


async def test_a_later_pass_sets_aside_a_part_of_what_is_left(bench: Bench) -> None:
    never = TextMentionTermination("never said")
    chat = bench.chat(["solver", "decider"], max_turns=4, termination_condition=never)
    # The first call's usage is not reported, so all that the solver might use is booked.
    task = f"[[fault:no_usage*1]] {bench.task()}"
    plan = chain({"solver": MINI, "decider": MINI})
    team = bench.wrap(chat, plan, budget=Budget(cost_usd=0.002))
    await team.run(task=task)
    first, *_ = team.report.calls
    assert first.nanodollars > 900_000
    assert [call.agent for call in team.report.calls] == ["solver", "decider"] * 2
    assert team.report.complete


async def test_what_an_earlier_pass_said_survives_one_in_which_all_fail(bench: Bench) -> None:
    class Tired(Counter):
        async def on_messages_stream(self, messages, cancellation_token):  # type: ignore[no-untyped-def]
            if self.heard:
                yield ThoughtEvent(content="I am tired.", source=self.name)
                raise RuntimeError("too tired")
            yield await self.on_messages(messages, cancellation_token)

    chat = RoundRobinGroupChat(
        [Tired("counter", 99)], termination_condition=TextMentionTermination("DONE")
    )
    team = bench.wrap(chat, chain({"counter": None}))
    result = await team.run(task="go")
    assert [source for source, _ in texts(result.messages)] == ["user", "counter", "counter"]
    assert result.messages[-1].to_text() == result.messages[1].to_text()
    assert (result.stop_reason or "").endswith("too tired); the answer is that of pass 1")
    assert team.report.chosen == "counter"
    assert not team.report.complete


async def test_a_team_goes_on_when_it_has_heard_nothing_new(bench: Bench) -> None:
    inner = RoundRobinGroupChat([bench.assistant("solver")], max_turns=1, name="inner")
    chat = RoundRobinGroupChat(
        [inner], termination_condition=TextMentionTermination("DONE"), max_turns=3
    )
    team = bench.wrap(chat, chain({"inner": MINI}))
    result = await team.run(task=bench.task())
    assert [source for source, _ in texts(result.messages)] == ["user"] + ["solver"] * 3
    assert (await team.run()).messages


@pytest.mark.parametrize(
    "condition",
    [
        SourceMatchTermination(["critic"]),
        TextMentionTermination("APPROVE", sources=["critic"]),
        TextMessageTermination("critic"),
        SourceMatchTermination(["critic"]) & MaxMessageTermination(2),
        SourceMatchTermination(["critic"]) | MaxMessageTermination(50),
    ],
)
async def test_nobody_waits_for_an_agent_that_the_plan_leaves_out(
    bench: Bench, condition: TerminationCondition
) -> None:
    chat = RoundRobinGroupChat(
        [bench.assistant(name) for name in ("critic", "decider")],
        termination_condition=condition,
        max_turns=20,
    )
    team = bench.wrap(chat, chain({"decider": MINI}))
    result = await team.run(task=bench.task())
    assert [source for source, _ in texts(result.messages)] == ["user", "decider"]
    assert result.stop_reason == "Plan complete"


async def test_with_bounds_alone_one_pass_does_the_job(bench: Bench) -> None:
    chat = RoundRobinGroupChat(
        [bench.assistant("solver"), bench.assistant("decider")],
        termination_condition=MaxMessageTermination(50) | TimeoutTermination(10_000),
    )
    team = bench.wrap(chat, chain({"solver": MINI, "decider": MINI}))
    result = await team.run(task=bench.task())
    assert len(result.messages) == 3
    assert result.stop_reason == "Plan complete"


async def test_a_condition_is_fresh_in_every_run_and_the_users_own_stays_unused(
    bench: Bench,
) -> None:
    own = MaxMessageTermination(4)
    chat = RoundRobinGroupChat([bench.assistant("solver")], termination_condition=own)
    team = bench.wrap(chat, chain({"solver": MINI}))
    for number in range(3):
        result = await team.run(task=bench.task(number))
        assert len(result.messages) == 2
    assert not own.terminated
    assert own._message_count == 0


async def test_a_condition_that_the_task_itself_meets_stops_the_run(bench: Bench) -> None:
    condition = TextMentionTermination("enough")
    chat = RoundRobinGroupChat([bench.assistant("solver")], termination_condition=condition)
    team = bench.wrap(chat, chain({"solver": MINI}))
    result = await team.run(task="enough")
    assert [source for source, _ in texts(result.messages)] == ["user"]
    assert bench.billed() == 0
    assert "enough" in (result.stop_reason or "")


async def test_an_external_condition_is_the_users_own_object(bench: Bench) -> None:
    stop = ExternalTermination()
    counter = Counter("counter", times=10**9)
    chat = RoundRobinGroupChat(
        [counter], termination_condition=TextMentionTermination("DONE") | stop
    )
    team = bench.wrap(chat, chain({"counter": None}))
    spoken = 0
    async for item in team.run_stream(task="go"):
        spoken += getattr(item, "source", "") == "counter"
        if spoken == 3:
            stop.set()
    assert "External" in (team.report.stop_reason or "")
    assert len(counter.heard) <= 5


async def test_an_external_condition_that_is_set_before_the_run_stops_it(bench: Bench) -> None:
    stop = ExternalTermination()
    chat = RoundRobinGroupChat([bench.assistant("solver")], termination_condition=stop)
    team = bench.wrap(chat, chain({"solver": MINI}))
    stop.set()
    result = await team.run(task=bench.task())
    assert [source for source, _ in texts(result.messages)] == ["user"]
    assert "External" in (result.stop_reason or "")
    assert (await team.run(task=bench.task())).stop_reason == "Plan complete"


class Button(TerminationCondition):
    """A condition of the user's own, that others press."""

    def __init__(self) -> None:
        self.pressed = self.over = False

    @property
    def terminated(self) -> bool:
        return self.over

    async def __call__(self, messages: Sequence[Any]) -> StopMessage | None:
        self.over = self.pressed
        return StopMessage(content="pressed", source="button") if self.pressed else None

    async def reset(self) -> None:
        self.pressed = self.over = False


@pytest.mark.parametrize("routed", [False, True])
async def test_what_the_users_own_condition_is_told_during_a_run_stops_it(
    bench: Bench, routed: bool
) -> None:
    button = Button()
    counter = Counter("counter", times=10**9)
    if not routed:
        chat = RoundRobinGroupChat([counter], termination_condition=button, max_turns=20)
        team = bench.wrap(chat, chain({"counter": None}))
    else:
        selector = SelectorGroupChat(
            [counter, Echo()],
            model_client=bench.client(),
            selector_func=lambda messages: "counter",
            termination_condition=button,
            max_turns=20,
        )
        team = bench.wrap(selector, mode="backbones")
    for _ in range(2):
        async for item in team.run_stream(task="go"):
            if getattr(item, "source", "") == "counter":
                button.pressed = True
        assert "pressed" in team.report.stop_reason
        assert len(counter.heard) <= 3
        counter.heard.clear()


async def test_a_function_of_the_users_own_object_is_asked(bench: Bench) -> None:
    class Judge:
        asked = 0

        def enough(self, messages: Sequence[Any]) -> bool:
            self.asked += 1
            return self.asked == 3

    judge = Judge()
    chat = RoundRobinGroupChat(
        [Counter("counter", 10**9)],
        termination_condition=FunctionalTermination(judge.enough),
        max_turns=20,
    )
    await bench.wrap(chat, chain({"counter": None})).run(task="go")
    assert judge.asked == 3


async def test_a_timeout_counts_from_the_start_of_a_run(bench: Bench) -> None:
    timeout = TimeoutTermination(1000)
    chat = SelectorGroupChat(
        [Echo("counter"), Echo()],
        model_client=bench.client(),
        selector_func=lambda messages: "counter",
        termination_condition=timeout,
        max_turns=2,
    )
    timeout._start_time -= 2000
    team = bench.wrap(chat, mode="backbones")
    assert "turns" in ((await team.run(task="go")).stop_reason or "")


async def test_conditions_with_functions_in_them_work(bench: Bench) -> None:
    counter = Counter("counter", times=10**9)
    condition = FunctionalTermination(lambda messages: len(counter.heard) >= 2)
    chat = RoundRobinGroupChat([counter], termination_condition=condition)
    team = bench.wrap(chat, chain({"counter": None}))
    await team.run(task="go")
    assert len(counter.heard) == 2


async def test_a_bound_joined_to_a_condition_does_not_end_it_early(bench: Bench) -> None:
    counter = Counter("counter", times=3)
    bound = MaxMessageTermination(2) | TimeoutTermination(1000)
    condition = TextMentionTermination("DONE") & bound
    chat = RoundRobinGroupChat([counter], termination_condition=condition, max_turns=20)
    await bench.wrap(chat, chain({"counter": None})).run(task="go")
    assert len(counter.heard) == 3


async def test_conditions_joined_with_and_need_both(bench: Bench) -> None:
    counter = Counter("counter", times=2)
    both = TextMentionTermination("DONE") & SourceMatchTermination(["counter"])
    chat = RoundRobinGroupChat([counter], termination_condition=both, max_turns=5)
    team = bench.wrap(chat, chain({"counter": None}))
    await team.run(task="go")
    assert len(counter.heard) == 2


async def test_the_mode_backbones_keeps_every_agent_and_the_order(bench: Bench) -> None:
    team = bench.wrap(bench.chat(), mode="backbones")
    result = await team.run(task=bench.task())
    sources = [source for source, _ in texts(result.messages)]
    assert sources == ["user", "planner", "solver", "critic", "decider"]
    entries = bench.simulator.books.entries
    alone = [bench.replay.reply(e.query, e.backbone, agent=e.agent).prompt_tokens for e in entries]
    heard = [entry.prompt_tokens - own for entry, own in zip(entries, alone, strict=True)]
    written = [entry.completion_tokens - _hidden(bench, entry.backbone) for entry in entries]
    assert heard == [sum(written[:position]) for position in range(4)]


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_turns": 5},
        {"termination_condition": MaxMessageTermination(6)},
        {"termination_condition": TokenUsageTermination(600), "max_turns": 5},
        {"termination_condition": MaxMessageTermination(6) | TimeoutTermination(1e6)},
    ],
)
async def test_the_mode_backbones_keeps_the_rounds_of_a_chat_that_bounds_end(
    bench: Bench, bounds: dict[str, Any]
) -> None:
    def chat() -> RoundRobinGroupChat:
        return RoundRobinGroupChat([Echo("first"), Echo("second")], **bounds)

    stock = await chat().run(task="go")
    plan = Plan({"first": None, "second": None}, decision="vote")
    team = bench.wrap(chat(), plan, mode="backbones")
    result = await team.run(task="go")
    assert texts(result.messages) == texts(stock.messages)
    assert result.stop_reason == stock.stop_reason
    assert len(result.messages) == 6
    assert team.report.complete


async def test_a_round_is_planned_for_its_part_of_the_budget(bench: Bench) -> None:
    asked: list[Budget] = []
    plan = Plan({"a": MINI, "b": MINI}, decision="vote", expected=Expected(0.5, 0.001, 2.0))

    class Planner:
        def plan(self, query: str, team: Any, budget: Budget, catalog: Any) -> Plan:
            asked.append(budget)
            return plan

    team = bench.wrap(
        bench.chat(["a", "b"], max_turns=6),
        mode="backbones",
        budget=Budget(cost_usd=0.3, latency_s=90, tokens=9000),
        policy=Planner(),
    )
    await team.run(task=bench.task())
    [budget] = asked
    assert (budget.cost_usd, budget.latency_s, budget.tokens) == (pytest.approx(0.1), 30, 3000)
    expected = team.report.plan.expected
    assert (expected.cost_usd, expected.latency_s) == (pytest.approx(0.003), 6.0)
    assert team.report.budget.latency_s == 90
    assert team.report.spend.calls == 6


async def test_explaining_a_task_tells_the_next_run_and_calls_nobody(bench: Bench) -> None:
    chats = {
        "planned": bench.chat(),
        "in rounds": bench.chat(["a", "b"], max_turns=6),
    }
    for kind, chat in chats.items():
        bench.simulator.books.clear()
        mode: Any = "full" if kind == "planned" else "backbones"
        budget = Budget(cost_usd=0.02, latency_s=1000)
        team = bench.wrap(chat, mode=mode, budget=budget, policy=bench.policy())
        explained = team.explain(bench.task())
        assert bench.billed() == 0
        with pytest.raises(RuntimeError, match="no run has ended"):
            _ = team.report
        await team.run(task=bench.task())
        assert explained.plan == team.report.plan
        assert explained.budgets[2] == (budget, explained.plan)


async def test_explaining_leaves_what_steers_an_average_alone(bench: Bench) -> None:
    average = Budget.average(cost_usd=0.001, max_cost_usd=0.01)
    team, other = (bench.wrap(bench.chat(), budget=average, policy=bench.policy()) for _ in "ab")
    for number in range(3):
        explained = team.explain(bench.task(number))
        assert explained.plan.notes["price_usd"] > 0.0
        for each in (team, other):
            await each.run(task=bench.task(number))
        assert team.report.plan == other.report.plan
        assert team.report.budget == other.report.budget
    with pytest.raises(ValueError, match="Task list cannot be empty"):
        team.explain([])


def _hidden(bench: Bench, backbone: str) -> int:
    return bench.replay.catalog[backbone].hidden_tokens.get("gsm8k", 0)


async def test_pinned_agents_are_kept_and_their_backbones_fixed(bench: Bench) -> None:
    for number in range(4):
        bench.simulator.books.clear()
        team = bench.wrap(
            bench.chat(),
            pinned={"critic": LLAMA, "solver": None},
            budget=Budget(cost_usd=0.05, latency_s=1000),
        )
        await team.run(task=bench.task(number, "crux"))
        plan = team.report.plan
        assert plan is not None
        assert plan.assignment["critic"] == LLAMA
        assert plan.assignment["solver"] is not None
        called = {entry.agent: entry.backbone for entry in bench.simulator.books.entries}
        assert called["critic"] == LLAMA
        assert "solver" in called
    team = bench.wrap(bench.chat(), pinned=["critic"])
    await team.run(task=bench.task())
    assert team.report.plan is not None
    assert "critic" in team.report.plan.assignment


async def test_the_decider_can_be_chosen(bench: Bench) -> None:
    team = bench.wrap(bench.chat(), decider="critic", backbones=bench.catalog(LARGE))
    await team.run(task=bench.task())
    assert team.report.plan is not None
    assert team.report.plan.decider == "critic"
