"""Operating points of methods: what each setting of a method's knob does on each query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.core.reference import REFERENCE_AGENTS
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.evaluation.metrics import Points
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Agent, Team

FloatArray = NDArray[np.float64]
Axis = Literal["cost", "latency"]

# Success that a dollar or a second must buy: from free choice to the cheapest call there is.
_DOLLAR_PRICES = (0.0, *np.geomspace(0.5, 2e4, 26).tolist())
_SECOND_PRICES = (0.0, *np.geomspace(3e-4, 1.0, 24).tolist())
# Ties on one axis go to what is better on the other.
_SLIGHT_DOLLAR_PRICE = 1e-4


@dataclass(frozen=True)
class Trial:
    """P settings on N queries: [P, N] right (0 or 1), US dollars, seconds."""

    right: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray

    def points(self, axis: Axis) -> Points:
        return Points(self.right, self.cost_usd if axis == "cost" else self.latency_s)


class Method(Protocol):
    """Anything with operating points."""

    @property
    def name(self) -> str: ...

    def trial(self, replay: Replay, split: str, axis: Axis, tick: Callable[[], None]) -> Trial:
        """Its operating points for an axis on the queries of a split; `tick` after each query."""
        ...


class SingleBackbones:
    """Every candidate alone; mixing makes it the mix of two."""

    name = "single backbones"

    def trial(self, replay: Replay, split: str, axis: Axis, tick: Callable[[], None]) -> Trial:
        positions = replay.traces.positions(split)
        plans = [Plan(assignment={"a": name}, decider="a") for name in replay.traces.candidates]
        found = replay.evaluate(positions, plans)
        for _ in positions:
            tick()
        return Trial(
            np.asarray(found.correct, dtype=np.float64).T,
            np.asarray(found.cost_usd, dtype=np.float64).T,
            np.asarray(found.latency_s, dtype=np.float64).T,
        )


class CategoryTable:
    """Category -> best single backbone at each price, by training rates; no text is read."""

    name = "category -> single backbone"

    def trial(self, replay: Replay, split: str, axis: Axis, tick: Callable[[], None]) -> Trial:
        traces = replay.traces
        singles = SingleBackbones()
        known = singles.trial(replay, "train", axis, lambda: None)
        here = singles.trial(replay, split, axis, tick)
        of_train = traces.category[traces.positions("train")]
        of_split = traces.category[traces.positions(split)]
        spend = known.points(axis).spend
        prices = _DOLLAR_PRICES if axis == "cost" else _SECOND_PRICES
        columns = np.zeros((len(prices), len(of_split)), dtype=np.int64)
        for category in np.unique(of_split):
            rows = of_train == category
            # Two trials at the overall rate keep a rare category from a lucky backbone.
            right = (known.right[:, rows].sum(axis=1) + 2 * known.right.mean(axis=1)) / (
                rows.sum() + 2
            )
            cost = spend[:, rows].mean(axis=1) if rows.any() else spend.mean(axis=1)
            for number, price in enumerate(prices):
                columns[number, of_split == category] = int((right - price * cost).argmax())
        each = np.arange(len(of_split))
        return Trial(here.right[columns, each], here.cost_usd[columns, each],
                     here.latency_s[columns, each])  # fmt: skip


class PolicyMethod:
    """The learned policy on a team of four.

    Args:
        policy: with an encoder that knows the traces' queries.
        catalog: what it may choose from.
    """

    name = "agentbalance"

    def __init__(self, policy: Policy, catalog: Catalog) -> None:
        self._policy = policy
        self._catalog = catalog
        agents = tuple(Agent(name) for name in REFERENCE_AGENTS)
        self._team = Team(agents, decider=REFERENCE_AGENTS[-1])

    def trial(self, replay: Replay, split: str, axis: Axis, tick: Callable[[], None]) -> Trial:
        if axis == "cost":
            knobs = [Knobs(price_usd=price) for price in _DOLLAR_PRICES]
        else:
            knobs = [
                Knobs(price_usd=_SLIGHT_DOLLAR_PRICE, second_price=price)
                for price in _SECOND_PRICES
            ]
        # No caps: neither measure has any.
        budget = Budget(cost_usd=1e6)
        positions = replay.traces.positions(split)
        rows: list[list[Plan]] = []
        numbers: list[int] = positions.tolist()
        for position in numbers:
            query = task_text(replay.traces.queries[position], replay)
            rows.append(self._policy.sweep(query, self._team, budget, self._catalog, knobs))
            tick()
        found = [
            replay.evaluate_pairs(positions, [plans[number] for plans in rows])
            for number in range(len(knobs))
        ]
        return Trial(
            _stack([each.correct for each in found]),
            _stack([each.cost_usd for each in found]),
            _stack([each.latency_s for each in found]),
        )


def _stack(arrays: Sequence[NDArray[np.generic]]) -> FloatArray:
    return np.stack([np.asarray(array, dtype=np.float64).reshape(-1) for array in arrays])
