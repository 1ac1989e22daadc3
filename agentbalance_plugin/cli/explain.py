"""What would be planned for a task, on a catalog and a budget, without any call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import typer

from agentbalance_plugin.adapters.explaining import explain_task
from agentbalance_plugin.adapters.planning import planner_of
from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.options import check_mean
from agentbalance_plugin.team import Agent, Team


def budget_of(
    cost_usd: float | None, mean_cost_usd: float | None, latency_s: float | None, tokens: int | None
) -> Budget:
    """The budget that was given by its fields (ValueError: there is none, or it can't be)."""
    if mean_cost_usd is not None and cost_usd is None:
        raise ValueError("--mean-cost-usd needs a hard cap for each task: give --cost-usd as well")
    if cost_usd is None and latency_s is None and tokens is None:
        raise ValueError("there is no budget: give --cost-usd, --latency-s or --tokens")
    check_mean("--mean-cost-usd", mean_cost_usd, "--cost-usd", cost_usd)
    return Budget(
        cost_usd=cost_usd, mean_cost_usd=mean_cost_usd, latency_s=latency_s, tokens=tokens
    )


def run_explain(
    task: str,
    backbones: Path,
    budget: Budget,
    agents: Sequence[str],
    policy: str,
    keep_order: bool,
    draw: Path | None,
    as_json: bool,
) -> None:
    """Print it.

    Args:
        backbones: a catalog file.
        agents: "name" or "name: role" of each, in their order; the last one decides.
        policy: "default" or a folder.
        keep_order: whether every agent runs, hearing all before it, so that only backbones are
            chosen.
        draw: a picture of the plan to write.
    """
    found = [_agent(text) for text in agents]
    names = [agent.name for agent in found]
    edges = tuple(combinations(names, 2)) if keep_order else None
    team = Team(tuple(found), decider=names[-1], fixed_edges=edges)
    catalog = Catalog.load(backbones)
    planner = planner_of(policy)
    explained = explain_task(planner, task, team, budget, catalog)
    if draw is not None:
        explained.plan.draw(draw)
    typer.echo(json.dumps(explained.to_dict()) if as_json else explained.to_text())


def _agent(text: str) -> Agent:
    name, _, role = text.partition(":")
    if not name.strip():
        raise ValueError(f"--agent {text!r} has no name; give 'name' or 'name: role'")
    return Agent(name.strip(), role.strip())
