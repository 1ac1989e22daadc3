"""Category -> plan, from a library of about 120 plans; no text is read.

The bar that a learned policy must clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.library import library
from agentbalance_plugin.evaluation.baselines.rates import CategoryRates
from agentbalance_plugin.evaluation.trials import (
    Chosen,
    Family,
    Fitted,
    Known,
    Trial,
    cheapest_worthy,
    every,
    play,
    tuned,
)

IntArray = NDArray[np.int64]


class PlanTable:
    """At each price the plan that is worth most in the query's category."""

    name = "category -> plan"
    family: Family = "cascade"
    grid: Mapping[str, Any] = {"shrinkage": [2.0, 8.0, 32.0, 128.0, 1e9], "plans": [120]}

    def fit(self, known: Known) -> Fitted:
        plans = library(known, self.grid["plans"][0])
        train = play(known.replay, known.train, every(plans, len(known.train)))

        def build(shrinkage: float) -> Fitted:
            rates = CategoryRates.of(
                known.traces, known.train, train.right, train.spend(known.axis), shrinkage
            )
            best = cheapest_worthy(rates.success, rates.spend, known.prices)

            def points(replay: Replay, positions: IntArray) -> Trial:
                rows = rates.rows(replay.traces, positions)
                return play(replay, positions, Chosen(plans, best[:, rows]))

            return points

        return tuned(known, self.grid["shrinkage"], build)
