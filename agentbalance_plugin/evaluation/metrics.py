"""Performance against budget: P@B, the area under that curve, and how sure differences are.

A method has operating points: for each setting of its knob, whether it was right on each query and
what that took. Which points count is chosen on validation queries; between two of them, and the
cheapest single backbone, a method may mix, as a pacer does live. The weight of a mix is solved so
that the mean spend on the test queries is the budget; labels are not used for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_GRID = 200


@dataclass(frozen=True)
class Points:
    """P operating points on N queries.

    Args:
        right: [P, N] 1.0 where the answer was right, 0.0 elsewhere.
        spend: [P, N] what it took: US dollars or seconds.
    """

    right: FloatArray
    spend: FloatArray

    def __post_init__(self) -> None:
        if self.right.shape != self.spend.shape or self.right.ndim != 2:
            raise ValueError(
                f"right and spend must be [P, N] alike, got {self.right.shape} and "
                f"{self.spend.shape}"
            )

    def also(self, other: Points) -> Points:
        """These points and others on the same queries."""
        return Points(
            np.concatenate([self.right, other.right]), np.concatenate([self.spend, other.spend])
        )

    def hull(self) -> IntArray:
        """Which of them may be mixed: `upper_hull` of the means."""
        return upper_hull(self.spend.mean(axis=1), self.right.mean(axis=1))


def upper_hull(spend: FloatArray, right: FloatArray) -> IntArray:
    """Points on the upper concave hull that rises, by spend.

    Args:
        spend, right: [P] means.

    Returns:
        positions, ascending in spend: from the cheapest point to the best one.
    """
    order = np.lexsort((-right, spend))
    hull: list[int] = []
    for point in order.tolist():
        if hull and right[point] <= right[hull[-1]]:
            continue
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            rise = (right[b] - right[a]) * (spend[point] - spend[a])
            if rise > (right[point] - right[a]) * (spend[b] - spend[a]):
                break
            hull.pop()
        hull.append(point)
    return np.array(hull, dtype=np.int64)


def performance(hull: IntArray, test: Points, budgets: FloatArray) -> FloatArray:
    """[len(budgets)] share of right test answers at these mean spends; NaN where none fits.

    Args:
        hull: positions of the points that may be mixed, from `upper_hull` of validation means.
        test: the points on the test queries.
    """
    return _between(test.spend[hull].mean(axis=1), test.right[hull].mean(axis=1), budgets)


def _between(spend: FloatArray, right: FloatArray, budgets: FloatArray) -> FloatArray:
    """As `performance`, of means."""
    # On other queries the order of two close points may turn: the dearer must not come first.
    keep = np.concatenate([[True], spend[1:] > np.maximum.accumulate(spend)[:-1]])
    found = np.asarray(np.interp(budgets, spend[keep], right[keep]), dtype=np.float64)
    found[budgets < spend[0] * (1.0 - 1e-9)] = np.nan
    return found


def auc(val: Points, test: Points, low: float, high: float) -> float:
    """Mean performance over the logarithm of the budget from `low` to `high`, in [0, 1].

    Args:
        val, test: the same points on both, the cheapest single backbone among them.
        low: the cheapest single backbone's mean spend on the test queries.
    """
    hull = val.hull()
    return float(
        _areas(test.spend[hull].mean(axis=1)[None], test.right[hull].mean(axis=1)[None], low, high)[
            0
        ]
    )


def _areas(spend: FloatArray, right: FloatArray, low: float, high: float) -> FloatArray:
    """[S] as `auc`, of [S, H] means of the points on the hull."""
    budgets = np.geomspace(low, high, _GRID)
    found = np.stack([_between(s, r, budgets) for s, r in zip(spend, right, strict=True)])
    # The cheapest point on the hull may spend a trifle more on the test queries than `low`.
    found = np.where(np.isnan(found), right[:, :1], found)
    # The trapezoid rule on a grid of equal steps.
    mean = found.mean(axis=1)
    return mean + (mean - (found[:, 0] + found[:, -1]) / 2) / (_GRID - 1)


def resamples(count: int, samples: int = 1000, seed: int = 0) -> FloatArray:
    """[samples, count] share of each query in each bootstrap sample.

    The same for every method, so that differences of what they give are paired.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1.0 / count), size=samples) / count


def bootstrap_auc(
    val: Points, test: Points, low: float, high: float, shares: FloatArray
) -> FloatArray:
    """[S] AUC on each bootstrap sample of the test queries.

    Which points count is chosen on the validation queries, which are not drawn again.

    Args:
        shares: [S, N] from `resamples`.
    """
    hull = val.hull()
    return _areas(shares @ test.spend[hull].T, shares @ test.right[hull].T, low, high)


def bootstrap_performance(
    val: Points, test: Points, budgets: FloatArray, shares: FloatArray
) -> FloatArray:
    """[S, len(budgets)] `performance` on each bootstrap sample."""
    hull = val.hull()
    means = zip(shares @ test.spend[hull].T, shares @ test.right[hull].T, strict=True)
    return np.stack([_between(spend, right, budgets) for spend, right in means])


def interval(samples: FloatArray) -> tuple[float, float]:
    """95 % of bootstrap samples; NaN where there are none."""
    if np.isnan(samples).all():
        return float("nan"), float("nan")
    lower, upper = np.nanquantile(samples, [0.025, 0.975])
    return float(lower), float(upper)
