"""Which designs there are over a handful of backbones: families of teams and their members."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.teamwork import Family, Members

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """What a family looks like to the stages.

    Args:
        agents: that take part.
        hops: agents on its longest path.
        watches: (watching, watched) positions; an agent that watches is late-gated.
        race: whether it ends as soon as it is decided.
    """

    agents: int
    hops: int = 1
    watches: tuple[tuple[int, int], ...] = ()
    race: bool = False


SHAPES: dict[Family, Shape] = {
    "single": Shape(1),
    "pair": Shape(2),
    "triple": Shape(3),
    "pair_then_one": Shape(3, 2, ((2, 0), (2, 1))),
    "pair_then_two": Shape(4, 3, ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2))),
    "race_three": Shape(3, race=True),
    "race_four": Shape(4, race=True),
}

MOST_AGENTS = 4
# How many of the front members are in any order, where any agent may use any backbone.
_FRONT: dict[Family, int] = {
    "single": 1,
    "pair": 2,
    "triple": 3,
    "pair_then_one": 2,
    "race_three": 3,
    "race_four": 4,
}


@lru_cache(maxsize=512)
def all_members(size: int, families: tuple[Family, ...], uniform: bool) -> tuple[Members, ...]:
    """Every candidate of some families over `size` backbones, none of which comes twice.

    A second copy of a backbone says nothing new.

    Args:
        families: without "pair_then_two", which `longer` makes.
        uniform: whether agents are alike, so that those that start at once have no order.
    """
    found: list[Members] = []
    for family in families:
        front = _FRONT[family]
        count = SHAPES[family].agents
        starts = combinations(range(size), front) if uniform else permutations(range(size), front)
        rows = [
            (*start, *rest)
            for start in starts
            for rest in permutations([b for b in range(size) if b not in start], count - front)
        ]
        if rows:
            found.append(Members(family, np.array(rows, dtype=np.int64)))
    return tuple(found)


def longer(base: IntArray, size: int) -> Members:
    """Cascades of four that begin like given cascades of three: [N, n * size, 4] of [N, n, 3].

    Those with a backbone twice are among them.
    """
    tasks, count, _ = base.shape
    repeated = np.repeat(base, size, axis=1)
    last = np.broadcast_to(np.tile(np.arange(size), count)[None, :, None], (tasks, count * size, 1))
    return Members("pair_then_two", np.concatenate([repeated, last], axis=2))


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


def valid(members: Members, seats: BoolArray) -> BoolArray:
    """[N, n] candidates without a backbone twice, each in a seat that it may take.

    Args:
        seats: [N, S, m] whether an agent, in the order of slots, may use a backbone.
    """
    columns = members.columns if members.columns.ndim == 3 else members.columns[None]
    size = columns.shape[-1]
    ordered = np.sort(columns, axis=-1)
    fits = (ordered[..., 1:] != ordered[..., :-1]).all(axis=-1)
    fits = np.broadcast_to(fits, (len(seats), fits.shape[1])).copy()
    for place, slot in enumerate(slots_for(size, seats.shape[1])):
        column = np.broadcast_to(columns[..., place], fits.shape)
        fits &= np.take_along_axis(seats[:, slot], column, axis=1)
    return fits
