"""Catalogs that were not trained on, made from recorded answers."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Backbone, Catalog, Profile
from agentbalance_plugin.core.kinds import candidates_of
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import Answers, TraceSet
from agentbalance_plugin.plan import Plan

PROFILE_QUERIES = 50

_PROFILE_SPLIT = "profile"
# Prices and speeds of twins differ by up to so much either way.
_TWIN_NOISE = 0.05


def short_profiles(traces: TraceSet, queries: int = PROFILE_QUERIES, seed: int = 0) -> TraceSet:
    """These traces where some queries of the training split are a split `profile` of their own.

    Raises:
        TraceError: no training split.
        ValueError: it has too few queries.
    """
    train = traces.positions("train")
    if queries > len(train):
        raise ValueError(f"a profile of {queries} queries, but the train split has {len(train)}")
    rng = np.random.default_rng(seed)
    picked = set(rng.choice(train, size=queries, replace=False).tolist())
    marked = tuple(
        replace(query, split=_PROFILE_SPLIT) if row in picked else query
        for row, query in enumerate(traces.queries)
    )
    return replace(traces, queries=marked)


def profiled_in_short(
    traces: TraceSet, queries: int = PROFILE_QUERIES, seed: int = 0
) -> dict[str, Profile]:
    """What so many queries of the training split say of each backbone."""
    return short_profiles(traces, queries, seed).profiles(_PROFILE_SPLIT)


def recorded_in_short(traces: TraceSet, queries: int, seed: int = 0) -> Catalog:
    """The catalog of someone who recorded so many queries of the training split alone: profiled
    candidates, and what tells the kinds of these queries apart."""
    return candidates_of(short_profiles(traces, queries, seed), _PROFILE_SPLIT)


def twins(traces: TraceSet, backbone: str, count: int, seed: int = 0) -> TraceSet:
    """Traces of near-identical backbones: further samples of one, under names of their own.

    Each twin answers as a further copy does in the replay: as the original where backbones of
    similar ability agree, else as one of those. Prices and speeds differ by a few percent.
    """
    replay = Replay(traces, seed=seed)
    every = np.arange(len(traces.queries))
    plan = Plan(assignment={"a": backbone}, decider="a")
    rng = np.random.default_rng(seed)
    copies = [replay.evaluate(every, plan, samples={"a": number}) for number in range(count)]
    column = traces.backbones.index(backbone)
    recorded = traces.correct[:, column] >= 0
    hidden = traces.hidden_tokens[:, column]

    def stacked(values: list[NDArray[np.int64]]) -> NDArray[np.int32]:
        return np.stack(values, axis=1)[:, :, None].astype(np.int32)

    correct = [np.where(recorded, each.correct, -1).astype(np.int64) for each in copies]
    visible = [np.maximum(each.completion_tokens - hidden, 0) for each in copies]
    entries: list[Backbone] = []
    original = traces.catalog[backbone]
    for number in range(count):
        price, speed = 1.0 + _TWIN_NOISE * rng.uniform(-1.0, 1.0, size=2)
        entries.append(
            replace(
                original,
                name=f"{backbone} twin {number + 1}",
                price_in_usd_per_mtok=_priced(original.price_in_usd_per_mtok, price),
                price_out_usd_per_mtok=_priced(original.price_out_usd_per_mtok, price),
                tokens_per_s=None
                if original.tokens_per_s is None
                else original.tokens_per_s * float(speed),
            )
        )
    names = tuple(entry.name for entry in entries)
    return replace(
        traces,
        backbones=names,
        catalog=Catalog(entries),
        samples=Answers(
            correct=stacked(correct).astype(np.int8),
            answer=stacked([each.answer for each in copies]),
            prompt_tokens=stacked([each.prompt_tokens for each in copies]),
            visible_tokens=stacked(visible),
        ),
        latency_s=None,
        reference=names[0],
        candidates=names,
        unseen=(),
    )


def _priced(price: Decimal, factor: float) -> Decimal:
    return (price * Decimal(f"{factor:.4f}")).quantize(Decimal("0.000001"))
