"""A chat's manager under a budget: AG2's own loop, its agents on planned backbones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from autogen import ConversableAgent, GroupChat, GroupChatManager

from agentbalance_plugin.adapters.ag2.balance import Balance, Message
from agentbalance_plugin.adapters.covered import OwnBudget
from agentbalance_plugin.adapters.explaining import TaskExplanation
from agentbalance_plugin.adapters.planning import aplan_task, plan_task
from agentbalance_plugin.runtime.call import DeadlineReached
from agentbalance_plugin.runtime.learned import learn, learned_of
from agentbalance_plugin.runtime.report import RunReport

_BALANCE = "_agentbalance"


# AG2's class comes first: only then may a manager's class be exchanged for this one.
class WrappedManager(GroupChatManager, OwnBudget):
    """A manager whose every run is under a budget; made by `wrap_groupchat`."""

    @property
    def report(self) -> RunReport:
        """Of the last run that ended.

        Raises:
            RuntimeError: none has.
        """
        report = balance_of(self).report
        if report is None:
            raise RuntimeError("no run has ended yet, so there is no report")
        return report

    def explain(self, message: Message) -> TaskExplanation:
        """What would be planned for a task now, why, and what other budgets would buy. No backbone
        is called.

        Raises:
            ValueError: the budget affords no call, or no backbone can do what an agent needs.
            PlanError: the planner's plan can't be run.
        """
        return balance_of(self).explain(self, message)

    @property
    def learned(self) -> dict[str, Any]:
        """What runs have taught so far, as JSON values: for `learn` of the manager that serves
        these agents next."""
        return learned_of(*balance_of(self).memory(self))

    def learn(self, learned: Mapping[str, Any]) -> None:
        """Go on from what another manager of such agents had learned, in place of what this one
        has.

        Raises:
            ValueError: it is not what `learned` gives, naming the field and its value.
        """
        learn(learned, *balance_of(self).memory(self))

    def another(self, manager: GroupChatManager) -> WrappedManager:
        """Wrap another manager as this one was, for another conversation of the same service. It
        shares backbones, policy, the mean of `Budget.average` and what runs taught.

        Raises:
            ValueError: it can't be wrapped so.
        """
        return cast("WrappedManager", balance_of(self).again(manager))


def balance_of(manager: GroupChatManager) -> Balance:
    """Of a wrapped manager."""
    return cast("Balance", vars(manager)[_BALANCE])


def put_into(manager: GroupChatManager, balance: Balance) -> None:
    """Make it a wrapped manager's."""
    vars(manager)[_BALANCE] = balance


def run_chat(
    recipient: WrappedManager,
    messages: list[dict[str, Any]] | None = None,
    sender: ConversableAgent | None = None,
    config: GroupChat | None = None,
) -> tuple[bool, Any]:
    """AG2's reply function of managers, under the budget."""
    balance = balance_of(recipient)
    if balance.is_inside(recipient):
        return GroupChatManager.run_chat(recipient, messages, sender, config)
    found, message = balance.found(recipient), _last(recipient, messages, sender)
    with balance.booked(found, bool(recipient.groupchat.messages)) as run:
        plan = plan_task(*balance.planning(run, recipient, message))
        with balance.on_backbones(run, plan, found):
            return GroupChatManager.run_chat(recipient, messages, sender, config)
    return True, None


async def a_run_chat(
    recipient: WrappedManager,
    messages: list[dict[str, Any]] | None = None,
    sender: ConversableAgent | None = None,
    config: GroupChat | None = None,
) -> tuple[bool, Any]:
    """As `run_chat`, in an event loop."""
    balance = balance_of(recipient)
    if balance.is_inside(recipient):
        return await GroupChatManager.a_run_chat(recipient, messages, sender, config)
    found, message = balance.found(recipient), _last(recipient, messages, sender)
    with balance.booked(found, bool(recipient.groupchat.messages)) as run:
        beside = balance.takes_long(found.team)
        plan = await aplan_task(*balance.planning(run, recipient, message), beside=beside)
        with balance.on_backbones(run, plan, found):
            timer = run.meter.clock.timeout(run.meter.seconds_left())
            try:
                async with timer:
                    return await GroupChatManager.a_run_chat(recipient, messages, sender, config)
            except TimeoutError:
                if not timer.expired():
                    raise
                raise DeadlineReached("cancelled at the deadline") from None
    return True, None


def _last(
    manager: GroupChatManager, messages: list[dict[str, Any]] | None, sender: Any
) -> Mapping[str, Any]:
    """The message that a run answers."""
    said: list[Any] = manager.chat_messages[sender] if messages is None else messages
    return said[-1]
