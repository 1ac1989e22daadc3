"""Logistic router: one model of success per backbone on the query's text, and its category or not.

Shnitzer et al., "Large language model routing with benchmark datasets" (arXiv 2309.15789): one
correctness predictor per LLM; Ding et al., "Hybrid LLM" (arXiv 2404.14618).
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


class LogisticRouter:
    """Success by logistic regression per backbone; spend by its category's mean."""

    name = "logistic router per backbone"
    family: Family = "router"
    grid: Mapping[str, Any] = {
        "ridge": [1.0, 5.0, 25.0, 125.0],
        "category": [False, True],
        "dimensions": [64],
    }

    def fit(self, known: Known) -> Fitted:
        text = LatentText.of(known.traces, known.train, self.grid["dimensions"][0])
        right, spend = known.singles.right, known.singles.spend(known.axis)
        rates = CategoryRates.of(known.traces, known.train, right, spend, 8.0)

        vectors = text.vectors(known.traces, known.train)
        odds = log_odds(rates.success)
        rows = rates.rows(known.traces, known.train)

        def build(option: tuple[float, bool]) -> Fitted:
            ridge, category = option
            models = [
                fit_logistic(inputs(vectors, odds[rows, b], category), right[b], ridge)
                for b in range(len(right))
            ]

            def points(replay: Replay, positions: IntArray) -> Trial:
                here = text.vectors(replay.traces, positions)
                rows = rates.rows(replay.traces, positions)
                success = np.column_stack(
                    [
                        probability(inputs(here, odds[rows, b], category), model)
                        for b, model in enumerate(models)
                    ]
                )
                return singles(replay, positions).take(
                    cheapest_worthy(success, rates.spend[rows], known.prices)
                )

            return points

        return tuned(known, product(self.grid["ridge"], self.grid["category"]), build)


def inputs(vectors: FloatArray, odds: FloatArray, category: bool) -> FloatArray:
    """[N, K] rows: the intercept, the backbone's log-odds in the category if used, the text."""
    ones = np.ones(len(vectors))
    return np.column_stack([ones, *([odds] if category else []), vectors])
