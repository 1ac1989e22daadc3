"""Tasks, teams and catalogs of any size to measure with; no recorded text is shipped."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.team import Agent, Team

ROLE = "You are one of several experts. Work step by step, then state your answer."

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]


def tasks(count: int, seed: int) -> list[str]:
    """Different texts of 40 to 120 words with numbers, as long as the recorded questions."""
    rng = np.random.default_rng(seed)
    return [_text(rng, int(rng.integers(40, 121))) for _ in range(count)]


def _text(rng: np.random.Generator, words: int) -> str:
    pieces: list[str] = []
    for _ in range(words):
        if rng.random() < 0.1:
            pieces.append(str(int(rng.integers(1, 2000))))
        else:
            pieces.append("".join(rng.choice(_SYLLABLES, size=int(rng.integers(1, 5))).tolist()))
    return " ".join(pieces) + "?"


def team(agents: int) -> Team:
    """Agents with roles of a usual length; the last decides."""
    names = [f"agent_{number + 1}" for number in range(agents)]
    return Team(tuple(Agent(name, ROLE) for name in names), decider=names[-1])


def catalog(traces: TraceSet, backbones: int, seed: int) -> Catalog:
    """The profiled candidates of the traces, then variations on them with prices, speeds and
    success rates of their own."""
    rng = np.random.default_rng(seed)
    known = list(traces.profiled_candidates().values())
    more = [
        _variation(known[number % len(known)], f"variation {number}", rng)
        for number in range(backbones - len(known))
    ]
    return Catalog([*known, *more][:backbones])


def _variation(like: Backbone, name: str, rng: np.random.Generator) -> Backbone:
    def about(value: float, sigma: float) -> float:
        return value * float(np.exp(rng.normal(0.0, sigma)))

    def price(value: Decimal) -> Decimal:
        return round(Decimal(about(float(value), 0.4)), 6)

    profile = like.profile
    if profile is not None:
        profile = replace(
            profile,
            successes={
                category: float(rng.binomial(int(trials), (right + 1) / (trials + 2)))
                for category, trials in profile.trials.items()
                for right in [profile.successes[category]]
            },
        )
    return replace(
        like,
        name=name,
        price_in_usd_per_mtok=price(like.price_in_usd_per_mtok),
        price_out_usd_per_mtok=price(like.price_out_usd_per_mtok),
        ttft_s=None if like.ttft_s is None else about(like.ttft_s, 0.3),
        tokens_per_s=None if like.tokens_per_s is None else about(like.tokens_per_s, 0.3),
        profile=profile,
    )
