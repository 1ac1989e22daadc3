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
    """The leading answer of n votes.

    Args:
        answers: [W, n] codes, -1 where there is none, `SILENT` where nobody spoke.
        weights: [W, n] log-odds.

    Returns:
        ([n] position of the first that holds the leading answer, -1 where nobody answered;
        [n] confidence, up to rounding that of the scalar definition).
    """
    width, count = answers.shape
    same = {(i, j): answers[i] == answers[j] for i in range(width) for j in range(i)}
    given = answers >= 0
    leader = np.full(count, -1, dtype=np.int64)
    lead = np.full(count, -np.inf)
    # What counts: each distinct answer once, and each missing one as one that nobody else gave.
    counted = np.full((width, count), -np.inf)
    for i in range(width):
        first = given[i].copy()
        total = np.zeros(count)
        for j in range(width):
            # Summed in the voters' order, as the scalar definition does, so that ties are ties.
            if i == j:
                total += weights[i]
            else:
                total += np.where(same[max(i, j), min(i, j)], weights[j], 0.0)
        for j in range(i):
            first &= ~same[i, j]
        better = first & (total > lead)
        leader[better] = i
        lead[better] = total[better]
        np.copyto(counted[i], total, where=first)
        np.copyto(counted[i], weights[i], where=answers[i] == -1)
    top = np.maximum(0.0, counted.max(axis=0))
    norm = np.exp(-top)
    for i in range(width):
        norm += np.exp(counted[i] - top)
    return leader, np.exp(lead - top) / norm


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
    for vote in np.flatnonzero(np.abs(confidence - thresholds) < _CLOSE):
        spoke = answers[:, vote] != SILENT
        voices = [None if answer < 0 else int(answer) for answer in answers[spoke, vote]]
        _, exact = leading_answer(voices, [float(weight) for weight in weights[spoke, vote]])
        opens[vote] = exact < thresholds[vote]
    return opens
