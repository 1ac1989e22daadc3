"""Drawing designs from the policy, stage by stage (numpy)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.stages import gating, late_gates, topology
from agentbalance_plugin.core.stages.arrays import Designs, Scene, StageWeights
from agentbalance_plugin.core.stages.heads import heads
from agentbalance_plugin.core.stages.matching import match_log_probs
from agentbalance_plugin.core.stages.representation import Awareness, agent_vectors
from agentbalance_plugin.core.stages.selection import open_backbones

FloatArray = NDArray[np.float64]


def draw(
    weights: StageWeights,
    scene: Scene,
    count: int,
    rng: np.random.Generator,
    awareness: Awareness = "learned",
) -> Designs:
    """`count` designs for each task, each stage given what those before it drew.

    Args:
        weights, scene: numpy arrays.
        count: S.
        rng: of all draws.
    """
    tasks, agents = scene.decider.shape
    read = heads(weights, scene)
    pool = _one_of(np.repeat(read.pool[:, None], count, axis=1), rng)
    within = open_backbones(scene, pool)
    backbone = _one_of(match_log_probs(read.match, within), rng)
    vectors = agent_vectors(weights, scene, read.agents, backbone, awareness)

    solo = gating.gumbel_sigmoid(np.repeat(read.solo[:, None], count, axis=1), rng)
    solo = solo * gating.may_be_solo(scene)[:, None]
    scores = gating.gate_scores(weights, read.gate, vectors)
    gate = gating.gumbel_sigmoid(scores, rng) * gating.free_agents(scene)[:, None]
    kept = gating.repaired(gate, scores, solo, scene, backbone)

    hops = _one_of(np.repeat(read.hops[:, None], count, axis=1), rng)
    edges = topology.edge_scores(weights, scene, vectors)
    link = gating.gumbel_sigmoid(edges, rng) * topology.possible_edges(scene, kept)
    flat = (tasks * count, agents, agents)
    edge = topology.repaired(
        link.reshape(flat),
        edges.reshape(flat),
        np.repeat(scene.decider, count, axis=0),
        hops.argmax(axis=-1).reshape(-1) + 1,
    ).reshape(link.shape)

    late = gating.gumbel_sigmoid(late_gates.late_scores(weights, read.late, vectors), rng)
    late = late * late_gates.may_be_late(edge)
    strict = gating.gumbel_sigmoid(late_gates.strict_scores(weights, read.strict, vectors), rng)
    strict = strict * late * late_gates.may_be_strict(edge)
    race = gating.gumbel_sigmoid(np.repeat(read.race[:, None], count, axis=1), rng)
    race = race * late_gates.may_race(kept, edge)
    return Designs(pool, backbone, solo, gate, kept, hops, link, edge, late, strict, race)


def _one_of(log_probs: FloatArray, rng: np.random.Generator) -> FloatArray:
    """One of the last axis by its probability, as a mask (the Gumbel trick)."""
    noisy = log_probs + rng.gumbel(size=log_probs.shape)
    drawn = np.zeros_like(noisy)
    np.put_along_axis(drawn, noisy.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return drawn
