"""From a chosen candidate to a Plan for the user's own agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.candidates import MOST_AGENTS
from agentbalance_plugin.core.search import Choice
from agentbalance_plugin.core.teamwork import SHAPES, vote_weights
from agentbalance_plugin.plan import Expected, LateGate, Plan
from agentbalance_plugin.team import Agent, Team

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Lengths:
    """How long prompts and replies are likely to be.

    Args:
        prompt: tokens of a prompt that reads no one.
        replies: backbone -> tokens of a reply; none of those that think unseen.
    """

    prompt: float
    replies: Mapping[str, float]

    def expected(
        self,
        success: float,
        cost_usd: float,
        latency_s: float,
        assignment: Mapping[str, str | None],
    ) -> Expected:
        """What is expected of a plan, with these."""
        replies = {
            agent: self.replies[backbone]
            for agent, backbone in assignment.items()
            if backbone is not None and backbone in self.replies
        }
        return Expected(success, cost_usd, latency_s, self.prompt, replies)


UNKNOWN_LENGTHS = Lengths(0.0, {})


def slot_agents(team: Team) -> tuple[Agent, ...]:
    """The agents in the order in which candidates use them: pinned ones first, then those that may
    use most backbones, the decider last; only those that take part in any."""

    def place(agent: Agent) -> tuple[bool, bool, bool, int]:
        decides, chosen = agent.name == team.decider, agent.backbone is not None
        return decides, not agent.keep, chosen, len(agent.needs)

    slots = sorted(team.agents, key=place)
    # No candidate has more: what the stages say of others must not count.
    return (*slots[: MOST_AGENTS - 1], slots[-1]) if len(slots) > MOST_AGENTS else tuple(slots)


def is_pipeline(team: Team) -> bool:
    """Whether the team must run as it is: fixed, or with agents that call no backbone."""
    return team.fixed_edges is not None or any(not a.calls_backbone for a in team.agents)


def must_run(team: Team) -> Team:
    """The team cut down to the agents that every plan keeps: pinned ones and the decider."""
    kept = tuple(agent for agent in team.agents if agent.keep or agent.name == team.decider)
    return Team(kept, decider=team.decider)


def cascade_plan(
    team: Team,
    choice: Choice,
    names: Sequence[str],
    log_odds: FloatArray,
    output_caps: FloatArray,
    notes: Mapping[str, Any],
    lengths: Lengths = UNKNOWN_LENGTHS,
) -> Plan:
    """The plan of a single agent, a vote or a cascade.

    Args:
        names: [B] of the backbones.
        log_odds: [B] predicted for this query.
        output_caps: [B] output tokens of a call.
        lengths: predicted for this query.
    """
    slots = slot_agents(team)
    size = len(choice.columns)
    taken = [*slots[: size - 1], slots[-1]]
    weights = vote_weights(log_odds)
    by_agent = dict(zip((agent.name for agent in taken), choice.columns, strict=True))
    order = [agent.name for agent in team.agents if agent.name in by_agent]
    run = [agent.name for agent in taken]
    value = [float(weights[column]) for column in choice.columns]
    shape = SHAPES[choice.family]
    # Who watches watches all before.
    gates = {
        run[n]: LateGate(tuple(run[:n]), agreement_threshold(value[:n]))
        for n in range(shape.at_once, size)
    }
    stop_at = agreement_threshold(value) if shape.race else None
    assignment = {name: names[by_agent[name]] for name in order}
    return Plan(
        assignment=assignment,
        decision="agent" if size == 1 else "vote",
        decider=run[-1],
        late_gates=gates,
        stop_at=stop_at,
        weights={name: float(weights[by_agent[name]]) for name in order} if size > 1 else {},
        output_caps={name: int(output_caps[by_agent[name]]) for name in order},
        hop_limit=shape.hops,
        expected=lengths.expected(choice.success, choice.cost_usd, choice.latency_s, assignment),
        notes=dict(notes),
    )


def pipeline_edges(team: Team) -> tuple[tuple[str, str], ...]:
    """The edges of a team that runs as it is: its fixed ones, else everyone hears all before."""
    return team.in_turn if team.fixed_edges is None else team.fixed_edges


def agreement_threshold(values: Sequence[float], *, everyone: bool = False) -> float:
    """The confidence at which voters are taken to agree.

    Between the least confidence of those that agree enough and the most of those that do not. An
    answer that is missing counts like one that differs. A single voter agrees when it answers.

    Args:
        values: weight of each voter, between 1 and 1.5, so that any two that agree outweigh one.
        everyone: whether all must agree; otherwise any two are enough.
    """
    if len(values) == 1:
        return _confidence(list(values)) / 2
    if everyone and len(values) > 2:
        enough = _confidence([sum(values)])
        least = min(values)
        return (enough + _confidence([sum(values) - least, least])) / 2
    enough = min(
        _confidence([a + b, *(v for k, v in enumerate(values) if k not in (i, j))])
        for (i, a), (j, b) in combinations(enumerate(values), 2)
    )
    return (enough + _confidence(sorted(values, reverse=True))) / 2


def _confidence(totals: list[float]) -> float:
    """Of the first of several answers, as `agentbalance_plugin.agreement` defines it."""
    norm = 1.0 + sum(float(np.exp(total)) for total in totals)
    return float(np.exp(totals[0])) / norm
