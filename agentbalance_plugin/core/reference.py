"""The reference system that budgets are tied to: a chat of four agents on one backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import Plan

REFERENCE_AGENTS = ("agent_1", "agent_2", "agent_3", "agent_4")


@dataclass(frozen=True)
class ReferenceBudgets:
    """Budgets per query, from the cost and latency of single calls of the reference backbone.

    Args:
        cost_usd: T1, T2, T3: 10 %, 30 % and 100 % of four calls.
        latency_s: L1, L2, L3: 50 %, 75 % and 100 % of two calls.
    """

    cost_usd: tuple[float, float, float]
    latency_s: tuple[float, float, float]


def reference_plan(backbone: str, names: Sequence[str] = REFERENCE_AGENTS) -> Plan:
    """A round-robin chat, one turn each: everyone reads all earlier messages, the last decides.

    Args:
        backbone: of all agents.
        names: of the agents, in the order in which they speak.
    """
    return Plan(
        assignment=dict.fromkeys(names, backbone),
        edges=tuple(combinations(names, 2)),
        decider=names[-1],
        hop_limit=max(8, len(names)),
    )


def reference_budgets(traces: TraceSet, split: str = "train") -> ReferenceBudgets:
    """The budgets of a suite.

    Args:
        traces: of a suite that names a reference backbone.
        split: whose queries' mean cost and latency count.

    Raises:
        ValueError: the traces have no reference backbone, or no such split.
    """
    if traces.reference is None:
        raise ValueError(
            "these traces have no reference backbone: load them with a suite that names one as "
            "`reference` in suites.yaml"
        )
    single = Plan(assignment={"agent": traces.reference}, decider="agent")
    outcomes = Replay(traces).evaluate(traces.positions(split), single)
    cost = 4.0 * float(np.mean(outcomes.cost_usd))
    latency = 2.0 * float(np.mean(outcomes.latency_s))
    return ReferenceBudgets(
        cost_usd=(0.1 * cost, 0.3 * cost, cost), latency_s=(0.5 * latency, 0.75 * latency, latency)
    )
