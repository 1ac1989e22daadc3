"""From what is predicted of a task to what the stages look at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.limits import Limits
from agentbalance_plugin.core.prediction import Outlook, Roster, for_tasks
from agentbalance_plugin.core.stages.arrays import CONTEXT, FIGURES, POOLS, Scene, SingleArray
from agentbalance_plugin.core.teamwork import Predicted

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# A tenth of a success is a lot to pay for a call; prices count by the logarithm of such tenths.
_PRICED = 20.0
_MOST_ROOM = 5.0
_LEAST_USD, _LEAST_S = 1e-12, 1e-9


@dataclass(frozen=True)
class TeamFigures:
    """A team as arrays, its agents in the order of slots: pinned ones first, the decider last.

    Args:
        roles: [A, E] vectors of the agents' roles.
        decider, pinned: [A] masks.
        allowed: [A, B] backbones that each agent may use.
    """

    roles: SingleArray
    decider: SingleArray
    pinned: SingleArray
    allowed: BoolArray


def make_scene(
    outlook: Outlook,
    roster: Roster,
    team: TeamFigures,
    limits: Limits,
    price_usd: FloatArray,
    second_price: FloatArray,
    delta: FloatArray,
    lambda_len: FloatArray,
) -> Scene:
    """What the stages look at, for the N tasks of an outlook; in single precision, as their weights
    are.

    Args:
        limits: [N] hard caps.
        price_usd, second_price: [N] success that a US dollar and a second must buy.
        delta, lambda_len: [N] offsets of the pool and of further hops.
    """
    tasks = len(outlook.query)

    def each(values: SingleArray) -> SingleArray:
        return for_tasks(values, tasks)

    usable = np.zeros(len(roster.pool), dtype=np.bool_)
    usable[roster.columns] = True
    pool = (roster.pool[:, None] == np.arange(POOLS)) & usable[:, None]
    pool = each(pool.astype(np.float32))
    figures, median_cost, median_time = _figures(outlook.predicted, roster, price_usd, second_price)
    profile = each(roster.table.features.astype(np.float32))
    context = np.empty((tasks, len(CONTEXT)), dtype=np.float32)
    for place, values in enumerate(
        (
            1.0,
            np.log1p(_PRICED * price_usd * median_cost) / 3.0,
            np.log1p(_PRICED * second_price * median_time) / 3.0,
            _room(limits.cost_usd / median_cost),
            _room(limits.latency_s / median_time),
            math.log(len(team.decider)) / 2.0,
        )
    ):
        context[:, place] = values
    return Scene(
        query=outlook.query.astype(np.float32),
        difficulty=outlook.hard.astype(np.float32),
        context=context,
        roles=each(team.roles),
        decider=each(team.decider),
        pinned=each(team.pinned),
        backbones=np.concatenate([profile, figures], axis=2),
        pool=pool,
        allowed=each(team.allowed.astype(np.float32)),
        delta=delta.astype(np.float32),
        lambda_len=lambda_len.astype(np.float32),
    )


def _figures(
    predicted: Predicted, roster: Roster, price_usd: FloatArray, second_price: FloatArray
) -> tuple[SingleArray, FloatArray, FloatArray]:
    """([N, B, G] in the order of `FIGURES`, [N] median cost, [N] median time of a call)."""
    success = 1.0 / (1.0 + np.exp(-predicted.log_odds))
    # A call is never quite free: an empty prompt to a backbone whose output is free would be.
    cost = np.maximum(predicted.cost_usd, _LEAST_USD)
    time = np.maximum(predicted.latency_s, _LEAST_S)
    median_cost = _median(cost[:, roster.usual])
    median_time = _median(time[:, roster.usual])
    priced_cost = price_usd[:, None] * cost
    priced_time = second_price[:, None] * time
    worth = np.minimum(np.maximum(success - priced_cost - priced_time, -1.0), 1.0)
    figures = np.empty((*cost.shape, len(FIGURES)), dtype=np.float32)
    for place, values in enumerate(
        (
            predicted.log_odds / 3.0,
            success,
            np.log1p(_PRICED * priced_cost) / 3.0,
            np.log1p(_PRICED * priced_time) / 3.0,
            worth,
            np.log(cost / median_cost[:, None]) / 2.0,
            np.log(time / median_time[:, None]) / 2.0,
        )
    ):
        figures[:, :, place] = values
    return figures, median_cost, median_time


def _median(values: FloatArray) -> FloatArray:
    """[N] of [N, R]; numpy's own takes many times as long for so few."""
    ordered = np.sort(values, axis=1)
    count = ordered.shape[1]
    return (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2.0


def _room(ratio: FloatArray) -> FloatArray:
    """From 0, no room for a call of median cost, to 1, room for more than a hundred of them."""
    most = math.exp(_MOST_ROOM)
    return np.log(np.minimum(np.maximum(ratio, 1.0 / most), most)) / _MOST_ROOM
