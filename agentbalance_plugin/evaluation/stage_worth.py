"""What each stage of a policy is worth: the area under its curve with that stage made random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import load_checkpoint
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.kinds import candidates_of
from agentbalance_plugin.core.policy import Knobs, Policy, PolicyConfig
from agentbalance_plugin.core.reference import REFERENCE_AGENTS, reference_budgets
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.stages.config import STAGES
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.metrics import Points, auc
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Agent, Team

IntArray = NDArray[np.int64]

_QUERIES = 100
_COST_PRICES = np.geomspace(1.0, 5e3, 8)
_TIME_PRICES = np.geomspace(1e-3, 0.5, 8)
_NO_CAPS = Budget(cost_usd=1e6)


def stage_worth(
    policy: str | Path,
    suites: Sequence[TraceSet],
    progress: Callable[[int, int], None],
) -> dict[str, tuple[float, float]]:
    """AUC by cost and by latency, in percent, a mean over the suites' validation queries.

    Args:
        policy: its folder.
        suites: one TraceSet per suite; at most a hundred validation queries of each are used.
        progress: called with how many of how many parts are done.

    Returns:
        "none", the policy as it is, each stage that `PolicyConfig` can make random, and "shipped",
        the policy that comes with the package, in its place.
    """
    checkpoint = load_checkpoint(policy)
    rows = ("none", *STAGES, "shipped")
    found: dict[str, tuple[float, float]] = {}
    replays = [Replay(suite) for suite in suites]

    def policy_of(row: str, encoder: RecordedEncoder) -> Policy:
        if row == "shipped":
            return Policy.load("default", encoder)
        changes: dict[str, Any] = {} if row == "none" else {row: "random"}
        return Policy(checkpoint, encoder, replace(PolicyConfig(), **changes))

    for number, stage in enumerate(rows):
        scores: list[tuple[float, float]] = []
        for place, replay in enumerate(replays):
            encoder = RecordedEncoder(replay.traces)
            scores.append(_areas(policy_of(stage, encoder), replay))
            progress(number * len(replays) + place + 1, len(rows) * len(replays))
        mean = np.mean(scores, axis=0)
        found[stage] = (float(mean[0]), float(mean[1]))
    return found


def scored_queries(traces: TraceSet) -> IntArray:
    """The positions of the validation queries that `stage_worth` goes by."""
    rows = traces.positions("val")
    if len(rows) > _QUERIES:
        rows = rows[np.linspace(0, len(rows) - 1, _QUERIES).round().astype(np.int64)]
    return rows


def _areas(policy: Policy, replay: Replay) -> tuple[float, float]:
    traces = replay.traces
    rows = scored_queries(traces)
    team = Team(tuple(Agent(name) for name in REFERENCE_AGENTS), decider=REFERENCE_AGENTS[-1])
    # As `record` hands it to the user: the shipped policy tells the kinds of tasks apart by it.
    catalog = candidates_of(traces)
    numbers: list[int] = rows.tolist()
    texts = [task_text(traces.queries[row], replay) for row in numbers]
    singles = replay.evaluate(
        rows, [Plan(assignment={"a": name}, decider="a") for name in traces.candidates]
    )
    budgets = reference_budgets(traces)
    areas: list[float] = []
    for axis, prices in (("cost_usd", _COST_PRICES), ("latency_s", _TIME_PRICES)):
        by_cost = axis == "cost_usd"
        knobs = [
            Knobs(price_usd=p) if by_cost else Knobs(price_usd=1e-4, second_price=p)
            for p in prices.tolist()
        ]
        plans = [policy.plan_batch(texts, team, _NO_CAPS, catalog, each) for each in knobs]
        runs = [replay.evaluate_pairs(rows, each) for each in plans]
        alone = np.asarray(getattr(singles, axis), dtype=np.float64).T
        cheapest = alone.mean(axis=1).argmin()
        points = Points(
            np.array([*(r.correct for r in runs), singles.correct[:, cheapest]], dtype=np.float64),
            np.array([*(getattr(r, axis) for r in runs), alone[cheapest]], dtype=np.float64),
        )
        high = budgets.cost_usd[-1] if by_cost else budgets.latency_s[-1]
        areas.append(100.0 * auc(points, points, float(alone[cheapest].mean()), high))
    return areas[0], areas[1]
