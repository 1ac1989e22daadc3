"""Late gates: which agents wait for disagreement, how much of it, and which votes stop early."""

from __future__ import annotations

from agentbalance_plugin.core.stages.arrays import (
    Array,
    StageWeights,
    log_bernoulli,
    namespace,
)


def late_scores(weights: StageWeights, task: Array, vectors: Array) -> Array:
    """[N, S, A] log-odds that an agent with edges to it runs only where their speakers disagree.

    Args:
        task: [N] what the task adds, `Heads.late`.
    """
    return vectors @ weights.late + task[:, None, None]


def strict_scores(weights: StageWeights, task: Array, vectors: Array) -> Array:
    """[N, S, A] log-odds that a late gate has the threshold that only full agreement reaches.

    Args:
        task: [N] what the task adds, `Heads.strict`.
    """
    return vectors @ weights.strict + task[:, None, None]


def may_be_late(edge: Array) -> Array:
    """[N, S, A] mask of agents that have edges to them."""
    return namespace(edge).max(edge, axis=-2)


def may_be_strict(edge: Array) -> Array:
    """[N, S, A] mask of agents for which all of those they watch is more than any two."""
    xp = namespace(edge)
    return xp.clip(xp.sum(edge, axis=-2) - 2.0, min=0.0, max=1.0)


def may_race(kept: Array, edge: Array) -> Array:
    """[N, S] mask of votes of three or more that all start at once."""
    xp = namespace(kept)
    enough = xp.clip(xp.sum(kept, axis=-1) - 2.0, min=0.0, max=1.0)
    return enough * (1.0 - xp.max(edge, axis=(-2, -1)))


def late_log_prob(
    late: Array, strict: Array, race: Array, kept: Array, edge: Array, drawn: tuple[Array, ...]
) -> Array:
    """[N, S] of late gates, thresholds and races, given the repaired edges.

    Args:
        late, strict: [N, S, A]; race: [N] log-odds.
        drawn: ([N, S, A] late, [N, S, A] strict, [N, S] race).
    """
    xp = namespace(late)
    is_late, is_strict, is_race = drawn
    of_late = log_bernoulli(late, is_late) * may_be_late(edge)
    of_strict = log_bernoulli(strict, is_strict) * is_late * may_be_strict(edge)
    of_race = log_bernoulli(race[:, None] + 0.0 * is_race, is_race) * may_race(kept, edge)
    return xp.sum(of_late + of_strict, axis=-1) + of_race
