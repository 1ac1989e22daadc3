"""The user's own kinds of tasks: what tells them apart, and what backbones do on each.

A policy knows the kinds that it was trained on. Where backbones were profiled on others, the
n-grams of the questions that were recorded say which of these a task is of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Backbone, Catalog, CatalogError, Profile
from agentbalance_plugin.core.encoder import Features
from agentbalance_plugin.core.naive_bayes import NaiveBayes
from agentbalance_plugin.core.whole_files import put

if TYPE_CHECKING:
    from agentbalance_plugin.core.traces import Query, TraceSet

FloatArray = NDArray[np.float64]

KINDS = "kinds.safetensors"

# Of the sum of a text's log-likelihoods: its n-grams overlap, and each of them counts little.
# Chosen on validation queries of suites that policies were not trained on (docs/tried.md).
_PART = 0.1


@dataclass(frozen=True, eq=False)
class Kinds:
    """Tells kinds of tasks apart by their texts.

    Args:
        names: of the K kinds, as profiles have them.
    """

    names: tuple[str, ...]
    bayes: NaiveBayes

    @classmethod
    def fit(cls, bags: Sequence[Features], names: Sequence[str]) -> Kinds:
        """Count the n-grams of recorded questions.

        Args:
            bags: hashed n-grams of each.
            names: the kind of each.
        """
        found = tuple(sorted(set(names)))
        number = {name: index for index, name in enumerate(found)}
        category = np.array([number[name] for name in names], dtype=np.int64)
        return cls(found, NaiveBayes.fit(bags, category))

    def save(self, path: Path) -> None:
        from safetensors.numpy import save

        names = np.frombuffer(json.dumps(self.names).encode(), dtype=np.uint8)
        put(path, save({**self.bayes.tensors, "names": names}))

    @classmethod
    def load(cls, path: Path) -> Kinds:
        """What `save` wrote.

        Raises:
            CatalogError: missing, truncated or something else.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(path.read_bytes())
            bayes = NaiveBayes.of_tensors(tensors)
            names: list[str] = json.loads(tensors["names"].tobytes())
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CatalogError(
                f"kinds: {path} can't be used ({error}); make it again with agentbalance record, "
                "or take the line out of the catalog"
            ) from error
        if len(names) != len(bayes.queries):
            raise CatalogError(f"kinds: {path} has {len(names)} names for {len(bayes.queries)}")
        return cls(tuple(names), bayes)

    @classmethod
    def of_queries(cls, queries: Sequence[Query]) -> Kinds:
        """By their texts, or what was recorded of these, and their categories."""
        bags = [Features.mean(query.ngrams) for query in queries]
        return cls.fit(bags, [query.category for query in queries])

    @property
    def share(self) -> FloatArray:
        """[K] of the recorded questions."""
        return self.bayes.queries / self.bayes.queries.sum()

    def stream(self, count: int) -> FloatArray:
        """[count, K] tasks of a kind each, as many of every kind as were recorded."""
        place = (np.arange(count) + 0.5) / count
        return np.eye(len(self.names))[np.searchsorted(np.cumsum(self.share), place)]

    def probabilities(self, queries: Sequence[Features]) -> FloatArray:
        """[N, K] that each query is of each kind; of a text without any n-gram, as many as were
        recorded."""
        usual = np.log(self.share)
        logits = np.stack(
            [
                usual + _PART * len(query.ids) * self.bayes.scores(query)
                if len(query.ids)
                else usual
                for query in queries
            ]
        )
        likely = np.exp(logits - logits.max(axis=1, keepdims=True))
        return likely / likely.sum(axis=1, keepdims=True)


def candidates_of(traces: TraceSet, split: str = "train") -> Catalog:
    """The profiled candidates of a trace set, and what tells its kinds of tasks apart: the catalog
    of someone who recorded the questions of a split (TraceError: there are none)."""
    kinds = Kinds.of_queries(traces.split(split).queries)
    return Catalog(traces.profiled_candidates(split).values(), kinds)


def kinds_of(catalog: Catalog) -> Kinds | None:
    """What a catalog's own kinds of tasks are told apart by.

    Raises:
        CatalogError: a file that can't be used.
    """
    kinds = catalog.kinds
    if kinds is None or isinstance(kinds, Kinds):
        return kinds
    return Kinds.load(Path(str(kinds)))


def unknown_kinds(backbones: Sequence[Backbone], categories: tuple[str, ...]) -> frozenset[str]:
    """Kinds that were profiled, if none of these categories is among them."""
    profiled = frozenset(c for b in backbones if b.profile is not None for c in b.profile.trials)
    return frozenset() if profiled & set(categories) else profiled


def everywhere(backbone: Backbone, kinds: frozenset[str], categories: tuple[str, ...]) -> Backbone:
    """Profiled on each category as it was on these kinds together."""
    profile = backbone.profile
    if profile is None:
        return backbone
    trials = sum(profile.trials.get(kind, 0.0) for kind in kinds)
    if not trials:
        return backbone

    def mean(values: Mapping[str, float]) -> dict[str, float]:
        total = sum(values.get(kind, 0.0) * profile.trials.get(kind, 0.0) for kind in kinds)
        return dict.fromkeys(categories, total / trials)

    benchmarks = sorted({kind.partition("/")[0] for kind in kinds})
    known = sorted({category.partition("/")[0] for category in categories})
    cuts = next((profile.cuts[name] for name in benchmarks if name in profile.cuts), ())
    hidden = max((backbone.hidden_tokens.get(name, 0) for name in benchmarks), default=0)
    spread = max((backbone.output_spread.get(name, 0.0) for name in benchmarks), default=0.0)
    return replace(
        backbone,
        hidden_tokens=dict.fromkeys(known, hidden),
        output_spread=dict.fromkeys(known, spread),
        profile=Profile(
            successes=dict.fromkeys(categories, sum(profile.successes.get(k, 0.0) for k in kinds)),
            trials=dict.fromkeys(categories, trials),
            visible_tokens=mean(profile.visible_tokens),
            prompt_tokens=mean(profile.prompt_tokens),
            cuts=dict.fromkeys(known, cuts) if cuts else {},
        ),
    )
