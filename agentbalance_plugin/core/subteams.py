"""What sub-teams are worth, each worked out once for all the candidates that it is part of.

`teamwork.value` says the same of one candidate after the other; most of what it does for the
hundreds that a task has would be done over and over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.candidates import Table, group_sums
from agentbalance_plugin.core.teamwork import (
    NODE_WEIGHTS,
    Predicted,
    Value,
    given_difficulty,
    later,
)

FloatArray = NDArray[np.float64]


def values(predicted: Predicted, candidates: Table) -> Value:
    """Success, cost and latency of all candidates of a table, where no reply is cut off.

    Args:
        predicted: of N queries and the m backbones of the table.
    """
    success, opens = _votes(predicted, candidates)
    start = np.stack(
        [
            group_sums(predicted.cost_usd, candidates),
            _times(predicted.latency_s, candidates, opens),
        ],
        axis=1,
    )
    tasks, size = predicted.log_odds.shape
    alone = np.zeros((tasks, 2, size + 1))
    alone[:, 0, :size], alone[:, 1, :size] = predicted.cost_usd, predicted.latency_s
    spent = start.take(candidates.start, axis=2)
    for agent, gate in (
        (candidates.third, candidates.third_opens),
        (candidates.fourth, candidates.fourth_opens),
    ):
        # Where nobody waits, who has number m costs nothing.
        spent += opens.take(gate, axis=1)[:, None] * alone.take(agent, axis=2)
    return Value(success.take(candidates.success, axis=1), spent[:, 0], spent[:, 1])


def _votes(predicted: Predicted, candidates: Table) -> tuple[FloatArray, FloatArray]:
    """([N, m + m * m + T + T * m] success, [N, m * m + T] chance that no two agree)."""
    odds = predicted.log_odds
    tasks = len(odds)
    p = given_difficulty(predicted)
    wrong = 1.0 - p
    same = predicted.coincidence[:, None, None]
    single = p @ NODE_WEIGHTS
    surer = odds[:, :, None] >= odds[:, None, :]
    pair = np.where(surer, single[:, :, None], single[:, None, :]).reshape(tasks, -1)
    turned, wrong_turned = p.swapaxes(1, 2), wrong.swapaxes(1, 2)
    agree = (p * NODE_WEIGHTS) @ turned + same * ((wrong * NODE_WEIGHTS) @ wrong_turned)
    disagree = (1.0 - agree).reshape(tasks, -1)
    triples = candidates.triples
    if not len(triples):
        return np.concatenate([single, pair], axis=1), disagree

    apart, apart_from_two = 1.0 - same, np.maximum(0.0, 1.0 - 2.0 * same)
    a, b, c = (p[:, triples[:, j]] for j in range(3))
    not_a, not_b, not_c = (wrong[:, triples[:, j]] for j in range(3))
    both = a * b
    neither = not_a * not_b
    two = both + (a + b - 2.0 * both) * c
    # Only one of them is right and all differ.
    alone = np.stack([a * not_b * not_c, not_a * b * not_c, neither * c])
    alone *= apart
    known = alone.sum(axis=0)
    nobody = neither * not_c * (apart * apart_from_two)
    of_three = odds[:, triples]
    first = of_three.argmax(axis=2)
    surest = alone[first, np.arange(tasks)[:, None], np.arange(len(triples))]
    triple = (two + surest) @ NODE_WEIGHTS
    undecided = (known + nobody) @ NODE_WEIGHTS

    # A fourth answer agrees with the one that is right, or the surest of all that differ wins.
    ahead = of_three.max(axis=2)[:, :, None] >= odds[:, None, :]
    turned, wrong_turned = turned * NODE_WEIGHTS[:, None], wrong_turned * NODE_WEIGHTS[:, None]
    fourth = np.where(ahead, (surest @ wrong_turned) * apart_from_two, nobody @ turned)
    fourth += known @ turned
    fourth += (two @ NODE_WEIGHTS)[:, :, None]
    success = np.concatenate([single, pair, triple, fourth.reshape(tasks, -1)], axis=1)
    return success, np.concatenate([disagree, undecided], axis=1)


def _times(time: FloatArray, candidates: Table, opens: FloatArray) -> FloatArray:
    """[N, m + m * m + 2 T + Q] until those that start at once have ended, or are decided."""
    tasks, size = time.shape
    pair = later(time[:, :, None], time[:, None, :]).reshape(tasks, -1)
    triples, fours = candidates.triples, candidates.fours
    first = triples[:, 0] * size + triples[:, 1]
    together = pair[:, first]
    triple = later(together, time[:, triples[:, 2]])
    disagree, undecided = opens[:, first], opens[:, size * size :]
    race_three = together + disagree * (triple - together)
    begins = candidates.begins
    three = triple[:, begins]
    four = later(three, time[:, fours[:, 3]])
    race_four = race_three[:, begins] + undecided[:, begins] * (four - three)
    return np.concatenate([time, pair, triple, race_three, race_four], axis=1)
