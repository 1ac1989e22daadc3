"""What the training queries say of options by category: how often right, what they take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.traces import TraceSet

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class CategoryRates:
    """Means per category, pulled towards the mean over all.

    Args:
        names: of the categories; the last row of the tables is for any other.
        success: [C + 1, B]
        spend: [C + 1, B]
    """

    names: tuple[str, ...]
    success: FloatArray
    spend: FloatArray

    @classmethod
    def of(
        cls,
        traces: TraceSet,
        positions: IntArray,
        right: FloatArray,
        spend: FloatArray,
        shrinkage: float,
    ) -> CategoryRates:
        """From results of B options on N queries.

        Args:
            positions: [N] of the queries.
            right, spend: [B, N].
            shrinkage: how many queries at the overall mean each category is given.
        """
        category = traces.category[positions]
        size = len(traces.categories)
        counts = np.bincount(category, minlength=size)[:, None]
        tables: list[FloatArray] = []
        for values in (right, spend):
            sums: FloatArray = np.zeros((size, len(values)))
            np.add.at(sums, category, values.T)
            overall = values.mean(axis=1)
            shrunk: FloatArray = (sums + shrinkage * overall) / np.maximum(counts + shrinkage, 1e-9)
            filled = np.where(counts > 0, shrunk, overall)
            tables.append(np.concatenate([filled, overall[None]]))
        return cls(traces.categories, tables[0], tables[1])

    def rows(self, traces: TraceSet, positions: IntArray) -> IntArray:
        """[N] row of the tables for each query."""
        row = {name: number for number, name in enumerate(self.names)}
        known = np.array([row.get(name, len(self.names)) for name in traces.categories])
        return known[traces.category[positions]]


def log_odds(rate: FloatArray) -> FloatArray:
    """log(rate / (1 - rate)), of rates kept off 0 and 1."""
    clipped = np.clip(rate, 0.02, 0.98)
    return np.log(clipped) - np.log1p(-clipped)
