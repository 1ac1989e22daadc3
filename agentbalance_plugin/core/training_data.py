"""Recorded answers as the arrays that training works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.dependence import coincidence_of
from agentbalance_plugin.core.encoder import Features, HashedEncoder, QueryEncoder
from agentbalance_plugin.core.profiles import CATEGORY_TRIALS, Priors, ProfileTable, learn_priors
from agentbalance_plugin.core.traces import Query, TraceError, TraceSet

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """One split of one suite: N queries and the suite's B candidates.

    Args:
        features: of each query.
        category: [N] columns of `Priors.categories`.
        correct: [N, B] whether right; False where not recorded.
        recorded: [N, B]
        visible_tokens: [N, B] of the reply, as billed.
        table: the candidates' profiles.
        trials: [C, B] of those profiles.
    """

    features: list[Features]
    category: IntArray
    correct: BoolArray
    recorded: BoolArray
    visible_tokens: NDArray[np.int32]
    table: ProfileTable
    trials: FloatArray

    def log_tokens(self, rows: IntArray) -> FloatArray:
        """[n, B] logarithm of the visible tokens of some queries."""
        return np.log(np.maximum(self.visible_tokens[rows], 1).astype(np.float64))


def prepare(
    suites: Sequence[TraceSet], encoder: QueryEncoder
) -> tuple[Priors, list[Part], list[Part]]:
    """What the training splits say of backbones in general; then a train and a val part per suite.

    A query of a kind that no training answer is of is left out: nothing is known of that kind.

    Raises:
        TraceError: a split is absent, or no query of it is of a kind that training answers are of.
        ValueError: a query has no text to encode.
    """
    catalogs = [suite.catalog.with_profiles(suite.profiles("train")) for suite in suites]
    coincidence: dict[str, float] = {}
    for suite in suites:
        coincidence.update(coincidence_of(suite, "train"))
    priors = learn_priors(catalogs, coincidence)
    tables = [ProfileTable.of(catalog, priors) for catalog in catalogs]

    def parts(split: str) -> list[Part]:
        return [
            _part(split, table, suite, priors, encoder)
            for suite, table in zip(suites, tables, strict=True)
        ]

    return priors, parts("train"), parts("val")


def _part(
    name: str, table: ProfileTable, suite: TraceSet, priors: Priors, encoder: QueryEncoder
) -> Part:
    position = {name: number for number, name in enumerate(priors.categories)}
    split = suite.split(name)
    rows = np.flatnonzero([query.category in position for query in split.queries])
    if not len(rows):
        raise TraceError(
            f"the {name} split has no query of a category that a candidate has a recorded train "
            f"answer in: its categories are {', '.join(split.categories)}, those with train "
            f"answers {', '.join(position) or 'none'}; record train answers of them, or divide the "
            "queries anew"
        )
    if len(rows) < len(split.queries):
        split = split.take(rows)
    trials = np.zeros((len(priors.categories), len(suite.backbones)))
    for column, profile in enumerate(suite.profiles("train").values()):
        for category, count in profile.trials.items():
            trials[position[category], column] = count
    return Part(
        features=[query_features(query, encoder) for query in split.queries],
        category=np.array([position[query.category] for query in split.queries]),
        # As narrow as the traces are: these grow with the set.
        correct=split.correct == 1,
        recorded=split.correct >= 0,
        visible_tokens=split.visible_tokens,
        table=table,
        trials=trials,
    )


def check_recorded(suite: TraceSet) -> None:
    """Whether the candidates and the reference backbone were recorded at all.

    One that was not would be the cheapest of all, at no cost a call.

    Raises:
        TraceError: naming the backbone.
    """
    tokens = sum(
        each.sum(axis=(0, 2), dtype=np.int64)
        for each in (suite.samples.prompt_tokens, suite.samples.visible_tokens)
    )
    for name, total in zip(suite.backbones, np.asarray(tokens).tolist(), strict=True):
        if not total and (name in suite.candidates or name == suite.reference):
            raise TraceError(
                f"backbone {name!r} has no recorded answer to {', '.join(suite.benchmarks)} that "
                "was billed a token; record some, or leave it out of the suite in suites.yaml"
            )


def query_features(query: Query, encoder: QueryEncoder) -> Features:
    """The recorded features of a query where they are the encoder's, else those of its text.

    Raises:
        ValueError: it has neither.
    """
    if query.features is not None and encoder.name == HashedEncoder.name:
        return Features.mean(query.features)
    if query.question is None:
        raise ValueError(f"query {query.key!r} has no text for encoder {encoder.name!r}")
    return encoder.encode(query.question)


def without_own(part: Part, rows: IntArray) -> FloatArray:
    """[N, C, B] log-odds tables, each without the very answer that is to be predicted.

    With it in, the network would learn to trust the table more than unseen queries warrant.
    """
    table = np.repeat(part.table.log_odds[None], len(rows), axis=0)
    category = part.category[rows]
    trials = part.trials[category]
    rate = 1.0 / (1.0 + np.exp(-part.table.log_odds[category]))
    # Taking one answer out of those the shrunk rate rests on shifts it accordingly.
    total = trials + CATEGORY_TRIALS
    own = part.recorded[rows] * (trials > 0)
    shifted = (rate * total - own * part.correct[rows]) / np.maximum(total - own, 1.0)
    shifted = np.clip(shifted, 0.01, 0.99)
    table[np.arange(len(rows)), category] = np.log(shifted / (1.0 - shifted))
    return table
