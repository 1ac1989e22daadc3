"""What earlier runs tell of a team's next one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from agentbalance_plugin.plan import Expected, LateGate, Plan
from agentbalance_plugin.runtime.call import CallRecord
from agentbalance_plugin.runtime.habits import UNKNOWN_WORK, Habits

PLAN = Plan({"a": "mini", "b": "mini"}, edges=(("a", "b"),), decider="b")
# Less is no surprise.
MARGIN = math.exp(0.35)
PREDICTED = {"a": 100.0, "b": 300.0}


def call(
    agent: str, prompt: int, completion: int, *, metered: bool = True, cut: bool = False
) -> CallRecord:
    return CallRecord(
        agent=agent,
        backbone="mini",
        prompt_tokens=prompt,
        completion_tokens=completion,
        nanodollars=0,
        metered=metered,
        overrun=False,
        cut=cut,
        started_s=0.0,
        ended_s=1.0,
    )


def after(
    runs: int,
    calls: Sequence[CallRecord],
    plan: Plan = PLAN,
    *,
    rounds: float = 1.0,
    complete: bool = True,
    denied: Mapping[str, float] | None = None,
) -> Habits:
    """Habits after equal runs, each planned with what was known before it."""
    habits = Habits()
    for _ in range(runs):
        told = habits.work
        times = told.lengths.get("mini", told.length)
        tokens = {name: times * value for name, value in PREDICTED.items()}
        habits.note_calls(
            replace(plan, expected=Expected(0.5, 0.001, 1.0, 50 + told.extra_tokens, tokens)),
            calls,
            told=told,
            denied=denied or {},
            rounds=rounds,
            complete=complete,
        )
    return habits


def test_answers_are_taken_to_be_comparable_until_several_messages_had_none() -> None:
    seen = Habits()
    assert seen.comparable
    seen.note_answers([None])
    assert seen.comparable
    seen.note_answers([None])
    assert not seen.comparable
    seen.note_answers(["4", None])
    assert seen.comparable
    seen.note_answers([None] * 7)
    assert not seen.comparable
    # An empty string is an answer.
    seen.note_answers([""])
    assert seen.comparable


def test_replies_get_as_long_as_they_were() -> None:
    calls = [call("a", 50, 300), call("b", 350, 900)]
    lengths = [after(runs, calls).work.lengths["mini"] for runs in (1, 3, 100)]
    # What was predicted counts as one run of several.
    assert lengths[0] == pytest.approx(2.0 / MARGIN)
    assert lengths == sorted(lengths)
    assert lengths[2] == pytest.approx(3.0 / MARGIN, rel=0.05)
    short = after(100, [call("a", 50, 50), call("b", 100, 150)])
    assert short.work.lengths["mini"] == pytest.approx(0.5 * MARGIN, rel=0.05)
    near = after(100, [call("a", 50, 130), call("b", 180, 390)])
    assert near.work.lengths["mini"] == near.work.length == 1.0


def test_of_one_backbone_only_half_is_taken_for_the_others() -> None:
    habits = after(100, [call("a", 50, 900), call("b", 950, 2700)])
    many = 9.0 / MARGIN
    assert habits.work.lengths["mini"] == pytest.approx(many, rel=0.05)
    assert habits.work.length == pytest.approx(many**0.5, rel=0.05)
    plan = Plan({"b": "large"}, expected=Expected(0.5, 0.001, 1.0, 50.0, PREDICTED))
    other = replace(call("b", 50, 300), backbone="large")
    told = replace(habits.work, lengths={"large": 1.0})
    for _ in range(100):
        habits.note_calls(plan, [other], told=told, denied={})
    assert habits.work.lengths == pytest.approx({"mini": many, "large": 1.0}, rel=0.05)
    assert habits.work.length == pytest.approx(many ** (1 / 3), rel=0.05)


def test_runs_at_once_do_not_add_up() -> None:
    habits = Habits()
    plan = replace(PLAN, expected=Expected(0.5, 0.001, 1.0, 50.0, PREDICTED))
    for _ in range(50):
        # All of them were planned before any had ended.
        habits.note_calls(plan, [call("b", 50, 900)], told=UNKNOWN_WORK, denied={})
    assert habits.work.lengths["mini"] == pytest.approx(3.0 / MARGIN, rel=0.05)


def test_a_reply_that_was_cut_off_would_have_been_longer() -> None:
    cut = after(50, [call("b", 50, 300, cut=True)])
    assert cut.work.lengths["mini"] == pytest.approx(2.0 / MARGIN, rel=0.05)


def test_replies_that_are_known_because_they_were_short_say_nothing() -> None:
    given_up = [call("a", 50, 10), call("b", 50, 4096, metered=False)]
    assert after(9, given_up).work.lengths == {}
    race = replace(PLAN, edges=(), decision="vote", stop_at=0.6)
    assert after(9, [call("a", 50, 10), call("b", 50, 20)], race).work.lengths == {}


def test_the_mean_length_is_met_where_lengths_vary() -> None:
    habits = Habits()
    plan = replace(PLAN, expected=Expected(0.5, 0.001, 1.0, 50.0, {"b": 100.0}))
    for number in range(400):
        completion = 60 if number % 2 else 540
        habits.note_calls(plan, [call("b", 50, completion)], told=UNKNOWN_WORK, denied={})
    assert habits.work.lengths["mini"] == pytest.approx(3.0 / MARGIN, rel=0.05)


def test_calls_of_a_turn_are_counted_and_their_texts_measured() -> None:
    tools = [call("a", 150, 20), call("a", 550, 20), call("a", 950, 100), call("b", 150, 300)]
    work = after(200, tools).work
    assert work.calls == pytest.approx((3 + 1) / 2, rel=0.02)
    assert work.replies == pytest.approx((1.4 + 1.0) / 2, rel=0.02)
    # Of a: 550 on average, 50 known. Of b: 150, 50 known, 100 heard from a.
    assert work.extra_tokens == pytest.approx((500 + 0) / 2, rel=0.02)
    assert work.most_extra_tokens == pytest.approx(900, rel=0.02)
    halved = after(200, tools, rounds=2.0).work
    assert halved.calls == pytest.approx(work.calls / 2, rel=0.02)
    assert halved.replies == pytest.approx(work.replies / 2, rel=0.02)


def test_a_call_that_had_no_room_counts_as_if_it_had_been_made() -> None:
    work = after(200, [call("a", 50, 100)], denied={"a": 1050.0}).work
    assert work.calls == pytest.approx((2 + 0) / 2, rel=0.02)
    assert work.replies == pytest.approx((1 + 0) / 2, rel=0.02)
    assert work.extra_tokens == pytest.approx(500, rel=0.02)
    assert work.most_extra_tokens == pytest.approx(1000, rel=0.02)
    # Nobody else's call is.
    only = after(1, [], denied={"b": 850.0, "someone": 9e9}).work
    assert (only.calls, only.replies, only.length) == (0.5, 1.0, 1.0)
    assert only.extra_tokens == only.most_extra_tokens == 800


def test_the_longest_prompt_is_remembered_for_a_while() -> None:
    habits = after(3, [call("b", 1050, 100)])
    seen = [habits.work.most_extra_tokens]
    plan = replace(PLAN, expected=Expected(0.5, 0.001, 1.0, 50.0, PREDICTED))
    for _ in range(20):
        habits.note_calls(plan, [call("b", 50, 100)], told=UNKNOWN_WORK, denied={})
        seen.append(habits.work.most_extra_tokens)
    assert seen[0] == pytest.approx(1000)
    assert seen == sorted(seen, reverse=True)
    assert seen[1] > 800
    assert seen[-1] < 100


def test_agents_that_are_seldom_asked_count_with_less_than_a_call() -> None:
    alone = [call("a", 50, 100)]
    assert after(200, alone).work.calls == pytest.approx(0.5, rel=0.02)
    # They may have been asked, had the run not ended before.
    assert after(200, alone, complete=False).work.calls == pytest.approx(1.0)
    gated = replace(PLAN, late_gates={"b": LateGate(("a",), 0.5)}, edges=())
    assert after(200, alone, gated).work.calls == pytest.approx(1.0)
    # A call that was not waited for was made.
    assert after(200, [*alone, call("b", 50, 4096, metered=False)]).work.calls == 1.0


def test_runs_that_say_nothing_change_nothing() -> None:
    assert after(3, []).work == UNKNOWN_WORK
    assert after(3, [call("a", 50, 4096, metered=False)]).work == UNKNOWN_WORK
    assert after(3, [call("someone", 50, 100)]).work == UNKNOWN_WORK
    # Nor does what another backbone than the planned one wrote, whose endpoint failed.
    stood_in = replace(call("b", 50, 900), backbone="standby")
    assert after(3, [stood_in]).work.lengths == {}
    habits = Habits()
    # A plan written by hand predicts nothing.
    habits.note_calls(PLAN, [call("a", 50, 900), call("b", 950, 9)], told=UNKNOWN_WORK, denied={})
    assert habits.work == UNKNOWN_WORK
