"""A budget for an agent of `create_agent`, in one line and without a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ModelRequest,
    PrivateStateAttr,
)
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig, ensure_config
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime, get_runtime

from agentbalance_plugin.adapters.langgraph.astray import under_way
from agentbalance_plugin.adapters.langgraph.interception import intercept
from agentbalance_plugin.adapters.langgraph.internals import control_of
from agentbalance_plugin.adapters.langgraph.kept_runs import KeptRuns
from agentbalance_plugin.adapters.langgraph.models import Backbones
from agentbalance_plugin.adapters.langgraph.options import Settings
from agentbalance_plugin.adapters.langgraph.planning import (
    QueryReader,
    amake_plan,
    learn_from,
    make_plan,
)
from agentbalance_plugin.adapters.langgraph.report import Reports, make_report
from agentbalance_plugin.adapters.langgraph.run import (
    Books,
    Caller,
    OutOfBudget,
    Run,
    caller_of,
    calling,
    told,
)
from agentbalance_plugin.adapters.langgraph.stored import (
    furthest,
    spend_value,
    task_from,
    task_value,
)
from agentbalance_plugin.adapters.planning import Planner, takes_long
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.runtime.habits import Habits
from agentbalance_plugin.runtime.learned import learn, learned_of
from agentbalance_plugin.runtime.report import BudgetExceeded, RunReport
from agentbalance_plugin.team import Agent, Team

_AGENT = "agent"


class BudgetState(AgentState[Any]):
    """What the middleware keeps in the agent's checkpoints; JSON values only."""

    agentbalance_task: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]]
    agentbalance_spend: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, furthest]]


class BudgetMiddleware(AgentMiddleware[BudgetState, Any, Any]):
    """`create_agent(model, tools, middleware=[BudgetMiddleware(budget=...)])`.

    Each run of the agent has a budget and a backbone chosen for its task; models called inside
    tools are in the budget too. When it runs out the agent stops with a message that says so; a
    tool whose model it has no room for gives such a message instead of its result.
    Inside a balanced graph the agent is part of that graph's run. Calls that other middleware makes
    by itself, to summarise, say, are out of reach: compile the agent under `balanced(...)` to have
    them in the budget.

    Args:
        budget: hard caps of each run.
        backbones, policy, query, clock: as for `balance`.
        needs: capabilities that the agent's backbone must have; tools by default.

    Raises:
        ValueError: an argument that can't work, named with its value and the fix.
    """

    state_schema = BudgetState

    def __init__(
        self,
        *,
        budget: Budget,
        backbones: Backbones = "backbones.yaml",
        policy: str | Path | Planner = "default",
        query: QueryReader | None = None,
        clock: Clock | None = None,
        needs: frozenset[str] = frozenset({"text", "tools"}),
    ) -> None:
        super().__init__()
        self._settings = Settings.of(
            budget=budget,
            backbones=backbones,
            policy=policy,
            mode="backbones",
            agents=None,
            query=query,
            answer=None,
            clock=clock,
        )
        if budget.mean_cost_usd is not None:
            raise ValueError(
                "budget: BudgetMiddleware takes hard caps; for an average over runs balance a graph"
            )
        catalog = self._settings.models.catalog
        if not any(needs <= backbone.capabilities for backbone in catalog.values()):
            raise ValueError(
                f"needs: no backbone has {sorted(needs)}; add them to the capabilities of the "
                "backbones that have them"
            )
        self._team = Team((Agent(_AGENT, needs=needs),), fixed_edges=())
        planner = self._settings.planner
        self._plans_beside = takes_long(planner, self._team, budget, catalog)
        self._reports = Reports()
        self._habits = Habits()
        self._runs = KeptRuns()
        intercept()

    @property
    def report(self) -> RunReport:
        """Of the last run; where it has not ended, of what it did so far (RuntimeError: there was
        none)."""
        return self._reports.last

    def report_of(self, config: RunnableConfig) -> RunReport:
        """As `report`, of the last run with this config's run_id, or on its thread (KeyError: none
        is kept)."""
        return self._reports.of(config)

    @property
    def learned(self) -> dict[str, Any]:
        """What runs have taught so far, as JSON values: for `learn` of the middleware that serves
        next."""
        return learned_of(self._habits, None)

    def learn(self, learned: Mapping[str, Any]) -> None:
        """Go on from what another middleware had learned, in place of what this one has
        (ValueError: it is not what `learned` gives, naming the field and its value)."""
        learn(learned, self._habits, None)

    def before_agent(self, state: BudgetState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Plan the task, before any call."""
        if caller_of(None) is not None:
            return None
        run = self._runs.keep(self._new_run())
        make_plan(run, state, self._settings.query)
        return self._begun(run)

    async def abefore_agent(
        self, state: BudgetState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """As `before_agent`."""
        if caller_of(None) is not None:
            return None
        run = self._runs.keep(self._new_run())
        await amake_plan(run, state, self._settings.query)
        return self._begun(run)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        """The agent's call, on its backbone and under its budget."""
        run = self._run_of(request.state)
        if run is None:
            return handler(request)
        self._plan_late(run, request.state)
        try:
            with self._calling(run, _AGENT):
                return handler(request)
        except OutOfBudget as stop:
            return self._stopped(run, stop)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """As `wrap_model_call`."""
        run = self._run_of(request.state)
        if run is None:
            return await handler(request)
        if run.plan is None:
            await asyncio.to_thread(self._plan_late, run, request.state)
        try:
            with self._calling(run, _AGENT):
                return await handler(request)
        except OutOfBudget as stop:
            return self._stopped(run, stop)

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """A tool; models it calls are on the cheapest able backbone, under the agent's budget."""
        run = self._run_of(request.state)
        if run is None:
            return handler(request)
        try:
            with self._calling(run, request.tool_call["name"]):
                return handler(request)
        except OutOfBudget as stop:
            return self._left_out(run, stop, request.tool_call)

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """As `wrap_tool_call`."""
        run = self._run_of(request.state)
        if run is None:
            return await handler(request)
        try:
            with self._calling(run, request.tool_call["name"]):
                return await handler(request)
        except OutOfBudget as stop:
            return self._left_out(run, stop, request.tool_call)

    def after_model(self, state: BudgetState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Put the spend so far into the checkpoint."""
        run = self._run_of(state)
        if run is None:
            return None
        # The code of other middleware may end the run, which nobody says here.
        if state.get("agentbalance_task") or run.plan is None:
            self._reported(run)
            return {"agentbalance_spend": spend_value(run)}
        return self._begun(run)

    def after_agent(self, state: BudgetState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Make the report."""
        run = self._run_of(state)
        if run is None:
            return None
        run.ended = True
        if run.stopped is None:
            run.spoke(_AGENT)
        run.meter.close()
        report = self._reported(run)
        learn_from(run)
        self._runs.drop(run)
        if run.exceeded and run.budget.on_exceeded == "raise":
            raise BudgetExceeded(report)
        return {"agentbalance_spend": spend_value(run)}

    def _new_run(self, **resumed: Any) -> Run:
        settings = self._settings
        run = Run(
            models=settings.models,
            team=self._team,
            budget=resumed.pop("budget", settings.budget),
            planner=settings.planner,
            plans_beside=self._plans_beside,
            habits=self._habits,
            clock=settings.clock,
            **resumed,
        )
        run.control.outer = control_of(ensure_config())
        return run

    def _run_of(self, state: Any) -> Run | None:
        """The run of an agent's state; None inside what has a budget already. One that was
        interrupted goes on with the books it had, and the time until it is resumed is nobody's; its
        parallel tools find it at once."""
        if caller_of(None) is not None:
            return None
        task = cast("dict[str, Any]", state).get("agentbalance_task")
        if not task:
            # It was begun by an agent without a budget, or inside what had one.
            number = _call_number()
            return self._runs.find(number, lambda run: run or self._new_run(number=number))

        def current(run: Run | None) -> Run:
            if run is not None and run.control.outer is control_of(ensure_config()):
                return run
            stored = task_from(task, [state.get("agentbalance_spend")])
            books = stored.books if run is None else _left(run, stored.books)
            return self._new_run(
                budget=stored.budget, number=stored.number, plan=stored.plan, before=books
            )

        return self._runs.find(task["run"], current)

    def _plan_late(self, run: Run, state: Any) -> None:
        """The task did not pass `before_agent`."""
        with run.planning:
            if run.plan is None:
                make_plan(run, state, self._settings.query)

    def _begun(self, run: Run) -> dict[str, Any]:
        self._reported(run)
        return {
            "agentbalance_task": task_value(run, "agent"),
            "agentbalance_spend": spend_value(run),
        }

    @contextmanager
    def _calling(self, run: Run, name: str) -> Generator[None]:
        """A model or a tool at work. Should it fail the report says so, though other middleware may
        try it again."""
        try:
            with self._runs.at_work(run), calling(Caller(run, name)), under_way():
                yield
            # LangGraph may end the run after the step (its recursion limit), and says so nowhere;
            # another tool of the step may have failed.
            self._reported(run, run.failed)
        except (GraphBubbleUp, asyncio.CancelledError):
            # Whoever interrupts or cancels it may leave it there, and it may have called before.
            self._reported(run)
            raise
        except Exception as error:
            self._reported(run, f"{type(error).__name__}: {error}")
            self._runs.put_last(run)
            raise

    def _stopped(self, run: Run, stop: OutOfBudget) -> AIMessage:
        self._raise_if_wanted(run, stop)
        run.stopped = stop.denial
        return AIMessage(f"Stopped: {stop.denial.reason}.")

    def _left_out(self, run: Run, stop: OutOfBudget, call: ToolCall) -> ToolMessage:
        self._raise_if_wanted(run, stop)
        return told(stop, call)

    def _raise_if_wanted(self, run: Run, stop: OutOfBudget) -> None:
        if run.budget.on_exceeded == "raise":
            run.stopped = stop.denial
            raise BudgetExceeded(self._reported(run)) from stop

    def _reported(self, run: Run, failed: str | None = None) -> RunReport:
        run.failed = failed
        report, config = make_report(run), get_config()
        if (run_id := _run_id()) is not None:
            config: RunnableConfig = {**config, "run_id": cast("Any", run_id)}
        self._reports.add(report, config)
        return report


def _run_id() -> str | None:
    # LangGraph tells nodes of a run's id here alone.
    info = get_runtime().execution_info
    return None if info is None else info.run_id


def _call_number() -> str:
    """The same for all that is called in one call of an agent."""
    thread = (get_config().get("configurable") or {}).get("thread_id")
    return f"call:{_run_id() or thread}"


def _left(run: Run, stored: Books) -> Books:
    """What an interrupted run has spent; its time ended with its last call, not now."""
    run.meter.close()
    # Another process may have gone on with it.
    books = max(stored, run.books(), key=lambda books: books.total.calls)
    ended = max((call.ended_s for call in run.meter.calls), default=0.0)
    seconds = max(stored.total.latency_s, run.before.total.latency_s + ended)
    return Books(replace(books.total, latency_s=seconds), books.agents)
