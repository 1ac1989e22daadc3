"""Category -> single backbone: a table of training means; no text is read.

The bar that a router has to clear: it is told the true category of each query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.rates import CategoryRates
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


class CategoryTable:
    """At each price the backbone that is worth most in the query's category."""

    name = "category -> single backbone"
    family: Family = "router"
    grid: Mapping[str, Any] = {"shrinkage": [0.5, 2.0, 8.0, 32.0]}

    def fit(self, known: Known) -> Fitted:
        def build(shrinkage: float) -> Fitted:
            spend = known.singles.spend(known.axis)
            rates = CategoryRates.of(
                known.traces, known.train, known.singles.right, spend, shrinkage
            )
            best = cheapest_worthy(rates.success, rates.spend, known.prices)

            def points(replay: Replay, positions: IntArray) -> Trial:
                rows = rates.rows(replay.traces, positions)
                return singles(replay, positions).take(best[:, rows])

            return points

        return tuned(known, self.grid["shrinkage"], build)
