"""Plan search: which candidates there are, and which one is worth most inside the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.limits import Limits
from agentbalance_plugin.core.teamwork import Family, Members, Predicted, Value, value

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

FAMILY_HOPS: dict[Family, int] = {
    "single": 1,
    "pair": 1,
    "triple": 1,
    "pair_then_one": 2,
    "pair_then_two": 3,
    "race_three": 1,
    "race_four": 1,
}
"""Agents on the longest path: agents that run at once are one hop."""

RACES: dict[int, Family] = {3: "race_three", 4: "race_four"}

# Cascades of four are tried over the best cascades of three alone: there are too many otherwise.
_EXTENDED = 40


@dataclass(frozen=True)
class Objective:
    """What counts beside success.

    Args:
        price_usd: success that a US dollar must buy.
        second_price: success that a second must buy.
        hop_price: success that each further hop must buy.
        strength: [B] bonus of each backbone, from the offset towards stronger pools.
    """

    price_usd: float
    second_price: float
    hop_price: float
    strength: FloatArray


@dataclass(frozen=True)
class Choice:
    """The best candidate, and how it compares.

    Args:
        columns: of its backbones, in the order in which they run.
        worth: its objective.
        considered: how many candidates were affordable.
    """

    family: str
    columns: tuple[int, ...]
    success: float
    cost_usd: float
    latency_s: float
    worth: float
    considered: int
    runners_up: tuple[tuple[str, tuple[int, ...], float], ...]


def candidates(
    roster: Sequence[int], allowed: Sequence[BoolArray], least: int, most: int
) -> list[Members]:
    """All candidates of up to three agents over a roster of backbones.

    Args:
        roster: columns to choose from.
        allowed: per agent slot, [B] whether a backbone may take it; the last slot of a candidate
            is the last one here (the decider's).
        least, most: agents that a plan must and may keep.

    Returns:
        one `Members` per family that has candidates. The same backbone never comes twice: a second
        copy says nothing new.
    """
    found: list[Members] = []
    uniform = all(np.array_equal(mask, allowed[0]) for mask in allowed)
    if least <= 1:
        singles = [(b,) for b in roster if allowed[-1][b]]
        if singles:
            found.append(Members("single", np.array(singles, dtype=np.int64)))
    if least == 2:
        slots = slots_for(2, len(allowed))
        rows = [
            (a, b)
            for a, b in permutations(roster, 2)
            if allowed[slots[0]][a] and allowed[slots[1]][b]
        ]
        if rows:
            found.append(Members("pair", np.array(rows, dtype=np.int64)))
    if least <= 3 <= most:
        slots = slots_for(3, len(allowed))
        pairs = combinations(roster, 2) if uniform else permutations(roster, 2)
        rows = [
            (a, b, c)
            for a, b in pairs
            for c in roster
            if c not in (a, b)
            and allowed[slots[0]][a]
            and allowed[slots[1]][b]
            and allowed[slots[2]][c]
        ]
        if rows:
            array = np.array(rows, dtype=np.int64)
            found.append(Members("pair_then_one", array))
            once = array[(array[:, 1] < array[:, 2])] if uniform else array
            if len(once):
                found.append(Members("triple", once))
    return found


def races(
    fastest: Sequence[int], allowed: Sequence[BoolArray], least: int, most: int
) -> list[Members]:
    """Votes that are over as soon as two agree: worth their money where time is short.

    Args:
        fastest: columns to choose from, from fast to slow.
        allowed, least, most: as in `candidates`.
    """
    found: list[Members] = []
    for size, family in RACES.items():
        if not least <= size <= most:
            continue
        slots = slots_for(size, len(allowed))
        rows = [
            row
            for row in combinations(fastest, size)
            if all(allowed[slot][b] for slot, b in zip(slots, row, strict=True))
        ]
        if rows:
            found.append(Members(family, np.array(rows, dtype=np.int64)))
    return found


def extended(base: IntArray, roster: Sequence[int], allowed: Sequence[BoolArray]) -> Members | None:
    """Cascades of four that begin like some cascades of three."""
    slots = slots_for(4, len(allowed))
    rows = [
        (*row, d)
        for row in base.tolist()
        for d in roster
        if d not in row and all(allowed[slot][b] for slot, b in zip(slots, (*row, d), strict=True))
    ]
    return Members("pair_then_two", np.array(rows, dtype=np.int64)) if rows else None


def slots_for(size: int, agents: int) -> tuple[int, ...]:
    """Which agents take part in a candidate of this size: the first ones, and the decider last."""
    return (*range(size - 1), agents - 1)


def longer_cascades(
    predicted: Predicted,
    groups: Sequence[Members],
    seats: Sequence[BoolArray],
    limits: Limits,
    objective: Objective,
    roster: Sequence[int],
) -> Members | None:
    """Cascades of four that begin like the best cascades of three; None where there are none."""
    for members in groups:
        if members.family == "pair_then_one" and len(seats) >= 4:
            _, shorter = worth(predicted, members, limits, objective)
            top = np.argsort(-shorter, kind="stable")[:_EXTENDED]
            return extended(members.columns[top], roster, seats)
    return None


def best_choice(
    predicted: Predicted,
    shortlist: Sequence[Members],
    seats: Sequence[BoolArray],
    limits: Limits,
    objective: Objective,
    roster: Sequence[int],
) -> Choice | None:
    """The affordable candidate of most worth for one query; None if none is affordable.

    Worth is the predicted success, times the chance to be in time, less what cost and hops are
    priced at. Ties go to the cheaper candidate, then to the one listed first.

    Args:
        predicted: of one query.
        shortlist: from `candidates`, which cascades of four are added to.
        seats: per slot, [B] whether its agent may use a backbone.
        roster: columns to choose from.
    """
    longer = longer_cascades(predicted, shortlist, seats, limits, objective, roster)
    every = [*shortlist, longer] if longer is not None else shortlist
    groups = [(members, *worth(predicted, members, limits, objective)) for members in every]
    if not groups:
        return None
    total = np.concatenate([group[2] for group in groups])
    cost = np.concatenate([group[1].cost_usd[0] for group in groups])
    if not np.isfinite(total).any():
        return None
    # The same agents in another order are right equally often, up to the last bits.
    order = np.lexsort((np.round(cost, 12), -np.round(total, 9)))
    ends = np.cumsum([len(group[2]) for group in groups])

    def locate(flat: int) -> tuple[Members, Value, int]:
        group = int(np.searchsorted(ends, flat, side="right"))
        begin = int(ends[group - 1]) if group else 0
        return groups[group][0], groups[group][1], flat - begin

    members, found, row = locate(int(order[0]))
    runners_up: list[tuple[str, tuple[int, ...], float]] = []
    for flat in order[1:4].tolist():
        other, _, other_row = locate(flat)
        if np.isfinite(total[flat]):
            columns = tuple(other.columns[other_row].tolist())
            runners_up.append((other.family, columns, float(total[flat])))
    return Choice(
        family=members.family,
        columns=tuple(members.columns[row].tolist()),
        success=float(found.success[0, row]),
        cost_usd=float(found.cost_usd[0, row]),
        latency_s=float(found.latency_s[0, row]),
        worth=float(total[order[0]]),
        considered=int(np.isfinite(total).sum()),
        runners_up=tuple(runners_up),
    )


def worth(
    predicted: Predicted, members: Members, limits: Limits, objective: Objective
) -> tuple[Value, FloatArray]:
    """([1, n] values, [n] worth; minus infinity where a hard cap leaves an agent no room)."""
    uncut = limits.uncut(members)
    found = value(predicted, members, uncut)
    total = (
        found.success[0] * limits.in_time(found.latency_s[0])
        - objective.price_usd * found.cost_usd[0]
        - objective.second_price * found.latency_s[0]
        - objective.hop_price * FAMILY_HOPS[members.family]
        + objective.strength[members.columns].mean(axis=1)
    )
    return found, np.where((uncut > 0.0).all(axis=1), total, -np.inf)
