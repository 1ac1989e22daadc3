"""What a run's report says of it and of each agent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentbalance_plugin.adapters.autogen.run import Run
from agentbalance_plugin.adapters.autogen.turn import denial_of
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.report import AgentReport, RunReport, Status, agent_report
from agentbalance_plugin.runtime.scheduler import Pass


def planned_report(run: Run, names: Iterable[str], result: Pass[Any]) -> RunReport:
    """Of a chat that ran as planned.

    Args:
        names: of the team's agents.
        result: its last pass.
    """

    def look(name: str) -> tuple[Status, str]:
        return _in_pass(name, run.plan, result)

    return _report(
        run,
        [_line(run, name, *look(name), result.answers.get(name)) for name in names],
        complete=result.complete,
        chosen=result.chosen,
        confidence=result.confidence,
    )


def routed_report(run: Run, names: Iterable[str]) -> RunReport:
    """Of a chat that routed by itself.

    Args:
        names: of the team's agents.
    """
    # Who agents inside an agent speak for is not told: a call that ended by itself will do.
    heard = run.spoke | {call.agent for call in run.meter.calls if call.metered}

    def look(name: str) -> tuple[Status, str]:
        if (denial := denial_of(run.denials, name)) is not None:
            return "skipped", denial.reason
        if _backbone_of(run, name) is None or name in heard:
            return "done", ""
        cut_off = run.meter.spend(name).calls
        return "skipped", "its call was cut off" if cut_off else "made no call"

    lines = [_line(run, name, *look(name)) for name in names]
    return _report(run, lines, complete=run.ended and not run.exceeded)


def _report(run: Run, lines: Iterable[AgentReport], *, complete: bool, **more: Any) -> RunReport:
    return RunReport(
        plan=run.plan,
        budget=run.budget,
        spend=run.meter.spend(),
        agents=tuple(lines),
        calls=run.meter.calls,
        stop_reason=run.stop_reason or "The run did not end by itself",
        complete=complete,
        **more,
    )


def _line(
    run: Run, name: str, status: Status, reason: str, answer: str | None = None
) -> AgentReport:
    return agent_report(run.meter, name, _backbone_of(run, name), status, reason, answer)


def _backbone_of(run: Run, name: str) -> str | None:
    return run.plan.assignment.get(name) if run.plan else None


def _in_pass(name: str, plan: Plan | None, result: Pass[Any]) -> tuple[Status, str]:
    if plan is None or name not in plan.assignment:
        return "dropped", "not in the plan"
    if name in result.skipped:
        return "skipped", result.skipped[name]
    if name in result.closed:
        if name in plan.late_gates:
            return "closed", "those it watches agreed"
        if plan.stop_at is not None:
            return "closed", "the vote was decided without it"
        return "closed", "the chat ended before its turn"
    if name in result.failed:
        return "failed", str(result.failed[name])
    if name in result.messages:
        return "done", ""
    return "skipped", "the run ended before its turn"
