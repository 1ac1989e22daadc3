"""From what is known of tasks to the best candidate of each: stages first, then the critic.

The stages narrow down which pools, backbones and families of teams are tried. The critic predicts
what each of these is worth. Of its favourites the stages then drop those that they give much less
probability than the likeliest one; how much less was chosen on validation queries. Of the others
the one of most worth is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.candidates import table, valid
from agentbalance_plugin.core.known import Known
from agentbalance_plugin.core.limits import Limits
from agentbalance_plugin.core.output_caps import with_caps
from agentbalance_plugin.core.prediction import Outlook
from agentbalance_plugin.core.search import Choice, Objective, Ranked, ranked
from agentbalance_plugin.core.stages.arrays import Designs, Scene, StageWeights
from agentbalance_plugin.core.stages.config import PolicyConfig
from agentbalance_plugin.core.stages.factors import Factors, factors
from agentbalance_plugin.core.stages.heads import Heads, heads
from agentbalance_plugin.core.stages.narrow import (
    Shortlist,
    designs_of,
    local_heads,
    local_scene,
    narrow,
)
from agentbalance_plugin.core.stages.scene import make_scene
from agentbalance_plugin.core.teamwork import FAMILIES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# The critic's favourites that the stages have a word on.
_FAVOURITES = 16


class Asked(NamedTuple):
    """What is asked of the plans of N tasks; [N] each.

    Args:
        price_usd, second_price, delta, lambda_len: see `policy.Knobs`.
        lead: success that a plan of one agent must be ahead by.
    """

    price_usd: FloatArray
    second_price: FloatArray
    delta: FloatArray
    lambda_len: FloatArray
    lead: FloatArray


@dataclass(frozen=True)
class Decision:
    """Of N tasks.

    Args:
        outlook: under the output caps that were chosen.
        caps: [N, B] output tokens that pay; infinity where all do.
        scene: what the stages looked at.
        shortlist: what they left open.
        favourites: the critic's, columns of the shortlist.
        designs: these as designs; factors: what each stage gives them, [N, Q].
        best: [N] which favourite is taken.
    """

    outlook: Outlook
    caps: FloatArray
    scene: Scene
    shortlist: Shortlist
    favourites: Ranked
    designs: Designs
    factors: Factors
    best: IntArray

    def choice(self, task: int, which: int | None = None) -> Choice | None:
        """A favourite of a task, the best unless told, in columns of the catalog; None: nothing is
        affordable."""
        found = self.favourites
        place = int(self.best[task]) if which is None else which
        if not np.isfinite(found.worth[task, place]):
            return None
        columns = found.columns[task, place]
        return Choice(
            family=FAMILIES[int(found.family[task, place])],
            columns=tuple(self.shortlist.local[task, columns[columns >= 0]].tolist()),
            success=float(found.success[task, place]),
            cost_usd=float(found.cost_usd[task, place]),
            latency_s=float(found.latency_s[task, place]),
            worth=float(found.worth[task, place]),
        )


def decide(
    weights: StageWeights,
    reach: float,
    known: Known,
    config: PolicyConfig,
    outlook: Outlook,
    limits: Limits,
    asked: Asked,
) -> Decision | None:
    """Choose for the N tasks of an outlook; None where the team has no candidate at all.

    Args:
        reach: how far below that of the likeliest favourite a log-probability may be.
        limits, asked: of the same tasks.
    """
    outlook, caps = with_caps(outlook, known.roster.table, asked.price_usd, asked.second_price)
    scene = make_scene(outlook, known.roster, known.figures, limits, *asked[:4])
    # Races only pay where time does.
    hasty = bool(np.isfinite(limits.latency_s).any() or (asked.second_price > 0).any())
    read = heads(weights, scene)
    alone = limits.alone(outlook.predicted.latency_s)
    shortlist = narrow(read, scene, config, known.fastest, known.least, hasty, alone)
    local = shortlist.local
    candidates = table(local.shape[1], shortlist.families, known.uniform)
    if candidates is None:
        return None
    open_to = shortlist.open_to(candidates)
    if not known.uniform:
        open_to &= valid(candidates, shortlist.seats)
    favourites = ranked(
        outlook.predicted.of(local),
        limits.of(local),
        make_objective(known, asked, local),
        candidates,
        _FAVOURITES,
        open_to,
    )
    inner, inner_read = local_scene(scene, local), local_heads(read, local)
    designs = designs_of(favourites, inner, shortlist.likeliest)
    found = _factors(weights, inner, inner_read, designs, config)
    log_prob = _total(found, config)
    best = best_within(favourites.worth, log_prob, reach)
    return Decision(outlook, caps, scene, shortlist, favourites, designs, found, best)


def best_within(worth: FloatArray, log_prob: FloatArray, reach: float) -> IntArray:
    """[N] the candidate of most worth among those about as likely as the likeliest.

    Args:
        worth: [N, Q] from most to least, minus infinity where there is no candidate.
        log_prob: [N, Q] by the stages.
    """
    there = np.isfinite(worth)
    likeliest = np.where(there, log_prob, -np.inf).max(axis=1, keepdims=True)
    near = there & (log_prob >= likeliest - reach)
    # They come by worth, ties by cost: the first that is near is the best.
    return near.argmax(axis=1)


def make_objective(known: Known, asked: Asked, local: IntArray) -> Objective:
    """What counts beside success, for the backbones in `local` ([N, m] columns)."""
    strength = asked.delta[:, None] * known.roster.pool[local]
    return Objective(asked.price_usd, asked.second_price, asked.lambda_len, asked.lead, strength)


def _factors(
    weights: StageWeights, scene: Scene, read: Heads, designs: Designs, config: PolicyConfig
) -> Factors:
    mode = config.representation
    if mode == "random":
        rng = np.random.default_rng(config.seed)
        weights = replace(
            weights,
            agent=rng.normal(size=weights.agent.shape),
            backbone=rng.normal(size=weights.backbone.shape),
        )
    awareness = "learned" if mode == "random" else mode
    return factors(weights, scene, read, designs, awareness, matched=designs.kept)


def _total(found: Factors, config: PolicyConfig) -> FloatArray:
    """[N, Q] log-probability by the stages that decide as learned; others narrowed down alone."""
    learned = {
        "selection": config.selection,
        "matching": config.matching,
        "gating": config.gating,
        "topology": config.topology if config.hops == "learned" else config.hops,
        "late_gates": config.late_gates,
    }
    total = np.zeros_like(found.selection)
    for stage, mode in learned.items():
        if mode == "learned":
            total += getattr(found, stage)
    return total
