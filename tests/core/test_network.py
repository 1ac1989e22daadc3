from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from small_policy import FloatArray, random_weights

from agentbalance_plugin.core.network import EMBEDDING, Prediction, Weights, predict
from agentbalance_plugin.core.profiles import FEATURES

QUERIES, CATEGORIES, BACKBONES = 7, 4, 5


def as_double(weights: Weights) -> Weights:
    return Weights(**{f.name: getattr(weights, f.name).astype(np.float64) for f in fields(Weights)})


WEIGHTS = as_double(random_weights(1, CATEGORIES, buckets=8))


def arrays(seed: int, *, per_query: bool) -> tuple[FloatArray, ...]:
    """Query vectors, tables of odds and tokens, features, category prior."""
    rng = np.random.default_rng(seed)
    table = (QUERIES, CATEGORIES, BACKBONES) if per_query else (CATEGORIES, BACKBONES)
    return (
        rng.normal(size=(QUERIES, EMBEDDING)),
        rng.normal(size=table),
        rng.normal(4.0, 1.0, size=table),
        rng.normal(size=(BACKBONES, len(FEATURES))),
        rng.normal(size=CATEGORIES),
    )


@pytest.mark.parametrize("per_query", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numpy_and_torch_give_the_same_numbers(seed: int, per_query: bool) -> None:
    inputs = arrays(seed, per_query=per_query)
    torch_weights = Weights(
        **{f.name: torch.from_numpy(getattr(WEIGHTS, f.name)).float() for f in fields(Weights)}
    )
    found = predict(WEIGHTS, *inputs)
    other = predict(torch_weights, *(torch.from_numpy(array).float() for array in inputs))
    shapes = {"category": (QUERIES, CATEGORIES), "difficulty": (QUERIES,)}
    for name in Prediction._fields:
        numpy_array, torch_array = getattr(found, name), getattr(other, name)
        assert isinstance(numpy_array, np.ndarray)
        assert isinstance(torch_array, torch.Tensor)
        assert numpy_array.shape == shapes.get(name, (QUERIES, BACKBONES))
        np.testing.assert_allclose(torch_array.numpy(), numpy_array, rtol=1e-5, atol=1e-5)


def test_equal_tables_per_query_are_one_table() -> None:
    query, odds, tokens, features, prior = arrays(3, per_query=False)
    repeated = (np.stack([odds] * QUERIES), np.stack([tokens] * QUERIES))
    one = predict(WEIGHTS, query, odds, tokens, features, prior)
    each = predict(WEIGHTS, query, *repeated, features, prior)
    for a, b in zip(one, each, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_success_and_tokens_are_what_the_formula_says() -> None:
    query, odds, tokens, features, prior = arrays(4, per_query=True)
    found = predict(WEIGHTS, query, odds, tokens, features, prior)
    w = WEIGHTS
    for n in range(QUERIES):
        share = np.exp(query[n] @ w.category + w.category_bias + prior)
        share /= share.sum()
        for b in range(BACKBONES):
            success = (
                float(w.scale[0]) * sum(share[c] * odds[n, c, b] for c in range(CATEGORIES))
                + query[n] @ w.match @ features[b]
                + (query[n] @ w.shift) * (1.0 + w.shift_match @ features[b])
            )
            visible = (
                sum(share[c] * tokens[n, c, b] for c in range(CATEGORIES))
                + query[n] @ w.tokens_match @ features[b]
                + query[n] @ w.tokens_shift
            )
            assert found.success[n, b] == pytest.approx(success, abs=1e-9)
            assert found.log_tokens[n, b] == pytest.approx(visible, abs=1e-9)
        assert found.difficulty[n] == pytest.approx(query[n] @ w.difficulty + w.difficulty_bias[0])


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_category_probabilities_sum_to_one_even_for_huge_scores(size: float) -> None:
    query, *rest = arrays(5, per_query=False)
    category = predict(WEIGHTS, query * size, *rest).category
    assert np.isfinite(category).all()
    assert (category <= 0).all()
    np.testing.assert_allclose(np.exp(category).sum(axis=1), 1.0, atol=1e-9)


def test_the_category_prior_shifts_the_categories_by_its_differences() -> None:
    query, odds, tokens, features, _ = arrays(6, per_query=False)
    even = predict(WEIGHTS, query, odds, tokens, features, np.zeros(CATEGORIES)).category
    prior = np.array([0.0, -3.0, 0.0, 0.0])
    shifted = predict(WEIGHTS, query, odds, tokens, features, prior).category
    np.testing.assert_allclose(
        shifted[:, 1] - shifted[:, 0], even[:, 1] - even[:, 0] - 3.0, atol=1e-9
    )
    assert (shifted[:, 1] < even[:, 1]).all()
    assert (shifted[:, [0, 2, 3]] > even[:, [0, 2, 3]]).all()
    constant = predict(WEIGHTS, query, odds, tokens, features, np.full(CATEGORIES, 9.0)).category
    np.testing.assert_allclose(constant, even, atol=1e-9)


def test_a_query_is_predicted_the_same_alone_and_among_others() -> None:
    query, odds, tokens, features, prior = arrays(7, per_query=False)
    together = predict(WEIGHTS, query, odds, tokens, features, prior)
    for n in range(QUERIES):
        alone = predict(WEIGHTS, query[n : n + 1], odds, tokens, features, prior)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a[0], b[n], atol=1e-12)
