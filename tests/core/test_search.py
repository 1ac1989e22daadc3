from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_policy import anchor_outlooks, limits, of_family, predicted

from agentbalance_plugin.core.candidates import (
    families_for,
    slots_for,
    table,
    valid,
)
from agentbalance_plugin.core.limits import USEFUL_TOKENS, Limits, chance_of_end
from agentbalance_plugin.core.search import Choice, Objective, ranked
from agentbalance_plugin.core.stream_price import solve_price
from agentbalance_plugin.core.subteams import values
from agentbalance_plugin.core.teamwork import FAMILIES, SHAPES, Family, Predicted, value

Masks = list[np.ndarray]


def objective(
    count: int, price_usd: float = 0.0, hop_price: float = 0.0, delta: Any = 0.0
) -> Objective:
    zero = np.zeros(1)
    strength = np.broadcast_to(np.asarray(delta, dtype=np.float64), (1, count))
    return Objective(zero + price_usd, zero, zero + hop_price, zero, strength)


def random_figures(seed: int, count: int) -> Predicted:
    rng = np.random.default_rng(seed)
    odds = rng.normal(1.0, 1.0, size=count)
    return predicted(odds, np.exp(odds - 7), np.sort(rng.random(count) + 0.5), shared=0.8)


def chosen(
    figures: Predicted,
    roster: Sequence[int],
    seats: Masks,
    least: int,
    most: int,
    caps: Limits,
    aim: Objective,
) -> Choice | None:
    """The best over a roster, in columns of the figures."""
    local = np.array([list(roster)])
    masks = np.array([[mask[local[0]] for mask in seats]])
    candidates = table(len(roster), families_for(least, most, hasty=False), bool(masks.all()))
    assert candidates is not None
    found = ranked(
        figures.of(local),
        caps.of(local),
        replace(aim, strength=aim.strength[:, local[0]]),
        candidates,
        1,
        valid(candidates, masks),
    )
    if not np.isfinite(found.worth[0, 0]):
        return None
    columns = found.columns[0, 0]
    return Choice(
        FAMILIES[found.family[0, 0]],
        tuple(local[0, columns[columns >= 0]].tolist()),
        float(found.success[0, 0]),
        float(found.cost_usd[0, 0]),
        float(found.latency_s[0, 0]),
        float(found.worth[0, 0]),
    )


def masks_of(bits: list[int], count: int) -> Masks:
    return [np.array([bool(bit >> b & 1) for b in range(count)]) for bit in bits]


def same_thing(family: str, row: tuple[int, ...]) -> tuple[object, ...]:
    """What makes candidates of a family alike where any agent may take any backbone."""
    together = {"single": 1, "pair": 2, "triple": 3, "pair_then_one": 2, "race_four": 4}[family]
    return (family, frozenset(row[:together]), *row[together:])


TRIED: tuple[Family, ...] = ("single", "pair", "triple", "pair_then_one", "race_four")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("uniform", [False, True])
def test_candidates_are_all_there_are_and_none_comes_twice(size: int, uniform: bool) -> None:
    found = table(size, TRIED, uniform)
    assert found is not None
    for number, family in enumerate(FAMILIES):
        if family not in TRIED:
            continue
        columns = found.columns[found.family == number, : SHAPES[family].agents]
        rows = [tuple(row) for row in columns.tolist()]
        every = list(permutations(range(size), SHAPES[family].agents))
        if uniform:
            assert len({same_thing(family, row) for row in rows}) == len(rows)
            assert {same_thing(family, row) for row in every} == {
                same_thing(family, row) for row in rows
            }
        else:
            assert sorted(rows) == sorted(every)


@given(st.lists(st.integers(0, 31), min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_candidate_is_valid_where_every_agent_may_use_its_backbone(
    bits: list[int], size: int
) -> None:
    size = min(size, len(bits))
    seats = np.array([masks_of(bits, 5)])
    families = tuple(family for family in FAMILIES if SHAPES[family].agents == size)
    candidates = table(5, families, uniform=False)
    assert candidates is not None
    for row, fit in zip(
        candidates.columns.tolist(), valid(candidates, seats)[0].tolist(), strict=True
    ):
        slots = slots_for(size, len(bits))
        assert fit == all(seats[0, slot, b] for slot, b in zip(slots, row[:size], strict=True))


@pytest.mark.parametrize("uniform", [False, True])
def test_values_by_sub_teams_are_those_of_each_candidate(uniform: bool) -> None:
    rng = np.random.default_rng(4)
    figures = Predicted(
        rng.normal(1.0, 1.0, size=(3, 6)),
        rng.random((3, 6)),
        np.sort(rng.random((3, 6)) + 0.5, axis=1),
        np.array([0.0, 0.8, 1.5]),
        np.array([0.0, 0.2, 0.5]),
    )
    candidates = table(6, FAMILIES, uniform)
    assert candidates is not None
    found = values(figures, candidates)
    family = np.broadcast_to(candidates.family, found.success.shape)
    columns = np.broadcast_to(candidates.columns, (*found.success.shape, 4))
    each = value(figures, family, columns)
    # Who starts at once is taken from fast to slow, in whatever order they come.
    waits = [FAMILIES.index("pair_then_one"), FAMILIES.index("pair_then_two")]
    known = np.array(
        [
            number in waits or len(row) < 3 or row == sorted(row)
            for number, row in zip(
                candidates.family.tolist(),
                ([b for b in row if b >= 0] for row in candidates.columns.tolist()),
                strict=True,
            )
        ]
    )
    assert known.sum() > 200
    np.testing.assert_allclose(found.success[:, known], each.success[:, known], atol=1e-12)
    np.testing.assert_allclose(found.cost_usd, each.cost_usd, atol=1e-12)
    np.testing.assert_allclose(found.latency_s[:, known], each.latency_s[:, known], atol=1e-12)


def test_families_are_those_that_the_stages_leave_open() -> None:
    assert families_for(1, 4, hasty=False) == ("single", "triple", "pair_then_one", "pair_then_two")
    assert set(families_for(1, 4, hasty=True)) == {
        "single", "pair_then_one", "pair_then_two", "race_three", "race_four",
    }  # fmt: skip
    assert families_for(2, 2, hasty=False) == ("pair",)
    assert families_for(1, 8, hasty=False, sizes=[3], late=False) == ("triple",)
    assert families_for(1, 1, hasty=True) == ("single",)


def chances(caps: Limits, family: Family, row: tuple[int, ...]) -> np.ndarray | None:
    """[1, 1, 4] that the reply of each agent of a candidate is not cut off."""
    candidates = table(4, (family,), uniform=False)
    assert candidates is not None
    uncut = caps.uncut(candidates)
    if uncut is None:
        return None
    place = candidates.columns[:, : len(row)].tolist().index(list(row))
    return uncut[:, candidates.calls.T[[place]]]


def worth_of(
    figures: Predicted, caps: Limits, aim: Objective, family: Family, row: tuple[int, ...]
) -> float:
    """What one candidate is worth; minus infinity where an agent has no room."""
    uncut = chances(caps, family, row)
    if uncut is not None and uncut.min() <= 0:
        return -np.inf
    kind, columns = of_family(family, row)
    made = value(figures, kind, columns, uncut)
    return float(aim.worth(made, made.success * caps.in_time(made.latency_s), kind, columns)[0, 0])


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
    tried: tuple[Family, ...] = ("single", "triple", "pair_then_one", "pair_then_two")
    best = -np.inf
    for family in tried:
        size = SHAPES[family].agents
        # Who starts at once is taken from fast to slow.
        rows = combinations if family == "triple" else permutations
        for row in rows(range(count), size) if size <= most else ():
            best = max(best, worth_of(figures, caps, aim, family, row))
    choice = chosen(figures, range(count), masks_of([15] * most, count), 1, most, caps, aim)
    assert (choice is None) == (best == -np.inf)
    if choice is not None:
        assert choice.worth == pytest.approx(best, abs=1e-9)
        again = worth_of(figures, caps, aim, choice.family, choice.columns)
        assert again == pytest.approx(choice.worth)


def test_of_equally_good_candidates_the_cheaper_is_chosen() -> None:
    figures = predicted([1.0, 1.0, 1.0], [3e-3, 1e-3, 2e-3])
    choice = chosen(figures, range(3), masks_of([7], 3), 1, 1, limits(3), objective(3))
    assert choice is not None
    assert choice.columns == (1,)


def test_no_candidate_is_no_choice() -> None:
    figures = predicted([1.0, 1.0])
    nothing = chosen(figures, range(2), masks_of([0], 2), 1, 1, limits(2), objective(2))
    assert nothing is None


def test_hidden_tokens_that_vary_may_not_fit_where_their_mean_does() -> None:
    sigma, hidden, spread = 0.4, 900.0, 0.7
    log_tokens = np.full(1, np.log(60.0))
    mean = hidden + 60.0 * np.exp(sigma**2 / 2)
    drawn = np.random.default_rng(0).normal(np.log(mean) - spread**2 / 2, spread, size=100_000)
    for room in (200.0, 700.0, 1200.0, 2500.0, 6000.0):
        rooms, hiddens = np.full(1, room), np.full(1, hidden)
        known = chance_of_end(rooms, log_tokens, np.float64(sigma), hiddens, np.full(1, spread))
        assert known[0] == pytest.approx((drawn < np.log(room)).mean(), abs=0.015)
        # Taken to be always as many, they fit or they do not.
        steady = chance_of_end(rooms, log_tokens, np.float64(sigma), hiddens, np.zeros(1))
        assert steady[0] < 0.01 if room < hidden else steady[0] > 0.99


@given(
    caps=st.lists(st.integers(16, 500), min_size=1, max_size=4),
    money=st.floats(1e-6, 1e-1),
    tokens=st.sampled_from([np.inf, 900.0, 3000.0]),
)
def test_calls_are_given_what_the_budget_has_room_for(
    caps: list[int], money: float, tokens: float
) -> None:
    count = len(caps)
    prices = np.geomspace(1e-7, 1e-5, count)
    budget = limits(
        count, cost_usd=money, tokens=tokens, caps=np.array(caps, dtype=float), price_out=prices
    )
    longest = np.full(count, 4096.0)
    given_ = budget.given(0, range(count), longest)
    assert (given_ >= caps).all()
    assert (given_ <= longest).all()
    if (given_ > caps).any():
        assert (200 * 1e-6 + given_ * prices).sum() <= money * (1 + 1e-9)
        assert (200 + given_).sum() <= tokens
        # Not much longer ones would be too much, or no reply is longer.
        more = np.minimum(longest, 1.2 * given_ + 2)
        usd, out = (200 * 1e-6 + more * prices).sum(), (200 + more).sum()
        assert usd > 0.9 * money or out > 0.9 * tokens or (more == longest).any()


def test_caps_leave_room_for_hidden_tokens_that_vary() -> None:
    figures = predicted([1.0])
    tight = limits(1, cost_usd=1.7e-3, hidden_tokens=np.full(1, 1000.0))
    alone: dict[float, float] = {}
    for spread in (0.0, 0.7):
        caps = replace(tight, output_spread=np.full((1, 1), spread))
        choice = chosen(figures, range(1), masks_of([1], 1), 1, 1, caps, objective(1))
        assert choice is not None
        alone[spread] = choice.success
    assert alone[0.7] < 0.9 * alone[0.0]


FAMILY_ROWS = [("single", (0,)), ("triple", (0, 1, 2)), ("pair_then_two", (0, 1, 2, 3))]


@pytest.mark.parametrize(("family", "row"), FAMILY_ROWS)
def test_infinite_limits_are_no_limits(family: Any, row: tuple[int, ...]) -> None:
    assert chances(limits(4), family, row) is None
    assert limits(4).in_time(np.array([[0.1, 1e6]])).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(("family", "row"), FAMILY_ROWS)
@pytest.mark.parametrize("field", ["cost_usd", "tokens"])
def test_a_smaller_hard_cap_discounts_and_then_excludes(
    field: str, family: Any, row: tuple[int, ...]
) -> None:
    unit = 1e-6 if field == "cost_usd" else 1.0
    four = limits(4, caps=np.full(4, 400.0))
    found: list[float] = []
    for tokens in (1e9, 3000, 1600, 1000, 600, 300, 200 + USEFUL_TOKENS - 1, 50):
        uncut = chances(replace(four, **{field: np.array([tokens * unit])}), family, row)
        assert uncut is not None
        found.append(float(uncut.min()))
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.95
    assert found[-1] == found[-2] == 0.0
    assert any(0.0 < chance < found[0] for chance in found)
    tight = replace(four, **{field: np.array([50 * unit])})
    figures = predicted([1.0] * 4)
    assert worth_of(figures, tight, objective(4), family, row) == -np.inf
    assert chosen(figures, range(4), masks_of([15] * 4, 4), 1, 4, tight, objective(4)) is None


def test_an_earlier_deadline_lowers_the_chance_to_be_in_time() -> None:
    seconds = np.array([[0.5, 1.0, 2.0, 4.0]])
    in_time = [limits(1, latency_s=cap).in_time(seconds)[0] for cap in (8.0, 4.0, 2.0, 1.0, 0.1)]
    for earlier, later in zip(in_time[1:], in_time, strict=False):
        assert (earlier < later).all()
    assert (np.diff(in_time[1]) < 0).all()
    assert in_time[0][0] > 0.99
    assert in_time[-1].max() < 0.01


def choices(
    size: int, *, price: float = 0.0, hops: float = 0.0, delta: float = 0.0
) -> list[Choice]:
    roster, outlooks = anchor_outlooks()
    count = len(roster.table.names)
    aim = objective(count, price, hops, delta * roster.pool)
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
        [SHAPES[each.family].hops for each in choices(size, hops=price)]
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
    price = solve_price(mean_cost, target)
    assert mean_cost(price) <= target
    assert price <= 0.011 or mean_cost(price * 0.99) > target
