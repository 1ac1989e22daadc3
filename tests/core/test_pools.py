from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_policy import SHIPPED, FloatArray, shipped_catalog

from agentbalance_plugin.core.checkpoint import load_checkpoint
from agentbalance_plugin.core.pools import build_pools, pareto
from agentbalance_plugin.core.prediction import make_roster
from agentbalance_plugin.core.stages.config import PolicyConfig

Rows = list[tuple[int, ...]]

# Few values, so that ties and copies are common: two categories, price, latency.
backbones = st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=9)


def arrays(rows: Rows) -> tuple[FloatArray, FloatArray, FloatArray]:
    table = np.array(rows, dtype=np.float64)
    return table[:, :2].T, table[:, 2] + 1.0, table[:, 3] + 1.0


def beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    gains = [one[0] - other[0], one[1] - other[1], other[2] - one[2], other[3] - one[3]]
    return min(gains) >= 0 and max(gains) > 0


@given(backbones)
def test_exactly_the_beaten_backbones_are_dropped(rows: Rows) -> None:
    kept = pareto(*arrays(rows)).tolist()
    assert kept == [
        column for column, row in enumerate(rows) if not any(beats(other, row) for other in rows)
    ]


@given(backbones)
def test_every_dropped_backbone_is_beaten_by_one_that_stays(rows: Rows) -> None:
    kept = pareto(*arrays(rows)).tolist()
    assert kept
    for column in set(range(len(rows))) - set(kept):
        assert any(beats(rows[other], rows[column]) for other in kept)


def test_equal_backbones_all_stay() -> None:
    assert pareto(*arrays([(1, 1, 1, 1)] * 3)).tolist() == [0, 1, 2]


def test_one_good_category_keeps_a_backbone() -> None:
    specialist, generalist = (3, 0, 2, 2), (2, 2, 1, 1)
    assert pareto(*arrays([specialist, generalist])).tolist() == [0, 1]


def random_backbones(seed: int, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    strength = rng.normal(size=count)
    return strength, np.exp(strength + rng.normal(size=count)), np.exp(rng.normal(size=count))


@given(st.integers(0, 500), st.integers(1, 12), st.integers(1, 6))
@settings(max_examples=60)
def test_pools_are_ordered_weak_to_strong_and_none_is_empty(
    seed: int, count: int, pools: int
) -> None:
    strength, price, latency = random_backbones(seed, count)
    pool = build_pools(strength, price, latency, pools)
    assert pool.shape == (count,)
    assert sorted(set(pool.tolist())) == list(range(min(pools, count)))
    means = [strength[pool == number].mean() for number in range(min(pools, count))]
    assert means == sorted(means)


@given(st.integers(0, 500), st.integers(2, 12))
@settings(max_examples=60)
def test_the_order_of_backbones_does_not_change_their_pools(seed: int, count: int) -> None:
    strength, price, latency = random_backbones(seed, count)
    order = np.random.default_rng(seed + 1).permutation(count)
    pool = build_pools(strength, price, latency)
    again = build_pools(strength[order], price[order], latency[order])
    assert np.array_equal(again, pool[order])
    assert np.array_equal(pool, build_pools(strength, price, latency))


@given(st.integers(0, 500), st.integers(1, 10), st.integers(1, 4))
@settings(max_examples=60)
def test_newcomers_move_nobody(seed: int, count: int, newcomers: int) -> None:
    strength, price, latency = random_backbones(seed, count + newcomers)
    known = np.arange(count + newcomers) < count
    order = np.random.default_rng(seed + 1).permutation(count + newcomers)
    pool = build_pools(strength[order], price[order], latency[order], known=known[order])
    alone = build_pools(strength[:count], price[:count], latency[:count])
    assert np.array_equal(pool[order.argsort()][:count], alone)
    assert pool.max() == alone.max()


def test_a_newcomer_joins_the_pool_that_it_is_nearest_to() -> None:
    strength = np.array([3.0, -3.0, 0.0, 3.1, -3.1, 0.1, 2.0, -2.9])
    pool = build_pools(strength, np.exp(strength), np.ones(8), known=np.arange(8) < 6)
    assert pool.tolist() == [2, 0, 1, 2, 0, 1, 2, 0]


def test_clear_groups_become_pools() -> None:
    strength = np.array([3.0, -3.0, 0.0, 3.1, -3.1, 0.1])
    price = np.exp(strength)
    pool = build_pools(strength, price, np.ones(6) * np.array([1, 1.01, 1, 1.01, 1, 1]))
    assert pool.tolist() == [2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_more_pools_than_backbones_gives_each_its_own(count: int) -> None:
    strength, price, latency = random_backbones(4, count)
    pool = build_pools(strength, price, latency, 5)
    assert np.array_equal(np.argsort(np.argsort(strength)), pool)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [2, 3, 5])
def test_backbones_that_are_all_equal_still_have_pools(count: int) -> None:
    same = np.ones(count)
    pool = build_pools(same, same, same, 3)
    assert pool.shape == (count,)
    assert pool.min() >= 0
    assert pool.max() < 3


def test_random_pools_are_of_any_backbones_as_many_as_no_other_beats() -> None:
    checkpoint = load_checkpoint(SHIPPED)
    count = len(shipped_catalog())
    everything = np.ones(count, dtype=np.bool_)
    two = np.zeros(count, dtype=np.bool_)
    two[:2] = True

    def columns(**config: object) -> list[int]:
        chosen = PolicyConfig(**config)  # type: ignore[arg-type]
        return make_roster(shipped_catalog(), checkpoint, [everything], chosen).columns.tolist()

    learned = columns()
    assert 2 < len(learned) < count
    drawn = [columns(pools="random", seed=seed) for seed in range(8)]
    assert {len(each) for each in drawn} == {len(learned)}
    assert drawn[0] == columns(pools="random", seed=0)
    assert set(range(count)) == {column for each in drawn for column in each}
    # An agent that can use but two backbones has one of them in every draw.
    for seed in range(8):
        config = PolicyConfig(pools="random", seed=seed)
        roster = make_roster(shipped_catalog(), checkpoint, [everything, two], config)
        assert {0, 1} & set(roster.columns.tolist())
