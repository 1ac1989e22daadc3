"""Methods side by side on one suite: fit on train and val, scored on a split, over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.outcomes import CopyMode
from agentbalance_plugin.core.reference import reference_budgets
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceError, TraceSet
from agentbalance_plugin.core.training_data import check_recorded
from agentbalance_plugin.evaluation.kept_trials import KeptTrials
from agentbalance_plugin.evaluation.metrics import (
    Points,
    auc,
    bootstrap_auc,
    bootstrap_performance,
    interval,
    performance,
    resamples,
)
from agentbalance_plugin.evaluation.results import AxisResult, Curve, MethodResult, SuiteResult
from agentbalance_plugin.evaluation.trials import (
    AXES,
    STEPS,
    Axis,
    Family,
    Known,
    Method,
    Trial,
    singles,
)

FloatArray = NDArray[np.float64]

NO_BASELINES: frozenset[Family] = frozenset({"agentbalance", "ablation", "oracle"})
"""Families that do not count when the best baseline is sought."""

_CURVE = 25


@dataclass(frozen=True)
class Budgets:
    """Mean spends to score at, ascending: US dollars (T1-T3) and seconds (L1-L3)."""

    cost_usd: tuple[float, ...]
    latency_s: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("cost_usd", "latency_s"):
            values: tuple[float, ...] = getattr(self, name)
            finite = all(math.isfinite(value) for value in values)
            if not (values and finite and values[0] > 0 and list(values) == sorted(set(values))):
                raise ValueError(
                    f"budgets: {name} must be finite, positive and ascending, got {values}"
                )

    def of(self, axis: Axis) -> tuple[float, ...]:
        return self.cost_usd if axis == "cost" else self.latency_s


@dataclass(frozen=True)
class Study:
    """One comparison.

    Args:
        suite: its name in the results.
        traces: whose split is scored.
        fit_on: whose train and val queries methods learn from; usually the same traces.
        split: to score.
        budgets: None: those of the suite's reference backbone.
        seeds: that many, from 0.
        copies: as in `Replay`.
        samples: of the paired bootstrap.
        steps: prices that methods are asked at; fewer are faster and coarser.
    """

    suite: str
    traces: TraceSet
    fit_on: TraceSet
    split: str = "test"
    budgets: Budgets | None = None
    seeds: int = 3
    copies: CopyMode = "resampled"
    samples: int = 1000
    steps: int = STEPS

    def run(
        self,
        methods: Sequence[Method],
        kept: KeptTrials,
        progress: Callable[[str], None] = lambda _: None,
    ) -> SuiteResult:
        """Score the methods.

        Args:
            kept: trials of earlier runs on the same inputs, and where new ones go.
            progress: is told the method's name after each trial (`trials` of them).

        Raises:
            TraceError: a split is absent, or fewer than two candidates are known to both traces.
            ValueError: no budgets are given and the suite has no reference backbone.
        """
        traces, fit_on = aligned(self.traces, self.fit_on)
        rows = np.concatenate([fit_on.positions(split) for split in ("train", "val")])
        learned = fit_on.take(np.sort(rows))
        budgets = self.budgets or suite_budgets(traces, fit_on)
        shares = resamples(len(traces.positions(self.split)), self.samples)
        scored: dict[str, dict[Axis, _Scored]] = {method.name: {} for method in methods}
        for axis in AXES:
            seeds = [
                _Seed(
                    known=Known(
                        self._replay(learned, seed), axis, budgets.of(axis)[-1], seed, self.steps
                    ),
                    replay=self._replay(traces, seed),
                )
                for seed in range(self.seeds)
            ]
            for method in methods:
                pairs: list[tuple[Points, Points]] = []
                lows: list[float] = []
                trials: list[Trial] = []
                for each in seeds:
                    val, test = kept.trials(method, each.known, each.replay, self.split)
                    points, low = each.mixable(val, test, self.split)
                    pairs.append(points)
                    lows.append(low)
                    trials.append(test)
                    progress(method.name)
                scored[method.name][axis] = _score(
                    pairs, lows, trials, np.array(budgets.of(axis)), shares
                )
        return SuiteResult(
            suite=self.suite,
            split=self.split,
            queries=shares.shape[1],
            budgets={axis: budgets.of(axis) for axis in AXES},
            best_baseline={axis: _best(methods, scored, axis) for axis in AXES},
            methods=_results(methods, scored, self.seeds),
            assumptions=(),
        )

    def trials(self, methods: Sequence[Method]) -> int:
        """How often `progress` is called."""
        return len(methods) * len(AXES) * self.seeds

    def _replay(self, traces: TraceSet, seed: int) -> Replay:
        return Replay(traces, seed=seed, copies=self.copies)


@dataclass
class _Seed:
    known: Known
    replay: Replay
    _singles: Points | None = None

    def mixable(self, val: Trial, test: Trial, split: str) -> tuple[tuple[Points, Points], float]:
        """The trials with the cheapest single backbone, and what that spends on the split."""
        axis = self.known.axis
        if self._singles is None:
            positions = self.replay.traces.positions(split)
            self._singles = singles(self.replay, positions).points(axis)
        cheapest = [int(self.known.singles_val.spend(axis).mean(axis=1).argmin())]
        one = Points(self._singles.right[cheapest], self._singles.spend[cheapest])
        pair = (self.known.mixable(val), test.points(axis).also(one))
        return pair, float(one.spend.mean())


@dataclass(frozen=True)
class _Scored:
    """One method on one axis; S bootstrap samples."""

    result: AxisResult
    val_auc: float
    samples: FloatArray


def _score(
    pairs: Sequence[tuple[Points, Points]],
    lows: Sequence[float],
    trials: Sequence[Trial],
    limits: FloatArray,
    shares: FloatArray,
) -> _Scored:
    high = float(limits[-1])
    seeds = list(zip(pairs, lows, strict=True))
    areas = np.array([auc(val, test, low, high) for (val, test), low in seeds])
    at = np.stack([performance(val.hull(), test, limits) for val, test in pairs])
    budgets = np.geomspace(max(lows), high, _CURVE)
    curve = np.stack([performance(val.hull(), test, budgets) for val, test in pairs])
    resampled = [bootstrap_performance(val, test, budgets, shares) for val, test in pairs]
    drawn = np.stack(
        [bootstrap_auc(val, test, low, high, shares) for (val, test), low in seeds]
    ).mean(axis=0)
    band = [interval(column) for column in np.mean(resampled, axis=0).T]
    at_limits = np.mean([bootstrap_performance(v, t, limits, shares) for v, t in pairs], axis=0)
    result = AxisResult(
        performance=tuple((100.0 * at.mean(axis=0)).tolist()),
        performance_sd=tuple((100.0 * at.std(axis=0)).tolist()),
        performance_ci=tuple(
            (100.0 * low, 100.0 * high) for low, high in (interval(c) for c in at_limits.T)
        ),
        auc=100.0 * float(areas.mean()),
        auc_sd=100.0 * float(areas.std()),
        auc_val=100.0 * float(np.mean([auc(v, v, low, high) for (v, _), low in seeds])),
        auc_ci=_percent(interval(drawn)),
        points=_points(pairs, trials),
        curve=Curve(
            budget=tuple(budgets.tolist()),
            right=tuple((100.0 * curve.mean(axis=0)).tolist()),
            lower=tuple(100.0 * lower for lower, _ in band),
            upper=tuple(100.0 * upper for _, upper in band),
        ),
    )
    return _Scored(result, result.auc_val, drawn)


def _points(
    pairs: Sequence[tuple[Points, Points]], trials: Sequence[Trial]
) -> tuple[tuple[float, float, float], ...]:
    """(US dollars, seconds, percent right) on the split of the first seed's points on its hull."""
    hull, first = pairs[0][0].hull(), trials[0]
    # The last one is the cheapest single backbone, which every method may mix with.
    own = hull[hull < len(first.right)]
    means = (first.cost_usd[own], first.latency_s[own], 100.0 * first.right[own])
    cost, latency, right = (values.mean(axis=1).tolist() for values in means)
    return tuple(zip(cost, latency, right, strict=True))


def _best(
    methods: Sequence[Method], scored: dict[str, dict[Axis, _Scored]], axis: Axis
) -> str | None:
    """The baseline with the largest area on val."""
    names = [method.name for method in methods if method.family not in NO_BASELINES]
    return max(names, key=lambda name: scored[name][axis].val_auc) if names else None


def _results(
    methods: Sequence[Method], scored: dict[str, dict[Axis, _Scored]], seeds: int
) -> tuple[MethodResult, ...]:
    best = {axis: _best(methods, scored, axis) for axis in AXES}
    found: list[MethodResult] = []
    for method in methods:
        axes: dict[Axis, AxisResult] = {}
        for axis in AXES:
            mine, name = scored[method.name][axis], best[axis]
            difference = None
            if name is not None:
                difference = _percent(interval(mine.samples - scored[name][axis].samples))
            axes[axis] = replace(mine.result, diff_to_best_baseline_ci=difference)
        found.append(MethodResult(method.name, method.family, seeds, dict(method.grid), axes))
    return tuple(found)


def _percent(pair: tuple[float, float]) -> tuple[float, float]:
    return 100.0 * pair[0], 100.0 * pair[1]


def aligned(traces: TraceSet, fit_on: TraceSet) -> tuple[TraceSet, TraceSet]:
    """Both with the candidates that both know, in one order, and the first one's reference.

    Raises:
        TraceError: fewer than two, or one of them was not recorded.
    """
    shared = tuple(name for name in traces.candidates if name in fit_on.backbones)
    if len(shared) < 2:
        raise TraceError(
            f"fit-on: of the candidates {', '.join(traces.candidates)} only "
            f"{', '.join(shared) or 'none'} are recorded there; at least two are needed"
        )
    reference = traces.reference if traces.reference in fit_on.backbones else None
    both = (
        replace(traces, candidates=shared),
        replace(fit_on, candidates=shared, reference=reference),
    )
    for each in both:
        check_recorded(each)
    return both


def suite_budgets(traces: TraceSet, fit_on: TraceSet) -> Budgets:
    """Those of the reference backbone on the train queries, of the traces if they have any.

    Raises:
        ValueError: there is no reference backbone.
    """
    if traces.reference is None:
        raise ValueError(
            "budgets: the suite names no reference backbone to tie budgets to; add `reference` to "
            "suites.yaml or give --budgets cost=... and latency=..."
        )
    source = traces if "train" in traces.splits else replace(fit_on, reference=traces.reference)
    found = reference_budgets(source)
    return Budgets(found.cost_usd, found.latency_s)
