"""Pooled profile router: one logistic model for all backbones, over their profiles and the query.

The strongest router found on these traces. As it knows backbones by their profiles alone, rates
per category, prices and sizes, it can't learn that a backbone was lucky on some words.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.irls import fit_logistic, probability
from agentbalance_plugin.evaluation.baselines.rates import CategoryRates, log_odds
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


class ProfileRouter:
    """Profiles x query: main effects, and each latent dimension with each ability."""

    name = "pooled profile router"
    family: Family = "router"
    grid: Mapping[str, Any] = {
        "ridge": [3.0, 30.0, 300.0],
        "dimensions": [8, 24],
        "shrinkage": [4.0, 16.0],
    }

    def fit(self, known: Known) -> Fitted:
        right, spend = known.singles.right, known.singles.spend(known.axis)
        texts = {
            size: LatentText.of(known.traces, known.train, size) for size in self.grid["dimensions"]
        }

        def build(option: tuple[float, int, float]) -> Fitted:
            ridge, size, shrinkage = option
            rates = CategoryRates.of(known.traces, known.train, right, spend, shrinkage)
            text = texts[size]
            vectors = text.vectors(known.traces, known.train)
            rows = rates.rows(known.traces, known.train)
            # The very answer that is to be predicted is taken out of the rate it went into.
            counts = np.bincount(rows, minlength=len(rates.success))[rows][:, None] + shrinkage
            own = (rates.success[rows] * counts - right.T) / np.maximum(counts - 1.0, 1.0)
            model = fit_logistic(
                inputs(own, rates.success[-1], rates, vectors), right.T.reshape(-1), ridge
            )

            def points(replay: Replay, positions: IntArray) -> Trial:
                rows = rates.rows(replay.traces, positions)
                here = rates.success[rows]
                x = inputs(here, rates.success[-1], rates, text.vectors(replay.traces, positions))
                success = probability(x, model).reshape(here.shape)
                return singles(replay, positions).take(
                    cheapest_worthy(success, rates.spend[rows], known.prices)
                )

            return points

        options = product(self.grid["ridge"], self.grid["dimensions"], self.grid["shrinkage"])
        return tuned(known, options, build)


def inputs(
    here: FloatArray, overall: FloatArray, rates: CategoryRates, vectors: FloatArray
) -> FloatArray:
    """[N * B, K] rows of (query, backbone).

    Args:
        here: [N, B] success in the query's category.
        overall: [B] success anywhere.
        rates: for what a call takes on average.
        vectors: [N, D] of the queries.
    """
    count, size = here.shape
    in_category = log_odds(here)
    anywhere = np.broadcast_to(log_odds(overall), here.shape)
    dear = np.log(np.maximum(rates.spend[-1], 1e-12))
    dear = np.broadcast_to((dear - dear.mean()) / max(float(dear.std()), 1e-9), here.shape)
    easy = np.broadcast_to(in_category.mean(axis=1, keepdims=True), here.shape)
    main = np.stack([np.ones(here.shape), in_category, anywhere, dear, easy], axis=2)
    text = np.broadcast_to(vectors[:, None], (count, size, vectors.shape[1]))
    crossed = text * (in_category - easy)[:, :, None]
    return np.concatenate([main, text, crossed], axis=2).reshape(count * size, -1)
