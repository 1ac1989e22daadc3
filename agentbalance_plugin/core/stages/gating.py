"""Gating: which agents take part.

A gate is a Gumbel-sigmoid (Maddison et al., arXiv 1611.00712) at temperature zero, so that the
log-probability of what was drawn is exactly Bernoulli.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.stages.arrays import (
    Array,
    Scene,
    StageWeights,
    log_bernoulli,
    namespace,
)

FloatArray = NDArray[np.float64]


def gate_scores(weights: StageWeights, task: Array, vectors: Array) -> Array:
    """[N, S, A] log-odds that an agent is kept.

    Args:
        task: [N] what the task adds, `Heads.gate`.
        vectors: [N, S, A, H] from `representation.agent_vectors`.
    """
    return vectors @ weights.gate + task[:, None, None]


def may_be_solo(scene: Scene) -> Array:
    """[N] mask of tasks where that is a choice: others to leave out, and none of them pinned."""
    xp = namespace(scene.decider)
    others = 1.0 - scene.decider
    return xp.clip(xp.sum(others, axis=-1), max=1.0) - xp.max(others * scene.pinned, axis=-1)


def free_agents(scene: Scene) -> Array:
    """[N, A] mask of agents that a gate may leave out."""
    return (1.0 - scene.decider) * (1.0 - scene.pinned)


def gate_log_prob(
    scores: Array, solo: Array, scene: Scene, drawn_solo: Array, gate: Array
) -> Array:
    """[N, S] of the gates as drawn, before repair.

    Args:
        scores: [N, S, A]; solo: [N], `Heads.solo`.
        drawn_solo: [N, S]; gate: [N, S, A].
    """
    xp = namespace(scores)
    alone = (
        log_bernoulli(solo[:, None] + 0.0 * drawn_solo, drawn_solo) * may_be_solo(scene)[:, None]
    )
    each = log_bernoulli(scores, gate) * free_agents(scene)[:, None]
    return alone + (1.0 - drawn_solo) * xp.sum(each, axis=-1)


def gumbel_sigmoid(scores: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Bernoulli draws by logistic noise, 0 or 1."""
    noise = rng.logistic(size=scores.shape)
    return (scores + noise > 0.0).astype(np.float64)


def repaired(
    gate: FloatArray, scores: FloatArray, solo: FloatArray, scene: Scene, backbone: FloatArray
) -> FloatArray:
    """[N, S, A] the agents kept: the decider and pinned ones always; of several on one backbone
    the likeliest; at least two unless solo, the likeliest being added.

    Args:
        backbone: [N, S, A, B] mask.
    """
    must = (scene.decider + scene.pinned > 0.0)[:, None]
    kept = ((gate > 0.0) & (solo[:, :, None] == 0.0)) | must
    # Those that must stay come first, then the likeliest; later ones on a taken backbone go.
    order = np.argsort(-np.where(must, 1e6, scores), axis=-1, kind="stable")
    column = backbone.argmax(axis=-1)
    result = np.zeros_like(gate)
    taken = np.zeros(backbone.shape[:2] + backbone.shape[-1:], dtype=np.bool_)
    alone = solo[..., None] > 0.0
    # First those that were let through, then, where they are too few, the likeliest of the others.
    for adding in (False, True):
        for position in range(order.shape[-1]):
            agent = order[..., position, None]
            on = np.take_along_axis(column, agent, axis=-1)
            again = np.take_along_axis(taken, on, axis=-1)
            there = np.take_along_axis(result, agent, axis=-1) > 0.0
            if adding:
                short = result.sum(axis=-1, keepdims=True) < 2.0
                keep = there | (short & ~alone & ~again)
            else:
                forced = np.take_along_axis(np.broadcast_to(must, kept.shape), agent, axis=-1)
                keep = forced | (np.take_along_axis(kept, agent, axis=-1) & ~again)
            np.put_along_axis(result, agent, keep.astype(np.float64), axis=-1)
            np.put_along_axis(taken, on, again | keep, axis=-1)
    return result
