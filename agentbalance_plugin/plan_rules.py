"""The rules that every plan keeps, each with the message a user would want."""

from __future__ import annotations

import math

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.plan import Plan, PlanError
from agentbalance_plugin.team import Team


def check_plan(plan: Plan, team: Team, catalog: Catalog) -> None:
    """Raise PlanError for the first rule that `plan` breaks."""
    _check_agents(plan, team, catalog)
    _check_references(plan)
    if plan.stop_at is not None:
        _check_stop(plan, plan.stop_at)
    if plan.hop_limit < 1:
        raise PlanError(f"hop_limit must be at least 1, got {plan.hop_limit}")
    if plan.depth > plan.hop_limit:
        raise PlanError(f"the longest path has {plan.depth} agents, hop_limit is {plan.hop_limit}")
    _check_fixed(plan, team)
    if plan.decision == "agent" and not (plan.decider is None and team.decider is None):
        _check_decider(plan)


def _check_stop(plan: Plan, stop_at: float) -> None:
    if not 0.0 < stop_at <= 1.0:
        raise PlanError(f"stop_at must be in (0, 1], got {stop_at}")
    if plan.decision != "vote" or plan.edges or plan.late_gates:
        raise PlanError("stop_at needs a vote of agents that all start at once")


def _check_agents(plan: Plan, team: Team, catalog: Catalog) -> None:
    if not plan.assignment:
        raise PlanError("the plan keeps no agent")
    agents = {agent.name: agent for agent in team.agents}
    for name, backbone_name in plan.assignment.items():
        if name not in agents:
            raise PlanError(f"the plan keeps {name!r}, which is no agent of the team")
        agent = agents[name]
        if backbone_name is None:
            if agent.calls_backbone:
                raise PlanError(f"agent {name!r} has no backbone")
            continue
        if not agent.calls_backbone:
            raise PlanError(f"agent {name!r} calls no backbone but got {backbone_name!r}")
        if backbone_name not in catalog:
            raise PlanError(f"agent {name!r} got {backbone_name!r}, which the catalog lacks")
        if agent.backbone is not None and agent.backbone != backbone_name:
            raise PlanError(
                f"agent {name!r} is pinned to {agent.backbone!r}, got {backbone_name!r}"
            )
        missing = agent.needs - catalog[backbone_name].capabilities
        if missing:
            raise PlanError(
                f"agent {name!r} needs {sorted(missing)}, which backbone {backbone_name!r} lacks"
            )
    for agent in team.agents:
        if agent.name not in plan.assignment and (agent.keep or not agent.calls_backbone):
            raise PlanError(f"agent {agent.name!r} must be kept")


def _check_references(plan: Plan) -> None:
    for edge in plan.edges:
        for name in edge:
            if name not in plan.assignment:
                raise PlanError(f"edge {edge} names {name!r}, which the plan does not keep")
    for name, gate in plan.late_gates.items():
        if name not in plan.assignment:
            raise PlanError(f"the late gate of {name!r} is for an agent that is not kept")
        if not gate.watches:
            raise PlanError(f"the late gate of {name!r} watches nobody")
        if not 0 < gate.threshold <= 1:
            raise PlanError(f"the late gate of {name!r} has threshold {gate.threshold}, not (0, 1]")
        for watched in gate.watches:
            if watched not in plan.assignment:
                raise PlanError(f"the late gate of {name!r} watches {watched!r}, which is not kept")
    for name, weight in plan.weights.items():
        if not math.isfinite(weight):
            raise PlanError(f"the weight of {name!r} is {weight}")
    for name, cap in plan.output_caps.items():
        if cap < 1:
            raise PlanError(f"the output cap of {name!r} is {cap}")


def _check_fixed(plan: Plan, team: Team) -> None:
    if team.fixed_edges is None:
        return
    for agent in team.agents:
        if agent.name not in plan.assignment:
            raise PlanError(f"the team is fixed, so agent {agent.name!r} must be kept")
    if set(plan.edges) != set(team.fixed_edges) or plan.late_gates:
        raise PlanError("the team is fixed: its edges can't be changed and late gates not added")


def _check_decider(plan: Plan) -> None:
    if plan.decider is None:
        raise PlanError("decision is 'agent' but the plan names no decider")
    if plan.decider not in plan.assignment:
        raise PlanError(f"the decider {plan.decider!r} is not kept")
    reaches = {plan.decider}
    for name in reversed(plan.order):
        if name in reaches:
            reaches.update(plan.waits_for(name))
    lost = [name for name in plan.assignment if name not in reaches]
    if lost:
        raise PlanError(f"{lost} can't reach the decider {plan.decider!r}")
