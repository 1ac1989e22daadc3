"""How right, how dear and how slow a team is, from predictions of its backbones alone.

Backbones fail together: what is hard for one is hard for all. Each query has a hidden difficulty
beyond what was predicted, shared by all backbones, over which everything is averaged
(Gauss-Hermite quadrature); given it, backbones err independently, and two wrong answers are equal
with a probability that depends on the category. All of it is closed-form, over queries and
candidates at once, and holds for any catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Family = Literal[
    "single", "pair", "triple", "pair_then_one", "pair_then_two", "race_three", "race_four"
]
"""single: one agent. pair: two at once, the surer one wins. triple: three at once, vote.
pair_then_one: two at once; if they disagree a third, vote. pair_then_two: likewise, and a fourth if
no two agree yet. race_three, race_four: so many at once; as soon as two agree the others are not
waited for. Members of a race are ordered from fast to slow."""


@dataclass(frozen=True)
class Shape:
    """What a family looks like to the stages.

    Args:
        agents: that take part.
        hops: agents on its longest path.
        watches: (watching, watched) positions; an agent that watches is late-gated.
        race: whether it ends as soon as it is decided.
    """

    agents: int
    hops: int = 1
    watches: tuple[tuple[int, int], ...] = ()
    race: bool = False

    @property
    def at_once(self) -> int:
        """Agents that start at once; those that watch come after them, one by one."""
        return self.agents - len({watching for watching, _ in self.watches})


SHAPES: dict[Family, Shape] = {
    "single": Shape(1),
    "pair": Shape(2),
    "triple": Shape(3),
    "pair_then_one": Shape(3, 2, ((2, 0), (2, 1))),
    "pair_then_two": Shape(4, 3, ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2))),
    "race_three": Shape(3, race=True),
    "race_four": Shape(4, race=True),
}

FAMILIES: tuple[Family, ...] = tuple(SHAPES)
"""In the order of their numbers."""
_IS_LATE = np.array([bool(shape.watches) for shape in SHAPES.values()])
_IS_RACE = np.array([shape.race for shape in SHAPES.values()])

# Five points integrate over the shared difficulty; worked out once, plans are made by the thousand.
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(5)
NODE_WEIGHTS: FloatArray = _MASSES / _MASSES.sum()
"""[K] weights of the nodes over which the shared difficulty is averaged."""
# How far a call's time spreads around its mean: its deviation over its mean.
_SPREAD = 0.25
_DENSITY = 1.0 / np.sqrt(2.0 * np.pi)


@dataclass(frozen=True)
class Predicted:
    """What is predicted of N queries and B backbones alone.

    Args:
        log_odds: [N, B] of a right answer.
        cost_usd, latency_s: [N, B] means of one call.
        shared: [N] standard deviation of the shared difficulty.
        coincidence: [N] probability that two wrong answers are equal.
    """

    log_odds: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray
    shared: FloatArray
    coincidence: FloatArray

    def of(self, local: IntArray) -> Predicted:
        """For some of the backbones alone.

        Args:
            local: [N, m] columns.
        """
        rows = np.arange(len(local))[:, None]
        return Predicted(
            self.log_odds[rows, local],
            self.cost_usd[rows, local],
            self.latency_s[rows, local],
            self.shared,
            self.coincidence,
        )


@dataclass(frozen=True)
class Value:
    """[N, n] means over answers and late gates."""

    success: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray

    def of(self, best: IntArray) -> Value:
        """Some of the candidates alone.

        Args:
            best: [N, Q] their positions.
        """
        rows = np.arange(len(best))[:, None]
        return Value(
            self.success[rows, best], self.cost_usd[rows, best], self.latency_s[rows, best]
        )


def vote_weights(log_odds: FloatArray) -> FloatArray:
    """Weights for votes and late gates: one plus half the probability of being right.

    Between 1 and 1.5: any two that agree outweigh any one that does not, and give more confidence
    than three that all differ, whoever they are; where nobody agrees the surer one wins.
    """
    return 1.0 + 0.5 / (1.0 + np.exp(-np.maximum(log_odds, -700.0)))


def value(
    predicted: Predicted, family: IntArray, columns: IntArray, uncut: FloatArray | None = None
) -> Value:
    """Success, cost and latency of n candidates for each query.

    Args:
        family: [N, n] numbers of `FAMILIES`.
        columns: [N, n, 4] backbones in the order in which they run; -1 after the last.
        uncut: [N, n, 4] chance that each one's reply is not cut off; None: they all end.
    """
    there = columns >= 0
    rows = np.arange(len(columns))[:, None, None]
    column = np.where(there, columns, 0)
    chance = given_difficulty(predicted)[rows, column] * there[..., None]
    if uncut is not None:
        chance = chance * uncut[..., None]
    a, b, c, d = (chance[:, :, j] for j in range(4))
    odds = np.where(there, predicted.log_odds[rows, column], -np.inf)
    cost = predicted.cost_usd[rows, column] * there
    time = predicted.latency_s[rows, column] * there
    same = predicted.coincidence[:, None, None]
    apart, apart_from_two = 1.0 - same, np.maximum(0.0, 1.0 - 2.0 * same)

    # Two answers that agree, a third that agrees with one of two that do not, and what is left.
    neither = (1.0 - a) * (1.0 - b)
    two = a * b + (a + b - 2.0 * a * b) * c
    agree = a * b + neither * same
    by_a = a * (1.0 - b) * (1.0 - c) * apart
    by_b = (1.0 - a) * b * (1.0 - c) * apart
    by_c = neither * c * apart
    nobody = neither * (1.0 - c) * apart * apart_from_two
    known = by_a + by_b + by_c
    undecided = known + nobody
    # Where all differ the surer one wins, of equals the first to speak.
    first = odds[..., :3].argmax(axis=-1)[..., None]
    surest = np.where(first == 0, by_a, np.where(first == 1, by_b, by_c))
    ahead = (odds[..., :3].max(axis=-1) >= odds[..., 3])[..., None]
    fourth = known * d
    fourth = fourth + np.where(ahead, surest * (1.0 - d) * apart_from_two, nobody * d)
    surer = np.where((odds[..., 0] >= odds[..., 1])[..., None], a, b)

    size = there.sum(axis=-1)
    four_or_three = two + np.where(size[..., None] > 3, fourth, surest)
    one_or_two = np.where(size[..., None] > 1, surer, a)
    success = np.where(size[..., None] > 2, four_or_three, one_or_two)
    open_third = (1.0 - agree) @ NODE_WEIGHTS
    open_fourth = undecided @ NODE_WEIGHTS
    waits, races = _IS_LATE[family], _IS_RACE[family]
    together = np.where(size > 1, later(time[..., 0], time[..., 1]), time[..., 0])
    three = np.where(size > 2, later(together, time[..., 2]), together)
    four = np.where(size > 3, later(three, time[..., 3]), three)
    raced = together + open_third * (three - together) + open_fourth * (four - three)
    in_turn = together + open_third * time[..., 2] + open_fourth * time[..., 3]
    in_turn_cost = cost[..., 0] + cost[..., 1] + open_third * cost[..., 2]
    in_turn_cost = in_turn_cost + open_fourth * cost[..., 3]
    at_once_cost: FloatArray = cost.sum(axis=-1)
    return Value(
        success @ NODE_WEIGHTS,
        np.where(waits, in_turn_cost, at_once_cost),
        np.where(waits, in_turn, np.where(races, raced, four)),
    )


def later(first: FloatArray, second: FloatArray) -> FloatArray:
    """Mean of the later of two times, given their means (Clark 1961, for normal variables)."""
    spread = _SPREAD * np.sqrt(first * first + second * second) + 1e-12
    gap = (first - second) / spread
    # Means are positive, so the gap is at most a few spreads: no exponential overflows.
    share = 1.0 / (1.0 + np.exp(-1.702 * gap))
    density = np.exp(gap * gap * -0.5) * _DENSITY
    return second + (first - second) * share + spread * density


def given_difficulty(predicted: Predicted) -> FloatArray:
    """[N, B, K] probabilities at each node of the shared difficulty; `NODE_WEIGHTS` weighs them.

    The log-odds are widened so that the mean over nodes stays what was predicted (the usual probit
    approximation of a logistic-normal mean).
    """
    shared = predicted.shared[:, None]
    widened = predicted.log_odds * np.sqrt(1.0 + np.pi / 8.0 * shared * shared)
    logits = widened[..., None] + (shared * _NODES)[:, None, :]
    return 1.0 / (1.0 + np.exp(-logits))
