"""Queries as short vectors for baselines that read text: latent semantic analysis of n-grams.

Deerwester et al., "Indexing by latent semantic analysis" (1990), on the same hashed n-grams that
the policy reads; the decomposition is the randomised one of Halko, Martinsson, Tropp (2011).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.encoder import FEATURE_BUCKETS
from agentbalance_plugin.core.traces import Query, TraceSet
from agentbalance_plugin.evaluation.trials import integers

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_RARE = 3
_OVERSAMPLED = 8
_POWER_STEPS = 2
_KEPT = 8

MOST_DIMENSIONS = 64


@dataclass(frozen=True)
class LatentText:
    """A projection of n-grams onto K latent dimensions.

    Args:
        column: [FEATURE_BUCKETS] row of `project` for each n-gram; -1 for those left out.
        weight: [F] inverse document frequency.
        project: [F, K].
    """

    column: IntArray
    weight: FloatArray
    project: FloatArray

    @classmethod
    def of(cls, traces: TraceSet, positions: IntArray, size: int) -> LatentText:
        """Learned from some queries' n-grams; K is `size` or less where they are few.

        Decompositions are kept: many methods ask for the same queries'.
        """
        grams = b"".join(ngrams(traces.queries[n]).tobytes() + b"|" for n in integers(positions))
        asked = hashlib.sha256(grams).digest()
        if asked not in _DECOMPOSED:
            if len(_DECOMPOSED) == _KEPT:
                _DECOMPOSED.clear()
            _DECOMPOSED[asked] = cls._decompose(traces, positions)
        found = _DECOMPOSED[asked]
        return cls(found.column, found.weight, found.project[:, :size])

    @classmethod
    def _decompose(cls, traces: TraceSet, positions: IntArray) -> LatentText:
        """With as many dimensions as anyone asks for."""
        grams = [ngrams(traces.queries[number]) for number in integers(positions)]
        counts = np.bincount(
            np.concatenate([np.zeros(0, dtype=np.int64), *grams]), minlength=FEATURE_BUCKETS
        )
        kept = np.flatnonzero(counts >= _RARE)
        column = np.full(FEATURE_BUCKETS, -1, dtype=np.int64)
        column[kept] = np.arange(len(kept))
        weight = np.log((1.0 + len(grams)) / (1.0 + counts[kept]))
        blank = cls(column, weight, np.eye(0))
        matrix = blank._weighted(grams).astype(np.float32)
        size = min(MOST_DIMENSIONS, *matrix.shape)
        rng = np.random.default_rng(0)
        sketch = matrix @ rng.standard_normal((len(kept), size + _OVERSAMPLED)).astype(np.float32)
        for _ in range(_POWER_STEPS):
            sketch = matrix @ (matrix.T @ np.linalg.qr(sketch)[0])
        basis = np.linalg.qr(sketch)[0]
        _, _, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
        return cls(column, weight, right[:size].T.astype(np.float64))

    def vectors(self, traces: TraceSet, positions: IntArray) -> FloatArray:
        """[N, K] unit vectors; zero for a query without n-grams that are known."""
        grams = [ngrams(traces.queries[number]) for number in integers(positions)]
        found = self._weighted(grams) @ self.project
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)

    def _weighted(self, grams: list[IntArray]) -> FloatArray:
        """[N, F] rows of unit length."""
        matrix = np.zeros((len(grams), len(self.weight)))
        for row, ids in enumerate(grams):
            columns = self.column[ids]
            columns = columns[columns >= 0]
            matrix[row, columns] = self.weight[columns]
        return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)


_DECOMPOSED: dict[bytes, LatentText] = {}


def ngrams(query: Query) -> IntArray:
    """Ids of a query's n-grams; none where its text may not be shown."""
    return query.ngrams.astype(np.int64)
