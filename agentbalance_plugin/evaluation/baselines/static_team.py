"""The best static team: one plan for all queries, from a search over assignments of backbones.

Hua et al., "AgentOpt v0.1" (arXiv 2604.06296): given a pipeline, find the assignment of models to
its roles; small spaces exhaustively, large ones by arm elimination: combinations are arms, tried on
growing samples of queries, and dropped once their upper confidence bound is under the best lower
one. As one team is sought per price, an arm stays while it may still be the best at any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.library import roster, vote, weights_of
from agentbalance_plugin.evaluation.trials import (
    Axis,
    Family,
    Fitted,
    Known,
    Trial,
    alone,
    every,
    integers,
    play,
)
from agentbalance_plugin.plan import Plan

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class StaticTeam:
    """Pipelines of one to four agents; the teams worth most at each price."""

    name = "best static team"
    family: Family = "static"
    grid: Mapping[str, Any] = {
        "pipelines": [
            "one solver",
            "solver, then a decider that reads it",
            "two solvers, then a decider",
            "vote of three",
            "chat of four",
        ],
        "backbones": [8, "6 in the chat of four"],
        "teams_per_price": [2],
    }

    def fit(self, known: Known) -> Fitted:
        teams = assignments(known)
        rng = np.random.default_rng(known.seed)
        order = rng.permutation(known.train)
        left = eliminate(known.replay, order, teams, known.axis, known.prices)
        survivors = [teams[number] for number in integers(left)]
        train = play(known.replay, known.train, every(survivors, len(known.train)))
        means = (train.right.mean(axis=1), train.spend(known.axis).mean(axis=1))
        worth = means[0] - known.prices[:, None] * means[1]
        best = (-worth).argsort(axis=1, kind="stable")[:, : self.grid["teams_per_price"][0]]
        chosen = [survivors[number] for number in integers(np.unique(best))]

        def points(replay: Replay, positions: IntArray) -> Trial:
            return play(replay, positions, every(chosen, len(positions)))

        return points


def assignments(known: Known) -> list[Plan]:
    """Every assignment of the roster to the pipelines."""
    names, weights = roster(known), weights_of(known)
    few = roster(known, 6)
    teams = [alone(name) for name in known.traces.candidates]
    teams += [chat(pair) for pair in product(names, repeat=2)]
    for pair in combinations(names, 2):
        teams += [
            Plan(
                assignment={"solver_1": pair[0], "solver_2": pair[1], "decider": name},
                edges=(("solver_1", "decider"), ("solver_2", "decider")),
                decider="decider",
            )
            for name in names
        ]
    teams += [vote(three, weights, early=False) for three in combinations(names, 3)]
    teams += [chat(four) for four in product(few, repeat=4)]
    return teams


def chat(names: Sequence[str]) -> Plan:
    """Everyone reads all earlier ones; the last decides."""
    agents = [f"agent_{number}" for number in range(1, len(names) + 1)]
    return Plan(
        assignment=dict(zip(agents, names, strict=True)),
        edges=tuple(combinations(agents, 2)),
        decider=agents[-1],
    )


def eliminate(
    replay: Replay,
    queries: IntArray,
    arms: Sequence[Plan],
    axis: Axis,
    prices: FloatArray,
    *,
    batch: int = 48,
    deviations: float = 2.0,
) -> IntArray:
    """Arms that may still be worth most at some price when all queries have been used.

    Args:
        queries: in the order in which they are used; each batch is twice the last.
        deviations: half the width of a confidence interval.

    Returns:
        positions in `arms`.
    """
    left = np.arange(len(arms), dtype=np.int64)
    right = np.zeros((len(arms), 0))
    spend = np.zeros((len(arms), 0))
    used = 0
    while used < len(queries) and len(left) > len(prices):
        part = queries[used : used + batch]
        found = replay.evaluate(part, [arms[number] for number in integers(left)])
        spent = found.cost_usd if axis == "cost" else found.latency_s
        right = np.concatenate([right, found.correct.T.astype(np.float64)], axis=1)
        spend = np.concatenate([spend, np.asarray(spent, dtype=np.float64).T], axis=1)
        used, batch = used + len(part), 2 * batch
        stays = np.zeros(len(left), dtype=np.bool_)
        for price in prices.tolist():
            worth = right - price * spend
            mean, error = worth.mean(axis=1), worth.std(axis=1) / np.sqrt(used)
            stays |= mean + deviations * error >= (mean - deviations * error).max()
        left, right, spend = left[stays], right[stays], spend[stays]
    return left
