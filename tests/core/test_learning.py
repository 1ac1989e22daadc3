"""The policy gradient on a problem whose best design is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_stages import scene

from agentbalance_plugin.core.policy_gradient import (
    Lesson,
    initial_weights,
    leave_one_out,
    surrogate,
)
from agentbalance_plugin.core.stages.arrays import SHAPES, Designs, StageWeights
from agentbalance_plugin.core.stages.draw import draw


def reward(designs: Designs) -> np.ndarray:
    """Best is 1: two agents, the decider on backbone 3, one hop; every further agent costs."""
    decider = designs.backbone[..., -1, :].argmax(axis=-1) == 3
    agents = designs.kept.sum(axis=-1)
    one_hop = designs.edge.sum(axis=(-2, -1)) == 0
    return 0.5 * decider + 0.3 * (agents == 2) - 0.1 * (agents - 2) + 0.2 * one_hop


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_finds_the_best_design(seed: int) -> None:
    rng = np.random.default_rng(seed)
    here = scene(seed, tasks=16)._replace(allowed=np.ones((16, 4, 6)), pinned=np.zeros((16, 4)))
    first = initial_weights(rng)
    weights = StageWeights(
        **{
            name: torch.tensor(getattr(first, name), dtype=torch.float32, requires_grad=True)
            for name in SHAPES
        }
    )
    optimizer = torch.optim.Adam([getattr(weights, name) for name in SHAPES], lr=0.01)
    means: list[float] = []
    for _ in range(400):
        now = StageWeights(
            **{name: getattr(weights, name).detach().double().numpy() for name in SHAPES}
        )
        designs = draw(now, here, 8, rng)
        got = reward(designs)
        means.append(float(got.mean()))
        lesson = Lesson(here, designs, leave_one_out(got) / 8, np.ones_like(designs.kept))
        optimizer.zero_grad()
        (-surrogate(torch, weights, lesson)[0]).backward()
        optimizer.step()
    assert np.mean(means[:5]) < 0.7
    assert np.mean(means[-10:]) > 0.95
