"""What a US dollar must buy for a stream of tasks to meet its mean cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

_STEPS = 16
_LOWEST_PRICE = 1e-2
_HIGHEST_PRICE = 1e6


def solve_price(mean_cost: Callable[[float], float], target_usd: float) -> float:
    """The least price at which the mean cost of what is chosen is within the target.

    Warns where no price is: replies will be cut short, for want of money alone.

    Args:
        mean_cost: of a price, in US dollars; falls as the price rises.
        target_usd: mean cost of a task.

    Returns:
        success per US dollar, to within about a hundredth of its logarithm; 0 where even free
        choice costs no more.
    """
    if mean_cost(0.0) <= target_usd:
        return 0.0
    least = mean_cost(_HIGHEST_PRICE)
    if least > target_usd:
        warnings.warn(
            f"Budget.average: a mean of {target_usd:.3g} USD is less than the {least:.3g} that the "
            "cheapest plans are predicted to cost; replies would be cut short for want of money. "
            "Allow a larger mean, or add a cheaper backbone",
            stacklevel=2,
        )
        return _HIGHEST_PRICE
    low, high = np.log(_LOWEST_PRICE), np.log(_HIGHEST_PRICE)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if mean_cost(float(np.exp(middle))) > target_usd:
            low = middle
        else:
            high = middle
    return float(np.exp(high))
