"""How far a query is from what a policy was trained on.

A query's n-grams are likely in the training queries of some category, or in none of them. Their
mean log-likelihood under the category that explains them best is compared with what it is for known
queries nearest to that category. It tells held-out benchmarks better than the distance
between learned encodings does, which were trained to tell categories apart and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.checkpoint import PolicyError
from agentbalance_plugin.core.encoder import Features
from agentbalance_plugin.core.naive_bayes import NaiveBayes

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
# A category needs so many known queries nearest to it for figures of its own.
_ENOUGH = 6
_KNOWN_SHARE = 0.95


@dataclass(frozen=True, eq=False)
class Novelty:
    """Distance of queries from the training queries, in standard deviations of known ones.

    Args:
        bayes: n-grams of the training queries of C categories.
        typical, spread: [C] mean and standard deviation of the mean log-likelihood of known
            queries that are nearest to the category.
        threshold: further than this is far: 95 of 100 validation queries are nearer.
    """

    bayes: NaiveBayes
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
        bayes = NaiveBayes.fit(train, of_query)
        scores = np.stack([bayes.scores(bag) for bag in val])
        nearest, best = scores.argmax(axis=1), scores.max(axis=1)
        typical, spread = np.full(kinds, best.mean()), np.full(kinds, best.std() + 1e-6)
        for number in range(kinds):
            own = best[nearest == number]
            if len(own) >= _ENOUGH:
                typical[number], spread[number] = own.mean(), own.std() + 1e-6
        distance = (typical[nearest] - best) / spread[nearest]
        return cls(
            bayes=bayes,
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
                    if query.features is None and query.question is None:
                        raise ValueError(f"query {query.key!r} has neither features nor a text")
                    into.append(Features.mean(query.ngrams))
                    if split == "train":
                        category.append(number.setdefault(query.category, len(number)))
        return cls.fit(bags["train"], category, bags["val"])

    def distance(self, query: Features) -> float:
        """Standard deviations by which a query is less likely than known ones like it.

        A text without any feature is infinitely far.
        """
        if not len(query.ids):
            return float("inf")
        scores = self.bayes.scores(query)
        nearest = int(scores.argmax())
        return float((self.typical[nearest] - scores[nearest]) / self.spread[nearest])

    def save(self, folder: str | Path) -> None:
        """Write `novelty.safetensors` beside a policy."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[np.generic]] = {
            **self.bayes.tensors,
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
                bayes=NaiveBayes.of_tensors(tensors),
                typical=tensors["typical"].astype(np.float64),
                spread=tensors["spread"].astype(np.float64),
                threshold=float(tensors["threshold"][0]),
            )
        except (SafetensorError, KeyError, IndexError, ValueError) as error:
            raise PolicyError(f"{path}: truncated, or not what was saved: {error}") from error
        if not found.typical.shape == found.spread.shape == found.bayes.queries.shape:
            raise PolicyError(f"{path}: its arrays do not fit each other")
        return found


def trust_in_text(distance: FloatArray) -> FloatArray:
    """[N] in [0, 1]: how much of what is read off a text holds where nobody was trained on tasks of
    its kind. What texts of other kinds taught of success and length is mostly wrong there, and the
    backbones' own profile is known."""
    return np.clip((_ALL_NEW - distance) / (_ALL_NEW - _NOTHING_NEW), 0.0, 1.0)
