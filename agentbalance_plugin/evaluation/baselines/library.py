"""A library of plans that votes and cascades can be chosen from.

All its agents answer by themselves (nobody reads anybody), so replay is exact: a single call; two
that are asked at once and a third where they disagree, perhaps a fourth where that settles
nothing; votes of three; votes of three or four that end once decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.evaluation.baselines.rates import log_odds
from agentbalance_plugin.evaluation.trials import Known, alone
from agentbalance_plugin.plan import LateGate, Plan

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# A backbone that is right less than about half the time still has a voice.
_LEAST_WEIGHT = 0.2
_NAMES = ("agent_1", "agent_2", "agent_3", "agent_4")
_SINGLES_AT_MOST = 60


def roster(known: Known, most: int = 8) -> list[str]:
    """Candidates that are worth most at some price, then the next best ones, cheap to dear."""
    right = known.singles.right.mean(axis=1)
    spend = known.singles.spend(known.axis).mean(axis=1)
    worth = right - known.prices[:, None] * spend
    # The ranks at every price are counted, so that good seconds come in as well.
    ranks = (-worth).argsort(axis=1).argsort(axis=1)
    best = np.lexsort((ranks.sum(axis=0), ranks.min(axis=0)))[:most]
    chosen = best[np.argsort(spend[best])].tolist()
    return [known.traces.candidates[number] for number in chosen]


def weights_of(known: Known) -> dict[str, float]:
    """Log-odds of each candidate on the train queries, at least a little."""
    odds = np.maximum(log_odds(known.singles.right.mean(axis=1)), _LEAST_WEIGHT)
    return dict(zip(known.traces.candidates, odds.tolist(), strict=True))


def pair_then(names: Sequence[str], weights: dict[str, float]) -> Plan:
    """Two at once, the third where they disagree, the fourth where no two agree by then."""
    agents = _NAMES[: len(names)]
    of_agent = {agent: weights[name] for agent, name in zip(agents, names, strict=True)}
    gates: dict[str, LateGate] = {}
    for place in range(2, len(names)):
        watched = agents[:place]
        gates[agents[place]] = LateGate(watched, _agreed([of_agent[a] for a in watched]))
    return Plan(
        assignment=dict(zip(agents, names, strict=True)),
        decision="vote",
        late_gates=gates,
        weights=of_agent,
    )


def vote(names: Sequence[str], weights: dict[str, float], *, early: bool) -> Plan:
    """All at once; `early` ends the vote when two agree."""
    agents = _NAMES[: len(names)]
    of_agent = {agent: weights[name] for agent, name in zip(agents, names, strict=True)}
    return Plan(
        assignment=dict(zip(agents, names, strict=True)),
        decision="vote",
        weights=of_agent,
        stop_at=_agreed(list(of_agent.values())) if early else None,
    )


def library(known: Known, size: int = 120) -> list[Plan]:
    """The plans worth most at some price overall or in a category, by the train queries."""
    every_plan = candidate_plans(known)
    found = known.replay.evaluate(known.train, every_plan)
    right = np.asarray(found.correct, dtype=np.float64)
    spend = np.asarray(found.cost_usd if known.axis == "cost" else found.latency_s)
    keep: dict[int, None] = {}
    groups = [np.ones(len(right), dtype=np.bool_)]
    category = known.traces.category[known.train]
    groups += [category == number for number in np.unique(category)]
    # First what is best, then second best, ... until the library is full.
    orders: list[IntArray] = []
    for group in groups:
        pull = 8.0 if group.sum() < len(right) else 0.0
        mean = (right[group].sum(axis=0) + pull * right.mean(axis=0)) / (group.sum() + pull)
        worth = mean - known.prices[:, None] * spend[group].mean(axis=0)
        orders.append((-worth).argsort(axis=1, kind="stable"))
    for rank in range(len(every_plan)):
        for order in orders:
            for number in order[:, rank].tolist():
                if len(keep) == size:
                    break
                keep.setdefault(number)
    return [every_plan[number] for number in sorted(keep)]


def candidate_plans(known: Known) -> list[Plan]:
    """All singles, and the votes and cascades over a roster of eight."""
    weights = weights_of(known)
    best = roster(known)
    plans = [alone(name) for name in known.traces.candidates[:_SINGLES_AT_MOST]]
    for pair in combinations(best, 2):
        for third in best:
            if third not in pair:
                plans.append(pair_then((*pair, third), weights))
    for three in combinations(best, 3):
        for fourth in best:
            if fourth not in three:
                plans.append(pair_then((*three, fourth), weights))
    for many in (3, 4):
        for names in combinations(best, many):
            plans.append(vote(names, weights, early=True))
            plans.append(vote(names, weights, early=False))
    return plans


def _agreed(weights: Sequence[float]) -> float:
    """A confidence that two who agree reach whatever a third says, and no lone voice does."""
    ordered = sorted(weights)
    rest = ordered[2:]
    together = np.exp(sum(ordered[:2]))
    agreed = together / (1.0 + together + sum(np.exp(rest)))
    lone = np.exp(ordered[-1]) / (1.0 + sum(np.exp(ordered)))
    return float((agreed + lone) / 2) if agreed > lone else float(min(1.0, lone + 1e-6))
