"""Methods side by side: P@T, P@L and the area under performance against budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.reference import reference_budgets
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.metrics import (
    Points,
    auc,
    bootstrap_difference,
    performance,
    upper_hull,
)
from agentbalance_plugin.evaluation.trials import Axis, Method, SingleBackbones

FloatArray = NDArray[np.float64]

AXES: tuple[Axis, Axis] = ("cost", "latency")


@dataclass(frozen=True)
class Score:
    """One method on one axis.

    Args:
        budgets: T1-T3 in US dollars or L1-L3 in seconds.
        performance: right answers at those mean spends, in percent; NaN where nothing fits.
        auc: in percent, of the test split.
        difference: 95 % interval of the AUC less that of the single backbones, in points.
    """

    method: str
    axis: Axis
    budgets: tuple[float, ...]
    performance: tuple[float, ...]
    auc: float
    difference: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only: None for NaN."""
        shares = [None if np.isnan(share) else share for share in self.performance]
        return {
            "method": self.method,
            "axis": self.axis,
            "budgets": list(self.budgets),
            "performance": shares,
            "auc": self.auc,
            "difference_to_single_backbones_ci": list(self.difference),
        }


def evaluate(
    replay: Replay,
    methods: Sequence[Method],
    *,
    split: str = "test",
    samples: int = 1000,
    progress: Callable[[str, Axis, str], Callable[[], None]] | None = None,
) -> list[Score]:
    """Score methods on a split; which operating points count is chosen on `val`.

    Every method may also use the single backbone that is cheapest on the axis.

    Args:
        replay: of traces with train and val splits and a reference backbone.
        samples: of the paired bootstrap.
        progress: (method, axis, split) -> what to call after each query.

    Raises:
        TraceError: a split is absent.
    """
    budgets = reference_budgets(replay.traces)
    scores: list[Score] = []
    for axis in AXES:
        limits = budgets.cost_usd if axis == "cost" else budgets.latency_s

        def points(method: Method, part: str, axis: Axis = axis) -> Points:
            tick = progress(method.name, axis, part) if progress else lambda: None
            return method.trial(replay, part, axis, tick).points(axis)

        singles = {part: points(SingleBackbones(), part) for part in ("val", split)}
        cheapest = np.array([int(singles["val"].spend.mean(axis=1).argmin())])
        low = float(singles[split].spend[cheapest].mean())
        base = (singles["val"], singles[split])
        for method in methods:
            val, test = (
                points(method, part).also(
                    Points(singles[part].right[cheapest], singles[part].spend[cheapest])
                )
                for part in ("val", split)
            )
            hull = upper_hull(val.spend.mean(axis=1), val.right.mean(axis=1))
            shares = 100.0 * performance(hull, test, np.array(limits))
            lower, upper = bootstrap_difference(
                ((val, test), base), low, limits[-1], samples=samples
            )
            scores.append(
                Score(
                    method=method.name,
                    axis=axis,
                    budgets=limits,
                    performance=tuple(shares.tolist()),
                    auc=100.0 * auc(val, test, low, limits[-1]),
                    difference=(100.0 * lower, 100.0 * upper),
                )
            )
    return scores
