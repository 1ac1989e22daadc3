"""What one process learned of a team, another goes on from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentbalance_plugin import Budget
from agentbalance_plugin.plan import Expected, Plan
from agentbalance_plugin.runtime.call import CallRecord
from agentbalance_plugin.runtime.habits import Habits
from agentbalance_plugin.runtime.learned import learn, learned_of
from agentbalance_plugin.runtime.pacing import Pacer

PLAN = Plan({"a": "mini"}, decider="a", expected=Expected(0.5, 0.001, 1.0, 50.0, {"a": 100.0}))
MEAN = Budget.average(cost_usd=0.001, max_cost_usd=0.01)


def call(completion: int) -> CallRecord:
    return CallRecord("a", "mini", 200, completion, 0, True, False, False, 0.0, 1.0)


def note(habits: Habits) -> None:
    habits.note_answers([None, None, "4"])
    habits.note_pass(ended=False)
    calls = [call(900), call(100)]
    habits.note_calls(PLAN, calls, told=habits.work, denied={})


def through_json(habits: Habits, pacer: Pacer | None = None) -> Any:
    return json.loads(json.dumps(learned_of(habits, pacer)))


def test_habits_go_on_as_if_they_had_never_been_away() -> None:
    here, there = Habits(), Habits()
    for _ in range(3):
        note(here)
    learn(through_json(here), there, None)
    for _ in range(2):
        assert there.memory == here.memory
        assert (there.work, there.comparable) == (here.work, here.comparable)
        assert there.one_pass_does == here.one_pass_does
        note(here)
        note(there)
    assert there.work.calls > 1.5
    assert there.work.lengths["mini"] > 1.5


def test_the_price_goes_along_and_left_over_money_does_not() -> None:
    spent, fresh = Pacer(MEAN, price_usd=20.0), Pacer(MEAN, price_usd=20.0)
    for _ in range(50):
        # Half of the target: the price falls, and money is left over.
        spent.settle(spent.start(), 500_000)
    learn(through_json(Habits(), spent), Habits(), fresh)
    assert fresh.base_price_usd == spent.base_price_usd < 20.0
    cap = fresh.start().budget.cost_usd
    # The first of a hundred that pay the advance back.
    assert cap == pytest.approx(0.00199)
    assert spent.start().budget.cost_usd == pytest.approx(0.01)


def test_the_price_of_another_mean_is_left_out() -> None:
    other = Pacer(Budget.average(cost_usd=0.002, max_cost_usd=0.01), price_usd=7.0)
    learn(through_json(Habits(), Pacer(MEAN, price_usd=20.0)), Habits(), other)
    assert other.base_price_usd == 7.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"version": 2}, "version must be 1, got 2"),
        ({"calls": 0}, "calls must be a number above 0, got 0"),
        ({"extra_tokens": float("nan")}, "extra_tokens must be a number of at least 0, got nan"),
        ({"runs": True}, "runs must be a whole number of at least 0, got True"),
        ({"answers": [1]}, r"answers must be a list of true and false, got \[1\]"),
        ({"lengths": {"mini": 3}}, "lengths.mini must be a mapping, got 3"),
        (
            {"lengths": {"mini": {"runs": 1, "expected": 0.0, "measured": 1.0}}},
            "lengths.mini.expected must be a number above 0, got 0.0",
        ),
        ({"price": {"mean_cost_usd": 0.001}}, "price.price_usd must be a number above 0"),
    ],
)
def test_what_was_never_learned_is_refused_and_changes_nothing(
    wrong: dict[str, Any], said: str
) -> None:
    habits, pacer = Habits(), Pacer(MEAN, price_usd=20.0)
    note(habits)
    before = learned_of(habits, pacer)
    with pytest.raises(ValueError, match=f"learned: {said}"):
        learn({**learned_of(Habits(), pacer), **wrong}, habits, pacer)
    assert learned_of(habits, pacer) == before
    with pytest.raises(ValueError, match="must be a mapping, got None"):
        learn(None, habits, pacer)
