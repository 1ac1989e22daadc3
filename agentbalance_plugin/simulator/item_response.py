"""Answers to queries that were never recorded: a two-parameter item-response model.

The chance that backbone b is right about a query of difficulty d is sigmoid(slope_b · (ability_b -
d)) (Birnbaum 1968). Difficulties of unknown queries are drawn from those of the recorded ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.sampling import draw_keys, string_key, uniforms
from agentbalance_plugin.core.traces import TraceSet

FloatArray = NDArray[np.float64]

RIGHT_ANSWER = 0
_WRONG_ANSWERS = 3
_NEWTON_STEPS = 12
_RIDGE = 1.0


class ItemResponse:
    """Fitted to the answers of one split.

    Args:
        traces: recorded answers; all splits are used where there is no `train`.
        seed: of every draw.
    """

    def __init__(self, traces: TraceSet, seed: int) -> None:
        rows = (
            traces.positions("train")
            if "train" in traces.splits
            else np.arange(len(traces.queries))
        )
        correct = traces.correct[rows].astype(np.float64)
        recorded = correct >= 0
        share = (np.where(recorded, correct, 0).sum(axis=1) + 0.5) / (recorded.sum(axis=1) + 1.0)
        difficulty = -np.log(share / (1.0 - share))
        self._seed = seed
        self._difficulties = np.sort(difficulty)
        self._columns = {name: column for column, name in enumerate(traces.backbones)}
        # Per backbone: intercept and slope of its log-odds against the difficulty.
        self._curves = np.stack(
            [
                _logistic(difficulty[recorded[:, b]], correct[recorded[:, b], b])
                for b in range(len(traces.backbones))
            ]
        )
        self._visible = _means(traces.visible_tokens[rows], recorded)
        self._hidden = _means(traces.hidden_tokens[rows], recorded)

    def answer(self, text: str, backbone: str, agent: str, turn: int) -> tuple[int, bool]:
        """(answer code, whether it is right) for a text; code 0 is the right one."""
        query = string_key(text)
        rank = uniforms(draw_keys(self._seed, query))[0]
        difficulty = self._difficulties[int(rank * len(self._difficulties))]
        intercept, slope = self._curves[self._columns[backbone]]
        chance = 1.0 / (1.0 + np.exp(-(intercept + slope * difficulty)))
        keys = draw_keys(self._seed, query, string_key(backbone), string_key(agent), turn)
        if uniforms(keys)[0] < chance:
            return RIGHT_ANSWER, True
        # Wrong answers crowd: the first one is given as often as all others together.
        which = int(-np.log2(np.maximum(uniforms(draw_keys(1, keys))[0], 1e-9)))
        return 1 + min(which, _WRONG_ANSWERS - 1), False

    def tokens(self, backbone: str) -> tuple[int, int]:
        """(visible, hidden) completion tokens: the backbone's means."""
        column = self._columns[backbone]
        return int(self._visible[column]), int(self._hidden[column])


def _logistic(x: FloatArray, y: FloatArray) -> FloatArray:
    """(intercept, slope) of a ridge-penalised logistic regression, by Newton's method."""
    weights = np.zeros(2)
    design = np.stack([np.ones_like(x), x], axis=1)
    for _ in range(_NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-design @ weights))
        gradient = design.T @ (y - chance) - _RIDGE * weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + _RIDGE * np.eye(2)
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights


def _means(tokens: NDArray[np.int32], recorded: NDArray[np.bool_]) -> FloatArray:
    total = np.where(recorded, tokens, 0).sum(axis=0)
    return np.rint(total / np.maximum(recorded.sum(axis=0), 1))
