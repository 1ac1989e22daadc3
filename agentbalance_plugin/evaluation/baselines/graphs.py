"""Spatial-temporal graphs of one backbone's agents, that pruning methods work on.

Workers speak in a fixed order within each round (spatial edges go from earlier to later ones) and
hear the round before (temporal edges); a decider hears the last round. Which edges and agents
there are is a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.evaluation.baselines.homogeneous import agent_name, sample_of
from agentbalance_plugin.evaluation.trials import Chosen, Known, play
from agentbalance_plugin.plan import Plan

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_BATCH = 40
_DRAWS = 6


@dataclass
class TeamGraph:
    """W workers of one backbone over R rounds.

    Args:
        backbone: of all.
        workers: W.
        rounds: R.
    """

    backbone: str
    workers: int = 3
    rounds: int = 2
    _plans: dict[bytes, Plan] = field(default_factory=dict[bytes, Plan])

    @property
    def edges(self) -> list[tuple[int, int, bool]]:
        """(speaker, listener, temporal), E of them; the same in every round, as in the papers."""
        spatial = [(a, b, False) for a, b in combinations(range(self.workers), 2)]
        temporal = [(a, b, True) for a, b in permutations(range(self.workers), 2)]
        return spatial + (temporal if self.rounds > 1 else [])

    @property
    def decider(self) -> str:
        return agent_name(self.workers, self.rounds)

    @property
    def samples(self) -> Mapping[str, int]:
        """Which sample of the backbone each agent gives: its own in every round."""
        names = [agent_name(n, t) for n in range(self.workers) for t in range(self.rounds)]
        return {name: sample_of(name) for name in [*names, self.decider]}

    def plan(self, mask: BoolArray, speaks: BoolArray | None = None) -> Plan:
        """
        Args:
            mask: [E] edges that are kept.
            speaks: [R, W] agents that are kept; None: all. One at least in the last round.
        """
        kept = np.ones((self.rounds, self.workers), dtype=np.bool_) if speaks is None else speaks
        key = mask.tobytes() + kept.tobytes()
        if key not in self._plans:
            self._plans[key] = self._build(mask, kept)
        return self._plans[key]

    def _build(self, mask: BoolArray, kept: BoolArray) -> Plan:
        names = [
            agent_name(n, t) for t in range(self.rounds) for n in range(self.workers) if kept[t, n]
        ]
        edges: list[tuple[str, str]] = []
        for (a, b, temporal), there in zip(self.edges, list(mask), strict=True):
            if there:
                edges += [
                    (agent_name(a, turn - temporal), agent_name(b, turn))
                    for turn in range(int(temporal), self.rounds)
                ]
        last = [agent_name(n, self.rounds - 1) for n in range(self.workers)]
        edges += [(name, self.decider) for name in last]
        present = set(names)
        return Plan(
            assignment=dict.fromkeys([*names, self.decider], self.backbone),
            edges=tuple(
                (a, b) for a, b in edges if a in present and (b in present or b == self.decider)
            ),
            decider=self.decider,
        )


def learn_edges(
    known: Known,
    graph: TeamGraph,
    *,
    steps: int,
    rate: float,
    penalty: Callable[[FloatArray], FloatArray] = np.zeros_like,
) -> FloatArray:
    """[E] logits of the edges by policy gradient on success.

    Args:
        penalty: [E] probabilities -> [E] gradient of what is charged for them.
    """
    rng = np.random.default_rng(known.seed)
    logits = np.zeros(len(graph.edges))
    for _ in range(steps):
        keep = 1.0 / (1.0 + np.exp(-logits))
        rows = draws(rng, len(known.train))
        masks = rng.random((len(rows), len(keep))) < keep
        gain = advantages(known, graph, known.train[rows], masks)
        logits += rate * ((gain[:, None] * (masks - keep)).mean(axis=0) - penalty(keep))
    return logits


def advantages(known: Known, graph: TeamGraph, positions: IntArray, masks: BoolArray) -> FloatArray:
    """[N] success less the mean of the query's other draws (`_DRAWS` in a row)."""
    unique, which = np.unique(masks, axis=0, return_inverse=True)
    chosen = Chosen([graph.plan(mask) for mask in unique], which.reshape(1, -1), graph.samples)
    right = play(known.replay, positions, chosen).right[0]
    groups = right.reshape(-1, _DRAWS)
    others = (groups.sum(axis=1, keepdims=True) - groups) / (_DRAWS - 1)
    return (groups - others).reshape(-1)


def draws(rng: np.random.Generator, count: int) -> IntArray:
    """Rows of a batch out of `count` queries, each as often as it is drawn for."""
    return rng.integers(0, count, _BATCH).repeat(_DRAWS)
