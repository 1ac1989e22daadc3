"""Oracle: told which backbones will be right. What a perfect router would reach, no baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.trials import Family, Fitted, Known, Trial, singles

IntArray = NDArray[np.int64]


class Oracle:
    """At each price the backbone worth most by its true outcome."""

    name = "oracle over single backbones"
    family: Family = "oracle"
    grid: Mapping[str, Any] = {}

    def fit(self, known: Known) -> Fitted:
        def points(replay: Replay, positions: IntArray) -> Trial:
            found = singles(replay, positions)
            spend = found.spend(known.axis)
            # Free choice still prefers what takes less.
            prices = np.maximum(known.prices, known.prices[1] * 1e-3)
            return found.take(
                np.stack([(found.right - price * spend).argmax(axis=0) for price in prices])
            )

        return points
