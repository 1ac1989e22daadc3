from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_policy import random_stages

from agentbalance_plugin.core.network import EMBEDDING
from agentbalance_plugin.core.policy_gradient import Lesson, leave_one_out, surrogate
from agentbalance_plugin.core.stages import gating, topology
from agentbalance_plugin.core.stages.arrays import (
    SHAPES,
    Designs,
    Scene,
    StageWeights,
    log_bernoulli,
)
from agentbalance_plugin.core.stages.config import PolicyConfig
from agentbalance_plugin.core.stages.draw import draw
from agentbalance_plugin.core.stages.factors import Factors, factors
from agentbalance_plugin.core.stages.heads import heads
from agentbalance_plugin.core.stages.selection import open_backbones

FloatArray = NDArray[np.float64]
CONTEXT, BACKBONE = 6, 16


def doubles(seed: int) -> StageWeights:
    weights = random_stages(seed)
    return StageWeights(**{name: getattr(weights, name).astype(np.float64) for name in SHAPES})


WEIGHTS = doubles(0)


def scene(seed: int, tasks: int = 4, agents: int = 4, backbones: int = 6) -> Scene:
    rng = np.random.default_rng(seed)
    pool = np.zeros((tasks, backbones, 3))
    which = rng.integers(0, 3, size=(tasks, backbones))
    np.put_along_axis(pool, which[..., None], 1.0, axis=2)
    decider = np.zeros((tasks, agents))
    decider[:, -1] = 1.0
    allowed = (rng.random((tasks, agents, backbones)) < 0.8).astype(np.float64)
    allowed[..., 0] = 1.0
    pinned = (rng.random((tasks, agents)) < 0.15) * (1.0 - decider)
    return Scene(
        query=rng.normal(scale=0.5, size=(tasks, EMBEDDING)),
        difficulty=rng.normal(size=tasks),
        context=rng.normal(size=(tasks, CONTEXT)),
        roles=rng.normal(scale=0.5, size=(tasks, agents, EMBEDDING)),
        decider=decider,
        pinned=pinned,
        backbones=rng.normal(size=(tasks, backbones, BACKBONE)),
        pool=pool,
        allowed=allowed,
        delta=np.zeros(tasks),
        lambda_len=np.zeros(tasks),
    )


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_a_log_probability_is_the_sum_of_its_factors_and_never_above_zero(
    seed: int, agents: int, backbones: int
) -> None:
    here = scene(seed, agents=agents, backbones=backbones)
    weights = doubles(seed)
    designs = draw(weights, here, 8, np.random.default_rng(seed))
    found = factors(weights, here, heads(weights, here), designs)
    assert all((each <= 1e-12).all() for each in found)
    np.testing.assert_allclose(found.total, np.sum(list(found), axis=0), rtol=1e-12)
    assert np.isfinite(found.total).all()


def permuted(here: Scene, designs: Designs, order: list[int]) -> tuple[Scene, Designs]:
    """The same agents in another order."""
    turned = here._replace(
        roles=here.roles[:, order],
        decider=here.decider[:, order],
        pinned=here.pinned[:, order],
        allowed=here.allowed[:, order],
    )
    agents = {name: getattr(designs, name)[:, :, order] for name in
              ("backbone", "gate", "kept", "late", "strict")}  # fmt: skip
    pairs = {name: getattr(designs, name)[:, :, order][..., order] for name in ("link", "edge")}
    return turned, designs._replace(**agents, **pairs)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_agents_and_of_backbones_changes_nothing(seed: int) -> None:
    here = scene(seed)
    designs = draw(WEIGHTS, here, 6, np.random.default_rng(seed))
    found = factors(WEIGHTS, here, heads(WEIGHTS, here), designs)
    turned, same = permuted(here, designs, [2, 0, 3, 1])
    other = factors(WEIGHTS, turned, heads(WEIGHTS, turned), same)
    for one, two in zip(found, other, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-9)
    order = np.random.default_rng(seed).permutation(6)
    turned = here._replace(
        backbones=here.backbones[:, order], pool=here.pool[:, order],
        allowed=here.allowed[..., order],
    )  # fmt: skip
    same = designs._replace(backbone=designs.backbone[..., order])
    other = factors(WEIGHTS, turned, heads(WEIGHTS, turned), same)
    for one, two in zip(found, other, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-9)


def longest_path(edge: FloatArray) -> int:
    """Agents on the longest path, by brute force; a cycle never ends."""
    count = len(edge)
    length, reach = 1, np.eye(count)
    for _ in range(count + 1):
        reach = (reach @ edge > 0).astype(np.float64)
        if not reach.any():
            return length
        length += 1
    raise AssertionError("a cycle")


def test_the_hop_limit_holds_in_ten_thousand_random_cases() -> None:
    rng = np.random.default_rng(0)
    for agents in (2, 3, 5, 8):
        cases = 2500
        link = (rng.random((cases, agents, agents)) < rng.random((cases, 1, 1))).astype(float)
        decider = np.zeros((cases, agents))
        decider[:, -1] = 1.0
        link[:, -1] = 0.0
        limit = rng.integers(1, 5, size=cases)
        edge = topology.repaired(link, rng.normal(size=link.shape), decider, limit)
        assert (edge <= link).all()
        for one, most in zip(edge, limit.tolist(), strict=True):
            assert longest_path(one) <= most


def test_the_least_probable_edge_on_the_longest_path_goes() -> None:
    # 0 -> 1 -> 2 -> 3 with a way around the first edge.
    link = np.zeros((1, 4, 4))
    scores = np.full((1, 4, 4), -9.0)
    for speaker, listener, score in ((0, 1, 3.0), (1, 2, 2.0), (2, 3, 2.5), (0, 3, 0.1)):
        link[0, speaker, listener] = 1.0
        scores[0, speaker, listener] = score
    edge = topology.repaired(link, scores, np.array([[0.0, 0, 0, 1]]), np.array([3]))
    assert np.argwhere(edge[0]).tolist() == [[0, 1], [0, 3], [2, 3]]


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_kept_are_the_decider_the_pinned_and_two_unless_solo(seed: int, agents: int) -> None:
    here = scene(seed, agents=agents)
    designs = draw(WEIGHTS, here, 8, np.random.default_rng(seed))
    kept, solo = designs.kept > 0, designs.solo > 0
    must = (here.decider + here.pinned > 0)[:, None]
    assert (kept | ~must).all()
    column = designs.backbone.argmax(axis=-1)
    for n, s in np.ndindex(*solo.shape):
        names = column[n, s][kept[n, s] & ~must[n, 0]]
        assert len(set(names.tolist())) == len(names)
        if solo[n, s]:
            assert kept[n, s].sum() == must[n].sum()
        elif len(set(column[n, s].tolist())) > 1:
            assert kept[n, s].sum() >= 2
    assert ((designs.edge > 0) <= (designs.link > 0)).all()
    assert (designs.edge.sum(axis=(2, 3)) <= kept.sum(axis=2) ** 2).all()


def test_backbones_stay_in_the_chosen_pool_and_weaker_ones() -> None:
    here = scene(3, tasks=30)._replace(allowed=np.ones((30, 4, 6)))
    designs = draw(WEIGHTS, here, 8, np.random.default_rng(0))
    of_agent = np.einsum("nsab,nbk->nsak", designs.backbone, here.pool).argmax(axis=-1)
    assert (of_agent <= designs.pool.argmax(axis=-1)[..., None]).all()
    empty = np.zeros((30, 1, 3))
    empty[..., 0] = 1.0
    weakest = here._replace(pool=here.pool * np.array([0.0, 1.0, 1.0]))
    assert (open_backbones(weakest, empty).sum(axis=-1) > 0).all() or (
        weakest.pool.sum(axis=(1, 2)) == 0
    ).any()


def test_delta_raises_the_strength_of_the_pool_and_lambda_len_lowers_hops() -> None:
    here = scene(5, tasks=40)
    ranks = np.arange(3.0)
    strength = [
        np.exp(heads(WEIGHTS, here._replace(delta=np.full(40, delta))).pool) @ ranks
        for delta in (-1.0, -0.1, 0.0, 0.1, 1.0)
    ]
    assert all((a <= b + 1e-12).all() for a, b in pairwise(strength))
    assert strength[-1].mean() > strength[0].mean() + 0.5
    hops = [
        np.exp(heads(WEIGHTS, here._replace(lambda_len=np.full(40, cost))).hops)
        @ np.arange(1.0, 5.0)
        for cost in (0.0, 0.5, 2.0, 8.0)
    ]
    assert all((a >= b - 1e-12).all() for a, b in pairwise(hops))
    assert hops[-1].mean() < 1.1


def tensors(weights: StageWeights) -> StageWeights:
    return StageWeights(
        **{
            name: torch.tensor(getattr(weights, name), dtype=torch.float64, requires_grad=True)
            for name in SHAPES
        }
    )


def torch_scene(here: Scene) -> Scene:
    return Scene(*(torch.tensor(np.ascontiguousarray(array)) for array in here))


def torch_designs(designs: Designs) -> Designs:
    return Designs(*(torch.tensor(np.ascontiguousarray(array)) for array in designs))


def test_numpy_and_torch_agree_and_every_weight_gets_a_gradient() -> None:
    here = scene(1, tasks=24, agents=5)._replace(lambda_len=np.full(24, -1.0))
    # Edges and late gates that are likely, so that every stage has something to say.
    generous = replace(WEIGHTS, edge_bias=np.array([4.0, 1.0]), hop_bias=np.array([4.0, 0, 1, 4]))
    designs = draw(generous, here, 12, np.random.default_rng(1))
    found = factors(generous, here, heads(generous, here), designs)
    weights = tensors(generous)
    same = torch_scene(here)
    other = factors(weights, same, heads(weights, same), torch_designs(designs))
    for one, two in zip(found, other, strict=True):
        np.testing.assert_allclose(two.detach().numpy(), one, rtol=1e-9, atol=1e-9)
    other.total.sum().backward()
    for name in SHAPES:
        gradient = getattr(weights, name).grad
        assert gradient is not None, name
        assert float(gradient.abs().max()) > 0, name


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_of_the_surrogate_is_that_of_the_expected_reward(seed: int) -> None:
    """A toy team: two agents, two backbones of one pool; every design can be enumerated."""
    here = scene(seed, tasks=1, agents=2, backbones=2)._replace(
        pool=np.array([[[1.0, 0, 0], [1.0, 0, 0]]]),
        allowed=np.ones((1, 2, 2)),
        pinned=np.zeros((1, 2)),
    )
    weights = doubles(seed)
    rng = np.random.default_rng(seed)
    # Every choice matters, so that no gradient is small beside the noise of the samples.
    worth = 0.3 * rng.normal(size=(2, 2, 2, 4)) + np.arange(4.0)
    worth[0] += 2.0
    worth[:, :, 1] += 2.0

    def reward(designs: Designs) -> FloatArray:
        column = designs.backbone.argmax(axis=-1)
        alone = (designs.kept.sum(axis=-1) == 1).astype(int)
        hops = designs.hops.argmax(axis=-1)
        return worth[column[..., 0], column[..., 1], alone, hops]

    names = ("match", "solo_task", "hop_bias", "gate")
    exact = tensors(weights)
    same = torch_scene(here)
    total = 0.0
    for columns in product(range(2), repeat=2):
        for solo, gate, hop, link in product((0.0, 1.0), (0.0, 1.0), range(4), (0.0, 1.0)):
            if solo and gate:
                continue
            backbone = np.zeros((1, 1, 2, 2))
            backbone[0, 0, [0, 1], columns] = 1.0
            gates = np.array([[[gate, 0.0]]])
            scores = np.zeros((1, 1, 2))
            kept = gating.repaired(gates, scores, np.array([[solo]]), here, backbone)
            if kept.sum() < 2 and link:
                continue
            hops = np.zeros((1, 1, 4))
            hops[0, 0, hop] = 1.0
            links = np.zeros((1, 1, 2, 2))
            links[0, 0, 0, 1] = link
            none = np.zeros((1, 1, 2))
            edge = links * (hop > 0)
            designs = Designs(
                np.array([[[1.0, 0, 0]]]), backbone, np.array([[solo]]), gates, kept, hops,
                links, edge, none, none, np.zeros((1, 1)),
            )  # fmt: skip
            found = factors(exact, same, heads(exact, same), torch_designs(designs))
            # Late gates are drawn last and change no reward here: they are summed out.
            chance = (found.total - found.late_gates).exp().sum()
            total = total + chance * float(reward(designs)[0, 0])
    total.backward()  # type: ignore[union-attr]

    samples = 400_000
    designs = draw(weights, here, samples, np.random.default_rng(seed + 100))
    got = reward(designs)
    drawn = tensors(weights)
    lesson = Lesson(here, designs, leave_one_out(got) / samples, np.ones_like(designs.kept))
    single = StageWeights(
        **{name: getattr(drawn, name).detach().float().requires_grad_() for name in SHAPES}
    )
    surrogate(torch, single, lesson)[0].backward()
    flat_exact = np.concatenate([getattr(exact, n).grad.numpy().ravel() for n in names])
    flat_drawn = np.concatenate([getattr(single, n).grad.numpy().ravel() for n in names])
    error = np.linalg.norm(flat_drawn - flat_exact) / np.linalg.norm(flat_exact)
    assert error < 0.02


def test_matching_reads_profiles_so_equal_profiles_score_alike() -> None:
    here = scene(7)
    twins = here.backbones.copy()
    twins[:, 1] = twins[:, 0]
    scores = heads(WEIGHTS, here._replace(backbones=twins)).match
    np.testing.assert_allclose(scores[..., 0], scores[..., 1], rtol=1e-12)


def test_a_bernoulli_of_extreme_log_odds_is_finite() -> None:
    scores = np.array([-1e3, -1.0, 0.0, 1.0, 1e3])
    yes, no = log_bernoulli(scores, np.ones(5)), log_bernoulli(scores, np.zeros(5))
    assert np.isfinite(yes).all()
    assert np.isfinite(no).all()
    np.testing.assert_allclose(np.exp(yes) + np.exp(no), 1.0, atol=1e-12)


def test_an_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"PolicyConfig\.gating.*'sometimes'"):
        PolicyConfig(gating="sometimes")  # type: ignore[arg-type]


def test_factors_are_named_after_their_stages() -> None:
    assert Factors._fields == ("selection", "matching", "gating", "topology", "late_gates")
