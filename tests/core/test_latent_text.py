from __future__ import annotations

import numpy as np
import pytest

from agentbalance_plugin.core.encoder import Features
from agentbalance_plugin.core.latent_text import latent_directions

ROWS = 40


def texts(seed: int = 0, count: int = 60) -> list[Features]:
    """Half of them mostly of features 0-9, half of 10-19, all with some of 20-29."""
    rng = np.random.default_rng(seed)
    found: list[Features] = []
    for number in range(count):
        own = rng.choice(10, size=5, replace=False) + 10 * (number % 2)
        common = 20 + rng.choice(10, size=5, replace=False)
        found.append(Features.mean(np.sort(np.concatenate([own, common])).astype(np.int32)))
    return found


def places(of: list[Features], table: np.ndarray) -> np.ndarray:
    return np.stack([each.weights @ table[each.ids] for each in of])


def test_the_leading_direction_tells_apart_kinds_that_nobody_labelled() -> None:
    table = latent_directions(texts(), ROWS, 3, seed=0)
    unseen = places(texts(seed=1), table)[:, 0]
    assert np.sign(unseen[::2]).std() == np.sign(unseen[1::2]).std() == 0
    assert np.sign(unseen[0]) != np.sign(unseen[1])


def test_vectors_of_training_texts_are_as_the_singular_value_decomposition_has_them() -> None:
    bags = texts()
    dense = np.zeros((len(bags), ROWS))
    for row, bag in enumerate(bags):
        dense[row, bag.ids] = bag.weights
    count = (dense > 0).sum(axis=0)
    dense *= np.where(count >= 3, np.log1p(len(bags) / np.maximum(count, 1)), 0.0)
    left, strength, _ = np.linalg.svd(dense, full_matrices=False)
    wanted = left[:, 1:5] * strength[1:5]
    wanted *= np.sqrt(3.0 / (wanted**2).sum(axis=1).mean())
    found = places(bags, latent_directions(bags, ROWS, 4, seed=0))
    # Embeddings have half precision: eleven bits.
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-3)
    assert (found**2).sum(axis=1).mean() == pytest.approx(3.0, rel=1e-3)


def test_features_of_too_few_texts_have_no_place() -> None:
    rare = Features.mean(np.array([0, 10, 20, 35], dtype=np.int32))
    table = latent_directions([*texts(), rare, rare], ROWS, 3, seed=0)
    assert not table[30:].any()
    assert latent_directions([*texts(), rare, rare, rare], ROWS, 3, seed=0)[35].any()


def test_the_same_seed_gives_the_same_directions_and_another_one_nearly() -> None:
    tables = [latent_directions(texts(), ROWS, 3, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_allclose(tables[0], tables[2], atol=1e-3)


@pytest.mark.parametrize("few", [[[]] * 3, [[0, 1]] * 4, [[0], [0, 1], [0, 1], [1]]])
def test_directions_beyond_what_the_texts_span_are_zero(few: list[list[int]]) -> None:
    bags = [Features.mean(np.array(ids, dtype=np.int32)) for ids in few]
    table = latent_directions(bags, 2, 5, seed=0)
    assert table.shape == (2, 5)
    assert np.isfinite(table).all()
    assert not table[:, 1:].any()
