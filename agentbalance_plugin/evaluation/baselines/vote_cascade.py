"""Cascades with votes and three stages: one plan for all queries, from the library's candidates.

FrugalGPT's idea (arXiv 2305.05176) with agreement in the scorer's place, as in Yue et al., "LLM
cascades with mixture of thought" (arXiv 2310.03094): go on only where answers differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.library import candidate_plans
from agentbalance_plugin.evaluation.trials import (
    Family,
    Fitted,
    Known,
    Trial,
    every,
    integers,
    play,
)

IntArray = NDArray[np.int64]


class VoteCascade:
    """The votes and cascades worth most at each price on the train queries."""

    name = "cascades with votes"
    family: Family = "cascade"
    grid: Mapping[str, Any] = {"backbones": [8], "plans_per_price": [4]}

    def fit(self, known: Known) -> Fitted:
        plans = candidate_plans(known)
        train = play(known.replay, known.train, every(plans, len(known.train)))
        means = (train.right.mean(axis=1), train.spend(known.axis).mean(axis=1))
        worth = means[0] - known.prices[:, None] * means[1]
        best = (-worth).argsort(axis=1, kind="stable")[:, : self.grid["plans_per_price"][0]]
        chosen = [plans[number] for number in integers(np.unique(best))]

        def points(replay: Replay, positions: IntArray) -> Trial:
            return play(replay, positions, every(chosen, len(positions)))

        return points
