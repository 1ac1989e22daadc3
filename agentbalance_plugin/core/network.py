"""The forward pass, written once: numpy when planning, torch when training.

For a query vector z (its features' embeddings, added up by weight, and its length) and a profile f:

    p(c | q)  = softmax(z W + b + prior)                              category
    success   = a · sum_c p(c | q) log_odds[c] + z M f + u(z) (1 + v f)  log-odds of a right answer
    tokens    = sum_c p(c | q) log_tokens[c] + z N f + t(z)             log visible tokens
    difficulty = sigmoid(z w + e)                                     share of backbones that fail

so that the table of rates per category is a special case, and the rest is a correction by text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Numbers of an embedding that were learnt from categories, and places along latent directions. A
# vector has one more: how long the query is.
LEARNT = 16
LATENT = 31
EMBEDDING = LEARNT + LATENT + 1

# An array of numpy or torch; the operations used are those that both have under one name.
Array = Any


# Since 2.1 numpy itself has what is used here; asking and wrapping take longer than the work.
_NUMPY_SUFFICES = hasattr(np, "cumulative_sum")


def namespace(array: Array) -> Any:
    """The array API of the library that an array is of."""
    if type(array) is np.ndarray and _NUMPY_SUFFICES:
        return np
    from array_api_compat import array_namespace

    return array_namespace(array)


@dataclass
class Weights:
    """Learned arrays; E = `EMBEDDING`, C categories, F features of a profile, V feature buckets.

    Args:
        embedding: [V, E - 1], see `LEARNT`.
        category: [E, C], category_bias: [C].
        scale: [1] a above.
        match: [E, F] M above.
        shift: [E] u above, shift_match: [F] v above.
        tokens_match: [E, F] N above, tokens_shift: [E] t above.
        log_sigma: [1] of the logarithm of tokens.
        difficulty: [E], difficulty_bias: [1].
    """

    embedding: Array
    category: Array
    category_bias: Array
    scale: Array
    match: Array
    shift: Array
    shift_match: Array
    tokens_match: Array
    tokens_shift: Array
    log_sigma: Array
    difficulty: Array
    difficulty_bias: Array

    @cached_property
    def rows(self) -> NDArray[np.float32]:
        """[V, E - 1] the embedding of a checkpoint in single precision, from the first plan on: to
        convert the rows of every query takes longer than to add them up."""
        return np.asarray(self.embedding, dtype=np.float32)


class Prediction(NamedTuple):
    """Of N queries and B backbones.

    Args:
        category: [N, C] log-probabilities.
        success: [N, B] log-odds.
        log_tokens: [N, B] of visible tokens.
        difficulty: [N] log-odds.
    """

    category: Array
    success: Array
    log_tokens: Array
    difficulty: Array


def predict(
    weights: Weights,
    query: Array,
    log_odds: Array,
    log_tokens: Array,
    features: Array,
    category_prior: Array,
) -> Prediction:
    """The heads.

    Args:
        weights: arrays of the same library as the rest.
        query: [N, E] vectors.
        log_odds, log_tokens: [C, B], or [N, C, B] where each query has its own table.
        features: [B, F].
        category_prior: [C] log weight of each category before the text is looked at.
    """
    scores = query @ weights.category + weights.category_bias + category_prior
    top = _max(scores)
    shifted = scores - top
    log_norm = _log(_sum_exp(shifted))
    category = shifted - log_norm
    share = _exp(category)
    matched = query @ weights.match @ features.T
    lift = (query @ weights.shift)[:, None] * (1.0 + features @ weights.shift_match)[None, :]
    success = weights.scale * _mix(share, log_odds) + matched + lift
    tokens = (
        _mix(share, log_tokens)
        + query @ weights.tokens_match @ features.T
        + (query @ weights.tokens_shift)[:, None]
    )
    difficulty = query @ weights.difficulty + weights.difficulty_bias
    return Prediction(category, success, tokens, difficulty)


def _mix(share: Array, table: Array) -> Array:
    """[N, C] weights over [C, B] or [N, C, B] -> [N, B]."""
    if table.ndim == 2:
        return share @ table
    return (share[:, None, :] @ table)[:, 0, :]


def _exp(array: Array) -> Array:
    return namespace(array).exp(array)


def _log(array: Array) -> Array:
    return namespace(array).log(array)


def _max(array: Array) -> Array:
    return namespace(array).max(array, axis=-1, keepdims=True)


def _sum_exp(array: Array) -> Array:
    xp = namespace(array)
    return xp.sum(xp.exp(array), axis=-1, keepdims=True)
