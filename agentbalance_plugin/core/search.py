"""The critic: what candidates are predicted to be worth, and which are worth most."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.candidates import Table
from agentbalance_plugin.core.limits import Limits
from agentbalance_plugin.core.subteams import values
from agentbalance_plugin.core.teamwork import FAMILIES, SHAPES, Family, Predicted, Value, value

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_HOPS = np.array([float(SHAPES[family].hops) for family in FAMILIES])
_SINGLE = FAMILIES.index("single")


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

    @cached_property
    def plain(self) -> bool:
        """Whether nothing counts but success, cost and time."""
        return not (self.hop_price.any() or self.lead.any() or self.strength.any())

    def worth(
        self, found: Value, success: FloatArray, family: IntArray, columns: IntArray
    ) -> FloatArray:
        """[N, n] success less what cost, time and hops are priced at.

        Args:
            found: cost and latency of n candidates.
            success: [N, n] in time.
            family: [n] or [N, n] numbers of `FAMILIES`.
            columns: [n, 4] or [N, n, 4]; -1 after the last.
        """
        worth = success - self.price_usd[:, None] * found.cost_usd
        worth -= self.second_price[:, None] * found.latency_s
        if self.plain:
            return worth
        if self.hop_price.any():
            worth -= self.hop_price[:, None] * _HOPS[family]
        if self.lead.any():
            worth -= self.lead[:, None] * (family == _SINGLE)
        if self.strength.any():
            rows = np.arange(len(worth))[:, None, None]
            there = columns >= 0
            bonus = self.strength[rows, np.broadcast_to(columns, (len(worth), *columns.shape[-2:]))]
            worth += (bonus * there).sum(axis=-1) / there.sum(axis=-1)
        return worth


@dataclass(frozen=True)
class Ranked:
    """The best candidates of N tasks, best first; Q of each.

    Args:
        family: [N, Q] numbers of `FAMILIES`.
        columns: [N, Q, 4] in the order in which they run; -1 after the last.
        success, cost_usd, latency_s, worth: [N, Q] predicted, success within the deadline; worth is
            minus infinity where there is no candidate.
        considered: [N] how many candidates were affordable.
    """

    family: IntArray
    columns: IntArray
    success: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray
    worth: FloatArray
    considered: IntArray


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


def ranked(
    predicted: Predicted,
    limits: Limits,
    objective: Objective,
    candidates: Table,
    count: int,
    open_to: BoolArray | None = None,
) -> Ranked:
    """The `count` candidates of most worth. Ties go to the cheaper, then to the one listed first.

    Where hard caps may cut replies off, all candidates are looked at as if each reply counted for
    the chance that it ends, and those that are returned once more, exactly.

    Args:
        predicted, limits, objective: of N tasks and the m backbones of the table.
        open_to: [N, n] candidates that a task may use; None: all.
    """
    family, columns = candidates.family, candidates.columns
    found = values(predicted, candidates)
    success = found.success
    uncut = limits.uncut(candidates)
    if uncut is not None:
        ends = uncut.take(candidates.calls, axis=1)
        absent = 4.0 - candidates.agents
        success = success * ((ends.sum(axis=1) - absent) / candidates.agents)
        success[ends.min(axis=1) <= 0.0] = -np.inf
    success = success * limits.in_time(found.latency_s)
    if open_to is not None:
        success = np.where(open_to, success, -np.inf)
    worth = objective.worth(found, success, family, columns)
    considered = np.isfinite(worth).sum(axis=1)

    best = _best(worth, found.cost_usd, count)
    rows = np.arange(len(worth))[:, None]
    family, columns, worth = family[best], columns[best], worth[rows, best]
    found = found.of(best)
    if uncut is not None:
        there = np.isfinite(worth)
        found = value(predicted, family, columns, uncut[rows[..., None], candidates.calls.T[best]])
        success = found.success * limits.in_time(found.latency_s)
        worth = np.where(there, objective.worth(found, success, family, columns), -np.inf)
        order = _best(worth, found.cost_usd, count)
        family, columns, worth = family[rows, order], columns[rows, order], worth[rows, order]
        found = found.of(order)
    success = found.success * limits.in_time(found.latency_s)
    return Ranked(family, columns, success, found.cost_usd, found.latency_s, worth, considered)


def _best(worth: FloatArray, cost: FloatArray, count: int) -> IntArray:
    """[N, count] positions from the most worth to the least."""
    # The same agents in another order are right equally often, up to the last bits; among those
    # that are worth the same cost decides, by far less than such a bit is worth.
    dearest = max(float(cost.max()), 1e-300)
    key = cost * (0.1 / dearest) - np.rint(worth * 1e9)
    total = key.shape[1]
    if count >= total:
        return key.argsort(axis=1, kind="stable")
    near = key.argpartition(count - 1, axis=1)[:, :count]
    near.sort(axis=1)
    rows = np.arange(len(key))[:, None]
    return near[rows, key[rows, near].argsort(axis=1, kind="stable")]
