"""Difficulty -> pool: which pool is the strongest that a design may draw on."""

from __future__ import annotations

import numpy as np

from agentbalance_plugin.core.stages.arrays import (
    FIGURES,
    POOLS,
    Array,
    Scene,
    StageWeights,
    log_softmax,
    namespace,
    sigmoid,
)

_WORTH = FIGURES.index("worth") - len(FIGURES)
_SUCCESS = FIGURES.index("success") - len(FIGURES)
_COST = FIGURES.index("relative_cost") - len(FIGURES)
# An offset of 0.1, a tenth of a success per pool, moves a choice that was even to nine in ten.
_DELTA_SCALE = 22.0
# Which pools are within reach of each: its own and the weaker ones.
_REACHES = np.tril(np.ones((POOLS, POOLS), dtype=np.float32))


def pool_log_probs(weights: StageWeights, scene: Scene, task: Array) -> Array:
    """[N, K] log-probability of each pool; pools without usable backbones have none.

    The stronger a pool, the more a difficult query, the task and the offset delta speak for it;
    beside that, a pool is as good as the best that its members promise.

    Args:
        task: [N, T] from `task_features`.
    """
    xp = namespace(scene.query)
    occupied = xp.max(scene.pool, axis=1)
    shut = 1e3 * (1.0 - scene.pool)

    def best(column: int) -> Array:
        highest = xp.max(scene.backbones[:, :, column, None] - shut, axis=1)
        return highest * occupied

    size = xp.clip(xp.sum(scene.pool, axis=1), min=1.0)
    cost = xp.sum(scene.backbones[:, :, _COST, None] * scene.pool, axis=1) / size
    promise = xp.stack([best(_WORTH), best(_SUCCESS), cost, occupied], axis=-1)
    towards_strong = (
        task @ weights.sel_task
        + weights.sel_difficulty * sigmoid(scene.difficulty)
        + _DELTA_SCALE * scene.delta
    )
    rank = xp.cumulative_sum(xp.ones_like(occupied), axis=1) - 1.0
    scores = promise @ weights.sel_pool + weights.sel_bias + towards_strong[:, None] * rank
    return log_softmax(scores, occupied)


def open_backbones(scene: Scene, pool: Array) -> Array:
    """[N, S, A, B] mask: members of the chosen pool and of weaker ones that an agent may use.

    An agent none of whose backbones is in these pools may use all of its own.

    Args:
        pool: [N, S, K] mask of the chosen pool.
    """
    xp = namespace(pool)
    # A backbone is within reach if the chosen pool is its own or a stronger one.
    reach = pool @ xp.asarray(_REACHES, dtype=pool.dtype)
    within = reach @ xp.permute_dims(scene.pool, (0, 2, 1))
    usable = scene.allowed * xp.max(scene.pool, axis=-1)[:, None, :]
    near = usable[:, None] * within[:, :, None, :]
    none = 1.0 - xp.max(near, axis=-1, keepdims=True)
    return near + none * usable[:, None]
