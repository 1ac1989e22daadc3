"""`agentbalance_plugin.agreement.leading_answer` over many queries at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.agreement import leading_answer

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

SILENT = -2
"""In place of the answer of an agent that did not speak: it is no voter."""

# Further from the threshold than this, the last bits of the exponential can't matter.
_CLOSE = 1e-9


def leading_answers(answers: IntArray, weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """The leading answer of each row.

    Args:
        answers: [n, W] codes, -1 where there is none, `SILENT` where nobody spoke.
        weights: [n, W] log-odds.

    Returns:
        ([n] position of the first that holds the leading answer, -1 where nobody answered;
        [n] confidence, up to rounding that of the scalar definition).
    """
    count, width = answers.shape
    totals = np.zeros((width, count))
    first = answers.T >= 0
    for i in range(width):
        for j in range(width):
            # Summed in the voters' order, as the scalar definition does, so that ties are ties.
            totals[i] += np.where(answers[:, j] == answers[:, i], weights[:, j], 0.0)
        for j in range(i):
            first[i] &= answers[:, j] != answers[:, i]
    leader = np.full(count, -1, dtype=np.int64)
    lead = np.full(count, -np.inf)
    for i in range(width):
        better = first[i] & (totals[i] > lead)
        leader[better] = i
        lead[better] = totals[i][better]
    # A missing answer is one that nobody else gave: it weighs, but never leads.
    missing = answers.T == -1
    totals = np.where(missing, weights.T, totals)
    counted = first | missing
    top = np.maximum(0.0, np.where(counted, totals, -np.inf).max(axis=0))
    weight = np.where(counted, np.exp(np.where(counted, totals - top, 0.0)), 0.0).sum(axis=0)
    return leader, np.exp(lead - top) / (np.exp(-top) + weight)


def gates_open(answers: IntArray, weights: FloatArray, thresholds: FloatArray) -> BoolArray:
    """Where the watched agents agree less than the threshold, [n].

    A confidence at its threshold is settled by the scalar definition, so that the scheduler of
    live runs and the replay open the same gates.

    Args:
        answers, weights: as in `leading_answers`.
        thresholds: [n].
    """
    _, confidence = leading_answers(answers, weights)
    opens = confidence < thresholds
    for row in np.flatnonzero(np.abs(confidence - thresholds) < _CLOSE):
        spoke = answers[row] != SILENT
        voices = [None if answer < 0 else int(answer) for answer in answers[row][spoke]]
        _, exact = leading_answer(voices, [float(weight) for weight in weights[row][spoke]])
        opens[row] = exact < thresholds[row]
    return opens
