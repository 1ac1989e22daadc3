"""What is known of one run of a wrapped chat while it lasts."""

from __future__ import annotations

from dataclasses import dataclass, field

from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.call import CallDenied
from agentbalance_plugin.runtime.habits import Work
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.report import RunReport
from agentbalance_plugin.runtime.turns import Turns

Event = BaseAgentEvent | BaseChatMessage


@dataclass
class Run:
    """One run while it lasts.

    Args:
        turns: of its calls, which wait for what others hold.
        plan: None until planned.
        told: what the runs before told of it; None until it is planned.
        goes_on: whether something was said before.
        in_turn: whether the plan keeps all agents and their order.
        denials: of calls, which agents and chats may hide.
        spoke: who said something.
        output: what goes into TaskResult.messages.
        report: None until the run has ended.
        exceeded: the budget left something of the plan undone.
        ended: a chat that routes by itself came to its own end.
    """

    budget: Budget
    meter: Meter
    price_usd: float | None
    turns: Turns = field(default_factory=Turns)
    plan: Plan | None = None
    told: Work | None = None
    goes_on: bool = False
    in_turn: bool = False
    denials: list[CallDenied] = field(default_factory=list[CallDenied])
    spoke: set[str] = field(default_factory=set[str])
    output: list[Event] = field(default_factory=list[Event])
    report: RunReport | None = None
    stop_reason: str | None = None
    exceeded: bool = False
    ended: bool = False
