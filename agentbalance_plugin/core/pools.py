"""Pool construction: drop backbones that another one beats, cluster the rest from cheap to strong.

After AgentBalance (arXiv 2512.11426): a Pareto filter, then k-medoids. Done once per catalog.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def pareto(log_odds: FloatArray, price: FloatArray, latency: FloatArray) -> IntArray:
    """The backbones that no other one beats.

    One beats another if it is at least as good in every category, at least as cheap and at least
    as fast, and better in one of these.

    Args:
        log_odds: [C, B] of a right answer.
        price, latency: [B], any units.

    Returns:
        columns that remain, ascending.
    """
    quality = np.concatenate([log_odds, -price[None, :], -latency[None, :]])
    count = quality.shape[1]
    keep = np.ones(count, dtype=np.bool_)
    for column in range(count):
        at_least = (quality >= quality[:, [column]]).all(axis=0)
        better = (quality > quality[:, [column]]).any(axis=0)
        keep[column] = not (at_least & better).any()
    return np.flatnonzero(keep)


def build_pools(
    strength: FloatArray,
    price: FloatArray,
    latency: FloatArray,
    count: int = 3,
    known: BoolArray | None = None,
) -> IntArray:
    """Cluster backbones by strength, log price and log latency.

    Those that are not known well join the pool that they are nearest to, without moving it: a
    newcomer must not change what the others are taken for.

    Args:
        strength: [B] mean log-odds.
        price, latency: [B] above zero.
        count: pools; fewer where there are fewer backbones.
        known: [B] who is known well, one at least; None: all.

    Returns:
        [B] the pool of each, 0 the weakest; pools are ordered by their mean strength.
    """
    if known is None:
        known = np.ones(len(strength), dtype=np.bool_)
    size = int(known.sum())
    count = min(count, size)
    if count <= 1:
        return np.zeros(len(strength), dtype=np.int64)
    import kmedoids

    points = np.stack([strength, np.log(price), np.log(latency)], axis=1)
    spread = np.maximum(points[known].std(axis=0), 1e-9)
    points = (points - points[known].mean(axis=0)) / spread
    # Equal input in another order must give equal pools: medoids start from a sorted order.
    order = np.lexsort((latency, price, strength))
    order = order[known[order]]
    distance = _distance(points[order], points[order])
    start = np.linspace(0, size - 1, count).round().astype(np.int64)
    found = kmedoids.pam(distance.astype(np.float32), start)
    medoids = order[np.asarray(found.medoids, dtype=np.int64)]
    labels = _distance(points, points[medoids]).argmin(axis=1)
    labels[order] = np.asarray(found.labels, dtype=np.int64)
    means = [float(strength[known & (labels == pool)].mean()) for pool in range(count)]
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(means, kind="stable")] = np.arange(count)
    return rank[labels]


def _distance(points: FloatArray, others: FloatArray) -> FloatArray:
    return np.abs(points[:, None, :] - others[None, :, :]).sum(axis=2)
