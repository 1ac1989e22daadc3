"""How backbones fail together: equal wrong answers, and difficulty they share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.traces import TraceSet

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_GRID = np.arange(0.0, 3.01, 0.1)
_NODES = 9
_ROWS_AT_ONCE = 64
# Pairs of wrong answers that a benchmark's rate is worth in one of its categories.
_SHRINKAGE = 200.0


def coincidence_of(traces: TraceSet, split: str) -> dict[str, float]:
    """Per category, how often two backbones that are both wrong give the same answer.

    Shrunk to the rate of the benchmark. A missing answer is equal to nothing.
    """
    part = traces.split(split)
    # Counted by answer: a table of all pairs would take the square of the backbones.
    wrong = part.correct == 0
    row, column = np.nonzero(wrong & (part.answer >= 0))
    shared = np.stack([row, part.answer[row, column].astype(np.int64)])
    groups, sizes = np.unique(shared, axis=1, return_counts=True)
    same = np.zeros(len(part.queries), dtype=np.int64)
    np.add.at(same, groups[0], sizes * (sizes - 1) // 2)
    count = wrong.sum(axis=1)
    pairs = count * (count - 1) // 2
    benchmark = np.array([query.benchmark for query in part.queries])
    found: dict[str, float] = {}
    for number, category in enumerate(part.categories):
        here = part.category == number
        whole = benchmark == category.partition("/")[0]
        rate = (same[whole].sum() + 1.0) / (pairs[whole].sum() + 2.0)
        total = pairs[here].sum() + _SHRINKAGE
        found[category] = float((same[here].sum() + _SHRINKAGE * rate) / total)
    return found


def fit_shared(log_odds: FloatArray, correct: BoolArray, recorded: BoolArray) -> float:
    """The deviation of the shared difficulty under which the recorded answers are likeliest.

    Args:
        log_odds: [N, B] predicted.
        correct, recorded: [N, B]
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    log_weights = np.log(weights / weights.sum())
    sign = np.where(correct, 1.0, -1.0)
    best, best_likelihood = 0.0, -np.inf
    for deviation in _GRID.tolist():
        widened = log_odds * np.sqrt(1.0 + np.pi / 8.0 * deviation**2)
        each = np.empty((_NODES, len(log_odds)))
        for begin in range(0, len(log_odds), _ROWS_AT_ONCE):
            rows = slice(begin, begin + _ROWS_AT_ONCE)
            logits = widened[rows] + deviation * nodes[:, None, None]
            # log sigmoid(x) where right, log sigmoid(-x) where wrong.
            signed = logits * sign[rows]
            each[:, rows] = (-np.logaddexp(0.0, -signed) * recorded[rows]).sum(axis=2)
        each += log_weights[:, None]
        top = each.max(axis=0)
        likelihood = float((top + np.log(np.exp(each - top).sum(axis=0))).sum())
        if likelihood > best_likelihood:
            best, best_likelihood = deviation, likelihood
    return best
