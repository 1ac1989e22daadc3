"""What a US dollar must buy for a stream of tasks to meet its mean cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_STEPS = 40
_HIGHEST_PRICE = 1e6


def solve_price(
    success: Sequence[FloatArray], cost_usd: Sequence[FloatArray], target_usd: float
) -> float:
    """The least price at which the mean cost of the best candidates is within the target.

    Args:
        success: per query that stands for the stream, predicted of each of its candidates; minus
            infinity where a candidate can't be run.
        cost_usd: likewise, predicted.
        target_usd: mean cost of a task.
    """
    width = max(map(len, success))
    gain = np.array([np.pad(s, (0, width - len(s)), constant_values=-np.inf) for s in success])
    cost = np.array([np.pad(c, (0, width - len(c))) for c in cost_usd])

    def mean_cost(price: float) -> float:
        best = (gain - price * cost).argmax(axis=1)
        return float(cost[np.arange(len(cost)), best].mean())

    if mean_cost(0.0) <= target_usd:
        return 0.0
    low, high = 1e-3, _HIGHEST_PRICE
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        if mean_cost(middle) > target_usd:
            low = middle
        else:
            high = middle
    return high
