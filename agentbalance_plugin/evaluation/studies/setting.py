"""What all studies work with: recorded queries, a policy, a team, and how catalogs score."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.kinds import candidates_of
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.core.reference import (
    REFERENCE_AGENTS,
    ReferenceBudgets,
    reference_budgets,
)
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.metrics import Points, auc, bootstrap_auc, interval, resamples
from agentbalance_plugin.evaluation.trials import Axis, Chosen, integers, play
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Agent, Team

IntArray = NDArray[np.int64]

Ticker = Callable[[str, int], Callable[[], None]]
"""(what is counted, of how many) -> what to call after each."""

TEAM = Team(tuple(Agent(name) for name in REFERENCE_AGENTS), decider=REFERENCE_AGENTS[-1])

# Success that a dollar or a second must buy: from free choice to the cheapest call there is.
_DOLLAR_PRICES = (0.0, *np.geomspace(0.5, 2e4, 26).tolist())
_SECOND_PRICES = (0.0, *np.geomspace(3e-4, 1.0, 24).tolist())
# Ties on one axis go to what is better on the other.
_SLIGHT_DOLLAR_PRICE = 1e-4

AXES: tuple[Axis, Axis] = ("cost", "latency")


class Finding(Protocol):
    """What a study found."""

    @property
    def name(self) -> str:
        """Of its files: letters, digits and hyphens."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        ...

    def to_markdown(self) -> str:
        """A section with its tables and how to read them."""
        ...

    def draw(self, folder: Path) -> list[Path]:
        """Plots as PNG and SVG (ImportError without matplotlib, extra `report`)."""
        ...


@dataclass(frozen=True)
class Setting:
    """A suite and a policy.

    Args:
        suite: its name, for titles.
        traces: of the suite, with every split.
        policy: with an encoder that knows the traces' queries.
        seed: of the replay and of every draw of the study.
        folder: the traces are from; None for those that come with the package.
    """

    suite: str
    traces: TraceSet
    policy: Policy
    seed: int = 0
    folder: Path | None = None

    @classmethod
    def of(
        cls, suite: str, policy: str | Path = "default", folder: Path | None = None, seed: int = 0
    ) -> Setting:
        """With a policy by name or folder.

        Raises:
            TraceError: no such suite or traces.
            PolicyError: no such policy.
        """
        traces = _load(folder, suite)
        return cls(suite, traces, Policy.load(policy, RecordedEncoder(traces)), seed, folder)

    def part(self, benchmarks: Sequence[str]) -> TraceSet:
        """Some of the suite's benchmarks."""
        return _load(self.folder, self.suite, benchmarks)

    def everyone(self, benchmark: str) -> TraceSet:
        """A benchmark with all backbones that were recorded on it, in the suite or not."""
        return _load(self.folder, None, [benchmark])

    def other_suite(self, name: str) -> TraceSet:
        """Another suite of the same folder."""
        return _load(self.folder, name)

    @cached_property
    def replay(self) -> Replay:
        return Replay(self.traces, seed=self.seed)

    @cached_property
    def budgets(self) -> ReferenceBudgets:
        """T1-T3 and L1-L3."""
        return reference_budgets(self.traces)

    @cached_property
    def catalog(self) -> Catalog:
        """That of someone who recorded the training split."""
        return candidates_of(self.traces)

    def text(self, position: int) -> str:
        """The task of a query."""
        return task_text(self.traces.queries[position], self.replay)


def _load(
    folder: Path | None, suite: str | None, benchmarks: Sequence[str] | None = None
) -> TraceSet:
    if folder is None:
        return TraceSet.shipped(suite, benchmarks)
    return TraceSet.load(folder, suite, benchmarks)


@dataclass(frozen=True)
class Curve:
    """Operating points of one method on an axis, on validation and test queries.

    Args:
        planning_ms: of a sweep over all operating points of one query; 0 where nothing is planned.
    """

    val: Points
    test: Points
    planning_ms: float = 0.0

    def also(self, other: Curve) -> Curve:
        """The points of both."""
        return Curve(self.val.also(other.val), self.test.also(other.test), self.planning_ms)

    def picked(self, rows: Sequence[int] | IntArray) -> Curve:
        """Some of its points."""
        index = np.asarray(rows, dtype=np.int64)
        return Curve(
            Points(self.val.right[index], self.val.spend[index]),
            Points(self.test.right[index], self.test.spend[index]),
            self.planning_ms,
        )

    def beside(self, other: Curve) -> Curve:
        """The same settings on further queries."""

        def joined(a: Points, b: Points) -> Points:
            return Points(
                np.concatenate([a.right, b.right], axis=1),
                np.concatenate([a.spend, b.spend], axis=1),
            )

        planning = (self.planning_ms + other.planning_ms) / 2
        return Curve(joined(self.val, other.val), joined(self.test, other.test), planning)


@dataclass(frozen=True)
class Span:
    """The budgets over which an area is taken, and the cheapest single backbone there.

    Args:
        base: operating point that every method may mix with.
        low, high: mean spends on test queries.
    """

    base: Curve
    low: float
    high: float

    def auc(self, curve: Curve) -> float:
        """In percent."""
        both = curve.also(self.base)
        return 100.0 * auc(both.val, both.test, self.low, self.high)

    def difference(self, first: Curve, second: Curve, samples: int = 1000) -> tuple[float, float]:
        """95 % interval of the first area less the second, in points."""
        a, b = first.also(self.base), second.also(self.base)
        shares = resamples(a.test.right.shape[1], samples)
        areas = [bootstrap_auc(each.val, each.test, self.low, self.high, shares) for each in (a, b)]
        return interval(100.0 * (areas[0] - areas[1]))


def policy_curve(
    policy: Policy, catalog: Catalog, replay: Replay, axis: Axis, tick: Callable[[], None]
) -> Curve:
    """A policy's points with a catalog; `tick` after each query."""
    knobs = [
        Knobs(price_usd=price)
        if axis == "cost"
        else Knobs(price_usd=_SLIGHT_DOLLAR_PRICE, second_price=price)
        for price in (_DOLLAR_PRICES if axis == "cost" else _SECOND_PRICES)
    ]

    def points(split: str) -> Points:
        positions = replay.traces.positions(split)
        plans: list[Plan] = []
        for position in integers(positions):
            text = task_text(replay.traces.queries[position], replay)
            # No caps: neither measure has any.
            plans += policy.sweep(text, TEAM, Budget(cost_usd=1e6), catalog, knobs)
            tick()
        which = np.arange(len(plans)).reshape(len(positions), len(knobs)).T
        return play(replay, positions, Chosen(plans, which)).points(axis)

    began = time.perf_counter()
    val, test = points("val"), points("test")
    queries = val.right.shape[1] + test.right.shape[1]
    return Curve(val, test, 1000.0 * (time.perf_counter() - began) / queries)


def plans_curve(plans: Sequence[Plan], replay: Replay, axis: Axis) -> Curve:
    """Fixed plans, each a point."""

    def points(split: str) -> Points:
        found = replay.evaluate(replay.traces.positions(split), list(plans))
        spend = found.cost_usd if axis == "cost" else found.latency_s
        return Points(found.correct.astype(np.float64).T, np.asarray(spend, dtype=np.float64).T)

    return Curve(points("val"), points("test"))


def singles_curve(names: Sequence[str], replay: Replay, axis: Axis) -> Curve:
    """Each of some backbones alone."""
    return plans_curve([Plan(assignment={"a": n}, decider="a") for n in names], replay, axis)


def highest(traces: TraceSet, axis: Axis) -> float:
    """The largest of the suite's budgets, T3 or L3."""
    budgets = reference_budgets(traces)
    return (budgets.cost_usd if axis == "cost" else budgets.latency_s)[-1]


def span_of(singles: Curve, high: float) -> Span:
    """From the cheapest of single backbones (on val) to a budget."""
    cheapest = singles.picked([int(singles.val.spend.mean(axis=1).argmin())])
    return Span(cheapest, float(cheapest.test.spend.mean()), high)
