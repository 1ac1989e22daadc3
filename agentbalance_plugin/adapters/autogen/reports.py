"""What a run's report says of it and of each agent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentbalance_plugin.adapters.autogen.wrapped import Run
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.report import AgentReport, RunReport, Status, agent_report
from agentbalance_plugin.runtime.scheduler import Pass

_ENDED = "The run did not end by itself"


def planned_report(run: Run, names: Iterable[str], result: Pass[Any]) -> RunReport:
    """Of a chat that ran as planned.

    Args:
        names: of the team's agents.
        result: its last pass.
    """
    plan, meter = run.plan, run.meter

    def line(name: str) -> AgentReport:
        status, reason = _in_pass(name, plan, result)
        backbone = plan.assignment.get(name) if plan else None
        return agent_report(meter, name, backbone, status, reason, result.answers.get(name))

    return RunReport(
        plan=plan,
        budget=run.budget,
        spend=meter.spend(),
        agents=tuple(line(name) for name in names),
        calls=meter.calls,
        stop_reason=run.stop_reason or _ENDED,
        complete=result.complete,
        chosen=result.chosen,
        confidence=result.confidence,
    )


def routed_report(run: Run, names: Iterable[str]) -> RunReport:
    """Of a chat that routed by itself.

    Args:
        names: of the team's agents.
    """
    plan, meter = run.plan, run.meter
    # Who agents inside an agent speak for is not told: a call that ended by itself will do.
    heard = run.spoke | {call.agent for call in meter.calls if call.metered}

    def line(name: str) -> AgentReport:
        backbone = plan.assignment.get(name) if plan else None
        status: Status = "done" if backbone is None or name in heard else "skipped"
        reason = ""
        if status == "skipped":
            reason = "its call was cut off" if meter.spend(name).calls else "made no call"
        for denial in run.denials:
            if denial.reason.startswith(f"{name}:"):
                status, reason = "skipped", denial.reason
        return agent_report(meter, name, backbone, status, reason, None)

    return RunReport(
        plan=plan,
        budget=run.budget,
        spend=meter.spend(),
        agents=tuple(line(name) for name in names),
        calls=meter.calls,
        stop_reason=run.stop_reason or _ENDED,
        complete=run.ended and not run.exceeded,
    )


def _in_pass(name: str, plan: Plan | None, result: Pass[Any]) -> tuple[Status, str]:
    if plan is None or name not in plan.assignment:
        return "dropped", "not in the plan"
    if name in result.skipped:
        return "skipped", result.skipped[name]
    if name in result.closed:
        gated = name in plan.late_gates
        return "closed", "those it watches agreed" if gated else "the vote was decided without it"
    if name in result.failed:
        return "failed", str(result.failed[name])
    if name in result.messages:
        return "done", ""
    return "skipped", "the run ended before its turn"
