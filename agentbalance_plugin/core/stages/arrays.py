"""What the stages read and write, and their learned weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.network import EMBEDDING, namespace
from agentbalance_plugin.core.profiles import FEATURES

# An array of numpy or torch; the operations used are those that both have under one name.
Array = Any

SingleArray = NDArray[np.float32]
"""What is worked out for the stages: half the bytes, and exponentials several times as fast."""

POOLS = 3
MOST_HOPS = 4
FIGURES = (
    "log_odds",
    "success",
    "priced_cost",
    "priced_time",
    "worth",
    "relative_cost",
    "relative_time",
)
"""Of a backbone alone on a query; see `scene.figures`."""
CONTEXT = (
    "one",
    "price",
    "second_price",
    "cost_room",
    "time_room",
    "agents",
)
"""Of the budget and the team; see `scene.context`."""

_PROJECTION = 8
_HIDDEN = 16
_BACKBONE = len(FEATURES) + len(FIGURES)
_AGENT = 2 + 2 * _PROJECTION + len(CONTEXT)
_TASK = len(CONTEXT) + 1 + EMBEDDING
_POOL = 4


class Scene(NamedTuple):
    """N tasks, each with A agents, B backbones and a budget; masks hold 0 or 1.

    Args:
        query: [N, E] vectors.
        difficulty: [N] log-odds that a backbone fails.
        context: [N, C] in the order of `CONTEXT`.
        roles: [N, A, E] vectors of the agents' roles.
        decider, pinned: [N, A] masks; the decider is never dropped.
        backbones: [N, B, Y] profile features, then `FIGURES`.
        pool: [N, B, K] mask of each backbone's pool; none for those that plans may not use.
        allowed: [N, A, B] mask of the backbones that an agent may use.
        delta: [N] offset towards stronger (+) or weaker (-) pools.
        lambda_len: [N] log-odds that each further hop costs.
    """

    query: Array
    difficulty: Array
    context: Array
    roles: Array
    decider: Array
    pinned: Array
    backbones: Array
    pool: Array
    allowed: Array
    delta: Array
    lambda_len: Array


class Designs(NamedTuple):
    """S designs for each of N tasks, as drawn and as repaired; masks hold 0 or 1.

    Args:
        pool: [N, S, K] the chosen pool: the strongest that the design may draw on.
        backbone: [N, S, A, B] of each agent, kept or not.
        solo: [N, S] whether it is a single-agent plan on purpose.
        gate: [N, S, A] the agents that the gates let through; kept: after repair, at least two
            unless solo, no backbone twice, the decider always.
        hops: [N, S, H] the hop limit.
        link: [N, S, A, A] speaker -> listener edges as drawn; edge: after repair, a DAG within the
            hop limit.
        late: [N, S, A] agents that run only where those they have edges from disagree; the edges of
            others pass messages.
        strict: [N, S, A] late gates that open unless all agree; others close where any two do.
        race: [N, S] whether a vote of agents that all start at once ends once it is decided.
    """

    pool: Array
    backbone: Array
    solo: Array
    gate: Array
    kept: Array
    hops: Array
    link: Array
    edge: Array
    late: Array
    strict: Array
    race: Array


@dataclass
class StageWeights:
    """Learned arrays of all stages; `SHAPES` has their shapes.

    Args:
        sel_pool, sel_task, sel_difficulty, sel_bias: pool selection.
        role, query: projections of roles and queries for agents; match: the bilinear score.
        agent, backbone, att_query, att_key, att_value: agent representation.
        gate, gate_task, solo_task: gating.
        hop_task, hop_bias, speaks, hears, edge_bias: hop limit and edges.
        late, late_task, strict, strict_task, race_task: late gates.
    """

    sel_pool: Array
    sel_task: Array
    sel_difficulty: Array
    sel_bias: Array
    role: Array
    query: Array
    match: Array
    agent: Array
    backbone: Array
    att_query: Array
    att_key: Array
    att_value: Array
    gate: Array
    gate_task: Array
    solo_task: Array
    hop_task: Array
    hop_bias: Array
    speaks: Array
    hears: Array
    edge_bias: Array
    late: Array
    late_task: Array
    strict: Array
    strict_task: Array
    race_task: Array


SHAPES: Mapping[str, tuple[int, ...]] = {
    "sel_pool": (_POOL,),
    "sel_task": (_TASK,),
    "sel_difficulty": (1,),
    "sel_bias": (POOLS,),
    "role": (EMBEDDING, _PROJECTION),
    "query": (EMBEDDING, _PROJECTION),
    "match": (_AGENT, _BACKBONE),
    "agent": (_AGENT, _HIDDEN),
    "backbone": (_BACKBONE, _HIDDEN),
    "att_query": (_HIDDEN, _HIDDEN),
    "att_key": (_HIDDEN, _HIDDEN),
    "att_value": (_HIDDEN, _HIDDEN),
    "gate": (_HIDDEN,),
    "gate_task": (_TASK,),
    "solo_task": (_TASK,),
    "hop_task": (_TASK, MOST_HOPS),
    "hop_bias": (MOST_HOPS,),
    "speaks": (_HIDDEN, _HIDDEN),
    "hears": (_HIDDEN, _HIDDEN),
    "edge_bias": (2,),
    "late": (_HIDDEN,),
    "late_task": (_TASK,),
    "strict": (_HIDDEN,),
    "strict_task": (_TASK,),
    "race_task": (_TASK,),
}
"""Of each of the weights."""


def task_features(scene: Scene) -> Array:
    """[N, T] what every stage may know of a task: context, difficulty, query."""
    xp = namespace(scene.query)
    hard = scene.difficulty[:, None]
    return xp.concat([scene.context, hard, scene.query], axis=1)


def log_softmax(scores: Array, mask: Array) -> Array:
    """Over the last axis, of those in the mask; very small elsewhere."""
    xp = namespace(scores)
    # As far off as single precision still tells the scores of those apart.
    shut = scores - 1e4 * (1.0 - mask)
    shut = shut - xp.max(shut, axis=-1, keepdims=True)
    return shut - xp.log(xp.sum(xp.exp(shut), axis=-1, keepdims=True))


def log_bernoulli(score: Array, yes: Array) -> Array:
    """Log-probability of 0 or 1 under a log-odds."""
    xp = namespace(score)
    signed = score * (2.0 * yes - 1.0)
    # logaddexp says the same, several times as slowly.
    return xp.clip(signed, max=0.0) - xp.log1p(xp.exp(-xp.abs(signed)))


def sigmoid(score: Array) -> Array:
    """Between 0 and 1."""
    xp = namespace(score)
    return 1.0 / (1.0 + xp.exp(-xp.clip(score, -30.0, 30.0)))
