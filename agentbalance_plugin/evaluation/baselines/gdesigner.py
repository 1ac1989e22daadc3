"""G-Designer: a communication graph designed for each query.

Zhang et al., "G-Designer: Architecting multi-agent communication topologies via graph neural
networks" (arXiv 2410.11782): agents and a virtual task node are encoded, edges are decoded from
pairs of encodings, and the graph is kept sparse; trained by policy gradient. Here the encoder is
one bilinear layer: as all agents have one backbone and roles have no recorded effect, an agent's
encoding is its place and the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.baselines.graphs import TeamGraph, advantages, draws
from agentbalance_plugin.evaluation.features import LatentText
from agentbalance_plugin.evaluation.trials import Chosen, Fitted, Known, Trial, play, together

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass
class Designer:
    """Edge logits are inner products of what a speaker offers and a listener asks for.

    Args:
        graph: with E edges over W workers.
        offers, asks: [2, W, D, F] for spatial and temporal edges; F features of the query.
    """

    graph: TeamGraph
    offers: FloatArray
    asks: FloatArray

    def logits(self, x: FloatArray) -> FloatArray:
        """[N, E] of queries [N, F]."""
        offered, asked = self._encoded(x)
        return np.column_stack(
            [
                (offered[:, int(temporal), a] * asked[:, int(temporal), b]).sum(axis=1)
                for a, b, temporal in self.graph.edges
            ]
        )

    def _encoded(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """[N, 2, W, D] each."""
        offered, asked = (
            np.einsum("nf,kwdf->nkwd", x, matrix) for matrix in (self.offers, self.asks)
        )
        return offered, asked

    def climb(self, x: FloatArray, slope: FloatArray, rate: float) -> None:
        """One step along [N, E] gradients of the logits."""
        offered, asked = self._encoded(x)
        for number, (a, b, temporal) in enumerate(self.graph.edges):
            kind = int(temporal)
            weighted = rate * slope[:, number, None] / len(x)
            to_offer = (weighted * asked[:, kind, b]).T @ x
            to_ask = (weighted * offered[:, kind, a]).T @ x
            self.offers[kind, a] += to_offer
            self.asks[kind, b] += to_ask


class GDesigner:
    """One designer per number of rounds and price of an edge; an edge is kept at even odds."""

    name = "G-Designer"
    grid: Mapping[str, Any] = {
        "edge_price": [0.0, 0.02],
        "rounds": [1, 2],
        "workers": [3],
        "steps": [40],
        "rate": [4.0],
        "latent_dimensions": [8],
    }

    def fit_on(self, known: Known, backbone: str) -> Fitted:
        text = LatentText.of(known.traces, known.train, self.grid["latent_dimensions"][0])
        x = inputs(text, known.traces, known.train)
        designers = [
            self._train(known, TeamGraph(backbone, self.grid["workers"][0], rounds), x, price)
            for rounds in self.grid["rounds"]
            for price in self.grid["edge_price"]
        ]

        def points(replay: Replay, positions: IntArray) -> Trial:
            here = inputs(text, replay.traces, positions)
            trials: list[Trial] = []
            for designer in designers:
                masks, back = np.unique(designer.logits(here) > 0, axis=0, return_inverse=True)
                plans = [designer.graph.plan(mask) for mask in masks]
                which = back.reshape(1, -1)
                samples = designer.graph.samples
                trials.append(play(replay, positions, Chosen(plans, which, samples)))
            return together(trials)

        return points

    def _train(self, known: Known, graph: TeamGraph, x: FloatArray, price: float) -> Designer:
        rng = np.random.default_rng(known.seed)
        shape = (2, graph.workers, 4, x.shape[1])
        designer = Designer(graph, rng.normal(0.0, 0.3, shape), rng.normal(0.0, 0.3, shape))
        for _ in range(self.grid["steps"][0]):
            rows = draws(rng, len(x))
            keep = 1.0 / (1.0 + np.exp(-designer.logits(x[rows])))
            masks = rng.random(keep.shape) < keep
            gain = advantages(known, graph, known.train[rows], masks)
            slope = gain[:, None] * (masks - keep) - price * keep * (1.0 - keep)
            designer.climb(x[rows], slope, self.grid["rate"][0])
        return designer


def inputs(text: LatentText, traces: TraceSet, positions: IntArray) -> FloatArray:
    """[N, F] an intercept and the query's latent vector."""
    return np.column_stack([np.ones(len(positions)), text.vectors(traces, positions)])
