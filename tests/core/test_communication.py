from __future__ import annotations

import numpy as np
import pytest

from agentbalance_plugin.core.communication import (
    FIRST_NEW_ANSWER,
    Influence,
    Voice,
    after_reading,
)
from agentbalance_plugin.core.sampling import KeyArray, draw_keys

DRAWS = 20_000


def voice(answer: int, *, right: bool = False, log_odds: float = 0.0) -> Voice:
    return Voice(
        np.full(DRAWS, answer), np.full(DRAWS, right, dtype=np.bool_), np.full(DRAWS, log_odds)
    )


def keys() -> KeyArray:
    return draw_keys(3, np.arange(DRAWS).astype(np.uint64))


def shares(own: Voice, peers: list[Voice], constants: Influence) -> list[float]:
    """How often answer 0, 1, 2 and something new are drawn."""
    answer, _, _ = after_reading(own, peers, keys(), constants)
    new = float((answer >= FIRST_NEW_ANSWER).mean())
    return [*(float((answer == code).mean()) for code in range(3)), new]


def expected(*utilities: float) -> list[float]:
    weights = np.exp(utilities)
    return (weights / weights.sum()).tolist()


CONSTANTS = Influence(own=0.3, source=0.4, new=-0.6, count=0.8, right=0.5)


def test_each_option_is_drawn_as_often_as_its_utility_says() -> None:
    own = voice(0, log_odds=1.0)
    peers = [voice(1, right=True, log_odds=-0.5), voice(2, log_odds=0.2), voice(2, log_odds=0.1)]
    found = shares(own, peers, CONSTANTS)
    utilities = (0.3 + 0.8 + 0.4, 0.8 - 0.2 + 0.5, 1.6 + 0.12, -0.6)
    assert found == pytest.approx(expected(*utilities), abs=0.015)


def test_something_new_gains_where_no_answer_at_hand_is_right() -> None:
    peers = [voice(1), voice(2)]
    found = shares(voice(0), peers, CONSTANTS)
    assert found == pytest.approx(expected(0.3 + 0.8, 0.8, 0.8, -0.6 + 0.5), abs=0.015)
    found = shares(voice(0, right=True), peers, CONSTANTS)
    assert found == pytest.approx(expected(0.3 + 0.8 + 0.5, 0.8, 0.8, -0.6), abs=0.015)


def test_a_silent_peer_that_would_be_right_does_not_count_as_at_hand() -> None:
    found = shares(voice(0), [voice(1), voice(-1, right=True)], CONSTANTS)
    assert found == pytest.approx(expected(1.1, 0.8, -np.inf, -0.1), abs=0.015)


def test_the_default_constants_weigh_sources_alike_whatever_their_reliability() -> None:
    reliable = shares(voice(0), [voice(1, log_odds=3.0)], Influence())
    assert reliable == shares(voice(0), [voice(1, log_odds=-3.0)], Influence())


def test_an_own_answer_that_cannot_be_compared_may_be_kept_if_it_is_right() -> None:
    answer, correct, influenced = after_reading(
        voice(-1, right=True), [voice(1)], keys(), CONSTANTS
    )
    kept = answer == -1
    probability = expected(0.3 + 0.8 + 0.5, 0.8, -0.6)[0]
    assert float(kept.mean()) == pytest.approx(probability, abs=0.015)
    assert correct[kept].all()
    assert not correct[~kept].any()
    assert influenced.all()


def test_the_order_of_peers_changes_no_draw() -> None:
    peers = [voice(1, right=True), voice(2), voice(2), voice(0)]
    straight = after_reading(voice(0), peers, keys(), CONSTANTS)
    turned = after_reading(voice(0), peers[::-1], keys(), CONSTANTS)
    assert all(np.array_equal(a, b) for a, b in zip(straight, turned, strict=True))


def test_a_reader_that_hears_nothing_else_keeps_its_answer() -> None:
    constants = Influence(own=-9.0, new=9.0)
    answer, correct, influenced = after_reading(
        voice(0, right=True), [voice(0, right=True), voice(-1)], keys(), constants
    )
    assert (answer == 0).all()
    assert correct.all()
    assert not influenced.any()
