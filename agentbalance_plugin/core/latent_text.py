"""Directions in which texts differ most, found without labels.

Latent semantic analysis (Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990):
each training text is the mean of its features weighted by inverse document frequency, and the
singular vectors of these means are the directions. Embeddings that were trained to tell
categories apart say little of what sets the queries of one category apart; these do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.encoder import Features

# A feature of fewer texts would be a direction of its own.
_FEWEST_TEXTS = 3
# Subspace iteration: so many directions more than wanted, multiplied so often.
_MORE = 16
_ROUNDS = 8
# Of the vectors of training texts; as long as learnt ones come to be.
_SQUARED_LENGTH = 3.0


def latent_directions(
    torch: Any, texts: Sequence[Features], rows: int, size: int, seed: int
) -> NDArray[np.float32]:
    """Embeddings whose weighted sum over a text's features is its place among the texts.

    Args:
        torch: the module.
        texts: of the training queries.
        rows: of the embedding table.
        size: directions wanted; the first of all, common to every text, is left out.
        seed: of where the iteration starts.

    Returns:
        [rows, size]; zero for features of fewer than three texts, and in directions beyond those
        that the texts span.
    """
    ids = np.concatenate([text.ids for text in texts]).astype(np.int64)
    weights = np.concatenate([text.weights for text in texts]).astype(np.float64)
    text = np.repeat(np.arange(len(texts)), [len(each.ids) for each in texts])
    count = np.bincount(ids, minlength=rows)
    rarity = np.where(count >= _FEWEST_TEXTS, np.log1p(len(texts) / np.maximum(count, 1)), 0.0)
    means = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([text, ids])),
        torch.from_numpy(weights * rarity[ids]),
        (len(texts), rows),
        check_invariants=False,
    ).coalesce()
    start = np.random.default_rng([seed, 4]).normal(size=(rows, size + 1 + _MORE))
    directions = torch.from_numpy(start)
    for _ in range(_ROUNDS):
        directions, _ = torch.linalg.qr(means.t() @ (means @ directions))
    _, strength, turn = torch.linalg.svd(means @ directions, full_matrices=False)
    # Beyond what the texts span there is only rounding.
    spanned = int((strength > 1e-9 * strength[0]).sum())
    directions = (directions @ turn.T)[:, 1 : min(spanned, size + 1)].numpy()
    squared = float((strength[1 : 1 + directions.shape[1]] ** 2).sum()) / len(texts)
    found = np.zeros((rows, size), dtype=np.float32)
    if squared > 0:
        # A direction's sign is arbitrary: its largest entry is positive.
        largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
        scale = np.sqrt(_SQUARED_LENGTH / squared) * np.sign(largest) * rarity[:, None]
        found[:, : directions.shape[1]] = scale * directions
    return found
