"""What a run did, and what it cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from agentbalance_plugin.budget import Budget, Spend
from agentbalance_plugin.drawing import text_table
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.call import CallRecord
from agentbalance_plugin.runtime.meter import Meter

Status = Literal["done", "skipped", "closed", "failed", "dropped"]
"""done: spoke. skipped: no budget or time. closed: its late gate stayed closed, the vote was
decided without it, or the chat ended before its turn. failed: raised an error. dropped: not in the
plan."""

# Of a clock whose seconds are added up: a run that ends at its deadline is in time.
_ROUNDING_S = 1e-6


@dataclass(frozen=True, slots=True)
class AgentReport:
    """One agent of the team in one run.

    Args:
        backbone: the planned one, where none was the first that was called; None without any. Who
            answered in its place is in `reason`.
        answer: what agreement compared, in AutoGen chats; None where nothing was.
    """

    name: str
    backbone: str | None
    status: Status
    reason: str
    spend: Spend
    answer: str | None = None


@dataclass(frozen=True)
class RunReport:
    """One run of a team.

    Args:
        plan: what was planned; None when planning itself failed.
        budget: the caps of this very run.
        spend: all settled calls; `latency_s` from the start of the run to its end.
        agents: every agent of the team, in its order, and routers of the framework that called.
        calls: every settled call.
        stop_reason: why the run ended.
        complete: the plan ran to its decision.
        chosen: the agent whose message is the answer; None if there is none.
        confidence: weight of the answers behind the chosen one, in [0, 1); None where agreement
            did not decide.
    """

    plan: Plan | None
    budget: Budget
    spend: Spend
    agents: tuple[AgentReport, ...]
    calls: tuple[CallRecord, ...]
    stop_reason: str
    complete: bool
    chosen: str | None = None
    confidence: float | None = None

    @property
    def within_budget(self) -> bool:
        """Whether cost, tokens and time stayed inside the hard caps."""
        cap, latency_s = self.budget.nanodollars, self.budget.latency_s
        return (
            (cap is None or self.spend.nanodollars <= cap)
            and (self.budget.tokens is None or self.spend.tokens <= self.budget.tokens)
            and (latency_s is None or self.spend.latency_s <= latency_s + _ROUNDING_S)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; money in US dollars, times in seconds."""
        return {
            "plan": None if self.plan is None else self.plan.to_dict(),
            "budget": {k: v for k, v in asdict(self.budget).items() if v is not None},
            "spend": _spend_dict(self.spend),
            "agents": [
                {
                    "name": agent.name,
                    "backbone": agent.backbone,
                    "status": agent.status,
                    "reason": agent.reason,
                    "answer": agent.answer,
                    "spend": _spend_dict(agent.spend),
                }
                for agent in self.agents
            ],
            "calls": [asdict(call) for call in self.calls],
            "stop_reason": self.stop_reason,
            "complete": self.complete,
            "chosen": self.chosen,
            "confidence": self.confidence,
            "within_budget": self.within_budget,
        }

    def to_mermaid(self) -> str:
        """The plan as a Mermaid flowchart; empty without a plan."""
        return "" if self.plan is None else self.plan.to_mermaid()

    def draw(self, path: str | Path) -> None:
        """The team as a PNG or SVG picture, each agent in the colour of its status.

        Raises:
            ValueError: there was no plan, or another kind of file.
            ImportError: matplotlib is not installed (extra `report`).
        """
        from agentbalance_plugin.picture import draw

        if self.plan is None:
            raise ValueError("this run has no plan that could be drawn")
        draw(self.plan, path, {agent.name: agent.status for agent in self.agents})

    def to_text(self) -> str:
        """A table for terminals and logs: who ran, why not, what it cost."""
        rows = [("agent", "backbone", "status", "calls", "tokens", "USD", "seconds", "")]
        for agent in self.agents:
            spend = agent.spend
            rows.append(
                (
                    agent.name + (" *" if agent.name == self.chosen else ""),
                    agent.backbone or "-",
                    agent.status,
                    str(spend.calls),
                    str(spend.tokens),
                    f"{spend.cost_usd:.6f}",
                    f"{spend.latency_s:.2f}",
                    agent.reason,
                )
            )
        lines = [text_table(rows), f"total: {_amount(self.spend)}; {self.stop_reason}"]
        if over := dict.fromkeys(call.backbone for call in self.calls if call.overrun):
            lines.append(f"billed more than a call was allowed to take: {', '.join(over)}")
        expected = None if self.plan is None else self.plan.expected
        if expected is not None:
            lines.append(f"expected: {expected.cost_usd:.6f} USD, {expected.latency_s:.2f} s")
        if self.plan is not None and self.plan.notes.get("profiled") == 0:
            lines.append("no backbone has a profile, so prices decide (see: agentbalance record)")
        return "\n".join(lines)


class BudgetExceeded(Exception):
    """The budget ran out and `on_exceeded="raise"`; what was paid for is in `report`."""

    def __init__(self, report: RunReport) -> None:
        super().__init__(f"{report.stop_reason} (spent {_amount(report.spend)})")
        self.report = report


def agent_report(
    meter: Meter, name: str, backbone: str | None, status: Status, reason: str, answer: str | None
) -> AgentReport:
    """One agent's line of the report, with what the meter booked for it."""
    reason = with_outages(reason, meter, name)
    return AgentReport(name, backbone, status, reason, meter.spend(name), answer)


def with_outages(reason: str, meter: Meter, agent: str) -> str:
    """An agent's reason, with which of its backbones failed and who else it called."""
    out = meter.outages.of(agent)
    own = [call for call in meter.calls if call.agent == agent]
    called = dict.fromkeys(call.backbone for call in own)
    others = [name for name in called if name not in {found.backbone for found in out}]
    answered = {call.backbone for call in own if call.metered}
    said = [f"{found.backbone} failed ({found.reason})" for found in out]
    passed_over = meter.outages.passed_over(agent)
    if passed_over is not None and called and passed_over.backbone not in called:
        said.insert(0, f"{passed_over.backbone} had just failed ({passed_over.reason})")
    for name in others if said else ():
        said.append(f"{name} answered in its place" if name in answered else f"{name} failed too")
    return "; ".join([reason, *said] if reason else said)


def _amount(spend: Spend) -> str:
    calls = "1 call" if spend.calls == 1 else f"{spend.calls} calls"
    return f"{spend.cost_usd:.6f} USD, {spend.tokens} tokens, {calls}, {spend.latency_s:.2f} s"


def _spend_dict(spend: Spend) -> dict[str, Any]:
    return {
        "cost_usd": spend.cost_usd,
        "prompt_tokens": spend.prompt_tokens,
        "completion_tokens": spend.completion_tokens,
        "calls": spend.calls,
        "latency_s": spend.latency_s,
    }
