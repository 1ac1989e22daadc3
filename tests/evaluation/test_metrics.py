from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbalance_plugin.evaluation.metrics import (
    Points,
    auc,
    bootstrap_auc,
    interval,
    performance,
    resamples,
    upper_hull,
)


def flat(*pairs: tuple[float, float], queries: int = 10) -> Points:
    """(spend, share of right answers) of each point, the same spend on every query."""
    right = np.array([[float(q < share * queries) for q in range(queries)] for _, share in pairs])
    return Points(right, np.array([[spend] * queries for spend, _ in pairs]))


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 1)), min_size=1, max_size=12))
@settings(deadline=None)
def test_no_point_and_no_mix_of_two_lies_above_the_hull(pairs: list[tuple[float, float]]) -> None:
    spend, right = np.array(pairs).T
    hull = upper_hull(spend, right)
    assert (np.diff(spend[hull]) > 0).all()
    assert (np.diff(right[hull]) > 0).all()
    assert right[hull[-1]] == right.max()
    assert spend[hull[0]] == spend.min()
    inside = spend >= spend[hull[0]]
    at = np.interp(spend[inside], spend[hull], right[hull])
    assert (right[inside] <= at + 1e-9).all()


def test_a_budget_between_two_points_is_met_by_mixing_them() -> None:
    points = flat((1.0, 0.2), (3.0, 0.8))
    found = performance(np.array([0, 1]), points, np.array([0.5, 1.0, 2.0, 3.0, 9.0]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == pytest.approx([0.2, 0.5, 0.8, 0.8])


def test_which_points_count_is_chosen_on_validation_alone() -> None:
    # The second point is good on the test queries, but validation says it is not worth its price.
    val = flat((1.0, 0.5), (2.0, 0.4), (4.0, 0.9))
    test = flat((1.0, 0.5), (2.0, 1.0), (4.0, 0.9))
    hull = upper_hull(val.spend.mean(axis=1), val.right.mean(axis=1))
    assert hull.tolist() == [0, 2]
    assert performance(hull, test, np.array([2.5]))[0] == pytest.approx(0.7)


def test_the_area_is_the_mean_over_the_logarithm_of_the_budget() -> None:
    level = flat((1.0, 0.6))
    assert auc(level, level, 1.0, 100.0) == pytest.approx(0.6)
    # Linear in the budget between the points: 0.2 + 0.6 (B - 1) / 99, averaged over log B.
    rising = flat((1.0, 0.2), (100.0, 0.8))
    exact = 0.2 + 0.6 / 99 * (99 / np.log(100) - 1)
    assert auc(rising, rising, 1.0, 100.0) == pytest.approx(exact, abs=1e-4)


def test_the_bootstrap_is_paired_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random((2, 400)) < [[0.5], [0.8]]).astype(np.float64)
    spend = np.repeat([[1.0], [3.0]], 400, axis=1)
    some, better = Points(right, spend), Points(np.maximum(right, right[[1, 1]]), spend)
    shares = resamples(400, 200)
    assert np.allclose(shares.sum(axis=1), 1.0)
    base, gain = (bootstrap_auc(each, each, 1.0, 3.0, shares) for each in (some, better))
    assert np.array_equal(base, bootstrap_auc(some, some, 1.0, 3.0, resamples(400, 200)))
    lower, upper = interval(gain - base)
    assert 0.0 < lower < upper
    alone = interval(gain - bootstrap_auc(some, some, 1.0, 3.0, resamples(400, 200, seed=1)))
    assert alone[1] - alone[0] > upper - lower


def test_a_bootstrap_sample_of_every_query_once_is_the_auc_itself() -> None:
    rng = np.random.default_rng(1)
    points = Points((rng.random((5, 60)) < 0.5).astype(np.float64), rng.uniform(1, 9, (5, 60)))
    found = bootstrap_auc(points, points, 1.0, 9.0, np.full((1, 60), 1 / 60))
    assert found[0] == pytest.approx(auc(points, points, 1.0, 9.0))


def test_points_of_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"right and spend must be \[P, N\] alike"):
        Points(np.zeros((2, 3)), np.zeros((3, 2)))
