"""What a method is: fitted on recorded answers, it has operating points on other queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.metrics import Points, auc
from agentbalance_plugin.plan import Plan

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Axis = Literal["cost", "latency"]
Family = Literal[
    "agentbalance", "single", "router", "cascade", "static", "homogeneous", "ablation", "oracle"
]

Option = TypeVar("Option")

AXES: tuple[Axis, Axis] = ("cost", "latency")

STEPS = 25
"""Prices that methods are asked at, beside free choice."""


@dataclass(frozen=True)
class Trial:
    """P settings on N queries: [P, N] right (0 or 1), US dollars, seconds."""

    right: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray

    def points(self, axis: Axis) -> Points:
        return Points(self.right, self.spend(axis))

    def spend(self, axis: Axis) -> FloatArray:
        """[P, N] what that axis counts."""
        return self.cost_usd if axis == "cost" else self.latency_s

    def take(self, which: IntArray) -> Trial:
        """Another choice of settings: [R, N] positions of a setting for each query."""
        each = np.arange(self.right.shape[1], dtype=np.int64)
        return Trial(
            self.right[which, each], self.cost_usd[which, each], self.latency_s[which, each]
        )


@dataclass(frozen=True)
class Known:
    """What a method may learn from: train and val queries with their labels, no others.

    Args:
        replay: of those queries.
        axis: what is scarce.
        highest: the largest budget of the axis, T3 or L3.
        seed: of every draw the method makes.
        steps: how many prices to ask at, beside free choice.
    """

    replay: Replay
    axis: Axis
    highest: float
    seed: int = 0
    steps: int = STEPS

    @property
    def traces(self) -> TraceSet:
        return self.replay.traces

    @cached_property
    def train(self) -> IntArray:
        return self.traces.positions("train")

    @cached_property
    def val(self) -> IntArray:
        return self.traces.positions("val")

    @cached_property
    def singles(self) -> Trial:
        """Every candidate alone on the train queries, [B, N]."""
        return singles(self.replay, self.train)

    @cached_property
    def singles_val(self) -> Trial:
        """Every candidate alone on the val queries, [B, N]."""
        return singles(self.replay, self.val)

    @cached_property
    def prices(self) -> FloatArray:
        """Success that a dollar or a second must buy: from free choice to the cheapest call."""
        spend = self.singles.spend(self.axis).mean(axis=1)
        # Whole powers of two: the noise of a seed's latencies does not move the ladder.
        low = 2.0 ** round(float(np.log2(3e-3 / spend.max())))
        high = 2.0 ** round(float(np.log2(2.0 / spend.min())))
        ladder = np.geomspace(low, high, self.steps)
        return np.concatenate([np.zeros(1), ladder])

    @cached_property
    def lowest(self) -> float:
        """Mean spend of the cheapest single backbone on the val queries."""
        return float(self.singles_val.spend(self.axis).mean(axis=1).min())

    def score(self, trial: Trial) -> float:
        """AUC of a trial on the val queries, mixed with the cheapest single: what is tuned."""
        return auc(points := self.mixable(trial), points, self.lowest, self.highest)

    def mixable(self, trial: Trial) -> Points:
        """A trial on the val queries and the cheapest single backbone."""
        single = self.singles_val.points(self.axis)
        cheapest = [int(single.spend.mean(axis=1).argmin())]
        return trial.points(self.axis).also(Points(single.right[cheapest], single.spend[cheapest]))


class Fitted(Protocol):
    """A fitted method: its operating points on queries of a replay, whose labels it may not use."""

    def __call__(self, replay: Replay, positions: IntArray) -> Trial: ...


class Method(Protocol):
    """Anything with operating points.

    Args:
        name: in tables.
        family: what kind of method it is.
        grid: what is tuned on val, for the record; JSON values.
    """

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> Family: ...

    @property
    def grid(self) -> Mapping[str, Any]: ...

    def fit(self, known: Known) -> Fitted:
        """Learn from train queries; choose what the grid leaves open on val queries."""
        ...


@dataclass(frozen=True)
class Chosen:
    """P settings that each name a plan for each of N queries.

    Args:
        plans: those that are named.
        which: [P, N] positions in `plans`.
        samples: as in `Replay.evaluate`.
    """

    plans: Sequence[Plan]
    which: IntArray
    samples: Mapping[str, int] = field(default_factory=dict[str, int])


def play(replay: Replay, positions: IntArray, chosen: Chosen) -> Trial:
    """Replay what was chosen; a plan that several settings choose for a query runs once."""
    count = len(positions)
    flat = (chosen.which * count + np.arange(count)).reshape(-1)
    pairs, back = np.unique(flat, return_inverse=True)
    plan, query = np.divmod(pairs, max(count, 1))
    used, which = np.unique(plan, return_inverse=True)
    plans = [chosen.plans[number] for number in integers(used)]
    found = replay.evaluate_pairs(positions[query], plans, which, samples=chosen.samples)
    back = back.reshape(chosen.which.shape)
    return Trial(
        found.correct.astype(np.float64)[back], found.cost_usd[back], found.latency_s[back]
    )


def together(trials: Sequence[Trial]) -> Trial:
    """All settings of several trials on the same queries."""
    return Trial(
        np.concatenate([trial.right for trial in trials]),
        np.concatenate([trial.cost_usd for trial in trials]),
        np.concatenate([trial.latency_s for trial in trials]),
    )


def every(plans: Sequence[Plan], count: int, samples: Mapping[str, int] | None = None) -> Chosen:
    """One setting per plan, the same for all `count` queries."""
    return Chosen(
        plans, np.repeat(np.arange(len(plans))[:, None], count, axis=1), dict(samples or {})
    )


def alone(backbone: str) -> Plan:
    """A single call."""
    return Plan(assignment={"agent": backbone}, decider="agent")


def singles(replay: Replay, positions: IntArray) -> Trial:
    """Every candidate alone: [B, N] in the order of `TraceSet.candidates`."""
    plans = [alone(name) for name in replay.traces.candidates]
    return play(replay, positions, every(plans, len(positions)))


def cheapest_worthy(success: FloatArray, spend: FloatArray, prices: FloatArray) -> IntArray:
    """The option worth most at each price.

    Args:
        success, spend: [N, B] predicted of each option.
        prices: [P] success that a unit of spend must buy.

    Returns:
        [P, N] options.
    """
    return np.stack([(success - price * spend).argmax(axis=1) for price in prices.tolist()])


def tuned(known: Known, options: Iterable[Option], build: Callable[[Option], Fitted]) -> Fitted:
    """The option that does best on the val queries, the first of equals."""
    scored = [(known.score((fitted := build(o))(known.replay, known.val)), fitted) for o in options]
    return max(scored, key=lambda pair: pair[0])[1]


def integers(values: IntArray) -> list[int]:
    """As Python's own."""
    return [int(value) for value in list(values)]
