"""What every stage found on the way to a plan, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.decide import Decision
from agentbalance_plugin.core.design import slot_agents
from agentbalance_plugin.core.known import Known
from agentbalance_plugin.core.prediction import Outlook
from agentbalance_plugin.core.stages.arrays import Designs, StageWeights, sigmoid
from agentbalance_plugin.core.stages.factors import Factors
from agentbalance_plugin.core.stages.gating import gate_scores
from agentbalance_plugin.core.stages.heads import heads
from agentbalance_plugin.core.stages.late_gates import late_scores
from agentbalance_plugin.core.stages.narrow import local_scene
from agentbalance_plugin.core.stages.representation import agent_vectors
from agentbalance_plugin.core.stages.topology import (
    edge_scores,
    possible_edges,
    repaired,
)
from agentbalance_plugin.plan import Plan

FloatArray = NDArray[np.float64]

_RUNNERS_UP = 3


def explained(
    known: Known,
    outlook: Outlook,
    decision: Decision | None,
    plan: Plan,
    categories: Sequence[str],
    weights: StageWeights,
) -> dict[str, Any]:
    """Of the first task.

    Args:
        decision: None for a team that runs as it is: no stage but the backbones acts.
        categories: names of the checkpoint's categories.
        weights: of the stages.
    """
    names = list(known.roster.table.names)
    success = 1.0 / (1.0 + np.exp(-outlook.predicted.log_odds[0]))
    kinds, shares = known.roster.kinds_in(outlook, categories)
    top = np.argsort(-shares[0])[:3].tolist()
    found: dict[str, Any] = {
        "difficulty": float(outlook.difficulty[0]),
        "categories": {kinds[c]: float(shares[0, c]) for c in top},
        "pools": _pools(known, names),
        "backbones": {
            name: {
                "success": float(success[b]),
                "cost_usd": float(outlook.predicted.cost_usd[0, b]),
                "latency_s": float(outlook.predicted.latency_s[0, b]),
            }
            for b, name in enumerate(names)
        },
        "plan": plan.to_dict(),
    }
    choice = None if decision is None else decision.choice(0)
    if decision is not None and choice is not None:
        found |= _stages(known, decision, names, weights)
        best = int(decision.best[0])
        found |= {
            "considered": int(decision.favourites.considered[0]),
            "worth": choice.worth,
            "factors": _factors(decision.factors, best),
            "runners_up": [_runner_up(decision, which, names) for which in _others(decision, best)],
        }
    return found


def _stages(
    known: Known, decision: Decision, names: list[str], weights: StageWeights
) -> dict[str, Any]:
    """Probabilities of each stage, of the design that was taken."""
    shortlist, whole = decision.shortlist, decision.scene
    best = int(decision.best[0])
    scene = local_scene(whole, shortlist.local)
    designs = Designs(*(values[:1, [best]] for values in decision.designs))
    read = heads(weights, whole)
    vectors = agent_vectors(weights, scene, read.agents, designs.backbone)
    agents = [agent.name for agent in slot_agents(known.team)]
    pools = np.exp(read.pool[0])
    match = np.exp(shortlist.log_match[0])
    hops = np.exp(read.hops[0])
    gates = sigmoid(gate_scores(weights, read.gate, vectors))[0, 0]
    late = sigmoid(late_scores(weights, read.late, vectors))[0, 0]
    edge_log_odds = edge_scores(weights, scene, vectors)[0]
    possible = possible_edges(scene, designs.kept)[0, 0] > 0.0
    wanted = ((edge_log_odds > 0.0) & possible).astype(np.float64)
    limit = shortlist.hop_limit[:1]
    within = repaired(wanted, edge_log_odds, whole.decider[:1], limit)
    edges = sigmoid(edge_log_odds)[0]

    def named(pairs: NDArray[np.bool_]) -> dict[str, float]:
        return {
            f"{agents[i]} -> {agents[j]}": float(edges[i, j])
            for i, j in np.argwhere(pairs).tolist()
        }

    return {
        "pool_probabilities": {str(k): float(p) for k, p in enumerate(pools) if p > 0.0},
        "strongest_pool": int(shortlist.pool[0].argmax()),
        "match": {
            agent: {
                names[b]: float(match[a, b])
                for b in sorted(shortlist.local[0].tolist(), key=lambda b: -float(match[a, b]))
            }
            for a, agent in enumerate(agents)
        },
        "solo": float(sigmoid(read.solo)[0]),
        "gates": {agent: float(p) for agent, p in zip(agents, gates, strict=True)},
        "hop_limits": {str(h): float(p) for h, p in enumerate(hops, start=1)},
        "hop_limit": int(limit[0]),
        "edges": named(possible),
        "cut_edges": list(named((wanted > within[0])[0])),
        "late": {agent: float(p) for agent, p in zip(agents, late, strict=True)},
        "race": float(sigmoid(read.race)[0]),
    }


def _factors(found: Factors, which: int) -> dict[str, float]:
    return {stage: float(values[0, which]) for stage, values in found._asdict().items()}


def _others(decision: Decision, best: int) -> list[int]:
    worth = decision.favourites.worth[0]
    others = [which for which in range(len(worth)) if which != best and np.isfinite(worth[which])]
    return others[:_RUNNERS_UP]


def _runner_up(decision: Decision, which: int, names: list[str]) -> dict[str, Any]:
    choice = decision.choice(0, which)
    assert choice is not None
    return {
        "family": choice.family,
        "backbones": [names[b] for b in choice.columns],
        "worth": choice.worth,
        "log_probability": float(decision.factors.total[0, which]),
    }


def _pools(known: Known, names: list[str]) -> dict[str, list[str]]:
    kept = known.roster.columns.tolist()
    return {
        str(pool): [names[b] for b in kept if known.roster.pool[b] == pool]
        for pool in sorted({int(known.roster.pool[b]) for b in kept})
    }
