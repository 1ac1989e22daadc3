"""The builder and the compiled graph that `balance` makes."""

from __future__ import annotations

import copy as copying
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.graph import Graph
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained, GraphInterrupt
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import StateUpdate

from agentbalance_plugin.adapters.explaining import TaskExplanation, explain_task
from agentbalance_plugin.adapters.langgraph.deadline import Deadline
from agentbalance_plugin.adapters.langgraph.history import Found, aresumed, resumed
from agentbalance_plugin.adapters.langgraph.internals import namespace_of
from agentbalance_plugin.adapters.langgraph.layout import Layout
from agentbalance_plugin.adapters.langgraph.plan_graph import plan_graph
from agentbalance_plugin.adapters.langgraph.report import Reports
from agentbalance_plugin.adapters.langgraph.run import GRAPH, Caller, OutOfBudget, calling
from agentbalance_plugin.adapters.langgraph.session import (
    Session,
    inherits,
    new_task_write,
    nothing_to_resume,
)
from agentbalance_plugin.adapters.langgraph.stored import entering
from agentbalance_plugin.adapters.planning import past_of
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.learned import learn, learned_of
from agentbalance_plugin.runtime.report import RunReport

_AnyCompiled = CompiledStateGraph[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Shared:
    """What a compiled graph and its copies share.

    Args:
        stock: compiles the user's own graph, as it would be without a budget.
    """

    layout: Layout
    reports: Reports
    stock: Callable[[], _AnyCompiled]


class BalancedGraph(_AnyCompiled):
    """A compiled graph each run of which has a budget.

    Inside another balanced graph, or a tool of a BudgetMiddleware's agent, it is part of that run
    and has no budget of its own.
    """

    shared: Shared

    @property
    def report(self) -> RunReport:
        """Of the last run that ended (RuntimeError: none has)."""
        return self.shared.reports.last

    def report_of(self, config: RunnableConfig) -> RunReport:
        """Of the last run that had this config's run_id, or that was on its thread.

        Raises:
            KeyError: there is none, or it is too old (the last few hundred are kept).
        """
        return self.shared.reports.of(config)

    def explain(self, task: str) -> TaskExplanation:
        """What would be planned for a task now, why, and what other budgets would buy.

        No backbone is called and the next run is not changed. The plan is that of the budget as it
        was given: a run of an average may find less in hand, and a call may override it.

        Args:
            task: its text, as a run would find it in the state.

        Raises:
            ValueError: the budget affords no call at all, or `task` is no text.
            PlanError: the planner's plan can't be run.
        """
        if not isinstance(task, str):
            raise ValueError(f"task must be the text of a task, got {task!r}")
        layout = self.shared.layout
        settings = layout.settings
        pacer, work = settings.pacer(layout.team), layout.habits.work
        return explain_task(
            settings.planner,
            task,
            layout.team,
            settings.budget,
            settings.models.catalog,
            price_usd=None if pacer is None else pacer.price_usd,
            past=past_of(work, layout.habits.comparable, 0, with_extra=True),
            finish=lambda plan: layout.in_steps(plan)[0],
        )

    @property
    def learned(self) -> dict[str, Any]:
        """What runs have taught so far, as JSON values: for `learn` of the graph that serves
        next."""
        layout = self.shared.layout
        return learned_of(layout.habits, layout.settings.pacer(layout.team))

    def learn(self, learned: Mapping[str, Any]) -> None:
        """Go on from what another graph of such agents had learned, in place of what this one has.

        Of a mean, where its price had settled is taken on, and no money that was left over: every
        process that learned the same would spend it.

        Raises:
            ValueError: it is not what `learned` gives, naming the field and its value.
        """
        layout = self.shared.layout
        learn(learned, layout.habits, layout.settings.pacer(layout.team))

    def get_graph(
        self,
        config: RunnableConfig | None = None,
        *,
        xray: int | bool = False,
        plan: Plan | None = None,
    ) -> Graph:
        """The user's graph, to be drawn.

        Args:
            config, xray: as for `CompiledStateGraph.get_graph`.
            plan: draw this plan instead, for example `report.plan`.
        """
        if plan is not None:
            return plan_graph(plan)
        if self.shared.layout.messages is None:
            return super().get_graph(config, xray=xray)
        return self.shared.stock().get_graph(config, xray=xray)

    async def aget_graph(
        self,
        config: RunnableConfig | None = None,
        *,
        xray: int | bool = False,
        plan: Plan | None = None,
    ) -> Graph:
        """As `get_graph`."""
        if plan is not None:
            return plan_graph(plan)
        if self.shared.layout.messages is None:
            return await super().aget_graph(config, xray=xray)
        return await self.shared.stock().aget_graph(config, xray=xray)

    def copy(self, update: dict[str, Any] | None = None) -> BalancedGraph:
        made = copying.copy(self)
        vars(made).update(update or {})
        return made

    def stream(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        control: RunControl | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """`CompiledStateGraph.stream` under the budget.

        Raises:
            ValueError: the budget affords no call at all.
            BudgetExceeded: with `on_exceeded="raise"`; carries the report.
        """
        session = self._session(input, config, context, control)
        if session is None:
            yield from super().stream(input, config, context=context, control=control, **options)
            return
        saver = session.saver
        found = Found()
        if saver and session.resumes:
            found = resumed(saver, session.config, session.thread)
        run = session.open(found)
        config = self._with_room(config)
        items: Any = super().stream(input, config, context=context, control=run.control, **options)
        inside = calling(Caller(run, GRAPH))
        try:
            with closing(items):
                while True:
                    with inside:
                        item = next(items, _END)
                    if item is _END:
                        run.ended = True
                        break
                    yield item
        except OutOfBudget as stop:
            run.stopped = stop.denial
        except GraphDrained:
            # The user's own wish to drain is the user's to hear of.
            if run.stopped is None:
                raise
        except GraphInterrupt:
            # A subgraph of a stock graph waits to be resumed.
            raise
        except Exception as error:
            run.fail(error)
            raise
        finally:
            run.meter.close()
            with session.closing():
                if saver is not None and session.keeps_state:
                    snapshot = self.get_state(session.thread)
                    if session.stayed(snapshot):
                        snapshot = self.get_state(session.config)
                    if (write := session.spend_write(snapshot)) is not None:
                        saver.put_writes(*write)
        session.raise_if_wanted()

    async def astream(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        control: RunControl | None = None,
        **options: Any,
    ) -> AsyncIterator[Any]:
        """As `stream`; at the deadline what still runs is cancelled."""
        session = self._session(input, config, context, control)
        if session is None:
            inner: Any = super().astream(input, config, context=context, control=control, **options)
            async with aclosing(inner):
                async for item in inner:
                    yield item
            return
        saver = session.saver
        found = Found()
        if saver and session.resumes:
            found = await aresumed(saver, session.config, session.thread)
        await session.aready()
        run = session.open(found)
        config = self._with_room(config)
        items: Any = super().astream(input, config, context=context, control=run.control, **options)
        inside = calling(Caller(run, GRAPH))
        deadline = Deadline(run.meter)
        try:
            async with aclosing(items):
                while True:
                    with inside:
                        item = await deadline.next(items, _END)
                    if item is _END:
                        run.ended = True
                        break
                    yield item
        except OutOfBudget as stop:
            run.stopped = stop.denial
        except GraphDrained:
            if run.stopped is None:
                raise
        except GraphInterrupt:
            # A subgraph of a stock graph waits to be resumed.
            raise
        except Exception as error:
            run.fail(error)
            raise
        finally:
            deadline.close()
            run.meter.close()
            with session.closing():
                if saver is not None and session.keeps_state:
                    snapshot = await self.aget_state(session.thread)
                    if session.stayed(snapshot):
                        snapshot = await self.aget_state(session.config)
                    if (write := session.spend_write(snapshot)) is not None:
                        await saver.aput_writes(*write)
        session.raise_if_wanted()

    def bulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """`CompiledStateGraph.bulk_update_state`; an update that leaves nothing to do ends the
        thread's task, and one after that begins a new task."""
        saver, here = self._threads(config)
        over = saver is not None and nothing_to_resume(saver.get_tuple(here))
        with entering(over):
            updated = super().bulk_update_state(config, supersteps)
        if saver is not None and (over or not self.get_state(updated).next):
            saver.put_writes(*new_task_write(updated))
        return updated

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """As `bulk_update_state`."""
        saver, here = self._threads(config)
        over = saver is not None and nothing_to_resume(await saver.aget_tuple(here))
        with entering(over):
            updated = await super().abulk_update_state(config, supersteps)
        if saver is not None and (over or not (await self.aget_state(updated)).next):
            await saver.aput_writes(*new_task_write(updated))
        return updated

    def _threads(
        self, config: RunnableConfig
    ) -> tuple[BaseCheckpointSaver[Any] | None, RunnableConfig]:
        """What keeps the threads of this graph, and a config as it knows it; None where the config
        is of a part of a run, which has no task of its own."""
        full = merge_configs(ensure_config(), self.config, config)
        saver = cast("object", self.checkpointer)
        known = isinstance(saver, BaseCheckpointSaver) and not namespace_of(full)
        return (cast("BaseCheckpointSaver[Any]", saver) if known else None), full

    def _with_room(self, config: RunnableConfig | None) -> RunnableConfig | None:
        """A limit of steps that the user set for the user's edges, for those of any plan: each
        agent may take a step of its own, with a hidden one before it."""
        limit = (config or {}).get("recursion_limit") or (self.config or {}).get("recursion_limit")
        if limit is None or self.shared.layout.messages is None:
            return config
        more = 2 * len(self.shared.layout.team.names)
        return cast("RunnableConfig", {**(config or {}), "recursion_limit": limit + more})

    def _session(
        self,
        input: object,
        config: RunnableConfig | None,
        context: object,
        control: RunControl | None,
    ) -> Session | None:
        """None inside what has a budget already."""
        full = merge_configs(ensure_config(), self.config, config)
        if inherits(full):
            return None
        shared = self.shared
        return Session(
            shared.layout,
            shared.reports,
            cast("object", self.checkpointer),
            input,
            full,
            context,
            control,
        )


_END = object()
