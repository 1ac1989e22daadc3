"""What is worked out once for a team and a catalog."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import Checkpoint
from agentbalance_plugin.core.design import is_pipeline, must_run, slot_agents
from agentbalance_plugin.core.encoder import QueryEncoder
from agentbalance_plugin.core.knobs import NO_PAST, Past
from agentbalance_plugin.core.limits import LIKELY, USEFUL_TOKENS, Limits
from agentbalance_plugin.core.pipeline import Pipeline, wish_of
from agentbalance_plugin.core.prediction import Outlook, Roster, embed, for_tasks, make_roster
from agentbalance_plugin.core.stages.config import PolicyConfig
from agentbalance_plugin.core.stages.scene import TeamFigures
from agentbalance_plugin.team import Agent, Team

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# What an endpoint wraps around a task: roles, separators, the question's own framing.
FRAMING_BYTES = 160
# Output caps leave room for all but one in a hundred replies, where the budget has that room, and
# for half more hidden tokens than were estimated where they were not measured.
_CAP_DEVIATIONS = 2.33
_HIDDEN_MARGIN = 1.5


@dataclass(frozen=True)
class Known:
    """A team and a catalog as the policy sees them.

    Args:
        figures: the team as arrays.
        uniform: whether all agents may use the same backbones.
        least: agents that a plan must keep.
        fastest: [R] columns that plans may use, from fast to slow.
        longest_role, mean_role: bytes, of the agents that call a backbone.
        profiled: how many of the catalog's backbones have a profile.
        prices: success per US dollar of the mean budgets asked for so far.
    """

    team: Team
    roster: Roster
    figures: TeamFigures
    uniform: bool
    least: int
    fastest: IntArray
    longest_role: int
    mean_role: float
    profiled: int
    prices: dict[Budget, float] = field(default_factory=dict[Budget, float])

    @property
    def most(self) -> int:
        """Agents that a plan may keep."""
        team = self.team
        return len(team.agents) if is_pipeline(team) else max(self.least, len(self.figures.decider))

    @cached_property
    def pipeline(self) -> Pipeline:
        """The team as it runs where its edges are fixed, or where no other plan is affordable: cut
        down to who must run (ValueError: no backbone can do what one of these needs)."""
        team = self.team if is_pipeline(self.team) else must_run(self.team)
        return Pipeline.of(team, self.roster.table)


def look_at(
    team: Team,
    catalog: Catalog,
    checkpoint: Checkpoint,
    encoder: QueryEncoder,
    config: PolicyConfig,
) -> Known:
    """Work it out.

    Raises:
        ValueError: no backbone fits any of the agents.
    """
    slots = slot_agents(team)
    allowed = np.array([[fits(agent, b) for b in catalog.values()] for agent in slots])
    allowed = allowed.reshape(len(slots), len(catalog))
    usable = [seat for seat in allowed if seat.any()]
    if not usable:
        wishes = "; ".join(dict.fromkeys(wish_of(agent) for agent in team.agents))
        raise ValueError(
            f"no backbone of the catalog {list(catalog)} fits any of the agents: {wishes}"
        )
    roster = make_roster(catalog, checkpoint, usable, config)
    table = roster.table
    speed = np.exp(table.log_tokens).mean(axis=0) / table.tokens_per_s + table.ttft_s
    fastest = np.array(sorted(roster.columns.tolist(), key=speed.__getitem__), dtype=np.int64)
    sizes = [len(agent.role.encode()) for agent in team.agents if agent.calls_backbone] or [0]
    roles = [embed(checkpoint.weights, encoder.encode(agent.role))[0] for agent in slots]
    return Known(
        team=team,
        roster=roster,
        figures=TeamFigures(
            roles=np.array(roles, dtype=np.float32),
            decider=np.array([agent.name == team.decider for agent in slots], dtype=np.float32),
            pinned=np.array([agent.keep for agent in slots], dtype=np.float32),
            allowed=allowed,
        ),
        uniform=bool((allowed[:, fastest] == allowed[0, fastest]).all()),
        # The decider takes part in every plan, pinned or not.
        least=len(must_run(team).agents) if team.decider is not None else 1,
        fastest=fastest,
        longest_role=max(sizes),
        mean_role=sum(sizes) / len(sizes),
        profiled=sum(backbone.profile is not None for backbone in catalog.values()),
    )


def make_limits(
    roster: Roster,
    outlook: Outlook,
    budget: Budget,
    size: FloatArray,
    agents: int,
    past: Past = NO_PAST,
) -> Limits:
    """The hard caps of a budget, for the N queries of an outlook.

    Args:
        size: [N] bytes of a prompt, at most.
        agents: of the team.
        past: that the outlook was made with.
    """
    table = roster.table
    tasks = len(outlook.log_tokens)
    sigma, hidden, log_tokens = outlook.sigma, outlook.hidden_tokens, outlook.log_tokens
    mean = hidden + np.exp(log_tokens + sigma[:, None] ** 2 / 2)
    longest = np.exp(log_tokens + _CAP_DEVIATIONS * sigma[:, None]) + _HIDDEN_MARGIN * hidden
    spread = outlook.output_spread
    if spread.any():
        varied = mean * np.exp(_CAP_DEVIATIONS * spread - spread**2 / 2)
        longest = np.where(spread > 0.0, varied, longest)
    caps = np.minimum(np.ceil(longest + USEFUL_TOKENS), table.max_output)
    # A budget with room for the longest replies there are need not cut any.
    bound = size[:, None] * table.tokens_per_byte + past.image_tokens
    full = bound * table.price_in + table.max_output * table.price_out
    calls = agents * max(1.0, past.calls)
    roomy = calls * full <= (np.inf if budget.cost_usd is None else budget.cost_usd)
    if budget.tokens is not None:
        roomy &= calls * (bound + table.max_output) <= budget.tokens
    caps = np.where(roomy, table.max_output, caps)

    def cap(limit: float | None) -> FloatArray:
        return np.full(tasks, np.inf if limit is None else float(limit))

    prompt = outlook.prompt_tokens[:, None]
    read = (past.calls - 1.0) * prompt
    written = (past.replies - 1.0) * np.minimum(mean, table.max_output)
    return Limits(
        cost_usd=cap(budget.cost_usd),
        tokens=cap(budget.tokens),
        latency_s=cap(budget.latency_s),
        prompt_bound=bound,
        sigma=sigma,
        calls=np.full(tasks, past.calls),
        price_in=for_tasks(table.price_in, tasks),
        price_out=for_tasks(table.price_out, tasks),
        caps=caps,
        earlier_usd=np.maximum(0.0, read * table.price_in + written * table.price_out),
        earlier_tokens=np.maximum(0.0, read + written),
        likely_usd=LIKELY * outlook.predicted.cost_usd,
        likely_tokens=LIKELY * (past.calls * prompt + past.replies * mean),
        log_tokens=log_tokens,
        hidden_tokens=hidden,
        output_spread=spread,
    )


def fits(agent: Agent, backbone: Backbone) -> bool:
    """Whether an agent may run on a backbone."""
    able = agent.needs <= backbone.capabilities
    return agent.calls_backbone and able and agent.backbone in (None, backbone.name)
