"""Where replies may be cut off: what the longest of a backbone's replies are worth.

The longest replies are dear and seldom right: some never come to an end. A cap just below them
saves more than it loses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Shares of the replies that a cap leaves whole.
_WHOLE = (0.95, 0.9, 0.8)
# So many answers tell how long the longest tenth is.
_ENOUGH = 100
# Right answers that are taken to be spread over lengths as all answers are.
_SPREAD = 5.0


def reply_cuts(
    categories: Sequence[str],
    of_query: NDArray[np.int64],
    mean: NDArray[np.float64],
    tokens: NDArray[np.integer],
    correct: NDArray[np.integer],
) -> dict[str, tuple[tuple[float, float, float], ...]]:
    """`Profile.cuts` of one backbone, of the benchmarks that it gave enough answers to.

    Args:
        categories: C names, "benchmark" or "benchmark/category".
        of_query: [Q] which of them each query is of.
        mean: [C] visible tokens of its replies.
        tokens: [Q, S] visible ones of each sample's reply.
        correct: [Q, S] 1, 0, or -1 where there is no answer recorded.
    """
    benchmark = np.array([name.partition("/")[0] for name in categories])
    recorded = correct >= 0
    found: dict[str, tuple[tuple[float, float, float], ...]] = {}
    for name in np.unique(benchmark).tolist():
        here = (benchmark == name)[of_query][:, None] & recorded
        length = tokens[here].astype(np.float64)
        relative = length / np.broadcast_to(mean[of_query][:, None], here.shape)[here].clip(1.0)
        right = correct[here] == 1
        if len(length) < _ENOUGH or not length.any():
            continue
        cuts: list[tuple[float, float, float]] = []
        for whole in _WHOLE:
            multiple = float(np.quantile(relative, whole))
            kept = float((right & (relative <= multiple)).sum())
            share = (kept + _SPREAD * whole) / (float(right.sum()) + _SPREAD)
            within = length * np.minimum(1.0, multiple / relative.clip(1e-9))
            up_to = float(within.sum() / length.sum())
            if multiple > 0.0 and up_to < 1.0:
                cuts.append((round(multiple, 4), round(share, 4), round(up_to, 4)))
        if cuts:
            found[name] = tuple(cuts)
    return found
