"""What the stages read off a task alone, before anything is drawn."""

from __future__ import annotations

from typing import NamedTuple

from agentbalance_plugin.core.stages.arrays import Array, Scene, StageWeights, task_features
from agentbalance_plugin.core.stages.matching import agent_features, match_scores
from agentbalance_plugin.core.stages.selection import pool_log_probs
from agentbalance_plugin.core.stages.topology import hop_log_probs


class Heads(NamedTuple):
    """Of N tasks.

    Args:
        agents: [N, A, X] from `matching.agent_features`.
        match: [N, A, B] scores of each backbone for each agent.
        pool: [N, K], hops: [N, H] log-probabilities of pools and hop limits.
        solo: [N] log-odds that the decider works alone; race: that a vote of three or more ends as
            soon as it is decided.
        gate, late, strict: [N] what the task adds to the log-odds of each agent's gate, late gate
            and threshold.
    """

    agents: Array
    match: Array
    pool: Array
    hops: Array
    solo: Array
    race: Array
    gate: Array
    late: Array
    strict: Array


def heads(weights: StageWeights, scene: Scene) -> Heads:
    """Read them."""
    task = task_features(scene)
    agents = agent_features(weights, scene)
    return Heads(
        agents=agents,
        match=match_scores(weights, scene, agents),
        pool=pool_log_probs(weights, scene, task),
        hops=hop_log_probs(weights, scene, task),
        solo=task @ weights.solo_task,
        race=task @ weights.race_task,
        gate=task @ weights.gate_task,
        late=task @ weights.late_task,
        strict=task @ weights.strict_task,
    )
