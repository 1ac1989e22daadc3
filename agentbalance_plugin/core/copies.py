"""A second answer of the same backbone, where the traces recorded only one.

Modelled: a copy repeats the recorded answer with the probability that two backbones of similar
ability agree in that category; else it takes the answer that a backbone of similar ability gave.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.abilities import Abilities, benchmark_of_category, sum_over
from agentbalance_plugin.core.traces import TraceSet

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# How many backbones of similar ability a copy may take its answer from.
_NEIGHBOURS = 4
# Pseudo-comparisons that pull a category's agreement to the benchmark's, and the benchmark's to
# the prior: what similar backbones do on the recorded benchmarks is between 0.5 and 0.9.
_SHRINKAGE = 10.0
_PRIOR_AGREEMENT = 0.7


class Copies:
    """Whose answer the copy of a backbone gives.

    Args:
        traces: the backbones to take answers from are their columns.
        abilities: from the split below.
        split: where agreement is measured; without such a split it is the prior, 0.7.
    """

    def __init__(self, traces: TraceSet, abilities: Abilities, split: str = "train") -> None:
        self._category = traces.category
        self._recorded = traces.correct >= 0
        self.neighbours = _neighbours(traces, abilities)
        self.repeats = _agreement(traces, self.neighbours, split)

    def sources(
        self, query: IntArray, backbone: IntArray, repeat: FloatArray, which: FloatArray
    ) -> IntArray:
        """The column whose recorded answer each copy gives: its own, or a neighbour's.

        Args:
            query, backbone: [n] positions.
            repeat, which: [n] uniform draws: whether it repeats itself, and who else answers.

        Returns:
            [n] columns. A neighbour without a row for the query leaves the copy with its own.
        """
        category = self._category[query]
        rank = (which * self.neighbours.shape[2]).astype(np.int64)
        other = self.neighbours[category, backbone, rank]
        stays = (repeat < self.repeats[category, backbone]) | ~self._recorded[query, other]
        return np.where(stays, backbone, other)


def _neighbours(traces: TraceSet, abilities: Abilities) -> IntArray:
    """[C, B, K] the K columns closest in log-odds, nearest first; the column itself if too few."""
    log_odds = abilities.log_odds
    present = np.zeros(log_odds.shape, dtype=np.int64)
    np.add.at(present, traces.category, (traces.correct >= 0).astype(np.int64))
    distance = np.abs(log_odds[:, :, None] - log_odds[:, None, :])
    distance[np.broadcast_to((present == 0)[:, None, :], distance.shape)] = np.inf
    columns = np.arange(len(traces.backbones))
    distance[:, columns, columns] = np.inf
    nearest = np.argsort(distance, axis=2, kind="stable")[:, :, :_NEIGHBOURS]
    reachable = np.isfinite(np.take_along_axis(distance, nearest, axis=2))
    return np.where(reachable, nearest, columns[None, :, None])


def _agreement(traces: TraceSet, neighbours: IntArray, split: str) -> FloatArray:
    """[C, B] how often a backbone and its neighbours give the same answer."""
    shape = neighbours.shape[:2]
    same = np.zeros(shape, dtype=np.int64)
    compared = np.zeros(shape, dtype=np.int64)
    if split in traces.splits:
        rows = traces.positions(split)
        columns: IntArray = np.arange(len(traces.backbones))
        category = traces.category[rows]
        answer, correct = traces.answer[rows], traces.correct[rows]
        for rank in range(neighbours.shape[2]):
            other: IntArray = neighbours[category, :, rank]
            their_answer = _at(answer, other)
            their_correct = _at(correct.astype(np.int32), other)
            both: NDArray[np.bool_] = (correct >= 0) & (their_correct >= 0)
            both[other == columns] = False
            # Where no answers were recorded, being right or wrong together is what can be seen.
            unseen = (answer < 0) & (their_answer < 0)
            equal: NDArray[np.bool_] = answer == their_answer
            equal[unseen] = correct[unseen] == their_correct[unseen]
            np.add.at(compared, category, both.astype(np.int64))
            np.add.at(same, category, (both & equal).astype(np.int64))
    to_benchmark = benchmark_of_category(traces)
    overall = _shrunk(
        sum_over(same, to_benchmark), sum_over(compared, to_benchmark), _PRIOR_AGREEMENT
    )
    return _shrunk(same, compared, overall[to_benchmark])


def _at(values: NDArray[np.int32], columns: IntArray) -> NDArray[np.int32]:
    return np.take_along_axis(values, columns, axis=1)


def _shrunk(same: IntArray, compared: IntArray, prior: FloatArray | float) -> FloatArray:
    return (same + _SHRINKAGE * prior) / (compared + _SHRINKAGE)
