"""Training of the stages: imitation of the critic, then REINFORCE under budgets.

Warm start: the stages learn which designs the critic thinks are worth most. Policy gradient
(Williams 1992, REINFORCE; leave-one-out baseline: Kool et al. 2019): designs are drawn, replayed on
recorded answers, and made likelier by how much better they do than the others drawn for the same
task. Cost and latency enter as Lagrangian penalties whose multipliers, one for each budget, rise
while what is spent is above it (dual ascent).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.candidates import families_for, table, valid
from agentbalance_plugin.core.checkpoint import Checkpoint
from agentbalance_plugin.core.decide import make_objective
from agentbalance_plugin.core.design import slot_agents
from agentbalance_plugin.core.drawn_plan import drawn_plans
from agentbalance_plugin.core.encoder import QueryEncoder
from agentbalance_plugin.core.episodes import (
    COST_BUDGETS,
    TIME_BUDGETS,
    Course,
    Episode,
    draw_episode,
)
from agentbalance_plugin.core.search import ranked
from agentbalance_plugin.core.stages.arrays import SHAPES, Designs, Scene, StageWeights
from agentbalance_plugin.core.stages.draw import draw
from agentbalance_plugin.core.stages.factors import factors
from agentbalance_plugin.core.stages.heads import heads
from agentbalance_plugin.core.stages.narrow import designs_of, local_scene
from agentbalance_plugin.core.stages.scene import make_scene

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Designs of one task that the stages learn to imitate, by how close to the best they are.
_IMITATED = 8
# Backbones that they are made of: of more there are too many designs.
_AMONG = 9
_WARMTH = 0.01


class Lesson(NamedTuple):
    """Tasks and designs with what each design is worth to the gradient.

    Args:
        scene: N tasks; designs: S of each.
        weight: [N, S] of each design's log-probability in the objective.
        matched: [N, S, A] mask of the agents whose backbone counts.
    """

    scene: Scene
    designs: Designs
    weight: FloatArray
    matched: FloatArray


def imitation(episode: Episode, rng: np.random.Generator) -> Lesson:
    """The designs that the critic likes best, weighted by how much.

    Args:
        rng: of the backbones of agents that are not kept.
    """
    known, asked = episode.known, episode.asked
    scene = _scene(episode)
    among = known.fastest
    if len(among) > _AMONG:
        among = among[np.sort(rng.permutation(len(among))[:_AMONG])]
    local = np.broadcast_to(among, (len(episode.positions), len(among)))
    objective = make_objective(known, asked, local)
    agents = len(known.team.agents)
    inner = local_scene(scene, local)
    families = families_for(known.least, agents, hasty=bool((episode.time_budget >= 0).any()))
    candidates = table(len(among), families, known.uniform)
    assert candidates is not None, "every team and catalog has a candidate"
    best = ranked(
        episode.outlook.predicted.of(local),
        episode.limits.of(local),
        objective,
        candidates,
        _IMITATED,
        None if known.uniform else valid(candidates, inner.allowed > 0.0),
    )
    designs = designs_of(best, inner, _any(rng, scene, local.shape[1]))
    top = best.worth[:, :1]
    fits = np.isfinite(best.worth) & np.isfinite(top)
    gap = np.where(fits, best.worth - np.where(np.isfinite(top), top, 0.0), -np.inf)
    weight = np.exp(gap / _WARMTH)
    total = weight.sum(axis=1, keepdims=True)
    return Lesson(inner, designs, weight / np.maximum(total, 1e-9), designs.kept)


class Outcome(NamedTuple):
    """Of a step of the policy gradient.

    Args:
        reward: mean success less what cost and time are priced at.
        right, cost_usd, latency_s: [N] means over the designs of each task.
    """

    reward: float
    right: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray


def reinforcement(
    weights: StageWeights, episode: Episode, samples: int, rng: np.random.Generator
) -> tuple[Lesson, Outcome]:
    """Designs drawn from the policy, weighted by their advantage over the others of their task.

    Args:
        weights: numpy arrays.
        samples: S, at least 2.
    """
    known = episode.known
    scene = _scene(episode)
    designs = draw(weights, scene, samples, rng)
    plans = drawn_plans(
        designs,
        slot_agents(known.team),
        known.roster.table.names,
        episode.outlook.predicted.log_odds,
        episode.caps,
    )
    found = episode.replay.evaluate_pairs(np.repeat(episode.positions, samples), plans)
    shape = (len(episode.positions), samples)
    right = found.correct.astype(np.float64).reshape(shape)
    cost, latency = found.cost_usd.reshape(shape), found.latency_s.reshape(shape)
    asked, limits = episode.asked, episode.limits
    in_caps = (cost <= limits.cost_usd[:, None]) & (latency <= limits.latency_s[:, None])
    reward = (
        right * in_caps - asked.price_usd[:, None] * cost - asked.second_price[:, None] * latency
    )
    advantage = leave_one_out(reward)
    # One scale for all budgets: where money hardly counts rewards differ by much, elsewhere little.
    advantage = advantage / max(float(advantage.std()), 1e-3)
    outcome = Outcome(
        float(reward.mean()), right.mean(axis=1), cost.mean(axis=1), latency.mean(axis=1)
    )
    weight = advantage / samples
    return Lesson(scene, designs, weight, np.ones_like(designs.kept)), outcome


def leave_one_out(reward: FloatArray) -> FloatArray:
    """[N, S] reward less the mean of the other samples of its task."""
    samples = reward.shape[1]
    return (reward - reward.mean(axis=1, keepdims=True)) * samples / (samples - 1)


def surrogate(torch: Any, weights: StageWeights, lesson: Lesson) -> tuple[Any, Any]:
    """(mean weighted log-probability, [N, S] log-probabilities) as torch tensors."""

    def tensor(array: FloatArray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))

    scene = Scene(*(tensor(array) for array in lesson.scene))
    designs = Designs(*(tensor(array) for array in lesson.designs))
    read = heads(weights, scene)
    total = factors(weights, scene, read, designs, matched=tensor(lesson.matched)).total
    return (total * tensor(lesson.weight)).sum(dim=1).mean(), total


@dataclass
class Duals:
    """Multipliers of each suite and budget: log success that a median call must buy.

    Args:
        cost: [suites, len(COST_BUDGETS)]; time: [suites, len(TIME_BUDGETS)].
    """

    cost: FloatArray
    time: FloatArray

    @classmethod
    def initial(cls, suites: int) -> Duals:
        """A tight budget has a high price."""

        def start(budgets: Sequence[float]) -> FloatArray:
            return np.tile(np.log(0.03 / np.array(budgets)), (suites, 1))

        return cls(start(COST_BUDGETS), start(TIME_BUDGETS))

    def ascend(self, suite: int, episode: Episode, outcome: Outcome, rate: float) -> None:
        """Raise the multipliers of budgets that were overspent, lower the others."""
        for multipliers, budgets, which, spent, unit in (
            (self.cost, COST_BUDGETS, episode.cost_budget, outcome.cost_usd, episode.cost_unit),
            (self.time, TIME_BUDGETS, episode.time_budget, outcome.latency_s, episode.time_unit),
        ):
            for number, budget in enumerate(budgets):
                rows = which == number
                if rows.any():
                    excess = float(spent[rows].mean()) / (budget * unit) - 1.0
                    changed = multipliers[suite, number] + rate * min(max(excess, -1.0), 2.0)
                    # From hardly anything to more than any answer is worth.
                    multipliers[suite, number] = min(max(changed, -7.0), 2.0)


def initial_weights(rng: np.random.Generator) -> StageWeights:
    """Small numbers; zero biases."""
    drawn = {
        name: rng.normal(0.0, 0.3 / np.sqrt(shape[0]), size=shape) for name, shape in SHAPES.items()
    }
    drawn |= {name: np.zeros(SHAPES[name]) for name in ("sel_bias", "hop_bias", "edge_bias")}
    return StageWeights(**drawn)


def episode_of(
    courses: Sequence[Course],
    positions: Sequence[IntArray],
    checkpoint: Checkpoint,
    encoder: QueryEncoder,
    duals: Duals,
    tasks: int,
    rng: np.random.Generator,
) -> tuple[int, Episode]:
    """(which suite, an episode of it): each suite as often as the others.

    Args:
        positions: the queries of each suite to draw from.
        tasks: N.
    """
    suite = int(rng.integers(len(courses)))
    rows = rng.choice(positions[suite], size=min(tasks, len(positions[suite])), replace=False)
    prices = (duals.cost[suite], duals.time[suite])
    return suite, draw_episode(courses[suite], checkpoint, encoder, np.sort(rows), prices, rng)


def _any(rng: np.random.Generator, scene: Scene, size: int) -> IntArray:
    """[N, A] any of the backbones."""
    tasks, agents = scene.decider.shape
    return np.asarray(rng.integers(size, size=(int(tasks), int(agents))), dtype=np.int64)


def _scene(episode: Episode) -> Scene:
    known = episode.known
    return make_scene(
        episode.outlook, known.roster, known.figures, episode.limits, *episode.asked[:4]
    )
