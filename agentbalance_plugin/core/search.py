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
    last = np.tile(np.array(roster, dtype=np.int64), len(base))
    rows = np.column_stack([np.repeat(base, len(roster), axis=0), last])
    fits = (rows[:, :3] != rows[:, 3:]).all(axis=1)
    for place, slot in enumerate(slots_for(4, len(allowed))):
        fits &= allowed[slot][rows[:, place]]
    return Members("pair_then_two", rows[fits]) if fits.any() else None


def slots_for(size: int, agents: int) -> tuple[int, ...]:
    """Which agents take part in a candidate of this size: the first ones, and the decider last."""
    return (*range(size - 1), agents - 1)


@dataclass(frozen=True)
class Appraised:
    """n candidates of one family on one query.

    Args:
        success: [n] predicted, in time; minus infinity where a hard cap leaves an agent no room.
    """

    members: Members
    value: Value
    success: FloatArray

    def worth(self, objective: Objective) -> FloatArray:
        """[n] success less what cost, time and hops are priced at."""
        return (
            self.success
            - objective.price_usd * self.value.cost_usd[0]
            - objective.second_price * self.value.latency_s[0]
            - objective.hop_price * FAMILY_HOPS[self.members.family]
            + objective.strength[self.members.columns].mean(axis=1)
        )


def appraise(predicted: Predicted, members: Members, limits: Limits) -> Appraised:
    """What candidates are good for, whatever things are priced at."""
    uncut = limits.uncut(members)
    found = value(predicted, members, uncut)
    success = found.success[0] * limits.in_time(found.latency_s[0])
    return Appraised(members, found, np.where((uncut > 0.0).all(axis=1), success, -np.inf))


def with_cascades_of_four(
    predicted: Predicted,
    appraised: Sequence[Appraised],
    seats: Sequence[BoolArray],
    limits: Limits,
    objectives: Sequence[Objective],
    roster: Sequence[int],
) -> list[Appraised]:
    """Also cascades of four that begin like the best cascades of three, for any objective."""
    for each in appraised:
        if each.members.family == "pair_then_one" and len(seats) >= 4:
            best = [
                np.argsort(-each.worth(objective), kind="stable")[:_EXTENDED]
                for objective in objectives
            ]
            base = each.members.columns[np.unique(np.concatenate(best))]
            longer = extended(base, roster, seats)
            if longer is not None:
                return [*appraised, appraise(predicted, longer, limits)]
    return list(appraised)


def best_choices(
    predicted: Predicted,
    shortlist: Sequence[Members],
    seats: Sequence[BoolArray],
    limits: Limits,
    objectives: Sequence[Objective],
    roster: Sequence[int],
) -> list[Choice | None]:
    """The affordable candidate of most worth for one query, for each objective.

    Worth is the predicted success, times the chance to be in time, less what cost, time and hops
    are priced at. Ties go to the cheaper candidate, then to the one listed first.

    Args:
        predicted: of one query.
        shortlist: from `candidates` and `races`; cascades of four are added.
        seats: per slot, [B] whether its agent may use a backbone.
        objectives: what things are priced at.
        roster: columns to choose from.

    Returns:
        one for each objective; None where no candidate is affordable.
    """
    appraised = [appraise(predicted, members, limits) for members in shortlist]
    appraised = with_cascades_of_four(predicted, appraised, seats, limits, objectives, roster)
    return [_best(appraised, objective) for objective in objectives]


def _best(groups: Sequence[Appraised], objective: Objective) -> Choice | None:
    if not any(np.isfinite(group.success).any() for group in groups):
        return None
    total = np.concatenate([group.worth(objective) for group in groups])
    cost = np.concatenate([group.value.cost_usd[0] for group in groups])
    # The same agents in another order are right equally often, up to the last bits.
    order = np.lexsort((np.round(cost, 12), -np.round(total, 9)))[:4].tolist()
    ends = np.cumsum([len(group.success) for group in groups])

    def locate(flat: int) -> tuple[Appraised, int]:
        group = int(np.searchsorted(ends, flat, side="right"))
        return groups[group], flat - (int(ends[group - 1]) if group else 0)

    group, row = locate(order[0])
    runners_up: list[tuple[str, tuple[int, ...], float]] = []
    for flat in order[1:]:
        other, other_row = locate(flat)
        if np.isfinite(total[flat]):
            columns = tuple(other.members.columns[other_row].tolist())
            runners_up.append((other.members.family, columns, float(total[flat])))
    return Choice(
        family=group.members.family,
        columns=tuple(group.members.columns[row].tolist()),
        success=float(group.value.success[0, row]),
        cost_usd=float(group.value.cost_usd[0, row]),
        latency_s=float(group.value.latency_s[0, row]),
        worth=float(total[order[0]]),
        considered=int(np.isfinite(total).sum()),
        runners_up=tuple(runners_up),
    )
