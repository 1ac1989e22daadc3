"""The steps in which LangGraph runs a plan, and what they take.

A step ends when its slowest agent does, so a plan takes the sum of its steps' slowest agents: never
less than its longest path, which is what plans are priced by elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agentbalance_plugin.adapters.planning import expected_seconds
from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.plan import Plan

Steps = Mapping[str, int]
"""Agent -> its step, from 0. No step is empty."""


def steps_of(plan: Plan, seconds: Mapping[str, float]) -> Steps:
    """Every agent as soon as it can start, or as late as nobody waits for it; what takes less.

    Args:
        seconds: agent -> how long it takes.
    """
    soonest: dict[str, int] = {}
    for agent in plan.order:
        soonest[agent] = 1 + max((soonest[before] for before in plan.waits_for(agent)), default=-1)
    if makespan(soonest, seconds) <= plan.longest_path(seconds):
        return soonest
    latest = dict.fromkeys(plan.order, max(soonest.values()))
    for agent in reversed(plan.order):
        for before in plan.waits_for(agent):
            latest[before] = min(latest[before], latest[agent] - 1)
    return min((soonest, latest), key=lambda steps: makespan(steps, seconds))


def makespan(steps: Steps, seconds: Mapping[str, float]) -> float:
    """Seconds of all steps, each as long as its slowest agent."""
    slowest: dict[int, float] = {}
    for agent, step in steps.items():
        slowest[step] = max(slowest.get(step, 0.0), seconds[agent])
    return sum(slowest.values())


def in_steps(plan: Plan, catalog: Catalog, given: Steps | None = None) -> tuple[Plan, Steps]:
    """The plan with the latency that LangGraph's steps make of it, and the steps.

    The predicted latency, which is that of the longest path, grows in the proportion of both for
    calls of typical length at the backbones' nominal speeds.

    Args:
        given: the steps, where edges of the user's own decide on them; there may be empty ones.
    """
    seconds = {
        agent: expected_seconds(catalog[backbone]) if backbone is not None else 0.0
        for agent, backbone in plan.assignment.items()
    }
    steps = steps_of(plan, seconds) if given is None else given
    path = plan.longest_path(seconds)
    if plan.expected is None or path == 0.0:
        return plan, steps
    slower = makespan(steps, seconds) / path
    if slower <= 1.0:
        # As it is, a plan keeps what it has worked out about itself.
        return plan, steps
    latency = plan.expected.latency_s * slower
    return replace(plan, expected=replace(plan.expected, latency_s=latency)), steps
