"""How far a query is from what a policy was trained on.

A query's n-grams are likely in the training queries of some category, or in none of them. Their
mean log-likelihood under the category that explains them best (naive Bayes over n-grams, smoothed
towards all queries, as in McCallum and Nigam, "A comparison of event models for naive Bayes text
classification", AAAI-98 workshop on learning for text categorization) is compared with what it is
for known queries nearest to that category. It tells held-out benchmarks better than the distance
between learned encodings does, which were trained to tell categories apart and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.checkpoint import PolicyError
from agentbalance_plugin.core.encoder import FEATURE_BUCKETS, Features, hash_features

if TYPE_CHECKING:
    from agentbalance_plugin.core.traces import TraceSet

FloatArray = NDArray[np.float64]

NOVELTY = "novelty.safetensors"

FAR_DISCOUNT = 0.05
"""Success that a plan of one agent must be ahead by on a far query: predictions are worth less
there, agreement is not. Chosen on validation queries of benchmarks that were held out."""

# Distances up to which a text is read as ever, and from which not at all, where the kind of task is
# new. Chosen on validation queries of suites that policies were not trained on (docs/tried.md).
_NOTHING_NEW = -1.0
_ALL_NEW = 1.0
# Queries of all kinds that a category's own rates are mixed with.
_SMOOTHING = 20.0
# A category needs so many known queries nearest to it for figures of its own.
_ENOUGH = 6
_KNOWN_SHARE = 0.95
# Counts are kept in a byte each; beyond this a feature is common enough.
_MOST = 255


@dataclass(frozen=True, eq=False)
class Novelty:
    """Distance of queries from the training queries, in standard deviations of known ones.

    Args:
        feature, category, count: [n] how many training queries of a category have a feature, where
            any has.
        queries: [C] training queries of each category.
        typical, spread: [C] mean and standard deviation of the mean log-likelihood of known
            queries that are nearest to the category.
        threshold: further than this is far: 95 of 100 validation queries are nearer.
    """

    feature: NDArray[np.int32]
    category: NDArray[np.int32]
    count: NDArray[np.int32]
    queries: NDArray[np.int32]
    typical: FloatArray
    spread: FloatArray
    threshold: float

    @classmethod
    def fit(
        cls,
        train: Sequence[Features],
        category: Sequence[int] | NDArray[np.int64],
        val: Sequence[Features],
    ) -> Novelty:
        """Count on training queries; what is typical and the threshold come from validation ones.

        Args:
            train: hashed n-grams of each training query.
            category: of each of them, from 0.
            val: of validation queries of the same kinds.

        Raises:
            ValueError: no training or no validation query, or lengths that differ.
        """
        # A text without any feature is infinitely far from everything, and typical of nothing.
        val = [bag for bag in val if len(bag.ids)]
        if not train or not val or len(train) != len(category):
            raise ValueError(
                f"novelty needs training queries with a category each and validation queries with "
                f"a text, got {len(train)} with {len(category)} categories, and {len(val)}"
            )
        of_query = np.asarray(category, dtype=np.int64)
        kinds = int(of_query.max()) + 1
        counts = np.zeros((FEATURE_BUCKETS, kinds), dtype=np.int32)
        for bag, kind in zip(train, of_query.tolist(), strict=True):
            counts[bag.ids, kind] += 1
        feature, kind = np.nonzero(counts)
        draft = cls(
            feature=feature.astype(np.int32),
            category=kind.astype(np.int32),
            count=np.minimum(counts[feature, kind], _MOST),
            queries=np.bincount(of_query, minlength=kinds).astype(np.int32),
            typical=np.zeros(kinds),
            spread=np.ones(kinds),
            threshold=np.inf,
        )
        scores = np.stack([draft._scores(bag) for bag in val])
        nearest, best = scores.argmax(axis=1), scores.max(axis=1)
        typical, spread = np.full(kinds, best.mean()), np.full(kinds, best.std() + 1e-6)
        for number in range(kinds):
            own = best[nearest == number]
            if len(own) >= _ENOUGH:
                typical[number], spread[number] = own.mean(), own.std() + 1e-6
        distance = (typical[nearest] - best) / spread[nearest]
        return cls(
            feature=draft.feature,
            category=draft.category,
            count=draft.count,
            queries=draft.queries,
            typical=typical,
            spread=spread,
            threshold=float(np.quantile(distance, _KNOWN_SHARE)),
        )

    @classmethod
    def of_traces(cls, traces: Sequence[TraceSet]) -> Novelty:
        """Fit on the train and val splits of one TraceSet per suite.

        Raises:
            TraceError: a split is absent.
            ValueError: a query has neither recorded features nor a text.
        """
        number: dict[str, int] = {}
        bags: dict[str, list[Features]] = {"train": [], "val": []}
        category: list[int] = []
        for suite in traces:
            for split, into in bags.items():
                for query in suite.split(split).queries:
                    ids = query.features
                    if ids is None and query.question is None:
                        raise ValueError(f"query {query.key!r} has neither features nor a text")
                    into.append(
                        Features.mean(hash_features(query.question or "") if ids is None else ids)
                    )
                    if split == "train":
                        category.append(number.setdefault(query.category, len(number)))
        return cls.fit(bags["train"], category, bags["val"])

    def distance(self, query: Features) -> float:
        """Standard deviations by which a query is less likely than known ones like it.

        A text without any feature is infinitely far.
        """
        if not len(query.ids):
            return float("inf")
        scores = self._scores(query)
        nearest = int(scores.argmax())
        return float((self.typical[nearest] - scores[nearest]) / self.spread[nearest])

    def save(self, folder: str | Path) -> None:
        """Write `novelty.safetensors` beside a policy."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[np.generic]] = {
            "feature": self.feature.astype(np.uint16),
            "category": self.category.astype(np.min_scalar_type(len(self.queries))),
            "count": self.count.astype(np.uint8),
            "queries": self.queries,
            "typical": self.typical,
            "spread": self.spread,
            "threshold": np.array([self.threshold]),
        }
        (Path(folder) / NOVELTY).write_bytes(save(tensors))

    @classmethod
    def load(cls, folder: str | Path) -> Novelty | None:
        """What `save` wrote; None for a policy without it, to which no query is far.

        Raises:
            PolicyError: a file that can't be used.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = Path(folder) / NOVELTY
        if not path.is_file():
            return None
        try:
            tensors = load(path.read_bytes())
            found = cls(
                feature=tensors["feature"].astype(np.int32),
                category=tensors["category"].astype(np.int32),
                count=tensors["count"].astype(np.int32),
                queries=tensors["queries"].astype(np.int32),
                typical=tensors["typical"].astype(np.float64),
                spread=tensors["spread"].astype(np.float64),
                threshold=float(tensors["threshold"][0]),
            )
        except (SafetensorError, KeyError, IndexError) as error:
            raise PolicyError(f"{path}: truncated, or not what was saved: {error}") from error
        kinds = len(found.queries)
        fits = (
            len(found.feature) == len(found.category) == len(found.count)
            and found.typical.shape == found.spread.shape == (kinds,)
            and int(found.feature.max(initial=0)) < FEATURE_BUCKETS
            and int(found.category.max(initial=0)) < kinds
        )
        if not fits:
            raise PolicyError(f"{path}: its arrays do not fit each other")
        return found

    def _scores(self, query: Features) -> FloatArray:
        """[C] mean log-likelihood of the query's features in each category."""
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


def trust_in_text(distance: FloatArray) -> FloatArray:
    """[N] in [0, 1]: how much of what is read off a text holds where nobody was trained on tasks of
    its kind. What texts of other kinds taught of success and length is mostly wrong there, and the
    backbones' own profile is known."""
    return np.clip((_ALL_NEW - distance) / (_ALL_NEW - _NOTHING_NEW), 0.0, 1.0)
