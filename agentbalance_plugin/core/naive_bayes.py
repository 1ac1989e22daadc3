"""Which queries have which n-grams: naive Bayes, smoothed towards all queries.

McCallum and Nigam, "A comparison of event models for naive Bayes text classification", AAAI-98
workshop on learning for text categorization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.encoder import FEATURE_BUCKETS, Features

FloatArray = NDArray[np.float64]

# Queries of all kinds that a category's own rates are mixed with.
_SMOOTHING = 20.0
# Counts are kept in a byte each; beyond this a feature is common enough.
_MOST = 255


@dataclass(frozen=True, eq=False)
class NaiveBayes:
    """How often queries of C categories have a feature.

    Args:
        feature, category, count: [n] how many queries of a category have a feature, where any has.
        queries: [C] of each category.
    """

    feature: NDArray[np.int32]
    category: NDArray[np.int32]
    count: NDArray[np.int32]
    queries: NDArray[np.int32]

    @classmethod
    def fit(cls, bags: Sequence[Features], category: NDArray[np.int64]) -> NaiveBayes:
        """Count.

        Args:
            bags: hashed n-grams of each query; at least one query.
            category: of each of them, from 0.
        """
        kinds = int(category.max()) + 1
        counts = np.zeros((FEATURE_BUCKETS, kinds), dtype=np.int32)
        for bag, kind in zip(bags, category.tolist(), strict=True):
            counts[bag.ids, kind] += 1
        feature, kind = np.nonzero(counts)
        return cls(
            feature=feature.astype(np.int32),
            category=kind.astype(np.int32),
            count=np.minimum(counts[feature, kind], _MOST),
            queries=np.bincount(category, minlength=kinds).astype(np.int32),
        )

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> NaiveBayes:
        """What `tensors` made.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays do not fit each other.
        """
        names = ("feature", "category", "count", "queries")
        found = cls(*(tensors[name].astype(np.int32) for name in names))
        fits = (
            len(found.feature) == len(found.category) == len(found.count)
            and int(found.feature.max(initial=0)) < FEATURE_BUCKETS
            and int(found.category.max(initial=0)) < len(found.queries)
        )
        if not fits:
            raise ValueError("its arrays do not fit each other")
        return found

    @property
    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """In as few bytes as they need."""
        return {
            "feature": self.feature.astype(np.uint16),
            "category": self.category.astype(np.min_scalar_type(len(self.queries))),
            "count": self.count.astype(np.uint8),
            "queries": self.queries,
        }

    def scores(self, query: Features) -> FloatArray:
        """[C] mean log-likelihood of the query's features, of which it has some, in each
        category."""
        gains, overall, share = self._rates
        ids = query.ids
        mean = np.full(len(ids), 1.0 / len(ids), dtype=np.float32)
        return mean @ gains.take(ids, axis=0) + overall.take(ids).mean() + share

    @cached_property
    def _rates(self) -> tuple[NDArray[np.float32], FloatArray, FloatArray]:
        """([V, C] what a category adds to the log-rate of a feature, [V] log-rates over all
        queries, [C] what smoothing takes off)."""
        total = np.zeros(FEATURE_BUCKETS)
        np.add.at(total, self.feature, self.count)
        overall = (total + 0.5) / (float(self.queries.sum()) + 1.0)
        gains = np.zeros((FEATURE_BUCKETS, len(self.queries)), dtype=np.float32)
        gains[self.feature, self.category] = np.log1p(
            self.count / (_SMOOTHING * overall[self.feature])
        )
        return gains, np.log(overall), np.log(_SMOOTHING / (self.queries + _SMOOTHING))
