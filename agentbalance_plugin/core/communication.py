"""What an agent answers after it has read what others said. Modelled, not recorded.

The reader chooses among its own recorded answer, the answers it read, and something new, with
probability proportional to exp(utility). An answer's utility grows with the number of sources that
gave it, the reader being one (the reading of debate as voting, arXiv 2508.17536), and right answers
attract beyond their count, as they did real agents. Something new, which is wrong and agrees with
nothing, has a utility of its own. `agentbalance_plugin.core.communication_fit` fits the constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.sampling import KeyArray, draw_keys, uniforms

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

# New answers are numbered from here, far above the codes of recorded ones.
FIRST_NEW_ANSWER = 1 << 30

_OWN_UNREADABLE = -1
_SOMETHING_NEW = -2


@dataclass(frozen=True)
class Influence:
    """Constants of the model, fitted to recorded debates of real agents (docs/replay.md).

    Args:
        own: bonus of one's own answer, beyond being a source of it.
        source: weight of the log-odds of each source of an answer.
        new: utility of something new.
        count: utility that each source adds to an answer, however reliable it is.
        right: bonus of a right answer; of something new where no answer at hand is right.
    """

    own: float = 0.04
    source: float = 0.0
    new: float = -0.28
    count: float = 0.96
    right: float = 0.34


@dataclass(frozen=True)
class Voice:
    """One source for n readers, arrays of shape [n].

    Args:
        answer: answer codes; -1 where the source said nothing that can be compared.
        correct: whether the answer is right.
        log_odds: of the source being right in the query's category.
    """

    answer: IntArray
    correct: BoolArray
    log_odds: FloatArray


def after_reading(
    own: Voice, peers: Sequence[Voice], keys: KeyArray, constants: Influence
) -> tuple[IntArray, BoolArray, BoolArray]:
    """Draw the answers of n readers.

    The draw of an answer depends on its code, not on the order in which the peers are given.
    A reader that heard no answer other than its own keeps it: the constants were fitted to agents
    that faced disagreement. A reader without an answer of its own takes one it
    read or something new; if its own can't be compared but is known to be right (programs), that
    is what it may keep.

    Args:
        own: what the readers would answer alone.
        peers: what they read; answer -1 where a reader did not hear that peer.
        keys: [n] one per draw.
        constants: of the model.

    Returns:
        ([n] answer codes, [n] whether right, [n] whether a differing answer was read).
    """
    answer, correct = own.answer.copy(), own.correct.copy()
    influenced = np.zeros(len(answer), dtype=np.bool_)
    for peer in peers:
        influenced |= (peer.answer >= 0) & (peer.answer != own.answer)
    if not influenced.any():
        return answer, correct, influenced
    readable = own.answer >= 0
    none_right = ~own.correct
    best = np.where(
        readable | own.correct,
        constants.own
        + _weight(own, constants)
        + constants.right * own.correct
        + _support(own.answer, peers, constants)
        + _gumbel(keys, np.where(readable, own.answer, _OWN_UNREADABLE)),
        -np.inf,
    )
    for index, peer in enumerate(peers):
        offered = (peer.answer >= 0) & (peer.answer != own.answer)
        for earlier in peers[:index]:
            offered &= peer.answer != earlier.answer
        utility = np.where(
            offered,
            _support(peer.answer, peers, constants)
            + constants.right * peer.correct
            + _gumbel(keys, peer.answer),
            -np.inf,
        )
        none_right &= ~(offered & peer.correct)
        better = influenced & (utility > best)
        best = np.where(better, utility, best)
        answer = np.where(better, peer.answer, answer)
        correct = np.where(better, peer.correct, correct)
    something_new = (
        constants.new
        + constants.right * none_right
        + _gumbel(keys, np.full(len(answer), _SOMETHING_NEW))
    )
    fresh = influenced & (something_new > best)
    numbers = (draw_keys(0, keys) >> np.uint64(34)).astype(np.int64) + FIRST_NEW_ANSWER
    return np.where(fresh, numbers, answer), correct & ~fresh, influenced


def _support(answer: IntArray, peers: Sequence[Voice], constants: Influence) -> FloatArray:
    """What the peers add to the utility of an answer."""
    total = np.zeros(len(answer))
    for peer in peers:
        agrees = (peer.answer >= 0) & (peer.answer == answer)
        total += np.where(agrees, _weight(peer, constants), 0.0)
    return total


def _weight(source: Voice, constants: Influence) -> FloatArray:
    """What each source adds to the utility of its answer."""
    return constants.count + constants.source * source.log_odds


def _gumbel(keys: KeyArray, option: IntArray) -> FloatArray:
    """Noise whose largest sum with the utilities falls on each option as often as it should."""
    draw = uniforms(draw_keys(1, keys, option.view(np.uint64)))
    return -np.log(-np.log(np.maximum(draw, 2.0**-54)))
