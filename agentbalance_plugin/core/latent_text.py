"""Directions in which texts differ most, found without labels.

Latent semantic analysis (Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990):
each training text is the mean of its features weighted by inverse document frequency, and the
singular vectors of these means are the directions. Embeddings that were trained to tell
categories apart say little of what sets the queries of one category apart; these do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.encoder import Features

FloatArray = NDArray[np.float64]

# A feature of fewer texts would be a direction of its own.
_FEWEST_TEXTS = 3
# Subspace iteration: so many directions more than wanted, multiplied so often.
_MORE = 16
_ROUNDS = 8
# Of the vectors of training texts; as long as learnt ones come to be.
_SQUARED_LENGTH = 3.0


def latent_directions(
    texts: Sequence[Features], rows: int, size: int, seed: int
) -> NDArray[np.float32]:
    """Embeddings whose weighted sum over a text's features is its place among the texts.

    Args:
        texts: of the training queries.
        rows: of the embedding table.
        size: directions wanted; the first of all, common to every text, is left out.
        seed: of where the iteration starts.

    Returns:
        [rows, size]; zero for features of fewer than three texts, and in directions beyond those
        that the texts span.
    """
    count = np.zeros(rows)
    for text in texts:
        count[text.ids] += 1.0
    rarity = np.where(count >= _FEWEST_TEXTS, np.log1p(len(texts) / np.maximum(count, 1.0)), 0.0)
    directions = np.random.default_rng([seed, 4]).normal(size=(rows, size + 1 + _MORE))
    for _ in range(_ROUNDS):
        directions, _ = np.linalg.qr(_gathered(texts, rarity, directions))
    _, strength, turn = np.linalg.svd(_places(texts, rarity, directions), full_matrices=False)
    # Beyond what the texts span there is only rounding.
    spanned = int((strength > 1e-9 * strength[0]).sum())
    directions = (directions @ turn.T)[:, 1 : min(spanned, size + 1)]
    squared = float((strength[1 : 1 + directions.shape[1]] ** 2).sum()) / len(texts)
    found = np.zeros((rows, size), dtype=np.float32)
    if squared > 0:
        # A direction's sign is arbitrary: its largest entry is positive.
        largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
        scale = np.sqrt(_SQUARED_LENGTH / squared) * np.sign(largest) * rarity[:, None]
        # In the precision that is kept, without minus zero: how a library adds up must not show.
        found[:, : directions.shape[1]] = (scale * directions).astype(np.float16) + 0.0
    return found


def _places(texts: Sequence[Features], rarity: FloatArray, directions: FloatArray) -> FloatArray:
    """[N, k] of N texts along k directions, text by text: a matrix of all would be large."""
    return np.stack([(t.weights * rarity[t.ids]) @ directions[t.ids] for t in texts])


def _gathered(texts: Sequence[Features], rarity: FloatArray, directions: FloatArray) -> FloatArray:
    """[rows, k] sums of the texts' places over the features that they have."""
    found = np.zeros_like(directions)
    for text, place in zip(texts, _places(texts, rarity, directions), strict=True):
        found[text.ids] += np.outer(text.weights * rarity[text.ids], place)
    return found
