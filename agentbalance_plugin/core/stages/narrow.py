"""What the stages leave for the critic to choose from, and what they say of its favourites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.candidates import (
    MOST_AGENTS,
    Table,
    families_for,
    slots_for,
)
from agentbalance_plugin.core.search import Ranked
from agentbalance_plugin.core.stages.arrays import MOST_HOPS, Designs, Scene, SingleArray, sigmoid
from agentbalance_plugin.core.stages.config import PolicyConfig
from agentbalance_plugin.core.stages.heads import Heads
from agentbalance_plugin.core.stages.matching import match_log_probs
from agentbalance_plugin.core.stages.selection import open_backbones
from agentbalance_plugin.core.teamwork import FAMILIES, SHAPES, Family

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
_Draws = Callable[[], "np.random.Generator"]

SHORTLIST = 7
"""Backbones that the critic tries for a task."""
# A stage narrows down to what it gives this much of its probability; the critic decides the rest.
_COVER = 0.98


@dataclass(frozen=True)
class Shortlist:
    """What the stages leave open, for each of N tasks.

    Args:
        pool: [N, K] mask of the strongest pool that is drawn on.
        log_match: [N, A, B] log-probability of each backbone for each agent.
        local: [N, m] columns of the backbones to try, from fast to slow.
        seats: [N, A, m] whether an agent may use them.
        families: that any task may use; open_families: [N, F] by which.
        hop_limit: [N]
    """

    pool: SingleArray
    log_match: SingleArray
    local: IntArray
    seats: BoolArray
    families: tuple[Family, ...]
    open_families: BoolArray
    hop_limit: IntArray

    @property
    def likeliest(self) -> IntArray:
        """[N, A] each agent's likeliest backbone, a column of `local`."""
        return _of_backbones(self.log_match, self.local).argmax(axis=2)

    def open_to(self, candidates: Table) -> BoolArray:
        """[N, n] the candidates of a table whose families are open."""
        return self.open_families.take(_looks(self.families).place[candidates.family], axis=1)


def narrow(
    read: Heads,
    scene: Scene,
    config: PolicyConfig,
    fastest: IntArray,
    least: int,
    hasty: bool,
    alone: FloatArray | None = None,
) -> Shortlist:
    """Let selection, matching, gating, hop limit and late gates close what they speak against.

    Args:
        read: of the scene.
        fastest: [R] columns that plans may use, from fast to slow.
        least: agents that a plan must keep.
        hasty: whether time counts.
        alone: [N, B] chance that a call of its own is within the hard caps; None: all are.
    """
    rng = _draws(scene, config)
    pool = _ceiling(read, scene, config, rng)
    within = open_backbones(scene, pool[:, None])[:, 0]
    scores: FloatArray = read.match
    if config.matching == "random":
        scores = rng().normal(0.0, 3.0, size=scores.shape)
    elif config.matching == "off":
        scores = np.zeros_like(scores)
    log_match = match_log_probs(scores, within[:, None])[:, 0]
    local = _local(log_match, within, fastest, config, alone)
    seats = _of_backbones(within, local) > 0.0
    agents = scene.decider.shape[1]
    families, open_families, limit = _families(read, scene, config, rng, least, agents, hasty)
    return Shortlist(pool, log_match, local, seats, families, open_families, limit)


def _draws(scene: Scene, config: PolicyConfig) -> _Draws:
    """Random stages draw the same for the same queries.

    Most policies have none: numpy's random part, which takes long to load, waits until one asks.
    """

    @cache
    def generator() -> np.random.Generator:
        key = int(np.abs(scene.query).sum() * 1e6) & 0xFFFFFFFF
        return np.random.default_rng([config.seed, key])

    return generator


def _ceiling(read: Heads, scene: Scene, config: PolicyConfig, rng: _Draws) -> SingleArray:
    """[N, K] mask of the strongest pool that is drawn on."""
    occupied: BoolArray = np.asarray(scene.pool).max(axis=1) > 0.0
    tasks, pools = occupied.shape
    if config.selection == "off":
        # The strongest there is.
        place = pools - 1 - occupied[:, ::-1].argmax(axis=1)
    elif config.selection == "random":
        place = np.where(occupied, rng().random(occupied.shape), -1.0).argmax(axis=1)
    elif config.selection == "fixed":
        middle = (occupied.sum(axis=1) - 1) // 2
        place = (occupied.cumsum(axis=1) > middle[:, None]).argmax(axis=1)
    else:
        share = np.exp(read.pool).cumsum(axis=1)
        place = np.asarray(share >= _COVER).argmax(axis=1)
    mask = np.zeros((tasks, pools), dtype=np.float32)
    mask[np.arange(tasks), place] = 1.0
    return mask


def _local(
    log_match: FloatArray,
    within: FloatArray,
    fastest: IntArray,
    config: PolicyConfig,
    alone: FloatArray | None,
) -> IntArray:
    """[N, m] the likeliest backbones over all agents, each agent's best among them."""
    count = {"random": MOST_AGENTS, "fixed": 1, "off": len(fastest)}.get(config.matching, SHORTLIST)
    count = min(count, len(fastest))
    here = log_match[:, :, fastest]
    if alone is not None:
        # What the caps leave no room for must not take the place of what they do.
        here = here + np.log(np.maximum(alone[:, None, fastest], 1e-12))
    likely = here.max(axis=1)
    if count == len(fastest):
        return np.broadcast_to(fastest, (len(likely), count))
    # An agent that can use few backbones must find one in the list.
    best = here.argmax(axis=2)
    if config.matching == "fixed":
        best = best[:, :1]
    likely[np.arange(len(likely))[:, None], best] += 1e6
    near = np.argpartition(-likely, count - 1, axis=1)[:, :count]
    near.sort(axis=1)
    return fastest[near]


def _families(
    read: Heads,
    scene: Scene,
    config: PolicyConfig,
    rng: _Draws,
    least: int,
    agents: int,
    hasty: bool,
) -> tuple[tuple[Family, ...], BoolArray, IntArray]:
    tasks = len(scene.query)
    most = min(agents, MOST_AGENTS)
    sizes = None if config.gating == "learned" else range(least, most + 1)
    exact = config.hops != "learned" or config.topology != "learned"
    families = families_for(
        least,
        agents,
        hasty=hasty or config.late_gates in ("random", "fixed"),
        sizes=sizes,
        hops=range(1, MOST_HOPS + 1) if exact else None,
        late=config.late_gates != "off",
    )
    looks = _looks(families)
    size, hops, race, late = looks.size, looks.hops, looks.race, looks.late
    open_here: BoolArray = np.ones((tasks, len(families)), dtype=np.bool_)

    if config.gating == "learned":
        alone = sigmoid(read.solo)
        open_here &= (size == 1) | np.asarray(alone < _COVER)[:, None]
    else:
        wanted = {"off": most, "fixed": min(3, most)}.get(config.gating, 0)
        drawn = (
            rng().integers(least, most + 1, size=tasks) if not wanted else np.full(tasks, wanted)
        )
        open_here &= size == np.maximum(drawn, least)[:, None]

    if config.hops == "learned":
        share = np.exp(read.hops).cumsum(axis=1)
        limit = np.asarray(share >= _COVER).argmax(axis=1) + 1
    elif config.hops == "random":
        limit = rng().integers(1, MOST_HOPS + 1, size=tasks)
    else:
        limit = np.full(tasks, 2 if config.hops == "fixed" else MOST_HOPS)
    open_here &= hops <= limit[:, None]

    if config.late_gates == "learned":
        chance = sigmoid(read.race)
        open_here &= ~race | np.asarray(chance > 1.0 - _COVER)[:, None]
    elif config.late_gates == "random":
        open_here &= (late == (rng().random(tasks) < 0.5)[:, None]) | (size < 3)
    elif config.late_gates == "fixed":
        open_here &= late | (size < 3)

    if config.topology == "off":
        open_here &= hops == 1
    elif config.topology == "fixed":
        deepest = np.where(open_here, hops, 0).max(axis=1, keepdims=True)
        open_here &= hops == deepest
    elif config.topology == "random":
        pick = np.where(open_here, rng().random(open_here.shape), -1.0).argmax(axis=1)
        open_here &= np.arange(len(families)) == pick[:, None]
    return families, open_here, limit


@dataclass(frozen=True)
class _Looks:
    """Of F families: agents, hops, whether it ends early, whether an agent may not run; and the
    place of each of `FAMILIES` among them."""

    size: IntArray
    hops: IntArray
    race: BoolArray
    late: BoolArray
    place: IntArray


@lru_cache(maxsize=256)
def _looks(families: tuple[Family, ...]) -> _Looks:
    shapes = [SHAPES[family] for family in families]
    place = np.zeros(len(FAMILIES), dtype=np.int64)
    place[[FAMILIES.index(family) for family in families]] = np.arange(len(families))
    return _Looks(
        size=np.array([shape.agents for shape in shapes], dtype=np.int64),
        hops=np.array([shape.hops for shape in shapes], dtype=np.int64),
        race=np.array([shape.race for shape in shapes], dtype=np.bool_),
        late=np.array([shape.race or bool(shape.watches) for shape in shapes], dtype=np.bool_),
        place=place,
    )


def local_scene(scene: Scene, local: IntArray) -> Scene:
    """The scene with the shortlisted backbones alone."""
    rows = np.arange(len(local))[:, None]
    return scene._replace(
        backbones=scene.backbones[rows, local],
        pool=scene.pool[rows, local],
        allowed=_of_backbones(scene.allowed, local),
    )


def local_heads(read: Heads, local: IntArray) -> Heads:
    """What was read, of the shortlisted backbones alone."""
    return read._replace(match=_of_backbones(read.match, local))


def _of_backbones(values: SingleArray, local: IntArray) -> SingleArray:
    """[N, A, m] of [N, A, B]."""
    agents: IntArray = np.arange(len(values[0]))[:, None]
    return values[np.arange(len(values))[:, None, None], agents, local[:, None, :]]


def designs_of(ranked: Ranked, scene: Scene, likeliest: IntArray) -> Designs:
    """Candidates as the designs that the stages would have drawn.

    Args:
        ranked: columns of the scene's backbones.
        scene: of the shortlisted backbones.
        likeliest: [N, A] backbone of agents that are not kept.
    """
    _, agents, size = scene.allowed.shape
    drawn = _drawn(int(agents))
    family = ranked.family
    place = drawn.place[family]
    there = place >= 0
    rows = np.arange(len(family))
    taken = ranked.columns[rows[:, None, None], np.arange(family.shape[1])[:, None], place]
    column = np.where(there, taken, likeliest[:, None])
    backbone = (column[..., None] == np.arange(int(size))).astype(np.float32)
    kept = there.astype(np.float32)
    pools = (backbone @ np.asarray(scene.pool)[:, None]) * kept[..., None]
    occupied = pools.max(axis=2)
    strongest = occupied.shape[-1] - 1 - occupied[..., ::-1].argmax(axis=-1)
    edge = drawn.edge[family]
    late = drawn.late[family]
    return Designs(
        pool=(strongest[..., None] == np.arange(occupied.shape[-1])).astype(np.float32),
        backbone=backbone,
        solo=(kept.sum(axis=-1) == 1.0).astype(np.float32),
        gate=kept * (1.0 - scene.decider)[:, None],
        kept=kept,
        hops=drawn.hops[family],
        link=edge,
        edge=edge,
        late=late,
        strict=np.zeros_like(late),
        race=drawn.race[family],
    )


@dataclass(frozen=True)
class _Drawn:
    """Of each family, for a team of A agents.

    Args:
        place: [F, A] which member of a candidate an agent is; -1: not kept.
        edge: [F, A, A]; late: [F, A]; race: [F]; hops: [F, H].
    """

    place: IntArray
    edge: SingleArray
    late: SingleArray
    race: SingleArray
    hops: SingleArray


@lru_cache(maxsize=64)
def _drawn(agents: int) -> _Drawn:
    count = len(FAMILIES)
    place = np.full((count, agents), -1, dtype=np.int64)
    edge = np.zeros((count, agents, agents), dtype=np.float32)
    late = np.zeros((count, agents), dtype=np.float32)
    race = np.zeros(count, dtype=np.float32)
    hops = np.zeros((count, MOST_HOPS), dtype=np.float32)
    for number, family in enumerate(FAMILIES):
        shape = SHAPES[family]
        hops[number, shape.hops - 1] = 1.0
        race[number] = float(shape.race)
        if shape.agents > agents:
            continue
        slots = slots_for(shape.agents, agents)
        place[number, list(slots)] = np.arange(shape.agents)
        for watching, watched in shape.watches:
            edge[number, slots[watched], slots[watching]] = 1.0
            late[number, slots[watching]] = 1.0
    return _Drawn(place, edge, late, race, hops)
