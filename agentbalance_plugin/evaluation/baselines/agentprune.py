"""AgentPrune: cut the communication edges that training finds of least use.

Zhang et al., "Cut the crap: An economical communication pipeline for LLM-based multi-agent systems"
(arXiv 2410.02506): trainable masks over spatial and temporal edges, by policy gradient with a
low-rank regulariser; then one-shot magnitude pruning of the share that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.baselines.graphs import TeamGraph, learn_edges
from agentbalance_plugin.evaluation.trials import Fitted, Known, Trial, every, play, together

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_LOW_RANK = 0.01


class AgentPrune:
    """Every share of pruning, for one and two rounds."""

    name = "AgentPrune"
    grid: Mapping[str, Any] = {
        "prune": [0.0, 0.25, 0.5, 0.75, 1.0],
        "rounds": [1, 2],
        "workers": [3],
        "steps": [40],
        "rate": [2.0],
    }

    def fit_on(self, known: Known, backbone: str) -> Fitted:
        graphs = [TeamGraph(backbone, self.grid["workers"][0], r) for r in self.grid["rounds"]]
        found: list[tuple[TeamGraph, list[BoolArray]]] = []
        for graph in graphs:
            logits = learn_edges(
                known,
                graph,
                steps=self.grid["steps"][0],
                rate=self.grid["rate"][0],
                penalty=lambda keep, graph=graph: low_rank(graph, keep),
            )
            found.append((graph, [prune(logits, share) for share in self.grid["prune"]]))

        def points(replay: Replay, positions: IntArray) -> Trial:
            trials = [
                play(
                    replay,
                    positions,
                    every([graph.plan(mask) for mask in masks], len(positions), graph.samples),
                )
                for graph, masks in found
            ]
            return together(trials)

        return points


def prune(logits: FloatArray, share: float) -> BoolArray:
    """[E] edges kept when this share of them, those of least magnitude, is cut."""
    cut = round(share * len(logits))
    keep = np.ones(len(logits), dtype=np.bool_)
    keep[np.argsort(logits, kind="stable")[:cut]] = False
    return keep


def low_rank(graph: TeamGraph, keep: FloatArray) -> FloatArray:
    """[E] gradient of the nuclear norms of the spatial and the temporal adjacency matrix."""
    gradient = np.zeros(len(keep))
    for temporal in (False, True):
        rows = [n for n, edge in enumerate(graph.edges) if edge[2] is temporal]
        if not rows:
            continue
        matrix = np.zeros((graph.workers, graph.workers))
        cells = np.array([graph.edges[n][:2] for n in rows])
        matrix[cells[:, 0], cells[:, 1]] = keep[rows]
        left, _, right = np.linalg.svd(matrix)
        gradient[rows] = (left @ right)[cells[:, 0], cells[:, 1]]
    return _LOW_RANK * gradient * keep * (1.0 - keep)
