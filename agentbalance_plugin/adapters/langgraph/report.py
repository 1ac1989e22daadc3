"""The report of a run of a balanced graph."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from langchain_core.runnables import RunnableConfig

from agentbalance_plugin.adapters.langgraph.run import Run
from agentbalance_plugin.runtime.report import AgentReport, RunReport, Status, with_outages

_REPORTS_KEPT = 256


class Reports:
    """The reports of a graph's last runs; shared by the graph's copies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: RunReport | None = None
        self._kept: OrderedDict[str, RunReport] = OrderedDict()

    def add(self, report: RunReport, config: RunnableConfig) -> None:
        """Keep a report under the config's run_id and thread_id."""
        configurable = config.get("configurable") or {}
        with self._lock:
            self._last = report
            for key in (config.get("run_id"), configurable.get("thread_id")):
                if key is not None:
                    self._kept[str(key)] = report
                    self._kept.move_to_end(str(key))
            while len(self._kept) > _REPORTS_KEPT:
                self._kept.popitem(last=False)

    @property
    def last(self) -> RunReport:
        """Of the last run that ended (RuntimeError: none has)."""
        if self._last is None:
            raise RuntimeError("no run has ended yet, so there is no report")
        return self._last

    def of(self, config: RunnableConfig) -> RunReport:
        """Of the last run with this config's run_id, or on its thread (KeyError: none is kept)."""
        configurable = config.get("configurable") or {}
        keys = (config.get("run_id"), configurable.get("thread_id"))
        with self._lock:
            for key in keys:
                if key is not None and str(key) in self._kept:
                    return self._kept[str(key)]
        raise KeyError(
            "no report is kept for this config; give the run a run_id or a thread_id and ask with "
            "the same"
        )


def make_report(run: Run, waits_at: tuple[str, ...] = ()) -> RunReport:
    """The report of a run that has ended, however it did.

    Args:
        waits_at: nodes that a paused run goes on with when it is resumed.
    """
    meter = run.meter
    skipped, denials = run.skipped, run.denials
    if run.failed is not None:
        stop_reason = f"Failed: {run.failed}"
    elif run.stopped is not None:
        stop_reason = f"Budget exhausted: {run.stopped.reason}"
    elif waits_at:
        stop_reason = f"Waits to be resumed at {', '.join(waits_at)}"
    elif not run.ended:
        stop_reason = "Left before its end"
    elif skipped:
        parts = "; ".join(f"{name} skipped: {reason}" for name, reason in skipped.items())
        stop_reason = f"Budget exhausted: Graph complete, without everyone ({parts})"
    elif denials:
        parts = "; ".join(reasons[-1] for reasons in denials.values())
        number = _calls(sum(map(len, denials.values())))
        stop_reason = f"Budget exhausted: Graph complete, without {number} ({parts})"
    else:
        stop_reason = "Graph complete"
    decider = run.plan.decider if run.plan is not None else None
    chosen = decider if decider in run.done else None
    return RunReport(
        plan=run.plan,
        budget=run.budget,
        spend=meter.spend(),
        agents=tuple(_line(run, name, skipped, denials) for name in run.callers()),
        calls=meter.calls,
        stop_reason=stop_reason,
        complete=run.ended and run.failed is None and not run.exceeded and not waits_at,
        chosen=run.chosen or chosen,
        confidence=run.confidence,
    )


def _line(
    run: Run, name: str, skipped: Mapping[str, str], denials: Mapping[str, Sequence[str]]
) -> AgentReport:
    denied = denials.get(name, ())
    plan, spend = run.plan, run.spend(name)
    backbones = dict.fromkeys(call.backbone for call in run.meter.calls if call.agent == name)
    planned = plan.assignment.get(name) if plan is not None else None
    status: Status
    if name in run.team.names and (plan is None or name not in plan.assignment):
        status, reason = "dropped", "not in the plan"
    elif name in skipped:
        status, reason = "skipped", skipped[name]
    elif name in run.closed:
        status, reason = "closed", "those it watches agreed"
    elif name in run.team.names and name not in run.done and run.meter.spend(name).calls:
        status, reason = "skipped", "the run ended in its turn"
    elif name in run.done or spend.calls:
        status, reason = "done", ""
    elif denied:
        status, reason = "skipped", ""
    elif run.ended:
        status, reason = "skipped", "it did not run: routing led past it, or a cache answered"
    else:
        status, reason = "skipped", "the run ended before its turn"
    if len(denied) > (name in skipped):
        said = f"{_calls(len(denied))} denied ({denied[-1]})"
        reason = f"{reason}; {said}" if reason else said
    outages = run.meter.outages
    others = ", ".join(each for each in backbones if each != planned)
    if planned and others and planned not in outages and planned not in outages.lately:
        said = f"{others} made calls that need what {planned} can not do"
        reason = f"{reason}; {said}" if reason else said
    reason = with_outages(reason, run.meter, name)
    return AgentReport(name, planned or next(iter(backbones), None), status, reason, spend)


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"
