from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_policy import FloatArray, of_family, predicted, team_of

from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.core.dependence import fit_shared
from agentbalance_plugin.core.design import cascade_plan
from agentbalance_plugin.core.search import Choice
from agentbalance_plugin.core.teamwork import FAMILIES, Family, Predicted, value, vote_weights
from agentbalance_plugin.plan import Plan

SIZE: dict[Family, int] = {
    "single": 1,
    "pair": 2,
    "triple": 3,
    "pair_then_one": 3,
    "pair_then_two": 4,
    "race_three": 3,
    "race_four": 4,
}
IntArray = NDArray[np.int64]
RIGHT = "right"


def answers_with_chances(right: list[float], same: float) -> Iterator[tuple[list[str], float]]:
    """All that the agents may answer: right, wrong as one before, or wrong in a new way."""

    def extend(before: list[str], chance: float) -> Iterator[tuple[list[str], float]]:
        if len(before) == len(right):
            yield before, chance
            return
        p = right[len(before)]
        yield from extend([*before, RIGHT], chance * p)
        errors = sorted({answer for answer in before if answer != RIGHT})
        for error in errors:
            yield from extend([*before, error], chance * (1 - p) * same)
        fresh = f"wrong {len(before)}"
        yield from extend([*before, fresh], chance * (1 - p) * (1 - len(errors) * same))

    return extend([], 1.0)


def plan_for(family: Family, log_odds: FloatArray) -> Plan:
    size = SIZE[family]
    choice = Choice(family, tuple(range(size)), 0.0, 0.0, 0.0, 0.0)
    names = [f"backbone {number}" for number in range(size)]
    return cascade_plan(team_of(size), choice, names, log_odds, np.full(size, 99.0), {})


def run(plan: Plan, answers: list[str], latency: FloatArray) -> tuple[str, list[int], float]:
    """(answer, who ran, seconds) of a plan, by the rules of the scheduler."""
    said: dict[str, str] = {}
    ends: dict[str, float] = {}
    for agent in plan.order:
        number = int(agent[1:])
        gate = plan.late_gates.get(agent)
        starts = max((ends[name] for name in plan.waits_for(agent)), default=0.0)
        ends[agent] = starts
        if gate is not None:
            heard = [name for name in gate.watches if name in said]
            voices, weights = [said[name] for name in heard], [plan.weight(n) for n in heard]
            if leading_answer(voices, weights)[1] >= gate.threshold:
                continue
        said[agent] = answers[number]
        ends[agent] = starts + float(latency[number])
    ran = [int(name[1:]) for name in plan.assignment if name in said]
    if plan.stop_at is not None:
        for when in sorted(ends.values()):
            voices = [said[n] if ends[n] <= when else None for n in plan.assignment]
            weights = [plan.weight(name) for name in plan.assignment]
            if leading_answer(voices, weights)[1] >= plan.stop_at:
                said = {name: text for name, text in said.items() if ends[name] <= when}
                ends = {name: end for name, end in ends.items() if end <= when}
                break
    speakers = [name for name in plan.assignment if name in said]
    leader, _ = leading_answer([said[n] for n in speakers], [plan.weight(n) for n in speakers])
    assert leader is not None
    chosen = plan.decider if plan.decision == "agent" else speakers[leader]
    assert chosen is not None
    return said[chosen], ran, max(ends.values())


def enumerated(family: Family, found: Predicted) -> tuple[float, float, float]:
    """(success, cost, latency) by trying every combination of answers."""
    odds = found.log_odds[0]
    right = [float(1 / (1 + np.exp(-each))) for each in odds[: SIZE[family]]]
    plan = plan_for(family, odds)
    success = cost = seconds = total = 0.0
    for answers, chance in answers_with_chances(right, float(found.coincidence[0])):
        answer, ran, took = run(plan, answers, found.latency_s[0])
        success += chance * (answer == RIGHT)
        cost += chance * sum(float(found.cost_usd[0, number]) for number in ran)
        seconds += chance * took
        total += chance
    assert total == pytest.approx(1.0)
    return success, cost, seconds


def members(family: Family) -> tuple[IntArray, IntArray]:
    return of_family(family, np.arange(SIZE[family]))


@pytest.mark.parametrize("family", FAMILIES)
@given(
    odds=st.lists(st.floats(-1.5, 4.5), min_size=4, max_size=4, unique=True),
    coincidence=st.sampled_from([0.0, 0.1, 0.25, 0.33]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_value_is_the_mean_over_all_that_a_plan_may_do(
    family: Family, odds: list[float], coincidence: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    times = rng.random(4)
    if family.startswith("race"):
        times = np.sort(times)
    figures = predicted(odds, rng.random(4), times, coincidence=coincidence)
    # Times that do not spread: the later of two is the larger mean.
    with patch("agentbalance_plugin.core.teamwork._SPREAD", 0.0), np.errstate(over="ignore"):
        found = value(figures, *members(family))
    success, cost, latency = enumerated(family, figures)
    assert found.success[0, 0] == pytest.approx(success, abs=1e-9)
    assert found.cost_usd[0, 0] == pytest.approx(cost, abs=1e-9)
    # Agents that run at once take as long as the slowest; those after them only if they run.
    assert found.latency_s[0, 0] == pytest.approx(latency, abs=1e-9)


def gates_of_four(odds: list[float]) -> dict[tuple[str, str, str], bool]:
    """Whether the fourth runs, for each way in which the first three may answer."""
    plan = plan_for("pair_then_two", np.array(odds))
    ways = [("x", "y", "x"), ("x", "y", "y"), ("x", "y", "z"), ("x", "x", "")]
    return {way: 3 in run(plan, [*way, "w"], np.ones(4))[1] for way in ways}


EXPECTED_GATES = {
    ("x", "y", "x"): False,
    ("x", "y", "y"): False,
    ("x", "y", "z"): True,
    ("x", "x", ""): False,
}


@given(st.lists(st.floats(-1.5, 6.0), min_size=4, max_size=4))
@settings(deadline=None)
def test_a_fourth_is_asked_exactly_when_no_two_of_three_agree(odds: list[float]) -> None:
    assert gates_of_four(odds) == EXPECTED_GATES


def test_gates_hold_for_members_of_very_unlike_reliability() -> None:
    assert gates_of_four([-5.0, 5.0, -5.0, 0.0]) == EXPECTED_GATES


@given(st.lists(st.floats(-8, 8), min_size=3, max_size=3))
def test_two_that_agree_outweigh_a_third_and_the_surer_of_two_wins(odds: list[float]) -> None:
    weight = vote_weights(np.array(odds))
    assert weight.min() >= 1.0
    assert weight.max() <= 2.0
    assert weight[0] + weight[1] >= weight[2]
    assert (np.argsort(weight, kind="stable") == np.argsort(odds, kind="stable")).all() or len(
        np.unique(weight)
    ) < 3


def test_values_of_many_queries_and_candidates_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    every = Predicted(
        rng.normal(size=(4, 5)),
        rng.random((4, 5)),
        rng.random((4, 5)),
        rng.random(4),
        rng.random(4),
    )
    for family in FAMILIES:
        rows = np.array([rng.permutation(5)[: SIZE[family]] for _ in range(6)])
        kind, columns = of_family(family, rows)
        four = value(every, np.repeat(kind, 4, axis=0), np.repeat(columns, 4, axis=0))
        assert four.success.shape == (4, 6)
        for n in range(4):
            one = Predicted(
                *(
                    getattr(every, name)[n : n + 1]
                    for name in ("log_odds", "cost_usd", "latency_s", "shared", "coincidence")
                )
            )
            for row in range(6):
                alone = value(one, *of_family(family, rows[row]))
                assert alone.success[0, 0] == pytest.approx(four.success[n, row], abs=1e-12)
                assert alone.cost_usd[0, 0] == pytest.approx(four.cost_usd[n, row], abs=1e-12)
                assert alone.latency_s[0, 0] == pytest.approx(four.latency_s[n, row])


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_that_are_cut_off_lower_success(family: Family) -> None:
    figures = predicted([1.0, 1.2, 0.8, 1.1], shared=0.7)
    size = SIZE[family]
    whole = value(figures, *members(family)).success[0, 0]
    assert value(figures, *members(family), np.ones((1, 1, 4))).success[0, 0] == whole
    for number in range(size):
        uncut = np.ones((1, 1, 4))
        rates = []
        for chance in (1.0, 0.7, 0.3, 0.0):
            uncut[0, 0, number] = chance
            rates.append(float(value(figures, *members(family), uncut).success[0, 0]))
        assert rates == pytest.approx(sorted(rates, reverse=True), abs=1e-12)
        if family != "pair" or number == 1:
            assert rates[-1] < rates[0]
    nobody = value(figures, *members(family), np.zeros((1, 1, 4)))
    assert nobody.success[0, 0] == 0.0


@pytest.mark.parametrize("shared", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("odds", [0.5, 1.0, 2.5])
def test_shared_difficulty_keeps_the_mean_and_makes_votes_less_helpful(
    odds: float, shared: float
) -> None:
    alone = value(predicted([odds] * 3, shared=shared), *members("single")).success[0, 0]
    assert alone == pytest.approx(1 / (1 + np.exp(-odds)), abs=0.02)
    apart = value(predicted([odds] * 3), *members("triple")).success[0, 0]
    together = value(predicted([odds] * 3, shared=shared), *members("triple")).success[0, 0]
    assert alone - 0.01 < together < apart


def test_a_shared_difficulty_is_found_in_answers() -> None:
    rng = np.random.default_rng(3)
    log_odds = rng.normal(0.5, 1.0, size=(1500, 8))
    recorded = rng.random(log_odds.shape) < 0.9

    def fitted(deviation: float) -> float:
        widened = log_odds * np.sqrt(1 + np.pi / 8 * deviation**2)
        logits = widened + deviation * rng.normal(size=(1500, 1))
        correct = (rng.random(log_odds.shape) < 1 / (1 + np.exp(-logits))) & recorded
        return fit_shared(log_odds, correct, recorded)

    assert fitted(0.0) <= 0.3
    assert fitted(1.0) == pytest.approx(1.0, abs=0.25)
    assert fitted(2.0) == pytest.approx(2.0, abs=0.4)
