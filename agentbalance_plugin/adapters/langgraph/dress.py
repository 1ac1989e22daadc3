"""What a balanced graph has that its user's graph has not: a plan, books, and agents that can be
left out.

All of it is put on a graph that LangGraph has compiled already, so that every check and every
default of its own has seen the user's graph alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import CachePolicy

from agentbalance_plugin.adapters.langgraph.internals import (
    ChannelRead,
    ChannelWrite,
    ChannelWriteEntry,
    RunnableCallable,
    control_of,
)
from agentbalance_plugin.adapters.langgraph.layout import Layout
from agentbalance_plugin.adapters.langgraph.planned import Hearing, hide_decision
from agentbalance_plugin.adapters.langgraph.planning import (
    QueryReader,
    allot,
    make_plan,
    prompt_of,
)
from agentbalance_plugin.adapters.langgraph.run import (
    BudgetControl,
    OutOfBudget,
    Run,
    own_run,
)
from agentbalance_plugin.adapters.langgraph.stored import (
    AUTHORS,
    SPEND,
    TASK,
    furthest,
    signed,
    spend_value,
    task_value,
)

_AnyCompiled = CompiledStateGraph[Any, Any, Any, Any]

_running: ContextVar[Run | None] = ContextVar("agentbalance_running", default=None)


@contextmanager
def entered(run: Run) -> Generator[None]:
    """Lets cache keys, which LangGraph computes outside of any node, know the run."""
    token = _running.set(run)
    try:
        yield
    finally:
        _running.reset(token)


def dress(compiled: _AnyCompiled, layout: Layout) -> None:
    """Add the planning, the books and the agents' wrappers to a compiled graph."""
    compiled.channels[TASK] = LastValue(dict)
    compiled.channels[SPEND] = BinaryOperatorAggregate(dict, furthest)
    compiled.channels[AUTHORS] = BinaryOperatorAggregate(dict, signed)
    channels = list(cast("dict[str, Any]", layout.builder.channels))
    select = "__root__" if channels == ["__root__"] else channels
    # After the input has been written to the state, before anything is triggered by it.
    compiled.nodes[START].writers.insert(1, _planner(layout, select))
    for name in layout.team.names:
        node = compiled.nodes[name]
        hearing = None
        if layout.messages is not None:
            hearing = Hearing(name, layout.messages, layout.settings.extract)
        skips = name not in layout.routed
        node.bound = _agent(name, node.bound, hearing, layout.settings.query, skips=skips)
        if node.cache_policy is None and compiled.cache_policy is None:
            node.writers.append(_bookkeeper())
    if layout.messages is not None:
        hide_decision(compiled.nodes)
    for name, node in compiled.nodes.items():
        if node.cache_policy is not None:
            node.cache_policy = _by_backbone(name, cast("CachePolicy[Any]", node.cache_policy))


def _planner(layout: Layout, select: str | list[str]) -> Any:
    """Plans when a task enters the graph; a resumed run does not pass here."""

    def plan(value: Any, config: RunnableConfig) -> Any:
        run = own_run(config, START)
        if run is not None:
            values = ChannelRead.do_read(config, select=select, fresh=True)
            make_plan(run, values, layout.settings.query)
            assert run.plan is not None
            allot(run, layout.certain, run.plan.decider, prompt_of(values))
            writes = [
                ChannelWriteEntry(TASK, task_value(run, layout.mode)),
                ChannelWriteEntry(SPEND, spend_value(run)),
                ChannelWriteEntry(AUTHORS, {}),
            ]
            ChannelWrite.do_write(config, writes)
        return value

    return RunnableCallable(plan, name="agentbalance:plan", trace=False, recurse=False)


def _bookkeeper() -> Any:
    """Puts the spend so far into the checkpoint together with what an agent wrote."""

    def book(value: Any, config: RunnableConfig) -> Any:
        control = control_of(config)
        if isinstance(control, BudgetControl):
            entry = ChannelWriteEntry(SPEND, spend_value(control.run))
            ChannelWrite.do_write(config, [entry])
        return value

    return RunnableCallable(book, name="agentbalance:books", trace=False, recurse=False)


def _agent(
    name: str,
    inner: Runnable[Any, Any],
    hearing: Hearing | None,
    read_query: QueryReader | None,
    *,
    skips: bool,
) -> Any:
    """The agent's node; with `skips`, a denied call leaves it out instead of ending the run."""

    def enter(run: Run | None, state: Any, config: RunnableConfig) -> Any:
        """What the node is given; `_CLOSED` if it is not to run."""
        if run is None:
            return state
        with run.planning:
            if run.plan is None:
                # The thread was begun by the user's own graph and is resumed by this one.
                make_plan(run, _values(state), read_query)
        if hearing is None or not hearing.planned(config):
            return state
        if hearing.stays_out(state, config):
            run.close_gate(name)
            return _CLOSED
        return hearing.view(state, config)

    def leave(run: Run | None, seen: Any, result: Any, config: RunnableConfig) -> Any:
        if run is None:
            return result
        run.spoke(name)
        planned = hearing is not None and hearing.planned(config)
        return hearing.sign(seen, result, config) if hearing and planned else result

    def leave_out(run: Run | None, stop: OutOfBudget) -> None:
        if run is None or not skips:
            raise stop
        run.skip(name, stop.denial.reason)

    def call(state: Any, config: RunnableConfig) -> Any:
        run = own_run(config, name)
        seen = enter(run, state, config)
        if seen is _CLOSED:
            return None
        try:
            result = inner.invoke(seen, config)
        except OutOfBudget as stop:
            return leave_out(run, stop)
        return leave(run, seen, result, config)

    async def acall(state: Any, config: RunnableConfig) -> Any:
        run = own_run(config, name)
        seen = enter(run, state, config)
        if seen is _CLOSED:
            return None
        try:
            result = await inner.ainvoke(seen, config)
        except OutOfBudget as stop:
            return leave_out(run, stop)
        return leave(run, seen, result, config)

    return RunnableCallable(call, acall, name=inner.get_name(), trace=False)


_CLOSED = object()


def _values(state: Any) -> Any:
    """A state's values by key, whatever class the user has for it."""
    held: Any = getattr(state, "__dict__", None)
    return state if held is None else held


def _by_backbone(name: str, policy: CachePolicy[Any]) -> CachePolicy[Any]:
    """What one backbone said must not be taken for what another would say."""
    key_of: Any = policy.key_func

    def key(*args: Any, **options: Any) -> bytes:
        run = _running.get()
        plan = run.plan if run is not None else None
        backbone = plan.assignment.get(name) if plan is not None else None
        found = key_of(*args, **options)
        return f"{backbone}|".encode() + (found.encode() if isinstance(found, str) else found)

    return dataclasses.replace(policy, key_func=key)
