"""What a wrapped manager plans with and pays from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from autogen import ConversableAgent, GroupChat, GroupChatManager

from agentbalance_plugin.adapters.ag2.client import BudgetWrapper, Caller
from agentbalance_plugin.adapters.ag2.dress import MakeClient, dressed, is_dressed
from agentbalance_plugin.adapters.ag2.endpoints import Clients
from agentbalance_plugin.adapters.ag2.found import Found, find
from agentbalance_plugin.adapters.ag2.internals import chats_run_by
from agentbalance_plugin.adapters.ag2.run import Run
from agentbalance_plugin.adapters.backbones import standbys
from agentbalance_plugin.adapters.explaining import TaskExplanation, explain_task
from agentbalance_plugin.adapters.planning import check_affordable, denied_tokens, past_of
from agentbalance_plugin.adapters.stream import Stream
from agentbalance_plugin.core.knobs import Past
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.byte_bound import size
from agentbalance_plugin.runtime.call import CallDenied
from agentbalance_plugin.runtime.habits import Habits
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.pacing import Pacer
from agentbalance_plugin.runtime.report import BudgetExceeded, RunReport
from agentbalance_plugin.team import Team

Message = str | Mapping[str, Any]


class Balance:
    """What a wrapped manager has beside AG2's own.

    Args:
        stream: what it shares with others.
        pins: agents -> the backbones that they must have; None: any.
        others: agents that the chat does not lead to.
        again: wraps another manager of that stream.
    """

    def __init__(
        self,
        stream: Stream[Clients],
        pins: Mapping[str, str | None],
        others: Sequence[ConversableAgent],
        again: Callable[[GroupChatManager], GroupChatManager],
    ) -> None:
        self.report: RunReport | None = None
        self.again = again
        self._stream = stream
        self._pins = pins
        self._others = others
        self._busy = threading.Lock()

    def found(self, manager: GroupChatManager) -> Found:
        """Who takes part by now."""
        return find(manager, self._others).pinned(self._pins)

    def memory(self, manager: GroupChatManager) -> tuple[Habits, Pacer | None]:
        """What is learned: habits, and the mean's pacer."""
        team = self.found(manager).team
        return self._stream.habits(team), self._stream.pacer(team)

    def is_inside(self, manager: GroupChatManager) -> bool:
        """Whether another chat's run, which this one is a part of, pays."""
        return is_dressed(manager) and not self._busy.locked()

    def explain(self, manager: GroupChatManager, message: Message) -> TaskExplanation:
        stream, (text, images) = self._stream, _read(message)
        team = _for(images, self.found(manager).team)
        habits, pacer = self.memory(manager)
        return explain_task(
            stream.planner,
            text,
            team,
            stream.budget,
            stream.clients.catalog,
            images=images,
            price_usd=None if pacer is None else pacer.price_usd,
            past=_past(habits, _bytes_said(manager.groupchat), images),
        )

    @contextmanager
    def booked(self, found: Found, goes_on: bool) -> Generator[Run]:
        """A run, from its budget to its report. A denied call ends the block without an error.

        Raises:
            RuntimeError: another run of this manager is under way.
            BudgetExceeded: with `on_exceeded="raise"`; carries the report.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "the chat is already running, and AG2's agents hold one conversation at a time; "
                "wait for it to end, or wrap another manager with agents of its own"
            )
        stream = self._stream
        try:
            pacer = stream.pacer(found.team)
            ticket = pacer.start() if pacer is not None else None
            budget = ticket.budget if ticket else stream.budget
            meter = Meter(budget, clock=stream.clock, downtimes=stream.clients.downtimes)
            habits = stream.habits(found.team)
            run = Run(budget, meter, found.team, habits, ticket, goes_on, habits.work)
            try:
                yield run
                run.ended, run.stop_reason = True, "The chat came to its end"
                if run.denials:
                    # Tools hide them.
                    raise run.denials[0]
            except CallDenied as denied:
                run.exceeded, run.stop_reason = True, f"Budget exhausted: {denied.reason}"
            except BaseException as error:
                run.stop_reason = f"The chat failed: {error!r}"
                raise
            finally:
                self._end(run)
                if ticket is not None and pacer is not None:
                    pacer.settle(ticket, run.meter.spend().nanodollars)
        finally:
            self._busy.release()
        if run.exceeded and budget.on_exceeded == "raise":
            assert self.report is not None
            raise BudgetExceeded(self.report)

    def planning(self, run: Run, manager: GroupChatManager, message: Message) -> tuple[Any, ...]:
        """The arguments of `plan_task` (ValueError: nothing is affordable)."""
        stream, (text, images) = self._stream, _read(message)
        check_affordable(run.budget, stream.clients.catalog, text, images)
        price = run.ticket.price_usd if run.ticket else None
        past = _past(run.habits, _bytes_said(manager.groupchat), images)
        team = _for(images, run.team)
        return (stream.planner, text, team, run.budget, stream.clients.catalog, price, past)

    def takes_long(self, team: Team) -> bool:
        """Whether an event loop should not wait for plans."""
        return self._stream.takes_long(team)

    @contextmanager
    def on_backbones(self, run: Run, plan: Plan, found: Found) -> Generator[None]:
        """Every call of the agents on its planned backbone, under the meter."""
        run.plan = plan
        catalog = self._stream.clients.catalog
        used = {name for name in plan.assignment.values() if name is not None}
        # Who is not expected to call may sum up a chat inside.
        spare = min(used or catalog, key=lambda name: catalog[name].cost(1000, 500))
        makers = {
            name: self._maker(run, name, plan.assignment.get(name) or spare)
            for name, agent in found.agents.items()
            if agent.client is not None or isinstance(agent, GroupChatManager)
        }
        agents = {name: (found.agents[name], make) for name, make in makers.items()}
        chats = [
            (chat, makers[name]) for name, each in found.managers for chat in chats_run_by(each)
        ]
        with dressed(agents, chats):
            yield

    def _maker(self, run: Run, name: str, backbone: str) -> MakeClient:
        clients, agent = self._stream.clients, run.team.agent(name)
        order = (backbone,)
        if agent.backbone is None:
            outages = run.meter.outages
            others = standbys(clients.catalog, backbone, agent.needs, outages.lately)
            order = outages.order(name, (backbone, *others))
        return partial(BudgetWrapper, Caller(name, order, clients, run))

    def _end(self, run: Run) -> None:
        run.meter.close()
        self.report = run.report()
        if run.plan is not None:
            run.habits.note_calls(
                run.plan,
                run.meter.calls,
                told=run.told,
                denied=denied_tokens(run.meter),
                complete=run.complete,
                goes_on=run.goes_on,
            )


def _read(message: Message) -> tuple[str, int]:
    """A message's text, and how many pictures it has."""
    content: Any = message if isinstance(message, str) else message.get("content")
    if content is None or isinstance(content, str):
        return content or "", 0
    parts = cast("Sequence[Any]", content)
    texts = [part if isinstance(part, str) else str(part.get("text") or "") for part in parts]
    images = sum(not isinstance(part, str) and "image" in str(part.get("type")) for part in parts)
    return "\n".join(text for text in texts if text), images


def _for(images: int, team: Team) -> Team:
    return team.needing("vision") if images else team


def _bytes_said(chat: GroupChat) -> int:
    """What was said before, which prompts hold beside the task."""
    return sum(size(_read(message)[0]) for message in chat.messages)


def _past(habits: Habits, said: int, images: int) -> Past:
    return past_of(habits.work, habits.comparable, said, images, with_extra=not said)
