from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_policy import anchor_outlooks, limits, predicted

from agentbalance_plugin.core.limits import USEFUL_TOKENS, Limits
from agentbalance_plugin.core.pacing_price import solve_price
from agentbalance_plugin.core.search import (
    FAMILY_HOPS,
    Choice,
    Objective,
    appraise,
    best_choices,
    candidates,
    extended,
    slots_for,
)
from agentbalance_plugin.core.teamwork import Members, Predicted, value

Masks = list[np.ndarray]


def objective(count: int, price_usd: float = 0.0, hop_price: float = 0.0) -> Objective:
    return Objective(price_usd, 0.0, hop_price, np.zeros(count))


def random_figures(seed: int, count: int) -> Predicted:
    rng = np.random.default_rng(seed)
    odds = rng.normal(1.0, 1.0, size=count)
    return predicted(odds, np.exp(odds - 7), rng.random(count) + 0.5, shared=0.8)


def chosen(
    figures: Predicted,
    roster: Sequence[int],
    seats: Masks,
    least: int,
    most: int,
    caps: Limits,
    aim: Objective,
) -> Choice | None:
    shortlist = candidates(roster, seats, least, most)
    return best_choices(figures, shortlist, seats, caps, [aim], roster)[0]


def masks_of(bits: list[int], count: int) -> Masks:
    return [np.array([bool(bit >> b & 1) for b in range(count)]) for bit in bits]


def same_thing(family: str, row: tuple[int, ...]) -> tuple[object, ...]:
    """What makes candidates of a family alike where any agent may take any backbone."""
    together = {"single": 1, "pair": 2, "triple": 3, "pair_then_one": 2, "pair_then_two": 2}[family]
    return (family, frozenset(row[:together]), *row[together:])


@given(
    st.lists(st.integers(0, 31), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sets(st.integers(0, 4), min_size=1),
)
@settings(max_examples=80, deadline=None)
def test_candidates_are_all_that_masks_least_and_most_allow(
    bits: list[int], least: int, roster_set: set[int]
) -> None:
    allowed, roster, most = masks_of(bits, 5), sorted(roster_set), len(bits)
    least = min(least, most)
    found = candidates(roster, allowed, least, most)
    sizes = {"single": 1, "pair": 2, "triple": 3, "pair_then_one": 3}
    seen: set[tuple[object, ...]] = set()
    for group in found:
        rows = [tuple(row) for row in group.columns.tolist()]
        assert len(set(rows)) == len(rows)
        for row in rows:
            assert least <= len(row) == sizes[group.family] <= most
            assert len(set(row)) == len(row)
            assert set(row) <= roster_set
            slots = slots_for(len(row), most)
            assert all(allowed[slot][b] for slot, b in zip(slots, row, strict=True))
            seen.add(same_thing(group.family, row))
    wanted = {"single": least == 1, "pair": least == 2}
    for family, size in sizes.items():
        if wanted.get(family, most >= 3):
            for row in permutations(roster, size):
                slots = slots_for(size, most)
                if all(allowed[slot][b] for slot, b in zip(slots, row, strict=True)):
                    assert same_thing(family, row) in seen


def test_cascades_of_four_begin_as_given_and_respect_the_masks() -> None:
    allowed = masks_of([31, 31, 31, 31, 0b10110], 5)
    longer = extended(np.array([[0, 1, 2], [3, 1, 4]]), [0, 1, 2, 3, 4], allowed)
    assert longer is not None
    assert longer.family == "pair_then_two"
    assert {tuple(row) for row in longer.columns.tolist()} == {
        (0, 1, 2, 4),
        (3, 1, 4, 2),
    }
    assert extended(np.array([[0, 1, 2]]), [0, 1, 2], allowed) is None


@pytest.mark.parametrize("most", [1, 2, 3, 4])
@given(
    seed=st.integers(0, 10_000),
    price=st.sampled_from([0.0, 5.0, 100.0]),
    hop_price=st.sampled_from([0.0, 0.02]),
    cap=st.sampled_from([np.inf, 2e-3, 6e-4]),
    latency=st.sampled_from([np.inf, 1.5]),
)
@settings(max_examples=15, deadline=None)
def test_the_choice_is_the_best_by_brute_force(
    most: int, seed: int, price: float, hop_price: float, cap: float, latency: float
) -> None:
    count = 4
    figures = random_figures(seed, count)
    caps, aim = limits(count, cost_usd=cap, latency_s=latency), objective(count, price, hop_price)
    sizes = {"single": 1, "triple": 3, "pair_then_one": 3, "pair_then_two": 4}
    best = -np.inf
    for family, size in sizes.items():
        for row in permutations(range(count), size) if size <= most else ():
            one = Members(family, np.array([row]))
            uncut = caps.uncut(one)
            if uncut.min() > 0:
                made = value(figures, one, uncut)
                total = made.success[0] * caps.in_time(made.latency_s[0])
                total = total - price * made.cost_usd[0] - hop_price * FAMILY_HOPS[family]
                best = max(best, float(total[0]))
    choice = chosen(figures, range(count), masks_of([15] * most, count), 1, most, caps, aim)
    assert (choice is None) == (best == -np.inf)
    if choice is not None:
        assert choice.worth == pytest.approx(best, abs=1e-9)
        assert all(choice.worth >= other - 1e-9 for _, _, other in choice.runners_up)
        again = appraise(figures, Members(choice.family, np.array([choice.columns])), caps)
        assert again.worth(aim)[0] == pytest.approx(choice.worth)
        assert again.value.cost_usd[0, 0] == pytest.approx(choice.cost_usd)


def test_of_equally_good_candidates_the_cheaper_is_chosen() -> None:
    figures = predicted([1.0, 1.0, 1.0], [3e-3, 1e-3, 2e-3])
    choice = chosen(figures, range(3), masks_of([7], 3), 1, 1, limits(3), objective(3))
    assert choice is not None
    assert choice.columns == (1,)


def test_no_candidate_is_no_choice() -> None:
    figures = predicted([1.0, 1.0])
    nothing = chosen(figures, range(2), masks_of([0], 2), 1, 1, limits(2), objective(2))
    assert nothing is None


FAMILY_ROWS = [("single", (0,)), ("triple", (0, 1, 2)), ("pair_then_two", (0, 1, 2, 3))]


@pytest.mark.parametrize(("family", "row"), FAMILY_ROWS)
def test_infinite_limits_are_no_limits(family: Any, row: tuple[int, ...]) -> None:
    one = Members(family, np.array([row]))
    np.testing.assert_allclose(limits(4).uncut(one), 1.0, atol=1e-6)
    assert limits(4).in_time(np.array([0.1, 1e6])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("family", "row"), FAMILY_ROWS)
@pytest.mark.parametrize("field", ["cost_usd", "tokens"])
def test_a_smaller_hard_cap_discounts_and_then_excludes(
    field: str, family: Any, row: tuple[int, ...]
) -> None:
    one, unit = Members(family, np.array([row])), 1e-6 if field == "cost_usd" else 1.0
    four = limits(4, caps=np.full(4, 400.0))
    chances = [
        four_limited.uncut(one).min()
        for tokens in (1e9, 3000, 1600, 1000, 600, 300, 200 + USEFUL_TOKENS - 1, 50)
        for four_limited in [replace(four, **{field: tokens * unit})]
    ]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.95
    assert chances[-1] == chances[-2] == 0.0
    assert any(0.0 < chance < chances[0] for chance in chances)
    tight = replace(four, **{field: 50 * unit})
    figures = predicted([1.0] * 4)
    assert appraise(figures, one, tight).success.tolist() == [-np.inf]
    assert chosen(figures, range(4), masks_of([15] * 4, 4), 1, 4, tight, objective(4)) is None


def test_an_earlier_deadline_lowers_the_chance_to_be_in_time() -> None:
    seconds = np.array([0.5, 1.0, 2.0, 4.0])
    chances = [limits(1, latency_s=cap).in_time(seconds) for cap in (8.0, 4.0, 2.0, 1.0, 0.1)]
    for earlier, later in zip(chances[1:], chances, strict=False):
        assert (earlier < later).all()
    assert (np.diff(chances[1]) < 0).all()
    assert chances[0][0] > 0.99
    assert chances[-1].max() < 0.01


def choices(
    size: int, *, price: float = 0.0, hops: float = 0.0, delta: float = 0.0
) -> list[Choice]:
    roster, outlooks = anchor_outlooks()
    count = len(roster.table.names)
    aim = Objective(price, 0.0, hops, delta * roster.pool.astype(np.float64))
    allowed = [np.ones(count, dtype=np.bool_)] * size
    found: list[Choice] = []
    for outlook in outlooks:
        choice = chosen(
            outlook.predicted, roster.columns.tolist(), allowed, 1, size, limits(count), aim
        )
        assert choice is not None
        found.append(choice)
    return found


@pytest.mark.parametrize("size", [3, 4])
def test_a_higher_price_never_picks_dearer_plans(size: int) -> None:
    costs = [[each.cost_usd for each in choices(size, price=p)] for p in (0, 3, 30, 300, 3e4)]
    means = [float(np.mean(cost)) for cost in costs]
    assert means == sorted(means, reverse=True)
    assert means[-1] < means[0] / 4


@pytest.mark.parametrize("size", [3, 4])
def test_a_higher_hop_price_never_picks_more_hops(size: int) -> None:
    hops = [
        [FAMILY_HOPS[each.family] for each in choices(size, hops=price)]
        for price in (0.0, 0.003, 0.01, 0.05, 1.0)
    ]
    for fewer, more in zip(hops[1:], hops, strict=False):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))
    assert max(hops[0]) > 1
    assert max(hops[-1]) == 1


@pytest.mark.parametrize("size", [3, 4])
def test_a_higher_delta_never_picks_weaker_pools(size: int) -> None:
    pool = anchor_outlooks()[0].pool
    means = [
        [float(pool[list(each.columns)].mean()) for each in choices(size, delta=delta)]
        for delta in (-1.0, -0.03, 0.0, 0.03, 1.0)
    ]
    for weaker, stronger in pairwise(means):
        assert all(a <= b for a, b in zip(weaker, stronger, strict=True))
    assert max(means[0]) < min(means[-1])


@given(st.integers(0, 1000), st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None)
def test_the_solved_price_is_the_least_that_meets_the_mean(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    success, cost = rng.random((30, 12)), rng.random((30, 12)) * 1e-2

    def mean_cost(price: float) -> float:
        best = (success - price * cost).argmax(axis=1)
        return float(cost[np.arange(30), best].mean())

    target = share * mean_cost(0.0) + (1 - share) * float(cost.min(axis=1).mean())
    price = solve_price(list(success), list(cost), target)
    assert mean_cost(price) <= target
    assert price == 0.0 or mean_cost(price * (1 - 1e-6)) > target
