"""How right, how dear and how slow a team is, from predictions of its backbones alone.

Backbones fail together: what is hard for one is hard for all. Each query has a hidden difficulty
beyond what was predicted, shared by all backbones, over which everything is averaged
(Gauss-Hermite quadrature); given it, backbones err independently, and two wrong answers are equal
with a probability that depends on the category. All of it is closed-form, over queries and
candidates at once, and holds for any catalog.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

# Five points integrate over the shared difficulty; worked out once, plans are made by the thousand.
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(5)
_NODE_WEIGHTS = _MASSES / _MASSES.sum()
# How far a call's time spreads around its mean: its deviation over its mean.
_SPREAD = 0.25


@dataclass(frozen=True)
class Members:
    """Candidates of one family: columns of backbones, in the order in which they run.

    Args:
        columns: [n, m] for all queries alike, or [N, n, m].
    """

    family: Family
    columns: IntArray


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
        return replace(
            self,
            log_odds=np.take_along_axis(self.log_odds, local, axis=1),
            cost_usd=np.take_along_axis(self.cost_usd, local, axis=1),
            latency_s=np.take_along_axis(self.latency_s, local, axis=1),
        )


@dataclass(frozen=True)
class Value:
    """[N, n] means over answers and late gates."""

    success: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray


def vote_weights(log_odds: FloatArray) -> FloatArray:
    """Weights for votes and late gates: one plus half the probability of being right.

    Between 1 and 1.5: any two that agree outweigh any one that does not, and give more confidence
    than three that all differ, whoever they are; where nobody agrees the surer one wins.
    """
    return 1.0 + 0.5 / (1.0 + np.exp(-log_odds))


def value(predicted: Predicted, members: Members, uncut: FloatArray | None = None) -> Value:
    """Success, cost and latency of each candidate on each query.

    Args:
        uncut: [n, m] or [N, n, m] chance that each member's reply is not cut off; None: they all
            end.
    """
    given, node_weights = _given_difficulty(predicted.log_odds, predicted.shared)
    columns = [members.columns[..., j] for j in range(members.columns.shape[-1])]
    chance = [pick(given, column) for column in columns]
    if uncut is not None:
        chance = [each * uncut[..., j] for j, each in enumerate(chance)]
    weight = [pick(vote_weights(predicted.log_odds), column)[None] for column in columns]
    cost = [pick(predicted.cost_usd, column) for column in columns]
    latency = [pick(predicted.latency_s, column) for column in columns]
    same = predicted.coincidence[None, :, None]

    def mean(values: FloatArray) -> FloatArray:
        return np.tensordot(node_weights, values, axes=1)

    if members.family == "single":
        return Value(mean(chance[0]), cost[0], latency[0])
    pair = _Pair(chance[0], chance[1], same)
    if members.family == "pair":
        by_a = _heaviest(weight, 0, 2)
        return Value(
            mean(pair.right + pair.only_a * by_a + pair.only_b * ~by_a),
            cost[0] + cost[1],
            _later(latency[0], latency[1]),
        )
    third = _third(pair, chance[2], weight, same)
    open_third = mean(1.0 - pair.agree)
    together = _later(latency[0], latency[1])
    if members.family == "triple":
        return Value(
            mean(pair.right + third.right + third.undecided_right),
            cost[0] + cost[1] + cost[2],
            _later(together, latency[2]),
        )
    all_three = _later(together, latency[2])
    if members.family == "race_three":
        return Value(
            mean(pair.right + third.right + third.undecided_right),
            cost[0] + cost[1] + cost[2],
            (1.0 - open_third) * together + open_third * all_three,
        )
    if members.family == "pair_then_one":
        return Value(
            mean(pair.right + third.right + third.undecided_right),
            cost[0] + cost[1] + open_third * cost[2],
            together + open_third * latency[2],
        )
    fourth = _fourth(third, chance[3], weight, same)
    open_fourth = mean(third.undecided)
    if members.family == "race_four":
        decided_by_third = open_third - open_fourth
        return Value(
            mean(pair.right + third.right + fourth),
            cost[0] + cost[1] + cost[2] + cost[3],
            (1.0 - open_third) * together
            + decided_by_third * all_three
            + open_fourth * _later(all_three, latency[3]),
        )
    return Value(
        mean(pair.right + third.right + fourth),
        cost[0] + cost[1] + open_third * cost[2] + open_fourth * cost[3],
        together + open_third * latency[2] + open_fourth * latency[3],
    )


def pick(values: FloatArray, column: IntArray) -> FloatArray:
    """[..., N, n] of [..., N, B].

    Args:
        column: [n] for all queries alike, or [N, n].
    """
    if column.ndim == 1:
        return values[..., column]
    return np.take_along_axis(values, column.reshape((1,) * (values.ndim - 2) + column.shape), -1)


class _Pair:
    """What two answers can look like; each [K, N, n]."""

    def __init__(self, a: FloatArray, b: FloatArray, same: FloatArray) -> None:
        both_wrong = (1.0 - a) * (1.0 - b)
        self.right = a * b
        self.agree = self.right + both_wrong * same
        self.only_a = a * (1.0 - b)
        self.only_b = (1.0 - a) * b
        self.neither = both_wrong * (1.0 - same)


@dataclass(frozen=True)
class _Third:
    """After a third answer to a pair that disagreed; each [K, N, n].

    Args:
        right: it agrees with the one that is right.
        undecided: all three differ; split by who is right: `by_a`, `by_b`, `by_c`, `by_none`.
        undecided_right: all three differ and the weightiest is right.
    """

    right: FloatArray
    undecided: FloatArray
    undecided_right: FloatArray
    by_a: FloatArray
    by_b: FloatArray
    by_c: FloatArray
    by_none: FloatArray


def _third(pair: _Pair, c: FloatArray, weight: list[FloatArray], same: FloatArray) -> _Third:
    wrong_c = 1.0 - c
    by_a = pair.only_a * wrong_c * (1.0 - same)
    by_b = pair.only_b * wrong_c * (1.0 - same)
    by_c = pair.neither * c
    by_none = pair.neither * wrong_c * np.maximum(0.0, 1.0 - 2.0 * same)
    return _Third(
        right=(pair.only_a + pair.only_b) * c,
        undecided=by_a + by_b + by_c + by_none,
        undecided_right=by_a * _heaviest(weight, 0, 3)
        + by_b * _heaviest(weight, 1, 3)
        + by_c * _heaviest(weight, 2, 3),
        by_a=by_a,
        by_b=by_b,
        by_c=by_c,
        by_none=by_none,
    )


def _fourth(third: _Third, d: FloatArray, weight: list[FloatArray], same: FloatArray) -> FloatArray:
    """[K, N, n] right after a fourth answer to three that differ."""
    known = third.by_a + third.by_b + third.by_c
    # A wrong fourth answer may be that of either wrong one before it.
    apart = (1.0 - d) * np.maximum(0.0, 1.0 - 2.0 * same)
    alone = (
        third.by_a * _heaviest(weight, 0, 4)
        + third.by_b * _heaviest(weight, 1, 4)
        + third.by_c * _heaviest(weight, 2, 4)
    )
    return known * d + alone * apart + third.by_none * d * _heaviest(weight, 3, 4)


def _heaviest(weight: list[FloatArray], which: int, count: int) -> NDArray[np.bool_]:
    """Whether one voter outweighs each of the others; ties go to the one that spoke first."""
    result = np.ones_like(weight[which], dtype=np.bool_)
    for other in range(count):
        if other < which:
            result &= weight[which] > weight[other]
        elif other > which:
            result &= weight[which] >= weight[other]
    return result


def _later(first: FloatArray, second: FloatArray) -> FloatArray:
    """Mean of the later of two times, given their means (Clark 1961, for normal variables)."""
    spread = _SPREAD * np.sqrt(first**2 + second**2) + 1e-12
    gap = (first - second) / spread
    share = 1.0 / (1.0 + np.exp(-1.702 * np.clip(gap, -20.0, 20.0)))
    density = np.exp(-(gap**2) / 2.0) / np.sqrt(2.0 * np.pi)
    return first * share + second * (1.0 - share) + spread * density


def _given_difficulty(log_odds: FloatArray, shared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """([K, N, B] probabilities at each node, [K] weights of the nodes).

    The log-odds are widened so that the mean over nodes stays what was predicted (the usual probit
    approximation of a logistic-normal mean).
    """
    widened = log_odds * np.sqrt(1.0 + np.pi / 8.0 * shared**2)[:, None]
    logits = widened[None] + _NODES[:, None, None] * shared[None, :, None]
    return 1.0 / (1.0 + np.exp(-logits)), _NODE_WEIGHTS
