"""AgentDropout: drop whole agents from rounds, then edges.

Wang et al., "AgentDropout: Dynamic agent elimination for token-efficient and high-performance
LLM-based multi-agent collaboration" (arXiv 2503.18891): edge weights are trained by policy
gradient; in each round the agents of least weighted degree are dropped (node dropout), the weights
are trained on among those left, and the edges of least weight are dropped (edge dropout).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.agentprune import prune
from agentbalance_plugin.evaluation.baselines.graphs import TeamGraph, learn_edges
from agentbalance_plugin.evaluation.trials import Fitted, Known, Trial, every, play
from agentbalance_plugin.plan import Plan

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class AgentDropout:
    """How many agents are dropped per round, and which share of edges."""

    name = "AgentDropout"
    grid: Mapping[str, Any] = {
        "dropped_per_round": [0, 1, 2],
        "edges_dropped": [0.0, 0.3, 0.6],
        "workers": [3],
        "rounds": [2],
        "steps": [40],
        "rate": [2.0],
    }

    def fit_on(self, known: Known, backbone: str) -> Fitted:
        graph = TeamGraph(backbone, self.grid["workers"][0], self.grid["rounds"][0])
        logits = learn_edges(known, graph, steps=self.grid["steps"][0], rate=self.grid["rate"][0])
        weight = 1.0 / (1.0 + np.exp(-logits))
        options = product(self.grid["dropped_per_round"], self.grid["edges_dropped"])
        plans: list[Plan] = [
            graph.plan(prune(logits, share), kept_agents(graph, weight, dropped))
            for dropped, share in options
        ]

        def points(replay: Replay, positions: IntArray) -> Trial:
            return play(replay, positions, every(plans, len(positions), graph.samples))

        return points


def kept_agents(graph: TeamGraph, weight: FloatArray, dropped: int) -> BoolArray:
    """[R, W] agents left when so many of least weighted degree are dropped from each round."""
    degree = np.zeros((graph.rounds, graph.workers))
    for (a, b, temporal), value in zip(graph.edges, weight.tolist(), strict=True):
        for turn in range(1 if temporal else 0, graph.rounds):
            degree[turn - temporal, a] += value
            degree[turn, b] += value
    kept = np.ones(degree.shape, dtype=np.bool_)
    worst = np.argsort(degree, axis=1, kind="stable")[:, :dropped]
    np.put_along_axis(kept, worst, False, axis=1)
    return kept
