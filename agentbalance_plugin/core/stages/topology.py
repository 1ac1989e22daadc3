"""Topology: a hop limit, edges between agents, and the repair that keeps the one with the other."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.stages.arrays import (
    Array,
    Scene,
    SingleArray,
    StageWeights,
    log_bernoulli,
    log_softmax,
    namespace,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def hop_log_probs(weights: StageWeights, scene: Scene, task: Array) -> Array:
    """[N, H] log-probability of each hop limit from 1; lambda_len is what a further hop costs.

    Args:
        task: [N, T] from `task_features`.
    """
    xp = namespace(scene.query)
    scores = task @ weights.hop_task + weights.hop_bias
    further = xp.cumulative_sum(xp.ones_like(scores), axis=1) - 1.0
    scores = scores - scene.lambda_len[:, None] * further
    return log_softmax(scores, xp.ones_like(scores))


def edge_scores(weights: StageWeights, scene: Scene, vectors: Array) -> Array:
    """[N, S, A, A] log-odds of each edge, speaker first.

    Args:
        vectors: [N, S, A, H] from `representation.agent_vectors`.
    """
    xp = namespace(vectors)
    speaks, hears = vectors @ weights.speaks, vectors @ weights.hears
    scores = speaks @ xp.permute_dims(hears, (0, 1, 3, 2)) / vectors.shape[-1] ** 0.5
    to_decider = scene.decider[:, None, None, :]
    return scores + weights.edge_bias[0] + weights.edge_bias[1] * to_decider


def possible_edges(scene: Scene, kept: Array) -> Array:
    """[N, S, A, A] mask: between different agents that are kept; the decider speaks to nobody."""
    xp = namespace(kept)
    different = xp.asarray(_different(kept.shape[-1]), dtype=kept.dtype)
    pairs = kept[..., :, None] * kept[..., None, :] * different
    return pairs * (1.0 - scene.decider[:, None, :, None])


@lru_cache(maxsize=64)
def _different(agents: int) -> SingleArray:
    return 1.0 - np.eye(agents, dtype=np.float32)


def topology_log_prob(
    hop: Array, scores: Array, possible: Array, hops: Array, link: Array
) -> Array:
    """[N, S] of the hop limit and the edges as drawn, before repair.

    Args:
        hop: [N, H] from `hop_log_probs`; scores: [N, S, A, A] from `edge_scores`.
        possible: [N, S, A, A] from `possible_edges`.
        hops: [N, S, H]; link: [N, S, A, A].
    """
    xp = namespace(scores)
    of_hops = xp.sum(hop[:, None] * hops, axis=-1)
    return of_hops + xp.sum(log_bernoulli(scores, link) * possible, axis=(-2, -1))


def repaired(
    link: FloatArray, scores: FloatArray, decider: FloatArray, limit: IntArray
) -> FloatArray:
    """[M, A, A] a DAG within the hop limit.

    Edges against the order of speaking go first: agents speak in the order of how much more likely
    they are to speak than to hear, the decider last. Then, while the longest path is longer than
    the limit, the least probable edge on it goes.

    Args:
        link: [M, A, A] edges as drawn.
        scores: [M, A, A] their log-odds.
        decider: [M, A] mask.
        limit: [M] agents on the longest path, at least 1.
    """
    count, agents = int(link.shape[0]), int(link.shape[1])
    out_less_in = scores.sum(axis=2) - scores.sum(axis=1)
    order = np.argsort(np.where(decider > 0, np.inf, -out_less_in), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.tile(np.arange(agents), (count, 1)), axis=1)
    edge = link * (place[:, :, None] < place[:, None, :])
    active: IntArray = np.arange(count)
    while len(active):
        onto, after = _paths(edge[active], order[active])
        length = (onto + after - 1).max(axis=1)
        over = length > limit[active]
        active, onto, after = active[over], onto[over], after[over]
        if len(active):
            longest = length[over]
            here = edge[active]
            through = onto[:, :, None] + after[:, None, :] == longest[:, None, None]
            critical = (here > 0) & through
            weakest = np.where(critical, scores[active], np.inf).reshape(len(active), -1)
            flat = edge.reshape(count, -1)
            flat[active, weakest.argmin(axis=1)] = 0.0
    return edge


def _paths(edge: FloatArray, order: IntArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[M, A] agents on the longest path up to, and from, each agent; itself counts in both."""
    rows = np.arange(len(edge))
    onto = np.ones(edge.shape[:2], dtype=np.int64)
    after = np.ones(edge.shape[:2], dtype=np.int64)
    for position in range(edge.shape[1]):
        agent = order[:, position]
        onto[rows, agent] = 1 + (onto * (edge[rows, :, agent] > 0)).max(axis=1)
    for position in range(edge.shape[1] - 1, -1, -1):
        agent = order[:, position]
        after[rows, agent] = 1 + (after * (edge[rows, agent, :] > 0)).max(axis=1)
    return onto, after
