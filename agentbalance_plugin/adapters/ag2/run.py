"""What is known of one run of a wrapped chat while it lasts."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.call import CallDenied
from agentbalance_plugin.runtime.habits import UNKNOWN_WORK, Habits, Work
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.pacing import Ticket
from agentbalance_plugin.runtime.report import AgentReport, RunReport, Status, agent_report
from agentbalance_plugin.runtime.turns import Turns
from agentbalance_plugin.team import Team


@dataclass
class Run:
    """One run while it lasts.

    Args:
        budget: of this very run.
        meter: its books.
        team: who may call.
        habits: of this team.
        ticket: of the mean's pacer; None for hard caps alone.
        goes_on: whether something was said before.
        told: what the runs before told of it.
        plan: None until planned.
        turns: of its calls, which wait for what others hold.
        denials: of calls, which tools and chats inside may hide.
        stop_reason: None until it has ended.
        exceeded: the budget left something undone.
        ended: the chat came to its own end.
    """

    budget: Budget
    meter: Meter
    team: Team
    habits: Habits
    ticket: Ticket | None = None
    goes_on: bool = False
    told: Work = UNKNOWN_WORK
    plan: Plan | None = None
    turns: Turns = field(default_factory=Turns)
    denials: list[CallDenied] = field(default_factory=list[CallDenied])
    stop_reason: str | None = None
    exceeded: bool = False
    ended: bool = False

    @property
    def complete(self) -> bool:
        return self.ended and not self.exceeded

    def report(self) -> RunReport:
        """Of the run as it is now."""
        return RunReport(
            plan=self.plan,
            budget=self.budget,
            spend=self.meter.spend(),
            agents=tuple(self._line(name) for name in self.team.names),
            calls=self.meter.calls,
            stop_reason=self.stop_reason or "The run did not end by itself",
            complete=self.complete,
        )

    def _line(self, name: str) -> AgentReport:
        backbone = self.plan.assignment.get(name) if self.plan else None
        status, reason = self._look(name, backbone)
        return agent_report(self.meter, name, backbone, status, reason, None)

    def _look(self, name: str, backbone: str | None) -> tuple[Status, str]:
        denied = [each.reason for each in self.denials if each.reason.startswith(f"{name}: ")]
        if denied:
            return "skipped", denied[-1]
        if backbone is None or any(call.agent == name for call in self.meter.calls if call.metered):
            return "done", ""
        return "skipped", (
            "its call was cut off" if self.meter.spend(name).calls else "made no call"
        )
