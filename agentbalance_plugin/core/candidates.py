"""Which designs there are over a handful of backbones: families of teams and their members."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.teamwork import FAMILIES, SHAPES, Family

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


MOST_AGENTS = 4


@dataclass(frozen=True, eq=False)
class Table:
    """Every candidate of some families over m backbones, none of which comes twice in it.

    A second copy of a backbone says nothing new. Many candidates share what there is to work out,
    so they name sub-teams, each of which is looked at once: of T triples and Q fours, members
    ascending.

    Args:
        family: [n] numbers of `FAMILIES`; columns: [n, 4] in the order in which they run, -1 after
            the last; agents: [n] how many.
        triples: [T, 3]; fours: [Q, 4]; begins: [Q] the triple that each of the fours begins with.
        success: [n] whose success is a candidate's, among m single agents, m * m pairs, T triples
            and T * m triples with a fourth.
        start: [n] who starts at once, among m single agents, m * m pairs, T triples, T races and Q
            races.
        third, fourth: [n] an agent that waits, m for none, and
        third_opens, fourth_opens: [n] what it waits for, among m * m pairs and T triples.
        calls: [4, n] of C different calls, which depend on what is spent or held when they start;
            -1 after the last.
        call_backbone, call_group: [C] whose it is, and which of the groups in `start` it runs with,
            call_at_once: [C], or after.
    """

    family: IntArray
    columns: IntArray
    agents: IntArray
    triples: IntArray
    fours: IntArray
    begins: IntArray
    success: IntArray
    start: IntArray
    third: IntArray
    fourth: IntArray
    third_opens: IntArray
    fourth_opens: IntArray
    calls: IntArray
    call_backbone: IntArray
    call_group: IntArray
    call_at_once: BoolArray


@lru_cache(maxsize=256)
def table(size: int, families: tuple[Family, ...], uniform: bool) -> Table | None:
    """The candidates of some families over `size` backbones; None if there are none.

    Args:
        uniform: whether agents are alike, so that those that start at once have no order.
    """
    rows: list[tuple[Family, tuple[int, ...]]] = [
        (family, row) for family in families for row in _members(family, size, uniform=uniform)
    ]
    if not rows:
        return None
    triples: list[tuple[int, ...]] = list(combinations(range(size), 3))
    fours: list[tuple[int, ...]] = list(combinations(range(size), 4))
    triple = {row: number for number, row in enumerate(triples)}
    four = {row: number for number, row in enumerate(fours)}
    pairs, three = size, size + size * size
    # Of what starts at once, races follow the triples; of successes, fours that begin with one.
    beyond = three + len(triples)
    made: list[tuple[int, ...]] = []
    calls: dict[tuple[int, int, bool], int] = {}
    for family, row in rows:
        ordered = tuple(sorted(row))
        pair = first = 0
        if len(row) > 1:
            pair = row[0] * size + row[1]
        if len(row) > 2:
            first = triple[tuple(sorted(row[:3]))]
        last = row[len(row) - 1]
        wait = (size, size, 0, 0)
        if family == "single":
            success = start = last
        elif family == "pair":
            success = start = pairs + pair
        elif family == "triple":
            success = start = three + first
        elif family == "race_three":
            success, start = three + first, beyond + first
        elif family == "race_four":
            success = beyond + triple[ordered[:3]] * size + ordered[-1]
            start = beyond + len(triples) + four[ordered]
        elif family == "pair_then_one":
            success, start = three + first, pairs + pair
            wait = (last, size, pair, 0)
        else:
            success, start = beyond + first * size + last, pairs + pair
            wait = (row[len(row) - 2], last, pair, size * size + first)
        at_once = SHAPES[family].at_once
        before = [start] * at_once + [pairs + pair, three + first][: len(row) - at_once]
        here = [
            calls.setdefault((backbone, group, place < at_once), len(calls))
            for place, (backbone, group) in enumerate(zip(row, before, strict=True))
        ]
        made.append((success, start, *wait, *here, *[-1] * (4 - len(row))))
    success, start, third, fourth, third_opens, fourth_opens, *call = np.array(made).T
    return Table(
        family=np.array([FAMILIES.index(family) for family, _ in rows], dtype=np.int64),
        agents=np.array([len(row) for _, row in rows], dtype=np.int64),
        columns=np.array([(*row, -1, -1, -1)[:4] for _, row in rows], dtype=np.int64),
        triples=np.array(triples, dtype=np.int64).reshape(-1, 3),
        fours=np.array(fours, dtype=np.int64).reshape(-1, 4),
        begins=np.array([triple[row[:3]] for row in fours], dtype=np.int64),
        success=success,
        start=start,
        third=third,
        fourth=fourth,
        third_opens=third_opens,
        fourth_opens=fourth_opens,
        calls=np.stack(call),
        call_backbone=np.array([backbone for backbone, _, _ in calls]),
        call_group=np.array([group for _, group, _ in calls]),
        call_at_once=np.array([at_once for _, _, at_once in calls]),
    )


def group_sums(values: FloatArray, candidates: Table) -> FloatArray:
    """[N, m + m * m + 2 T + Q] of [N, m]: sums over the groups in `Table.start`."""
    pair = (values[:, :, None] + values[:, None, :]).reshape(len(values), -1)
    triple = values[:, candidates.triples].sum(axis=2)
    four = values[:, candidates.fours].sum(axis=2)
    return np.concatenate([values, pair, triple, triple, four], axis=1)


def _members(family: Family, size: int, *, uniform: bool) -> list[tuple[int, ...]]:
    front, count = SHAPES[family].at_once, SHAPES[family].agents
    starts = combinations(range(size), front) if uniform else permutations(range(size), front)
    return [
        (*start, *rest)
        for start in starts
        for rest in permutations([b for b in range(size) if b not in start], count - front)
    ]


def slots_for(size: int, agents: int) -> tuple[int, ...]:
    """Which agents take part in a candidate of this size: the first ones, and the decider last."""
    return (*range(size - 1), agents - 1)


def families_for(
    least: int,
    most: int,
    *,
    hasty: bool,
    sizes: Collection[int] | None = None,
    hops: Collection[int] | None = None,
    late: bool = True,
) -> tuple[Family, ...]:
    """The families worth trying.

    Args:
        least, most: agents that a plan must and may keep.
        hasty: whether time counts: races then stand in for votes that wait for everybody.
        sizes, hops: numbers of agents and of hops that are open; None: all.
        late: whether late gates and races are open; without them all votes are.
    """
    found: list[Family] = []
    for family, shape in SHAPES.items():
        conditional = shape.race or bool(shape.watches)
        if not late:
            # A pair has nothing to gain from waiting where a late gate could decide.
            wanted = not conditional
        elif shape.race:
            wanted = hasty
        else:
            wanted = (
                conditional
                or family == "single"
                or (family == "pair" and (least == 2 or sizes is not None))
                or (family == "triple" and (not hasty or hops is not None))
            )
        fits = least <= shape.agents <= min(most, MOST_AGENTS)
        open_here = (sizes is None or shape.agents in sizes) and (
            hops is None or shape.hops in hops
        )
        if wanted and fits and open_here:
            found.append(family)
    return tuple(found)


def valid(candidates: Table, seats: BoolArray) -> BoolArray:
    """[N, n] candidates whose backbones are each in a seat that it may take.

    Args:
        seats: [N, S, m] whether an agent, in the order of slots, may use a backbone.
    """
    agents = seats.shape[1]
    fits: BoolArray = np.ones((len(seats), len(candidates.columns)), dtype=np.bool_)
    sizes = candidates.agents
    for size in np.unique(sizes).tolist():
        those = sizes == size
        for place, slot in enumerate(slots_for(size, agents)):
            fits[:, those] &= seats[:, slot, candidates.columns[those, place]]
    return fits
