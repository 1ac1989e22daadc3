"""Mixed teams: tasks, teams, catalogs and budgets that the stages are trained on.

A policy should follow the team, the catalog and the budget that it is given, not those that it saw.
So each episode draws one to eight agents with roles, some pinned; some of the candidates, at their
own or at random prices and speeds; and a budget, log-uniformly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import Checkpoint
from agentbalance_plugin.core.decide import Asked
from agentbalance_plugin.core.encoder import QueryEncoder
from agentbalance_plugin.core.known import FRAMING_BYTES, Known, look_at, make_limits
from agentbalance_plugin.core.limits import Limits
from agentbalance_plugin.core.output_caps import with_caps
from agentbalance_plugin.core.prediction import Outlook, look_ahead
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.stages.config import PolicyConfig
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.team import Agent, Team

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

COST_BUDGETS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Mean cost of a task, in calls of median cost."""
TIME_BUDGETS = (0.4, 0.6, 0.9, 1.3, 2.0)
"""Mean latency of a task, in calls of median latency."""

_VARIANTS = 6
_ROLES = (
    "You solve the problem step by step and state the final answer.",
    "You are a careful critic. Find mistakes in what was said before.",
    "You check the calculation and give the correct result.",
    "You are an expert of the subject. Answer the question.",
    "You write code and reason about what it returns.",
    "You plan how to approach the task.",
    "You are a helpful assistant.",
    "",
)


@dataclass(frozen=True)
class Course:
    """One suite to train on: its queries and its catalogs.

    Args:
        replays: of the suite, at its own and at random prices and speeds.
        catalogs: the profiled candidates of each.
        vectors: [Q, E] of all queries of the suite.
        prompt_bytes: [Q] about how long their texts are.
    """

    replays: Sequence[Replay]
    catalogs: Sequence[Catalog]
    vectors: NDArray[np.float32]
    prompt_bytes: FloatArray

    @classmethod
    def of(cls, suite: TraceSet, vectors: NDArray[np.float32], seed: int) -> Course:
        """A suite with its candidates alone; `_VARIANTS` random catalogs beside its own."""
        rng = np.random.default_rng([seed, 1])
        own = suite.catalog.with_profiles(suite.profiles("train"))
        catalogs = [own, *(_repriced(own, rng) for _ in range(_VARIANTS))]
        replay = Replay(suite, own, seed=seed)
        return cls(
            replays=[replay.at(catalog) for catalog in catalogs],
            catalogs=catalogs,
            vectors=vectors,
            prompt_bytes=4.2 * np.maximum(suite.prompt_tokens.max(axis=1), 1).astype(np.float64),
        )


@dataclass(frozen=True)
class Episode:
    """N tasks of one team and one catalog.

    Args:
        replay: what answers.
        positions: [N] queries of the replay's traces.
        outlook: under the output caps that were chosen; caps: [N, B] these.
        cost_budget, time_budget: [N] which of the budgets each task has; -1 for none.
        cost_unit, time_unit: cost and latency of a median call.
    """

    replay: Replay
    known: Known
    positions: IntArray
    outlook: Outlook
    limits: Limits
    caps: FloatArray
    asked: Asked
    cost_budget: IntArray
    time_budget: IntArray
    cost_unit: float
    time_unit: float


def draw_episode(
    course: Course,
    checkpoint: Checkpoint,
    encoder: QueryEncoder,
    positions: IntArray,
    log_prices: tuple[FloatArray, FloatArray],
    rng: np.random.Generator,
) -> Episode:
    """A random team, catalog and budgets for these queries.

    Args:
        log_prices: of each of `COST_BUDGETS` and `TIME_BUDGETS`, the logarithm of the success that
            a call of median cost or latency must buy.
    """
    variant = int(rng.integers(len(course.catalogs))) if rng.random() < 0.5 else 0
    catalog = course.catalogs[variant]
    names = list(catalog)
    if rng.random() < 0.5:
        size = int(rng.integers(3, len(names) + 1)) if len(names) > 3 else len(names)
        chosen: list[int] = np.sort(rng.choice(len(names), size=size, replace=False)).tolist()
        names = [names[b] for b in chosen]
    team = _team(rng)
    known = look_at(team, catalog.subset(names), checkpoint, encoder, PolicyConfig())
    if known.least > len(known.fastest):
        # More agents that must stay than backbones for them: nobody has to stay.
        team = Team(tuple(replace(agent, keep=False) for agent in team.agents), team.decider)
        known = look_at(team, catalog.subset(names), checkpoint, encoder, PolicyConfig())
    outlook = look_ahead(
        checkpoint, known.roster.table, course.vectors[positions], course.prompt_bytes[positions]
    )
    columns = known.roster.columns
    cost_unit = float(np.median(outlook.predicted.cost_usd[:, columns]))
    time_unit = float(np.median(outlook.predicted.latency_s[:, columns]))
    tasks = len(positions)
    limits = make_limits(
        known.roster,
        outlook,
        _hard_caps(rng, cost_unit, time_unit),
        course.prompt_bytes[positions] + FRAMING_BYTES,
        len(team.agents),
    )
    axis = rng.random(tasks)
    cost_budget = np.where(axis < 0.6, rng.integers(len(COST_BUDGETS), size=tasks), -1)
    time_budget = np.where(axis > 0.5, rng.integers(len(TIME_BUDGETS), size=tasks), -1)

    def price(log_price: FloatArray, budget: IntArray, unit: float, least: float) -> FloatArray:
        jitter = np.exp(rng.normal(0.0, 0.4, size=tasks))
        return np.where(budget >= 0, np.exp(log_price[budget]) * jitter, least) / unit

    asked = Asked(
        price_usd=price(log_prices[0], cost_budget, cost_unit, 1e-7),
        second_price=price(log_prices[1], time_budget, time_unit, 0.0),
        delta=np.zeros(tasks),
        lambda_len=np.zeros(tasks),
        lead=np.zeros(tasks),
    )
    outlook, caps = with_caps(outlook, known.roster.table, asked.price_usd, asked.second_price)
    return Episode(
        replay=course.replays[variant],
        known=known,
        positions=positions,
        outlook=outlook,
        limits=limits,
        caps=np.minimum(caps, limits.caps),
        asked=asked,
        cost_budget=cost_budget,
        time_budget=time_budget,
        cost_unit=cost_unit,
        time_unit=time_unit,
    )


def _team(rng: np.random.Generator) -> Team:
    count = int(rng.choice([1, 2, 3, 4, 4, 4, 5, 6, 8]))
    agents = [
        Agent(
            f"agent_{number}",
            role=_ROLES[int(rng.integers(len(_ROLES)))],
            keep=number < count - 1 and bool(rng.random() < 0.05),
        )
        for number in range(count)
    ]
    return Team(tuple(agents), decider=agents[-1].name)


def _hard_caps(rng: np.random.Generator, cost_unit: float, time_unit: float) -> Budget:
    cost = cost_unit * float(np.exp(rng.uniform(0.0, 4.0))) if rng.random() < 0.25 else 1e6
    late = time_unit * float(np.exp(rng.uniform(-0.5, 1.5))) if rng.random() < 0.2 else None
    return Budget(cost_usd=cost, latency_s=late)


def _repriced(catalog: Catalog, rng: np.random.Generator) -> Catalog:
    """Prices and speeds times log-normal factors; what backbones answer stays."""

    def changed(backbone: Backbone) -> Backbone:
        dearer, faster = np.exp(rng.normal(0.0, 0.7)), np.exp(rng.normal(0.0, 0.5))

        def price(usd: Decimal) -> Decimal:
            return max(Decimal("0.000001"), round(Decimal(float(usd) * float(dearer)), 6))

        speed, wait = backbone.tokens_per_s, backbone.ttft_s
        return replace(
            backbone,
            price_in_usd_per_mtok=price(backbone.price_in_usd_per_mtok),
            price_out_usd_per_mtok=price(backbone.price_out_usd_per_mtok),
            tokens_per_s=None if speed is None else speed * float(faster),
            ttft_s=None if wait is None else wait / float(faster),
        )

    return Catalog(changed(backbone) for backbone in catalog.values())
