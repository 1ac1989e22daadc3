"""kNN router: a backbone's success on the nearest training queries predicts it here.

Hu et al., "RouterBench" (arXiv 2403.12031): KNN router over embeddings of queries, scored by
success less willingness to pay times cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.rates import CategoryRates
from agentbalance_plugin.evaluation.features import LatentText
from agentbalance_plugin.evaluation.trials import (
    Family,
    Fitted,
    Known,
    Trial,
    cheapest_worthy,
    singles,
    tuned,
)

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class KnnRouter:
    """Neighbours by cosine in a latent space of the queries' n-grams."""

    name = "kNN router"
    family: Family = "router"
    grid: Mapping[str, Any] = {
        "neighbours": [10, 20, 40, 80, 160],
        "pull_to_category": [0.0, 10.0, 40.0],
        "dimensions": [64],
    }

    def fit(self, known: Known) -> Fitted:
        text = LatentText.of(known.traces, known.train, self.grid["dimensions"][0])
        known_vectors = text.vectors(known.traces, known.train)
        right, spend = known.singles.right.T, known.singles.spend(known.axis).T
        rates = CategoryRates.of(known.traces, known.train, right.T, spend.T, 2.0)

        def build(option: tuple[int, float]) -> Fitted:
            neighbours, pull = min(option[0], len(right)), option[1]

            def points(replay: Replay, positions: IntArray) -> Trial:
                near = text.vectors(replay.traces, positions) @ known_vectors.T
                # Neighbours by likeness; who they are is all that counts, not their order.
                who = np.argpartition(-near, neighbours - 1, axis=1)[:, :neighbours]
                rows = rates.rows(replay.traces, positions)
                success = right[who].sum(axis=1) + pull * rates.success[rows]
                price = spend[who].sum(axis=1) + pull * rates.spend[rows]
                total = neighbours + pull
                return singles(replay, positions).take(
                    cheapest_worthy(success / total, price / total, known.prices)
                )

            return points

        options = product(self.grid["neighbours"], self.grid["pull_to_category"])
        return tuned(known, options, build)
