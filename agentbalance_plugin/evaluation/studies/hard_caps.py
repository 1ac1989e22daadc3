"""The policy under hard caps: what no run may pass, where P@T and P@L limit the mean alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agentbalance_plugin.budget import NANODOLLARS_PER_USD, Budget
from agentbalance_plugin.core.policy import Knobs
from agentbalance_plugin.evaluation.studies.metered import (
    MeteredRun,
    Task,
    over_cost,
    percent_cut,
    percent_right,
    run_metered,
)
from agentbalance_plugin.evaluation.studies.setting import AXES, TEAM, Setting
from agentbalance_plugin.evaluation.trials import Axis
from agentbalance_plugin.plan import Plan

# A float of a sum of sleeps may be off in its last bits.
_LAST_BITS_S = 1e-6


@dataclass(frozen=True)
class CapRow:
    """One cap on all test queries.

    Args:
        axis, cap: what is capped, in US dollars or seconds.
        right: right answers, in percent.
        mean, most: of what runs spent of it.
        over: runs that billed more, or came back later.
        cut: share of runs with a call that was denied or cut off, in percent.
    """

    axis: Axis
    cap: float
    right: float
    mean: float
    most: float
    over: int
    cut: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)


def under_caps(
    setting: Setting, split: str = "test", tick: Callable[[], None] = lambda: None
) -> tuple[CapRow, ...]:
    """The policy under `Budget(cost_usd=T)` and `Budget(latency_s=L)`, at T1-T3 and L1-L3.

    Runs go through the meter and the scheduler of live runs.

    Args:
        tick: is called after each run, six for each query.
    """
    return tuple(
        _row(setting, split, axis, cap, tick)
        for axis in AXES
        for cap in (setting.budgets.cost_usd if axis == "cost" else setting.budgets.latency_s)
    )


def run_capped(
    setting: Setting,
    positions: Sequence[int],
    budget: Budget,
    knobs: Knobs,
    tick: Callable[[], None] = lambda: None,
) -> list[MeteredRun]:
    """Each query planned and run under one budget.

    Args:
        tick: is called after each run.
    """

    def task(position: int) -> Task:
        text = setting.text(position)

        def start() -> tuple[Plan, Budget]:
            return setting.policy.plan(text, TEAM, budget, setting.catalog, knobs), budget

        return Task(setting.traces.queries[position].key, text, start, lambda _: tick())

    return run_metered(setting.replay, [task(position) for position in positions])


def _row(setting: Setting, split: str, axis: Axis, cap: float, tick: Callable[[], None]) -> CapRow:
    budget = Budget(cost_usd=cap) if axis == "cost" else Budget(latency_s=cap)
    positions: list[int] = setting.traces.positions(split).tolist()
    runs = run_capped(setting, positions, budget, Knobs(price_usd=0.0), tick)
    spent = np.array([_spent(run, axis) for run in runs])
    late = int((spent > cap + _LAST_BITS_S).sum())
    return CapRow(
        axis=axis,
        cap=cap,
        right=percent_right(runs),
        mean=float(spent.mean()),
        most=float(spent.max()),
        over=over_cost(runs) if axis == "cost" else late,
        cut=percent_cut(runs),
    )


def _spent(run: MeteredRun, axis: Axis) -> float:
    return run.nanodollars / NANODOLLARS_PER_USD if axis == "cost" else run.latency_s
