"""What would be planned for a task, why, and what other budgets would buy: without any call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from agentbalance_plugin.adapters.planning import Planner, check_affordable, plan_task
from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.knobs import NO_PAST, Knobs, Past
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.drawing import text_table
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Team

_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# More of a large catalog than anybody reads.
_MOST_BACKBONES = 20
_MATCHES_SHOWN = 3


@dataclass(frozen=True)
class TaskExplanation:
    """A plan that was not run.

    Args:
        plan: for the task under the budget.
        stages: what `Policy.explain` returns but for the plan; empty for a planner of the user's
            own.
        budgets: what is planned under this budget, parts and multiples of it, or why that affords
            nothing.
    """

    plan: Plan
    stages: Mapping[str, Any]
    budgets: tuple[tuple[Budget, Plan | str], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; money in US dollars, times in seconds."""
        return {
            **self.stages,
            "plan": self.plan.to_dict(),
            "budgets": [
                {
                    "cost_usd": budget.cost_usd,
                    "mean_cost_usd": budget.mean_cost_usd,
                    "latency_s": budget.latency_s,
                    "tokens": budget.tokens,
                    **(
                        {"plan": None, "refused": plan}
                        if isinstance(plan, str)
                        else {"plan": plan.to_dict()}
                    ),
                }
                for budget, plan in self.budgets
            ],
        }

    def to_text(self) -> str:
        """Tables for terminals."""
        parts: list[str] = []
        if self.stages:
            parts += ["\n".join(_query_lines(self.stages, self.plan)), _backbones(self.stages)]
        if "gates" in self.stages:
            parts += [_agents(self.stages, self.plan), "\n".join(_design_lines(self.stages))]
        parts.append(self.plan.to_tree())
        if self.budgets:
            parts.append(_budgets(self.budgets))
        parts.append("Predicted, not measured: no backbone was called.")
        return "\n\n".join(parts)


def explain_task(
    planner: Planner,
    query: str,
    team: Team,
    budget: Budget,
    catalog: Catalog,
    *,
    images: int = 0,
    price_usd: float | None = None,
    past: Past = NO_PAST,
    part: Callable[[Budget], Budget] = lambda budget: budget,
    finish: Callable[[Plan], Plan] = lambda plan: plan,
) -> TaskExplanation:
    """Plan a task as a run would, and explain it.

    Args:
        images: of the task.
        price_usd: of the pacer, for this budget; None leaves it to the planner.
        past: what earlier runs tell; a policy is told.
        part: of a run's budget that one plan may take.
        finish: what an adapter makes of a plan before it runs.

    Raises:
        ValueError: the budget affords no call, or no backbone can do what an agent needs.
        PlanError: the planner's plan can't be run.
    """
    check_affordable(budget, catalog, query, images)

    def planned(budget: Budget, price_usd: float | None) -> Plan:
        return finish(plan_task(planner, query, team, part(budget), catalog, price_usd, past))

    plan = planned(budget, price_usd)
    if not isinstance(planner, Policy):
        return TaskExplanation(plan, {}, ())
    knobs = Knobs(price_usd=price_usd)
    found = planner.explain(query, team, part(budget), catalog, knobs, past)
    stages = {key: value for key, value in found.items() if key != "plan"}
    budgets: list[tuple[Budget, Plan | str]] = []
    for factor in _FACTORS:
        if factor == 1.0:
            budgets.append((budget, plan))
            continue
        other = _scaled(budget, factor)
        try:
            check_affordable(other, catalog, query, images)
            budgets.append((other, planned(other, None)))
        except ValueError as error:
            # What could be done about it is for the budget that was asked for.
            budgets.append((other, str(error).partition("; ")[0]))
    return TaskExplanation(plan, stages, tuple(budgets))


def _scaled(budget: Budget, factor: float) -> Budget:
    """With more or less of what is limited first: money, else time, else tokens."""
    if budget.cost_usd is not None:
        mean = budget.mean_cost_usd
        mean = None if mean is None else mean * factor
        return replace(budget, cost_usd=budget.cost_usd * factor, mean_cost_usd=mean)
    if budget.latency_s is not None:
        return replace(budget, latency_s=budget.latency_s * factor)
    return replace(budget, tokens=max(1, int((budget.tokens or 0) * factor)))


def _query_lines(stages: Mapping[str, Any], plan: Plan) -> list[str]:
    kinds = _shares(stages["categories"])
    lines = [
        f"kind of task: {kinds}",
        f"difficulty: {stages['difficulty']:.0%} of backbones would fail",
    ]
    novelty = plan.notes.get("novelty")
    if novelty is not None:
        far = " (unlike all that was trained on)" if plan.notes.get("far") else ""
        lines.append(f"novelty: {novelty:.2f}{far}")
    if past := plan.notes.get("past"):
        lengths: Mapping[str, float] = past["lengths"]
        longer = ", ".join(f"{name} {times:.1f}" for name, times in lengths.items())
        replies = f", replies as many times as long as predicted: {longer}" if longer else ""
        lines.append(f"by the runs before: {past['calls']:.1f} calls of an agent{replies}")
    if price := plan.notes.get("price_usd"):
        lines.append(f"a US dollar must buy {price:.4g} right answers")
    return lines


def _backbones(stages: Mapping[str, Any]) -> str:
    rows = [("pool", "backbone", "right", "USD a call", "seconds")]
    pools: Mapping[str, list[str]] = stages["pools"]
    for pool, names in pools.items():
        for name in names:
            alone = stages["backbones"][name]
            right, usd = f"{alone['success']:.0%}", f"{alone['cost_usd']:.6f}"
            rows.append((pool, name, right, usd, f"{alone['latency_s']:.1f}"))
    lines = [text_table(rows[: _MOST_BACKBONES + 1])]
    if (more := len(rows) - 1 - _MOST_BACKBONES) > 0:
        lines.append(f"and {more} more")
    if beaten := len(stages["backbones"]) - (len(rows) - 1):
        lines.append(f"{beaten} beaten by others of these on strength, price and speed")
    return "\n".join(lines)


def _agents(stages: Mapping[str, Any], plan: Plan) -> str:
    rows = [("agent", "gate", "likeliest matches", "planned")]
    for agent, gate in stages["gates"].items():
        match: Mapping[str, float] = stages["match"][agent]
        likeliest = list(match.items())[:_MATCHES_SHOWN]
        planned = plan.assignment.get(agent, "does not run")
        rows.append((agent, f"{gate:.0%}", _shares(dict(likeliest)), planned or "no backbone"))
    return text_table(rows)


def _design_lines(stages: Mapping[str, Any]) -> list[str]:
    lines = [
        f"pools: {_shares(stages['pool_probabilities'])}; the strongest that may be used: "
        f"{stages['strongest_pool']}",
        f"hop limits: {_shares(stages['hop_limits'])}; at most {stages['hop_limit']}",
        f"edges: {_shares(stages['edges'])}",
    ]
    if stages["cut_edges"]:
        lines.append(f"cut for the hop limit: {', '.join(stages['cut_edges'])}")
    lines += [
        f"designs considered: {stages['considered']}; worth of the one taken "
        f"{stages['worth']:.4f}, its log-probability {sum(stages['factors'].values()):.1f}",
        *(
            f"  next: {other['worth']:.4f}, {other['family']} of {', '.join(other['backbones'])}"
            for other in stages["runners_up"]
        ),
    ]
    return lines


def _budgets(budgets: tuple[tuple[Budget, Plan | str], ...]) -> str:
    rows = [("budget", "right", "USD", "seconds", "backbones")]
    beyond = False
    for budget, plan in budgets:
        right = usd = seconds = ""
        if isinstance(plan, str):
            rows.append((_said(budget), right, usd, seconds, f"affords nothing: {plan}"))
            continue
        if (expected := plan.expected) is not None:
            dear = expected.cost_usd > (budget.cost_usd or inf)
            late = expected.latency_s > (budget.latency_s or inf)
            beyond |= dear or late
            right = f"{expected.success:.0%}"
            usd = f"{expected.cost_usd:.6f}" + "!" * dear
            seconds = f"{expected.latency_s:.1f}" + "!" * late
        at_once = [n or "-" for agent, n in plan.assignment.items() if agent not in plan.late_gates]
        later = [plan.assignment[agent] or "-" for agent in plan.late_gates]
        said = ", ".join(dict.fromkeys(at_once)) + "".join(f"; if need be {n}" for n in later)
        rows.append((_said(budget), right, usd, seconds, said))
    table = text_table(rows)
    if beyond:
        table += (
            "\n! more than the budget allows: most runs would be stopped before their answer is "
            "whole"
        )
    return table


def _shares(of: Mapping[str, float]) -> str:
    """Those that are seen in whole percents."""
    return ", ".join(f"{name} {share:.0%}" for name, share in of.items() if share >= 0.005) or "-"


def _said(budget: Budget) -> str:
    if budget.mean_cost_usd is not None:
        return f"{budget.mean_cost_usd:g} USD on average, at most {budget.cost_usd:g}"
    if budget.cost_usd is not None:
        return f"{budget.cost_usd:g} USD"
    return f"{budget.latency_s:g} s" if budget.latency_s is not None else f"{budget.tokens} tokens"
