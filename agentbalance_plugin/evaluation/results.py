"""Results of a study, as they are written to results.json (schema in docs/evaluation.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentbalance_plugin.evaluation.trials import Axis, Family

SCHEMA = 1

Pair = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Performance against budget, for figures: percent right with a 95 % band."""

    budget: tuple[float, ...]
    right: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]


@dataclass(frozen=True)
class AxisResult:
    """One method by cost or by latency; percent, means over the seeds.

    Args:
        performance: at each budget; NaN where nothing fits.
        performance_sd: over the seeds.
        performance_ci: 95 % over queries.
        auc: of the split; `auc_sd` over seeds, `auc_ci` over queries.
        auc_val: of the val queries, that "best" goes by.
        points: (US dollars, seconds, percent right) of the points that may be mixed.
        curve: for figures.
        diff_to_best_baseline_ci: of the AUC less that of the baseline best on val.
    """

    performance: tuple[float, ...]
    performance_sd: tuple[float, ...]
    performance_ci: tuple[Pair, ...]
    auc: float
    auc_sd: float
    auc_val: float
    auc_ci: Pair
    points: tuple[tuple[float, float, float], ...]
    curve: Curve
    diff_to_best_baseline_ci: Pair | None = None


@dataclass(frozen=True)
class MethodResult:
    """One method on both axes."""

    name: str
    family: Family
    seeds: int
    grid: Mapping[str, Any]
    axes: Mapping[Axis, AxisResult]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only: None for NaN."""
        cost, latency = self.axes["cost"], self.axes["latency"]
        return {
            "name": self.name,
            "family": self.family,
            "seeds": self.seeds,
            "grid": dict(self.grid),
            "p_at_t": _plain(cost.performance),
            "p_at_t_sd": _plain(cost.performance_sd),
            "p_at_t_ci": [_plain(pair) for pair in cost.performance_ci],
            "p_at_l": _plain(latency.performance),
            "p_at_l_sd": _plain(latency.performance_sd),
            "p_at_l_ci": [_plain(pair) for pair in latency.performance_ci],
            "auc_cost": cost.auc,
            "auc_cost_sd": cost.auc_sd,
            "auc_cost_val": cost.auc_val,
            "auc_cost_ci": list(cost.auc_ci),
            "auc_latency": latency.auc,
            "auc_latency_sd": latency.auc_sd,
            "auc_latency_val": latency.auc_val,
            "auc_latency_ci": list(latency.auc_ci),
            "diff_to_best_baseline_ci": {
                axis: None if found.diff_to_best_baseline_ci is None
                else list(found.diff_to_best_baseline_ci)
                for axis, found in self.axes.items()
            },
            "points": [list(point) for point in cost.points],
            "points_latency": [list(point) for point in latency.points],
        }  # fmt: skip


@dataclass(frozen=True)
class SuiteResult:
    """All methods on a suite's split.

    Args:
        queries: that were scored.
        budgets: T1-T3 in US dollars, L1-L3 in seconds, per query.
        best_baseline: name per axis, by val; None without baselines.
        assumptions: what is replayed and what is nominal, in words.
    """

    suite: str
    split: str
    queries: int
    budgets: Mapping[Axis, tuple[float, ...]]
    best_baseline: Mapping[Axis, str | None]
    methods: tuple[MethodResult, ...]
    assumptions: tuple[str, ...]

    def method(self, name: str) -> MethodResult:
        """The method of that name (KeyError if there is none)."""
        for method in self.methods:
            if method.name == name:
                return method
        raise KeyError(f"no method {name!r}; there are {[m.name for m in self.methods]}")

    def to_dict(self) -> dict[str, Any]:
        """The content of results.json."""
        return {
            "schema": SCHEMA,
            "suite": self.suite,
            "split": self.split,
            "queries": self.queries,
            "budgets": {axis: list(values) for axis, values in self.budgets.items()},
            "best_baseline": dict(self.best_baseline),
            "methods": [method.to_dict() for method in self.methods],
            "assumptions": list(self.assumptions),
        }


def _plain(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]
