"""Role-backbone matching: softmax of a bilinear score between [role; query; task] and profile."""

from __future__ import annotations

from agentbalance_plugin.core.stages.arrays import (
    Array,
    Scene,
    StageWeights,
    log_softmax,
    namespace,
)


def agent_features(weights: StageWeights, scene: Scene) -> Array:
    """[N, A, X] of each agent: flags, role, query and context."""
    xp = namespace(scene.query)
    shape = scene.decider.shape
    flags = xp.stack([scene.decider, scene.pinned], axis=-1)
    role = scene.roles @ weights.role
    query = xp.broadcast_to((scene.query @ weights.query)[:, None, :], role.shape)
    context = xp.broadcast_to(scene.context[:, None, :], (*shape, scene.context.shape[-1]))
    return xp.concat([flags, role, query, context], axis=-1)


def match_scores(weights: StageWeights, scene: Scene, agents: Array) -> Array:
    """[N, A, B] scores of each backbone for each agent, from profiles and never from names.

    Args:
        agents: [N, A, X] from `agent_features`.
    """
    return agents @ weights.match @ _last_two_turned(scene.backbones)


def match_log_probs(scores: Array, within: Array) -> Array:
    """[N, S, A, B] log-probabilities among the backbones within reach.

    Args:
        scores: [N, A, B]; within: [N, S, A, B] mask from `selection.open_backbones`.
    """
    return log_softmax(scores[:, None] + 0.0 * within, within)


def _last_two_turned(array: Array) -> Array:
    return namespace(array).permute_dims(array, (0, 2, 1))
