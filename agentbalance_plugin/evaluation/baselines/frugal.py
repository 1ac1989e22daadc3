"""FrugalGPT: ask cheap backbones first and stop once a scorer trusts the answer.

Chen, Zaharia, Zou, "FrugalGPT: How to use large language models while reducing cost and improving
performance" (arXiv 2305.05176): an ordered list of up to three LLMs, a scorer g(query, answer), and
a threshold per stage, all chosen on training queries for a budget. The paper's scorer is a
fine-tuned text classifier. Here it sees what the traces hold of an answer: whether there is one,
how long the reply is for its kind, the backbone's rate in the category, and, from the second
stage on, whether it agrees with the earlier ones; then the answer is what most say (votes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.irls import fit_logistic, probability
from agentbalance_plugin.evaluation.baselines.library import roster
from agentbalance_plugin.evaluation.baselines.rates import CategoryRates, log_odds
from agentbalance_plugin.evaluation.trials import (
    Axis,
    Family,
    Fitted,
    Known,
    Trial,
    alone,
    integers,
)

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_RIDGE = 3.0


@dataclass(frozen=True)
class Replies:
    """What R backbones say alone on N queries, arrays of shape [N, R]."""

    right: FloatArray
    answer: IntArray
    cost_usd: FloatArray
    latency_s: FloatArray
    log_tokens: FloatArray

    @classmethod
    def of(cls, replay: Replay, positions: IntArray, names: list[str]) -> Replies:
        found = replay.evaluate(positions, [alone(name) for name in names])
        return cls(
            found.correct.astype(np.float64),
            found.answer,
            found.cost_usd,
            found.latency_s,
            np.log(np.maximum(found.completion_tokens, 1).astype(np.float64)),
        )

    def spend(self, axis: Axis) -> FloatArray:
        return self.cost_usd if axis == "cost" else self.latency_s


@dataclass(frozen=True)
class Scorer:
    """How likely answers are right, from what can be seen of them.

    Args:
        rates: of each backbone and its log reply length per category, from train.
        first: [R, K] coefficients for an answer alone.
        second: [R, R, K] for the leading one of two.
    """

    rates: CategoryRates
    first: FloatArray
    second: FloatArray

    def alone(self, replies: Replies, rows: IntArray) -> FloatArray:
        """[N, R] of each backbone's own answer."""
        seen = self._seen(replies, rows)
        size = replies.right.shape[1]
        return np.column_stack([probability(seen[:, b], self.first[b]) for b in range(size)])

    def of_two(self, replies: Replies, rows: IntArray, a: int, b: int) -> FloatArray:
        """[N] of the leading answer of a, then b."""
        return probability(self._seen_two(replies, rows, a, b), self.second[a, b])

    def _seen(self, replies: Replies, rows: IntArray) -> FloatArray:
        """[N, R, 4]"""
        odds = log_odds(self.rates.success[rows])
        length = replies.log_tokens - self.rates.spend[rows]
        missing = (replies.answer < 0).astype(np.float64)
        return np.stack([np.ones_like(odds), odds, length, missing], axis=2)

    def _seen_two(self, replies: Replies, rows: IntArray, a: int, b: int) -> FloatArray:
        """[N, 8]"""
        seen = self._seen(replies, rows)
        agree = agreed(replies.answer, a, b).astype(np.float64)
        return np.column_stack(
            [seen[:, a], seen[:, b, 1:], agree, agree * (seen[:, a, 1] + seen[:, b, 1])]
        )

    @classmethod
    def fit(cls, known: Known, replies: Replies) -> Scorer:
        """By logistic regression on the train queries."""
        rates = CategoryRates.of(
            known.traces, known.train, replies.right.T, replies.log_tokens.T, 8.0
        )
        rows = rates.rows(known.traces, known.train)
        size = replies.right.shape[1]
        blank = cls(rates, np.zeros((size, 4)), np.zeros((size, size, 9)))
        seen = blank._seen(replies, rows)
        for b in range(size):
            blank.first[b] = fit_logistic(seen[:, b], replies.right[:, b], _RIDGE)
        trust = blank.alone(replies, rows)
        for a, b in permutations(range(size), 2):
            lead = leading(replies.answer, trust, (a, b))
            right = replies.right[np.arange(len(lead)), lead]
            blank.second[a, b] = fit_logistic(blank._seen_two(replies, rows, a, b), right, _RIDGE)
        return blank


class FrugalGPT:
    """Chains of up to three backbones with a threshold after the first and the second."""

    name = "FrugalGPT cascade"
    family: Family = "cascade"
    grid: Mapping[str, Any] = {
        "backbones": [8],
        "stop_after_first": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        "stop_after_second": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        "chains_per_price": [3],
    }

    def fit(self, known: Known) -> Fitted:
        names = roster(known, self.grid["backbones"][0])
        train = Replies.of(known.replay, known.train, names)
        scorer = Scorer.fit(known, train)
        chains = self._best(known, scorer, train)

        def points(replay: Replay, positions: IntArray) -> Trial:
            replies = Replies.of(replay, positions, names)
            rows = scorer.rates.rows(replay.traces, positions)
            trust = scorer.alone(replies, rows)
            return _together([chain.run(replies, rows, scorer, trust) for chain in chains])

        return points

    def _best(self, known: Known, scorer: Scorer, train: Replies) -> list[Chain]:
        """The chains worth most at each price on the train queries."""
        rows = scorer.rates.rows(known.traces, known.train)
        trust = scorer.alone(train, rows)
        spend = train.spend(known.axis)
        shares = (self.grid["stop_after_first"], self.grid["stop_after_second"])
        chains: list[Chain] = []
        right: list[FloatArray] = []
        spent: list[FloatArray] = []
        for a, b in permutations(range(trust.shape[1]), 2):
            first = _thresholds(trust[:, a], shares[0])
            of_two = scorer.of_two(train, rows, a, b)
            second = _thresholds(of_two, shares[1])
            thirds = [c for c in range(trust.shape[1]) if c not in (a, b)]
            if not thirds:
                # Of two backbones a chain ends with the second, whatever it says.
                thirds, second = [b], np.array([-np.inf])
            go_on = (trust[:, a] < first[:, None]).astype(np.float64)
            stop = (of_two >= second[:, None]).astype(np.float64)
            two = _right(train, leading(train.answer, trust, (a, b)))
            for c in thirds:
                three = _right(train, leading(train.answer, trust, (a, b, c)))
                # [thresholds of the first, of the second]
                right.append(
                    ((1.0 - go_on) @ train.right[:, a])[:, None]
                    + go_on @ (stop * two + (1.0 - stop) * three).T
                )
                more = spend[:, b] + (1.0 - stop) * spend[:, c]
                spent.append(spend[:, a].sum() + go_on @ more.T)
                chains += [Chain((a, b, c), t, u) for t in first for u in second]
        mean_right, mean_spent = (
            np.concatenate([sums.reshape(-1) for sums in many]) / len(rows)
            for many in (right, spent)
        )
        worth = mean_right - known.prices[:, None] * mean_spent
        best = (-worth).argsort(axis=1, kind="stable")[:, : self.grid["chains_per_price"][0]]
        return [chains[number] for number in integers(np.unique(best))]


@dataclass(frozen=True)
class Chain:
    """Three backbones in order; it stops where the scorer's trust reaches the threshold."""

    order: tuple[int, int, int]
    first: float
    second: float

    def run(
        self, replies: Replies, rows: IntArray, scorer: Scorer, trust: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """[N] right, US dollars, seconds."""
        a, b, c = self.order
        asks_b = trust[:, a] < self.first
        asks_c = asks_b & (scorer.of_two(replies, rows, a, b) < self.second)
        lead = np.where(
            asks_c,
            leading(replies.answer, trust, self.order),
            np.where(asks_b, leading(replies.answer, trust, (a, b)), a),
        )
        cost, latency = (
            values[:, a] + asks_b * values[:, b] + asks_c * values[:, c]
            for values in (replies.cost_usd, replies.latency_s)
        )
        return _right(replies, lead), cost, latency


def leading(answer: IntArray, trust: FloatArray, members: tuple[int, ...]) -> IntArray:
    """[N] whose answer leads: of those that others share, else of all, the most trusted."""
    backing = np.column_stack(
        [sum(trust[:, o] * agreed(answer, m, o) for o in members if o != m) for m in members]
    )
    mine = trust[:, list(members)]
    # An answer that someone shares comes before any that nobody does.
    return np.array(members)[(mine + backing + (backing > 0)).argmax(axis=1)]


def agreed(answer: IntArray, a: int, b: int) -> BoolArray:
    """[N] whether two gave the same answer; a missing one agrees with nothing."""
    return (answer[:, a] >= 0) & (answer[:, a] == answer[:, b])


def _thresholds(trust: FloatArray, shares: list[float]) -> FloatArray:
    """Trust at which these shares of the train queries stop; none or all at the ends."""
    inner = np.quantile(trust, [1.0 - share for share in shares])
    inner[np.array(shares) == 0.0] = np.inf
    inner[np.array(shares) == 1.0] = -np.inf
    return inner


def _right(replies: Replies, who: IntArray) -> FloatArray:
    return replies.right[np.arange(len(who)), who]


def _together(runs: list[tuple[FloatArray, FloatArray, FloatArray]]) -> Trial:
    right, cost, latency = (np.stack(each) for each in zip(*runs, strict=True))
    return Trial(right, cost, latency)
