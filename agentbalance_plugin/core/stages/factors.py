"""The log-probability of designs: the sum of the stages' factors."""

from __future__ import annotations

from typing import NamedTuple

from agentbalance_plugin.core.stages.arrays import Array, Designs, Scene, StageWeights, namespace
from agentbalance_plugin.core.stages.gating import gate_log_prob, gate_scores
from agentbalance_plugin.core.stages.heads import Heads
from agentbalance_plugin.core.stages.late_gates import (
    late_log_prob,
    late_scores,
    strict_scores,
)
from agentbalance_plugin.core.stages.matching import match_log_probs
from agentbalance_plugin.core.stages.representation import Awareness, agent_vectors
from agentbalance_plugin.core.stages.selection import open_backbones
from agentbalance_plugin.core.stages.topology import (
    edge_scores,
    possible_edges,
    topology_log_prob,
)


class Factors(NamedTuple):
    """[N, S] log-probability that each stage gives a design; all at most 0.

    They are of the designs as drawn, before any repair, so that a policy gradient stays unbiased.
    """

    selection: Array
    matching: Array
    gating: Array
    topology: Array
    late_gates: Array

    @property
    def total(self) -> Array:
        """[N, S] the log-probability of the whole design."""
        return self.selection + self.matching + self.gating + self.topology + self.late_gates


def factors(
    weights: StageWeights,
    scene: Scene,
    read: Heads,
    designs: Designs,
    awareness: Awareness = "learned",
    *,
    matched: Array | None = None,
) -> Factors:
    """What each stage gives S designs for each of N tasks.

    Args:
        read: of the same tasks.
        awareness: see `representation.agent_vectors`.
        matched: [N, S, A] mask of the agents whose backbone counts; None: all. Designs that were
            put together, not drawn, say nothing of the backbones of agents that are not kept.
    """
    xp = namespace(scene.query)
    within = open_backbones(scene, designs.pool)
    matches = match_log_probs(read.match, within)
    chosen = xp.sum(matches * designs.backbone, axis=-1)
    if matched is not None:
        chosen = chosen * matched
    vectors = agent_vectors(weights, scene, read.agents, designs.backbone, awareness)
    return Factors(
        selection=xp.sum(read.pool[:, None] * designs.pool, axis=-1),
        matching=xp.sum(chosen, axis=-1),
        gating=gate_log_prob(
            gate_scores(weights, read.gate, vectors),
            read.solo,
            scene,
            designs.solo,
            designs.gate,
        ),
        topology=topology_log_prob(
            read.hops,
            edge_scores(weights, scene, vectors),
            possible_edges(scene, designs.kept),
            designs.hops,
            designs.link,
        ),
        late_gates=late_log_prob(
            late_scores(weights, read.late, vectors),
            strict_scores(weights, read.strict, vectors),
            read.race,
            designs.kept,
            designs.edge,
            (designs.late, designs.strict, designs.race),
        ),
    )
