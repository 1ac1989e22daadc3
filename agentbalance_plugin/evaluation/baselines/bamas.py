"""BAMAS: provision a team by integer programming under a budget, then choose its topology.

Yang, Luo, Liu, Lou, Chen, "BAMAS: Structuring budget-aware multi-agent systems" (arXiv
2511.21572). An ILP picks how many agents each LLM gives: maximise the sum of performance weights
under the cost budget and a team size. The weights are lexicographic, so one agent of a better tier
outweighs any number of worse ones. An offline-trained policy then picks linear, star, feedback or
planner-driven collaboration by task and budget. As all four are replayed here for every training
query, the policy gradient is taken in expectation rather than from samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.trials import (
    Chosen,
    Family,
    Fitted,
    Known,
    Trial,
    every,
    integers,
    play,
    tuned,
)
from agentbalance_plugin.plan import Plan

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

TOPOLOGIES = ("linear", "star", "feedback", "planner")

_STEPS = 200
_RATE = 4.0


class Bamas:
    """One point per budget, and per size of team."""

    name = "BAMAS"
    family: Family = "static"
    grid: Mapping[str, Any] = {
        "budgets": [12],
        "team_size": [1, 2, 3, 4],
        "decay": [0.003, 0.03],
    }

    def fit(self, known: Known) -> Fitted:
        spend = known.singles.spend(known.axis).mean(axis=1)
        right = known.singles.right.mean(axis=1)
        budgets = np.geomspace(float(spend.min()), 1.2 * known.highest, self.grid["budgets"][0])
        teams: dict[tuple[int, ...], None] = {}
        for size in self.grid["team_size"]:
            weights = lexicographic(right, size)
            for budget in budgets.tolist():
                team = provision(weights, spend.tolist(), budget, size)
                if team:
                    teams.setdefault(team)
        names = known.traces.candidates
        pools = [[names[b] for b in sorted(team, key=right.__getitem__)] for team in teams]
        plans = [plan for pool in pools for plan in topologies(pool)]
        train = play(known.replay, known.train, every(plans, len(known.train)))
        price = known.prices[len(known.prices) // 2]
        reward = train.right - 0.1 * price * train.spend(known.axis)
        category = known.traces.category[known.train]

        def build(decay: float) -> Fitted:
            policy = np.stack(
                [
                    choose_topology(
                        reward[4 * number : 4 * number + 4].T,
                        category,
                        len(known.traces.categories),
                        decay,
                    )
                    for number in range(len(pools))
                ]
            )

            def points(replay: Replay, positions: IntArray) -> Trial:
                row = {name: n for n, name in enumerate(known.traces.categories)}
                default = len(row)
                kinds = np.array([row.get(name, default) for name in replay.traces.categories])
                best = policy.argmax(axis=2)[:, kinds[replay.traces.category[positions]]]
                which = best + 4 * np.arange(len(pools))[:, None]
                return play(replay, positions, Chosen(plans, which))

            return points

        return tuned(known, self.grid["decay"], build)


def lexicographic(right: FloatArray, size: int) -> list[int]:
    """Weights by rank: one of a tier outweighs `size` of all tiers below."""
    ranks = np.argsort(np.argsort(right, kind="stable"), kind="stable")
    return [(size + 1) ** int(rank) for rank in integers(ranks)]


def provision(
    weights: Sequence[int], costs: Sequence[float], budget: float, size: int
) -> tuple[int, ...]:
    """Solve the ILP exactly by branch and bound.

    maximise sum of weights[b] * x[b], with sum of costs[b] * x[b] <= budget, sum of x <= size,
    x whole and at least 0.

    Returns:
        the backbones, each as often as it is taken; () where the budget buys none.
    """
    order = sorted(range(len(weights)), key=lambda b: (-weights[b], costs[b]))
    best: tuple[int, tuple[int, ...]] = (0, ())

    def search(place: int, taken: tuple[int, ...], value: int, left: float) -> None:
        nonlocal best
        if value > best[0]:
            best = (value, taken)
        seats = size - len(taken)
        # At best all seats left go to the heaviest of those that remain.
        if place == len(order) or not seats or value + seats * weights[order[place]] <= best[0]:
            return
        b = order[place]
        most = seats if costs[b] <= 0 else min(seats, int(left / costs[b] + 1e-9))
        for count in range(most, -1, -1):
            search(
                place + 1,
                (*taken, *[b] * count),
                value + count * weights[b],
                left - count * costs[b],
            )

    search(0, (), 0, budget)
    return best[1]


def topologies(pool: Sequence[str]) -> list[Plan]:
    """Linear, star, feedback and planner-driven plans of a team, weak to strong.

    Whoever is last, the strongest, decides. In feedback the strongest answers, the others read
    that as critics, and it answers again.
    """
    agents = [f"agent_{number}" for number in range(1, len(pool) + 1)]
    assignment = dict(zip(agents, pool, strict=True))
    last = agents[-1]
    linear = tuple(pairwise(agents))
    star = tuple((agent, last) for agent in agents[:-1])
    first, workers = agents[0], agents[1:-1]
    planner = (
        tuple(combinations(agents, 2))
        if len(agents) < 3
        else (
            *((first, worker) for worker in workers),
            *((worker, last) for worker in workers),
        )
    )
    plans = [
        Plan(assignment=assignment, edges=edges, decider=last) for edges in (linear, star, planner)
    ]
    feedback = plans[0]
    if len(agents) > 1:
        critics = agents[:-1]
        feedback = Plan(
            assignment={"draft": pool[-1], **assignment},
            edges=(*(("draft", c) for c in critics), *((c, last) for c in critics)),
            decider=last,
        )
    return [plans[0], plans[1], feedback, plans[2]]


def choose_topology(
    reward: FloatArray, category: IntArray, categories: int, decay: float
) -> FloatArray:
    """Softmax policy over four topologies by category, trained by its expected gradient.

    Args:
        reward: [N, 4] of each topology on each train query.
        decay: pulls a category's logits to those shared by all.

    Returns:
        [C + 1, 4] probabilities; the last row for unknown categories.
    """
    shared = np.zeros(4)
    own = np.zeros((categories, 4))
    for _ in range(_STEPS):
        policy = softmax(shared + own[category])
        gradient = policy * (reward - (policy * reward).sum(axis=1, keepdims=True))
        step = np.zeros_like(own)
        np.add.at(step, category, gradient / len(reward))
        shared += _RATE * step.sum(axis=0)
        own += _RATE * (step - decay * own / categories)
    return softmax(np.concatenate([shared + own, shared[None]]))


def softmax(logits: FloatArray) -> FloatArray:
    """Over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
