"""What every framework's adapter does to plan a task and to share out its budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.budget import NANODOLLARS_PER_USD, Budget
from agentbalance_plugin.core.knobs import NO_PAST, Knobs, Past
from agentbalance_plugin.core.limits import BYTES_HEARD
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.prediction import BYTES_PER_TOKEN
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.byte_bound import IMAGE_TOKENS, text_bound
from agentbalance_plugin.runtime.call import CallRecord
from agentbalance_plugin.runtime.habits import Work
from agentbalance_plugin.runtime.meter import USEFUL_OUTPUT_TOKENS, Meter
from agentbalance_plugin.runtime.pacing import Pacer
from agentbalance_plugin.runtime.tokenizers import measure_of
from agentbalance_plugin.team import Agent, Team

# A loop that serves many runs is to be held up for five milliseconds at most, by a slower machine
# than this one as well.
_LONGEST_IN_LOOP_S = 0.003

# Only used to set shares aside, never as a bound.
_TYPICAL_OUTPUT_TOKENS = 400
_LONGEST_HEARD_TOKENS = 1024


Pinned = Iterable[str] | Mapping[str, str | None] | None
"""Names of agents that every plan keeps, or these and the backbones that they must have (None:
any)."""


class Planner(Protocol):
    """Anything that makes a plan for a task; `agentbalance_plugin.Policy` is the learned one."""

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan: ...


def planner_of(policy: str | Path | Planner) -> Planner:
    """A policy by name, from a checkpoint folder, or the user's own.

    Raises:
        ValueError: none of these.
        PolicyError: a policy file that can't be used.
    """
    if isinstance(policy, (str, Path)):
        return Policy.load(policy)
    if not callable(getattr(policy, "plan", None)):
        raise ValueError(
            "policy must be 'default', a checkpoint folder or an object with plan(query, team, "
            f"budget, catalog), got {policy!r}"
        )
    return policy


def pacer_of(planner: Planner, team: Team, budget: Budget, catalog: Catalog) -> Pacer | None:
    """What steers the mean, starting at the planner's price; None for hard caps alone."""
    if budget.mean_cost_usd is None:
        return None
    price = planner.price_for(team, budget, catalog) if isinstance(planner, Policy) else 0.0
    return Pacer(budget, price_usd=price)


def plan_task(
    planner: Planner,
    query: str,
    team: Team,
    budget: Budget,
    catalog: Catalog,
    price_usd: float | None,
    past: Past = NO_PAST,
) -> Plan:
    """A valid plan (PlanError for a planner's that is not).

    Args:
        price_usd: of the pacer; None leaves it to the planner.
        past: what earlier runs tell; a policy is told.
    """
    if isinstance(planner, Policy):
        knobs = Knobs(price_usd=price_usd)
        plan = planner.plan(query, team, budget, catalog, knobs, past)
    else:
        plan = planner.plan(query, team, budget, catalog)
    plan.validate(team, catalog)
    return plan


async def aplan_task(
    planner: Planner,
    query: str,
    team: Team,
    budget: Budget,
    catalog: Catalog,
    price_usd: float | None,
    past: Past = NO_PAST,
    *,
    beside: bool,
) -> Plan:
    """As `plan_task`.

    Args:
        beside: whether the event loop's other runs should not wait for a policy's plan: it takes
            long, or the team was not seen before. A planner of the user's own stays in the loop.
    """
    arguments = (planner, query, team, budget, catalog, price_usd, past)
    if beside and isinstance(planner, Policy):
        return await asyncio.to_thread(plan_task, *arguments)
    return plan_task(*arguments)


def takes_long(planner: Planner, team: Team, budget: Budget, catalog: Catalog) -> bool:
    """Whether a policy's plans take so long that an event loop should not wait for them.

    Looks at team and catalog for the first time as well, which is the longest part and is done
    here, before there is a task. A planner of the user's own is not asked: it may count its calls.
    """
    if not isinstance(planner, Policy):
        return False
    took = 0.0
    # Only the second plan shows what all later ones take.
    for _ in range(2):
        began = time.thread_time()
        try:
            planner.plan("", team, budget, catalog, Knobs(price_usd=0.0))
        except ValueError:
            # A run says so, with its own task in view.
            return False
        took = time.thread_time() - began
    return took > _LONGEST_IN_LOOP_S


def check_affordable(budget: Budget, catalog: Catalog, text: str = "", images: int = 0) -> None:
    """Refuse a budget that does not afford one call of the cheapest backbone.

    Args:
        text, images: of the task.

    Raises:
        ValueError: naming the limit, its value and what it would have to be.
    """

    def prompt(backbone: Backbone) -> int:
        return text_bound(text, measure_of(backbone)) + IMAGE_TOKENS * images

    def least(backbone: Backbone) -> int:
        output = min(USEFUL_OUTPUT_TOKENS, backbone.max_output_tokens)
        return backbone.cost(prompt(backbone), output)

    cap = budget.nanodollars
    if cap is not None and all(cap < least(backbone) for backbone in catalog.values()):
        cheapest = min(catalog.values(), key=least)
        raise ValueError(
            f"Budget.cost_usd is {budget.cost_usd:g}, but one call of the cheapest backbone "
            f"({cheapest.name}) may cost {least(cheapest) / NANODOLLARS_PER_USD:g}; raise "
            "cost_usd, shorten the task or add a cheaper backbone"
        )
    if budget.tokens is None:
        return
    needed = USEFUL_OUTPUT_TOKENS + min(prompt(backbone) for backbone in catalog.values())
    if budget.tokens < needed:
        raise ValueError(
            f"Budget.tokens is {budget.tokens}, but one call on this task may take {needed}; raise "
            "tokens or shorten the task"
        )


def check_needs(agents: Iterable[Agent], catalog: Catalog) -> None:
    """Refuse agents that need what no backbone has (ValueError naming agent and needs)."""
    for agent in agents:
        if not any(agent.needs <= backbone.capabilities for backbone in catalog.values()):
            raise ValueError(
                f"agent {agent.name!r} needs {sorted(agent.needs)}, which no backbone has; add "
                "them to the capabilities of the backbones that have them"
            )


def pins_of(pinned: Pinned, names: Sequence[str], catalog: Catalog) -> dict[str, str | None]:
    """The pins of the agents `names` (ValueError for one that can't be)."""
    if isinstance(pinned, str) or not isinstance(pinned, (Iterable, type(None))):
        raise ValueError(f"pinned must be a list of names or a mapping, got {pinned!r}")
    pins: dict[str, str | None] = (
        dict(cast("Mapping[str, str | None]", pinned))
        if isinstance(pinned, Mapping)
        else dict.fromkeys(pinned or ())
    )
    for name, backbone in pins.items():
        if name not in names:
            raise ValueError(f"pinned: {name!r} is no agent of the chat, which has {list(names)}")
        if backbone is not None and backbone not in catalog:
            raise ValueError(
                f"pinned: {name!r} is given {backbone!r}, which is not among the backbones "
                f"{list(catalog)}"
            )
    return pins


def bytes_kept(calls: Iterable[CallRecord], catalog: Catalog, team: Team) -> int:
    """UTF-8 bytes that prompts of the next run are likely to hold beside its task and an agent's
    role: what the last prompt of an agent held in this run, and what it said."""
    tokens = 0
    for call in {call.agent: call for call in calls if call.metered}.values():
        # Nobody reads what was thought.
        spoken = call.completion_tokens if catalog[call.backbone].reasoning == "no" else 0
        tokens = max(tokens, call.prompt_tokens + spoken)
    longest_role = max(len(agent.role.encode()) for agent in team.agents)
    return max(0, int(BYTES_PER_TOKEN * tokens) - longest_role)


def past_of(
    work: Work, comparable: bool, beside_bytes: int, images: int = 0, *, with_extra: bool
) -> Past:
    """What a planner is told.

    Args:
        work: by the runs before.
        comparable: whether the answers were.
        beside_bytes: of prompts, beside the task and an agent's role.
        images: of the task.
        with_extra: whether prompts hold what nothing but earlier runs tells of, beside these.
    """
    beside = beside_bytes + int(BYTES_PER_TOKEN * work.extra_tokens * with_extra)
    longest = beside_bytes + int(BYTES_PER_TOKEN * work.most_extra_tokens)
    return Past(
        beside,
        comparable,
        longest,
        work.lengths,
        work.length,
        work.calls,
        work.replies,
        IMAGE_TOKENS * images,
    )


def denied_tokens(meter: Meter) -> dict[str, float]:
    """Agents whose calls the budget had no room for -> about how many prompt tokens they had."""
    return {
        name: float(bound) if backbone.tokenizer else bound / BYTES_PER_TOKEN
        for name, (bound, backbone) in meter.denied.items()
    }


def heard_bytes(plan: Plan, name: str) -> int:
    """Bytes that an agent's parents typically add to its prompt, generously."""
    caps = [plan.output_caps.get(parent, _TYPICAL_OUTPUT_TOKENS) for parent in plan.parents(name)]
    return sum(min(cap, _LONGEST_HEARD_TOKENS) * BYTES_HEARD for cap in caps)


def expected_seconds(backbone: Backbone) -> float:
    """A call's typical length; an unknown speed counts as a slow one."""
    return (backbone.ttft_s or 1.0) + _TYPICAL_OUTPUT_TOKENS / (backbone.tokens_per_s or 30.0)
