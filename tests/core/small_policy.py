"""Small inputs of the learned part, and the policy that comes with the package."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import agentbalance_plugin
from agentbalance_plugin.backbone import Backbone, Catalog, Profile
from agentbalance_plugin.core.checkpoint import Checkpoint, load_checkpoint
from agentbalance_plugin.core.encoder import FEATURE_BUCKETS, HashedEncoder, RecordedEncoder
from agentbalance_plugin.core.limits import Limits
from agentbalance_plugin.core.network import EMBEDDING, Weights
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.prediction import Outlook, Roster, look_ahead, make_roster
from agentbalance_plugin.core.profiles import FEATURES, Priors
from agentbalance_plugin.core.stages.arrays import SHAPES, StageWeights
from agentbalance_plugin.core.teamwork import FAMILIES, Family, Predicted
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.team import Agent, Team

FloatArray = NDArray[np.float64]


def predicted(
    log_odds: Any,
    cost_usd: Any | None = None,
    latency_s: Any | None = None,
    *,
    shared: float = 0.0,
    coincidence: float = 0.2,
) -> Predicted:
    """Of one query; a call costs 0.001 and takes a second unless given."""
    odds = np.atleast_2d(np.asarray(log_odds, dtype=np.float64))
    cost = np.full(odds.shape, 1e-3) if cost_usd is None else np.atleast_2d(cost_usd)
    latency = np.full(odds.shape, 1.0) if latency_s is None else np.atleast_2d(latency_s)
    count = len(odds)
    return Predicted(odds, cost, latency, np.full(count, shared), np.full(count, coincidence))


def of_family(family: Family, rows: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Candidates of one family as `teamwork.value` takes them, for one query."""
    columns = np.atleast_2d(np.asarray(rows))
    padded = np.full((1, len(columns), 4), -1)
    padded[0, :, : columns.shape[1]] = columns
    return np.full((1, len(columns)), FAMILIES.index(family)), padded


def random_weights(seed: int, categories: int, buckets: int = FEATURE_BUCKETS) -> Weights:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0.0, 0.3, size=shape).astype(np.float32)

    features = len(FEATURES)
    return Weights(
        # Saved in half precision: only values that it holds come back as they were.
        embedding=normal(buckets, EMBEDDING - 1).astype(np.float16).astype(np.float32),
        category=normal(EMBEDDING, categories),
        category_bias=normal(categories),
        scale=np.ones(1, dtype=np.float32),
        match=normal(EMBEDDING, features),
        shift=normal(EMBEDDING),
        shift_match=normal(features),
        tokens_match=normal(EMBEDDING, features),
        tokens_shift=normal(EMBEDDING),
        log_sigma=normal(1),
        difficulty=normal(EMBEDDING),
        difficulty_bias=normal(1),
    )


def plain_priors(categories: tuple[str, ...] = ("logic", "sums/easy", "sums/hard")) -> Priors:
    """Even odds everywhere, 100 tokens, features as they are."""
    count = len(categories)
    return Priors(
        categories=categories,
        log_odds=np.zeros(count),
        log_tokens=np.full(count, np.log(100.0)),
        prompt_tokens=np.full(count, 120.0),
        price_slope=0.5,
        mean_log_price=float(np.log(1e6)),
        mean=np.zeros(len(FEATURES)),
        scale=np.ones(len(FEATURES)),
        coincidence=np.full(count, 0.2),
        shared=np.full(count, 0.5),
        spread=np.full(count, 0.6),
    )


def random_stages(seed: int) -> StageWeights:
    rng = np.random.default_rng(seed)
    return StageWeights(
        **{
            name: rng.normal(0.0, 0.3, size=shape).astype(np.float32)
            for name, shape in SHAPES.items()
        }
    )


def random_checkpoint(seed: int = 0) -> Checkpoint:
    rng = np.random.default_rng(seed)
    priors = plain_priors()
    return Checkpoint(
        weights=random_weights(seed, len(priors.categories)),
        stages=random_stages(seed),
        reach=11.0,
        encoder=HashedEncoder.name,
        priors=priors,
        anchors=rng.normal(0.0, 0.3, size=(6, EMBEDDING)).astype(np.float32),
        anchor_category=np.array([0, 0, 1, 1, 2, 2]),
        trained_on={"benchmarks": ["logic", "sums"], "queries": 6},
    )


def backbone(name: str, price: str = "1", profile: Profile | None = None, **more: Any) -> Backbone:
    return Backbone(name, Decimal(price), Decimal(price), profile=profile, **more)


def answered(**counts: tuple[int, int]) -> Profile:
    """A profile from (right, asked) per category; `__` in a keyword stands for a slash."""
    named = {key.replace("__", "/"): value for key, value in counts.items()}
    return Profile(
        successes={key: float(right) for key, (right, _) in named.items()},
        trials={key: float(asked) for key, (_, asked) in named.items()},
        visible_tokens=dict.fromkeys(named, 100.0),
        prompt_tokens=dict.fromkeys(named, 120.0),
    )


def team_of(size: int, **decider: Any) -> Team:
    """Agents a0, a1, ...; the last decides and takes the keyword arguments."""
    names = [f"a{number}" for number in range(size)]
    agents = [*(Agent(name) for name in names[:-1]), Agent(names[-1], **decider)]
    return Team(tuple(agents), decider=names[-1])


SHIPPED = Path(agentbalance_plugin.__file__).parent / "data" / "policy"


def limits(count: int, **more: Any) -> Limits:
    """Of one task. Replies of about 100 tokens, capped at 100,000, at a dollar for a million."""
    figures: dict[str, Any] = {
        "cost_usd": np.inf,
        "tokens": np.inf,
        "latency_s": np.inf,
        "prompt_bound": np.full(count, 200.0),
        "sigma": 0.5,
        "calls": 1.0,
        "price_in": np.full(count, 1e-6),
        "price_out": np.full(count, 1e-6),
        "caps": np.full(count, 1e5),
        "earlier_usd": np.zeros(count),
        "earlier_tokens": np.zeros(count),
        "likely_usd": np.full(count, 4e-4),
        "likely_tokens": np.full(count, 400.0),
        "log_tokens": np.full(count, np.log(100.0)),
        "hidden_tokens": np.zeros(count),
        "output_spread": np.zeros(count),
    }
    return Limits(**{name: np.array([value]) for name, value in {**figures, **more}.items()})


@cache
def shipped_traces() -> TraceSet:
    return TraceSet.shipped("reasoning")


@cache
def shipped_catalog() -> Catalog:
    traces = shipped_traces()
    return traces.profiled_candidates()


def shipped_policy() -> Policy:
    """A new one each time: a policy keeps prices and pools."""
    return Policy.load("default", encoder=RecordedEncoder(shipped_traces()))


def recorded_query(number: int) -> str:
    """The text that stands for a recorded query, of any split."""
    queries = shipped_traces().queries
    return f"[[query:{queries[number % len(queries)].key}]]"


TOOLS = frozenset({"text", "tools"})


@cache
def anchor_outlooks() -> tuple[Roster, list[Outlook]]:
    """Some of the shipped anchors that are of the kinds the catalog was profiled on."""
    checkpoint = load_checkpoint(SHIPPED)
    every = np.ones(len(shipped_catalog()), dtype=np.bool_)
    roster = make_roster(shipped_catalog(), checkpoint, [every])
    category = checkpoint.anchor_category
    rows = np.flatnonzero(roster.table.category_prior[category] == 0.0)[::4]
    prompts = checkpoint.priors.prompt_tokens[category[rows]]
    outlooks = [
        look_ahead(checkpoint, roster.table, checkpoint.anchors[row][None], np.array([prompt]))
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    assert len(outlooks) > 15
    return roster, outlooks


NAMES = list(shipped_catalog())
# Those that no other backbone beats.
UNBEATEN = [NAMES[column] for column in anchor_outlooks()[0].columns]
TOOL_USERS = UNBEATEN[::2]
TOOL_CATALOG = Catalog(
    replace(each, capabilities=TOOLS if name in TOOL_USERS else each.capabilities)
    for name, each in shipped_catalog().items()
)


@st.composite
def teams(draw: st.DrawFn) -> Team:
    """Up to five agents with pins, needs and, at times, a fixed topology."""
    size = draw(st.integers(1, 5))
    fixed = draw(st.booleans())
    pins = draw(st.permutations(UNBEATEN))
    agents: list[Agent] = []
    for number in range(size):
        more: dict[str, Any] = {}
        if draw(st.booleans()):
            more["needs"] = TOOLS
        if draw(st.integers(0, 3)) == 0 and (pins[number] in TOOL_USERS or "needs" not in more):
            more["backbone"] = pins[number]
        elif fixed and number < size - 1 and draw(st.integers(0, 3)) == 0:
            more = {"calls_backbone": False}
        pinned = sum(agent.keep for agent in agents)
        more["keep"] = (fixed or pinned < 2) and draw(st.booleans())
        agents.append(Agent(f"agent {number}", role="x" * draw(st.integers(0, 300)), **more))
    edges = tuple((a.name, b.name) for a, b in pairwise(agents))
    return Team(tuple(agents), decider=agents[-1].name, fixed_edges=edges if fixed else None)
