"""The critic: what candidates are predicted to be worth, and which one is worth most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.candidates import SHAPES, all_members, longer, valid
from agentbalance_plugin.core.limits import Limits
from agentbalance_plugin.core.teamwork import Family, Members, Predicted, Value, value

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

# Cascades of four are tried over the best cascades of three alone: there are too many otherwise.
_EXTENDED = 16


@dataclass(frozen=True)
class Objective:
    """What counts beside success, for each of N tasks.

    Args:
        price_usd: [N] success that a US dollar must buy.
        second_price: [N] success that a second must buy.
        hop_price: [N] success that each further hop must buy.
        lead: [N] success that a single agent must be ahead by.
        strength: [N, m] bonus of each backbone, from the offset towards stronger pools.
    """

    price_usd: FloatArray
    second_price: FloatArray
    hop_price: FloatArray
    lead: FloatArray
    strength: FloatArray


@dataclass(frozen=True)
class Appraised:
    """Candidates of one family for N tasks.

    Args:
        members: their columns, [n, m] or [N, n, m].
        value: predicted, each [N, n].
        success: [N, n] predicted, in time; minus infinity where a hard cap leaves an agent no room
            or a candidate is not open to a task.
    """

    members: Members
    value: Value
    success: FloatArray

    def worth(self, objective: Objective) -> FloatArray:
        """[N, n] success less what cost, time and hops are priced at."""
        worth = (
            self.success
            - objective.price_usd[:, None] * self.value.cost_usd
            - objective.second_price[:, None] * self.value.latency_s
            - (objective.hop_price * SHAPES[self.members.family].hops)[:, None]
        )
        if self.members.family == "single":
            worth = worth - objective.lead[:, None]
        if objective.strength.any():
            bonus = (
                objective.strength[:, self.members.columns]
                if (self.members.columns.ndim == 2)
                else np.take_along_axis(objective.strength[:, None], self.members.columns, axis=2)
            )
            worth = worth + bonus.mean(axis=-1)
        return worth


def appraise(
    predicted: Predicted, members: Members, limits: Limits, open_to: BoolArray | None = None
) -> Appraised:
    """What candidates are good for, whatever things are priced at.

    Args:
        predicted: of N tasks and m backbones.
        members: columns of these.
        limits: of the same tasks and backbones.
        open_to: [N, n] candidates that a task may use; None: all.
    """
    uncut = limits.uncut(members)
    found = value(predicted, members, uncut)
    success = found.success * limits.in_time(found.latency_s)
    if uncut is not None:
        success = np.where((uncut > 0.0).all(axis=-1), success, -np.inf)
    if open_to is not None:
        success = np.where(open_to, success, -np.inf)
    return Appraised(members, found, success)


def appraise_all(
    predicted: Predicted,
    limits: Limits,
    objective: Objective,
    families: Sequence[Family],
    seats: BoolArray,
    uniform: bool,
    open_families: BoolArray | None = None,
) -> list[Appraised]:
    """Every candidate of some families over m backbones; of cascades of four, those that begin
    like the best cascades of three.

    Args:
        predicted, limits, objective: of N tasks and m backbones.
        seats: [N, S, m] whether an agent may use a backbone.
        uniform: whether all agents may use the same backbones.
        open_families: [N, len(families)] whether a task may use a family; None: all.
    """
    size = predicted.log_odds.shape[1]
    short = tuple(family for family in families if family != "pair_then_two")
    extends = "pair_then_two" in families
    # Cascades of three are needed to begin those of four, if only for that.
    base_only = extends and "pair_then_one" not in short
    tried = (*short, "pair_then_one") if base_only else short
    found: list[Appraised] = []
    for members in all_members(size, tried, uniform):
        fits = None if uniform else valid(members, seats)
        each = appraise(predicted, members, limits, fits)
        if members.family == "pair_then_one" and extends:
            column = (
                None if open_families is None else open_families[:, families.index("pair_then_two")]
            )
            found += _longer(predicted, limits, objective, seats, each, column)
            if base_only:
                continue
        if open_families is not None:
            column = open_families[:, families.index(members.family)]
            each = replace(each, success=np.where(column[:, None], each.success, -np.inf))
        found.append(each)
    return found


def _longer(
    predicted: Predicted,
    limits: Limits,
    objective: Objective,
    seats: BoolArray,
    base: Appraised,
    open_to: BoolArray | None,
) -> list[Appraised]:
    size = predicted.log_odds.shape[1]
    if size < 4:
        return []
    worth = base.worth(objective)
    count = min(_EXTENDED, worth.shape[1])
    best = np.argpartition(-worth, count - 1, axis=1)[:, :count]
    best.sort(axis=1)
    columns = base.members.columns
    begins = columns[best] if columns.ndim == 2 else np.take_along_axis(columns, best[..., None], 1)
    members = longer(begins, size)
    if len(begins) == 1:
        # One task's columns are everybody's: plain indexing is much faster.
        members = Members(members.family, members.columns[0])
    fits = valid(members, seats)
    if open_to is not None:
        fits &= open_to[:, None]
    return [appraise(predicted, members, limits, fits)]


@dataclass(frozen=True)
class Ranked:
    """The best candidates of N tasks, best first; Q of each.

    Args:
        family: [N, Q] numbers of `FAMILIES`.
        columns: [N, Q, 4] in the order in which they run; -1 after the last.
        success, cost_usd, latency_s, worth: [N, Q] predicted; worth is minus infinity where there
            is no candidate.
        considered: [N] how many candidates were affordable.
    """

    family: IntArray
    columns: IntArray
    success: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray
    worth: FloatArray
    considered: IntArray


FAMILIES: tuple[Family, ...] = tuple(SHAPES)
"""In the order of their numbers."""


@dataclass(frozen=True)
class Choice:
    """The candidate that a plan is made of.

    Args:
        columns: of its backbones, in the order in which they run.
        worth: success less what it is priced at.
    """

    family: Family
    columns: tuple[int, ...]
    success: float
    cost_usd: float
    latency_s: float
    worth: float


def ranked(appraised: Sequence[Appraised], objective: Objective, count: int) -> Ranked:
    """The `count` candidates of most worth. Ties go to the cheaper, then to the one listed first.

    Args:
        appraised: at least one.
    """
    worth = np.concatenate([each.worth(objective) for each in appraised], axis=1)
    cost = np.concatenate([each.value.cost_usd for each in appraised], axis=1)
    tasks, total = worth.shape
    count = min(count, total)
    # The same agents in another order are right equally often, up to the last bits.
    rounded = np.round(worth, 9)
    near = np.argpartition(-rounded, count - 1, axis=1)[:, :count] if count < total else None
    if near is not None:
        # All that tie with the last of these may be among the best.
        least = np.take_along_axis(rounded, near, axis=1).min(axis=1, keepdims=True)
        rounded = np.where(rounded >= least, rounded, -np.inf)
    # Sorted by cost, then, keeping that order among equals, by worth.
    by_cost = np.argsort(np.round(cost, 12), axis=1, kind="stable")
    then = np.argsort(-np.take_along_axis(rounded, by_cost, axis=1), axis=1, kind="stable")
    order = np.take_along_axis(by_cost, then[:, :count], axis=1)

    def taken(values: list[FloatArray]) -> FloatArray:
        return np.take_along_axis(np.concatenate(values, axis=1), order, axis=1)

    family = np.concatenate(
        [np.full(each.success.shape[1], FAMILIES.index(each.members.family)) for each in appraised]
    )
    columns = np.concatenate([_padded(each, tasks) for each in appraised], axis=1)
    return Ranked(
        family=family[order],
        columns=np.take_along_axis(columns, order[..., None], axis=1),
        success=taken([each.value.success for each in appraised]),
        cost_usd=taken([each.value.cost_usd for each in appraised]),
        latency_s=taken([each.value.latency_s for each in appraised]),
        worth=np.take_along_axis(worth, order, axis=1),
        considered=np.isfinite(worth).sum(axis=1),
    )


def _padded(each: Appraised, tasks: int) -> IntArray:
    """[N, n, 4]"""
    columns = each.members.columns
    padded = np.full((*columns.shape[:-1], 4), -1, dtype=np.int64)
    padded[..., : columns.shape[-1]] = columns
    return np.broadcast_to(padded, (tasks, *padded.shape[-2:]))
