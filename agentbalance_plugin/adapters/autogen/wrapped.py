"""What every wrapped chat has: a budget for each run, a report after it, AutoGen's own types."""

from __future__ import annotations

import asyncio
import weakref
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from autogen_agentchat.base import TaskResult, Team
from autogen_agentchat.messages import (
    BaseChatMessage,
    ModelClientStreamingChunkEvent,
    TextMessage,
)
from autogen_agentchat.teams import BaseGroupChat
from autogen_core import CancellationToken

from agentbalance_plugin import team as neutral
from agentbalance_plugin.adapters.autogen.conversation import images_in
from agentbalance_plugin.adapters.autogen.endpoints import Clients
from agentbalance_plugin.adapters.autogen.run import Event, Run
from agentbalance_plugin.adapters.covered import OwnBudget
from agentbalance_plugin.adapters.explaining import TaskExplanation, explain_task
from agentbalance_plugin.adapters.planning import (
    aplan_task,
    bytes_kept,
    check_affordable,
    denied_tokens,
    past_of,
)
from agentbalance_plugin.adapters.stream import Stream
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.knobs import Past
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.habits import Work
from agentbalance_plugin.runtime.learned import learn, learned_of
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.pacing import Ticket
from agentbalance_plugin.runtime.report import BudgetExceeded, RunReport

Task = str | BaseChatMessage | Sequence[BaseChatMessage] | None

_REPORTS_KEPT = 256


@dataclass(frozen=True)
class Wiring:
    """What every wrapped chat is made of.

    Args:
        name, description: of the chat that is wrapped.
        team: its agents, for the planner.
        stream: what it shares with others.
        again: wraps another chat of that stream.
        rounds: how often a run goes through all agents, as far as is known.
    """

    name: str
    description: str
    team: neutral.Team
    stream: Stream[Clients]
    again: Callable[[BaseGroupChat], WrappedTeam]
    rounds: float = 1.0


class WrappedTeam(OwnBudget, Team):
    """A chat under a budget; subclasses say how a run goes."""

    component_type = "team"

    def __init__(self, wiring: Wiring) -> None:
        self._name = wiring.name
        self._description = wiring.description
        self._team = wiring.team
        stream = wiring.stream
        self._clients = stream.clients
        self._catalog = stream.clients.catalog
        self._budget = stream.budget
        self._planner = stream.planner
        self._clock = stream.clock
        self._again = wiring.again
        self._rounds = wiring.rounds
        self._slow = stream.takes_long(self._team)
        self._pacer = stream.pacer(self._team)
        self._habits = stream.habits(self._team)
        self._forget()
        self._last_report: RunReport | None = None
        self._reports: OrderedDict[int, tuple[weakref.ref[TaskResult], RunReport]] = OrderedDict()

    def _forget(self) -> None:
        """Nothing was said before."""
        self._remember(0, 0)

    def _remember(self, beside_bytes: int, images: int) -> None:
        """What was said before takes of prompts, and how many pictures there were."""
        self._beside_bytes, self._images = beside_bytes, images

    @property
    def name(self) -> str:
        return self._name

    @property
    def description(self) -> str:
        return self._description

    @property
    def report(self) -> RunReport:
        """Of the last run that ended.

        Raises:
            RuntimeError: none has.
        """
        if self._last_report is None:
            raise RuntimeError("no run has ended yet, so there is no report")
        return self._last_report

    def report_of(self, result: TaskResult) -> RunReport:
        """Of the run that returned this very result (the last few hundred are kept).

        Raises:
            KeyError: not a result of this team, or too old.
        """
        reference, report = self._reports.get(id(result), (None, None))
        if reference is None or report is None or reference() is not result:
            raise KeyError("no report is kept for this result")
        return report

    async def run(
        self,
        *,
        task: Task = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
    ) -> TaskResult:
        """Run the team on a task under the budget.

        Raises:
            ValueError: the budget affords no call at all, or the task is no task.
            BudgetExceeded: with `on_exceeded="raise"`; carries the report.
            PlanError: the planner's plan can't be run.
        """
        result: TaskResult | None = None
        stream = self.run_stream(
            task=task,
            cancellation_token=cancellation_token,
            output_task_messages=output_task_messages,
        )
        async for item in stream:
            if isinstance(item, TaskResult):
                result = item
        assert result is not None
        return result

    async def run_stream(
        self,
        *,
        task: Task = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
    ) -> AsyncGenerator[Event | TaskResult, None]:
        """`run`, yielding messages and events as they come and the TaskResult last."""
        messages = _as_messages(task)
        token = cancellation_token or CancellationToken()
        ticket = self._pacer.start() if self._pacer is not None else None
        budget = ticket.budget if ticket else self._budget
        run = Run(
            budget=budget,
            meter=Meter(budget, clock=self._clock, downtimes=self._clients.downtimes),
            price_usd=ticket.price_usd if ticket else None,
        )
        try:
            async with aclosing(self._events(run, messages, token)) as events:
                if output_task_messages:
                    for message in messages:
                        run.output.append(message)
                        yield message
                async for event in events:
                    if not isinstance(event, ModelClientStreamingChunkEvent):
                        run.output.append(event)
                    yield event
        finally:
            self._end(run, ticket)
        assert run.report is not None
        if self._remembers(run):
            said = images_in({id(each): each for each in (*messages, *run.output)}.values())
            size = bytes_kept(run.meter.calls, self._catalog, self._team)
            self._remember(size, self._images + said)
        if run.exceeded and run.budget.on_exceeded == "raise":
            raise BudgetExceeded(run.report)
        result = TaskResult(messages=run.output, stop_reason=run.stop_reason)
        self._reports[id(result)] = (weakref.ref(result), run.report)
        while len(self._reports) > _REPORTS_KEPT:
            self._reports.popitem(last=False)
        yield result

    def explain(self, task: Task) -> TaskExplanation:
        """What would be planned for a task now, why, and what other budgets would buy.

        No backbone is called and the next run is not changed. The plan is that of the budget as it
        was given: a run of an average may find less in hand.

        Raises:
            ValueError: as `run`.
            PlanError: the planner's plan can't be run.
        """
        query, team, images = self._read(_as_messages(task))
        return explain_task(
            self._planner,
            query,
            team,
            self._budget,
            self._catalog,
            images=images,
            price_usd=None if self._pacer is None else self._pacer.price_usd,
            past=self._past_of(self._habits.work, images),
            part=partial(_of_one, self._rounds),
            finish=partial(_of_all, self._rounds),
        )

    @property
    def learned(self) -> dict[str, Any]:
        """What runs have taught so far, as JSON values: for `learn` of the team that serves these
        agents next."""
        return learned_of(self._habits, self._pacer)

    def learn(self, learned: Mapping[str, Any]) -> None:
        """Go on from what another team of such agents had learned, in place of what this one has.

        Of a mean, where its price had settled is taken on, and no money that was left over: every
        process that learned the same would spend it.

        Raises:
            ValueError: it is not what `learned` gives, naming the field and its value.
        """
        learn(learned, self._habits, self._pacer)

    def another(self, chat: BaseGroupChat) -> WrappedTeam:
        """Wrap another chat as this one was, for another conversation of the same service.

        It has its own state and reports. Backbones, their clients, the policy, the mean of
        `Budget.average` and what earlier runs of the same agents taught are those of this team, and
        nothing is loaded again.

        Raises:
            ValueError: the chat can't be wrapped so: the decider is not in it, say.
        """
        return self._again(chat)

    async def close(self) -> None:
        """Close the model clients that were made from the catalog, of chats wrapped by `another`
        too; clients you made stay open.

        The team can still be used: clients are made again when they are needed.
        """
        await self._clients.close()

    @abstractmethod
    def _events(
        self, run: Run, messages: list[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[Event, None]:
        """The run itself: plan, run, yield what happens, leave `run` filled in."""

    @abstractmethod
    def _make_report(self, run: Run) -> RunReport:
        """The report of a run that has ended, however it did."""

    async def _plan(self, run: Run, messages: Sequence[BaseChatMessage]) -> Plan:
        """A valid plan, made before any call (ValueError: nothing is affordable)."""
        query, team, images = self._read(messages)
        check_affordable(self._budget, self._catalog, query, images)
        beside = self._slow or team is not self._team
        budget = _of_one(self._rounds, run.budget)
        run.told, run.goes_on = self._habits.work, bool(self._beside_bytes)
        run.in_turn = team.fixed_edges is not None
        plan = await aplan_task(
            self._planner,
            query,
            team,
            budget,
            self._catalog,
            run.price_usd,
            self._past_of(run.told, images),
            beside=beside,
        )
        run.plan = plan = _of_all(self._rounds, plan)
        return plan

    def _past_of(self, work: Work, images: int) -> Past:
        # The last prompts of the run before held all there is beside their task.
        before = self._beside_bytes
        images += self._images
        return past_of(work, self._habits.comparable, before, images, with_extra=not before)

    def _remembers(self, run: Run) -> bool:
        """Whether the next run goes on from this one, which has come to an end."""
        return True

    def _read(self, messages: Sequence[BaseChatMessage]) -> tuple[str, neutral.Team, int]:
        """The task as text, the team with what it needs, and how many images there are."""
        query = "\n".join(message.to_model_text() for message in messages)
        images = images_in(messages)
        # Of what was said before, one that can't see would be told nothing.
        shown = images or (self._images and self._catalog.offers("vision"))
        return query, self._team.needing("vision") if shown else self._team, images

    def _end(self, run: Run, ticket: Ticket | None) -> None:
        """Close the books and make the report, whether the run finished, failed or was left."""
        run.meter.close()
        run.report = self._last_report = self._make_report(run)
        if run.told is not None and run.plan is not None:
            self._habits.note_calls(
                run.plan,
                run.meter.calls,
                told=run.told,
                denied=denied_tokens(run.meter),
                rounds=self._rounds,
                complete=run.stop_reason is not None and not run.exceeded,
                goes_on=run.goes_on,
            )
        if ticket is not None and self._pacer is not None:
            self._pacer.settle(ticket, run.report.spend.nanodollars)


def _of_one(rounds: float, budget: Budget) -> Budget:
    """What a plan of one round may take of a run's budget."""
    if rounds == 1:
        return budget

    def part(cap: float | None) -> float | None:
        return None if cap is None else max(cap / rounds, 1e-9)

    return replace(
        budget,
        cost_usd=part(budget.cost_usd),
        mean_cost_usd=part(budget.mean_cost_usd),
        latency_s=part(budget.latency_s),
        tokens=None if budget.tokens is None else max(1, int(budget.tokens / rounds)),
    )


def _of_all(rounds: float, plan: Plan) -> Plan:
    """The plan, with what is expected of all rounds."""
    one = plan.expected
    if rounds == 1 or one is None:
        return plan
    return replace(
        plan,
        expected=replace(one, cost_usd=one.cost_usd * rounds, latency_s=one.latency_s * rounds),
    )


def start_driver(
    work: Coroutine[Any, Any, None], queue: asyncio.Queue[Event | None], token: CancellationToken
) -> asyncio.Task[None]:
    """Start what puts events into a queue; None ends it, even if `work` is cancelled before its
    first step."""
    driver = asyncio.create_task(work)
    driver.add_done_callback(lambda _: queue.put_nowait(None))
    token.link_future(driver)
    return driver


async def next_event(
    queue: asyncio.Queue[Event | None], driver: asyncio.Task[None]
) -> Event | None:
    """The next event of a driver; None after the last, or its error if it failed."""
    event = await queue.get()
    if event is None:
        await driver
    return event


def _as_messages(task: Task) -> list[BaseChatMessage]:
    """The task as AutoGen's own teams read it, with their errors."""
    if task is None:
        return []
    if isinstance(task, str):
        return [TextMessage(content=task, source="user")]
    if isinstance(task, BaseChatMessage):
        return [task]
    if not isinstance(task, Sequence):
        raise ValueError("Task must be a string, a BaseChatMessage, or a list of BaseChatMessage.")
    if not task:
        raise ValueError("Task list cannot be empty.")
    for message in cast("Sequence[object]", task):
        if not isinstance(message, BaseChatMessage):
            raise ValueError("All messages in task list must be valid BaseChatMessage types")
    return list(task)
