"""From the call of a balanced graph to its report: opening and closing a run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.runtime import RunControl
from langgraph.types import Command, StateSnapshot

from agentbalance_plugin.adapters.langgraph import astray
from agentbalance_plugin.adapters.langgraph.history import Found
from agentbalance_plugin.adapters.langgraph.internals import (
    control_of,
    is_resuming,
    lent_saver,
    namespace_of,
    one_history,
    thread_of,
)
from agentbalance_plugin.adapters.langgraph.layout import Layout
from agentbalance_plugin.adapters.langgraph.options import overrides_of
from agentbalance_plugin.adapters.langgraph.planning import allot, learn_from
from agentbalance_plugin.adapters.langgraph.report import Reports, make_report
from agentbalance_plugin.adapters.langgraph.run import Run, caller_of
from agentbalance_plugin.adapters.langgraph.stored import (
    NO_TASK,
    SPEND,
    TASK,
    StoredTask,
    checkpoint_id,
    spend_value,
    stored_task,
    task_value,
)
from agentbalance_plugin.budget import NANODOLLARS_PER_USD, Budget, Spend
from agentbalance_plugin.runtime.pacing import Pacer, Ticket
from agentbalance_plugin.runtime.report import BudgetExceeded


class Session:
    """One call of a balanced graph.

    Args:
        layout: of the graph.
        reports: where its report goes.
        saver: the graph's own checkpointer, if any; True for one history in its parent's, False
            for none there either.
        input: of the call; None and Commands resume.
        config: of the call, merged with the graph's and the context's.
        context: of the call.
        control: of the call.
    """

    def __init__(
        self,
        layout: Layout,
        reports: Reports,
        saver: object,
        input: object,
        config: RunnableConfig,
        context: object,
        control: RunControl | None,
    ) -> None:
        self._layout = layout
        self._reports = reports
        self._config = one_history(config) if saver is True else config
        self._overrides = overrides_of(config, context)
        self._outer = control if control is not None else control_of(config)
        lent = None if saver is False else lent_saver(config)
        self._is_root = lent is None
        self.saver: BaseCheckpointSaver[Any] | None = lent or (
            saver if isinstance(saver, BaseCheckpointSaver) else None
        )
        thread = (config.get("configurable") or {}).get("thread_id")
        if thread is None:
            # LangGraph itself says what is missing.
            self.saver = None
        self.resumes = input is None or isinstance(input, Command) or is_resuming(config)
        self._run: Run | None = None
        self._ticket: tuple[Pacer, Ticket] | None = None
        self._waits_at: tuple[str, ...] = ()
        self._began_at: str | None = None
        self._latest: str | None = None

    @property
    def run(self) -> Run:
        assert self._run is not None
        return self._run

    @property
    def config(self) -> RunnableConfig:
        """As it was called: which checkpoint, on which thread."""
        return self._config

    @property
    def thread(self) -> RunnableConfig:
        """The thread, at whatever checkpoint it has reached."""
        return thread_of(self._config)

    @property
    def keeps_state(self) -> bool:
        """Whether there is a state to look at when the run has ended.

        What a subgraph of a stock graph spent is in its last checkpoint, if it came to its end.
        """
        return self.saver is not None and (self._is_root or not self.run.ended)

    async def aready(self) -> None:
        """Look for the price of a mean that no call had before, beside the event loop."""
        settings, team, budget = self._layout.settings, self._layout.team, self._overrides.budget
        if budget is not None and not settings.knows_pacer(team, budget):
            await asyncio.to_thread(settings.pacer, team, budget)

    def open(self, found: Found) -> Run:
        """Start the run, where a resumed task left off.

        Raises:
            ValueError: it was written by a graph of other agents or another layout, in which
                nodes that wait to run would silently be lost.
        """
        layout = self._layout
        settings, team = layout.settings, layout.team
        saved, task, self._latest = found
        self._began_at = None if saved is None else checkpoint_id(saved.config)
        if task is not None:
            _check_same_graph(task, layout)
        before = task.books.total if task is not None else Spend()
        budget, price = self._overrides.budget, None
        if (pacer := settings.pacer(team, budget)) is not None:
            ticket = pacer.start()
            self._ticket, price = (pacer, ticket), ticket.price_usd
            most = cast("float", pacer.budget.cost_usd)
            budget = _with_more(ticket.budget, before, most)
        if budget is None:
            budget = task.budget if task is not None else settings.budget
        run = self._run = Run(
            models=settings.models,
            team=team,
            budget=budget,
            planner=self._overrides.planner or settings.planner,
            clock=settings.clock,
            namespace=namespace_of(self._config),
            plans_beside=self._plans_beside,
            price_usd=price,
            number=task.number if task is not None else None,
            plan=task.plan if task is not None else None,
            steps=task.steps if task is not None else None,
            before=task.books if task is not None else None,
            stored=self.saver is not None,
            habits=layout.habits,
        )
        run.control.outer = self._outer
        if task is not None:
            run.over = run.before.agents.keys() - set(task.due)
            allot(run, [name for name in layout.certain if name not in run.over], 0)
        astray.begin(run)
        return run

    @property
    def _plans_beside(self) -> bool:
        overrides = self._overrides
        # A price may have to be found for the budget, and the policy may not know the team.
        changed = overrides.planner is not None or overrides.budget is not None
        return changed or self._layout.plans_beside

    def stayed(self, latest: StateSnapshot) -> bool:
        """Whether the run is where it was called, at an earlier checkpoint than the thread's last:
        an answered question, say, whose node then failed.

        Args:
            latest: the state of the thread as the run ends.
        """
        return self._latest != self._began_at and self._latest == checkpoint_id(latest.config)

    def spend_write(self, snapshot: StateSnapshot) -> tuple[RunnableConfig, list[Any], str] | None:
        """What keeps the plan, and the spend of nodes that did not finish: arguments of
        `put_writes`.

        Args:
            snapshot: the state that the run has left.
        """
        run = self.run
        self._waits_at = snapshot.next
        reached = checkpoint_id(snapshot.config)
        if reached is None:
            return None
        # Where no step has ended yet, LangGraph does not see the nodes that a command sent to.
        over = not snapshot.tasks and reached != self._began_at
        writes: list[Any] = [(SPEND, spend_value(run, snapshot.next, over=over))]
        if run.plan is not None and not over:
            # The channel has it only of runs that passed START.
            writes.append((TASK, task_value(run, self._layout.mode)))
        return snapshot.config, writes, _task_id()

    @contextmanager
    def closing(self) -> Generator[None]:
        """Close the run when the block ends, even if the checkpointer fails in it."""
        try:
            yield
        except Exception as error:
            self.run.fail(error)
            raise
        finally:
            self._close()

    def _close(self) -> None:
        """Make the report, whether the run finished, failed or was left."""
        run = self.run
        astray.end(run)
        report = self.report = make_report(run, self._waits_at)
        self._reports.add(report, self._config)
        learn_from(run)
        if self._ticket is not None:
            pacer, ticket = self._ticket
            pacer.settle(ticket, report.spend.nanodollars - run.before.total.nanodollars)

    def raise_if_wanted(self) -> None:
        """BudgetExceeded, if the budget left something undone and the user asked for it."""
        if self.run.exceeded and self.run.budget.on_exceeded == "raise":
            raise BudgetExceeded(self.report)


def inherits(config: RunnableConfig) -> bool:
    """Whether a graph runs inside what has a budget already."""
    return caller_of(config) is not None


def nothing_to_resume(saved: CheckpointTuple | None) -> bool:
    """Whether what goes on at a checkpoint is a new task, and the one before it is over."""
    return saved is not None and stored_task(saved) is None


def new_task_write(config: RunnableConfig) -> tuple[RunnableConfig, list[Any], str]:
    """What lets a new task begin at the checkpoint of a config: arguments of `put_writes`."""
    return config, [(TASK, NO_TASK)], _task_id()


def _task_id() -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"agentbalance:{uuid.uuid4()}"))


def _check_same_graph(task: StoredTask, layout: Layout) -> None:
    if task.mode != layout.mode:
        raise ValueError(
            f"mode: this thread was begun by a graph planned with mode={task.mode!r}, this one has "
            f"{layout.mode!r}; compile it with mode={task.mode!r} to resume"
        )
    if unknown := [name for name in task.plan.assignment if name not in layout.team.names]:
        raise ValueError(
            f"agents: this thread's plan has {unknown}, which are no agents of this graph; resume "
            "it with the graph that began it"
        )


def _with_more(budget: Budget, before: Spend, most: float) -> Budget:
    """The caps of a resumed task: what it has spent and what this part may spend."""
    spent = before.nanodollars / NANODOLLARS_PER_USD
    return replace(budget, cost_usd=min(most, cast("float", budget.cost_usd) + spent))
