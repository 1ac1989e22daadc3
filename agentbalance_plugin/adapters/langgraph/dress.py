"""What a balanced graph has that its user's graph has not: a plan, books, and agents that can be
left out.

All of it is put on a graph that LangGraph has compiled already, so that every check and every
default of its own has seen the user's graph alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.errors import GraphBubbleUp, ParentCommand
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import CachePolicy, RetryPolicy

from agentbalance_plugin.adapters.langgraph.internals import (
    ChannelRead,
    ChannelWrite,
    ChannelWriteEntry,
    RunnableCallable,
    WriteThen,
    is_sent,
    path_of,
    replace_path,
)
from agentbalance_plugin.adapters.langgraph.layout import Layout
from agentbalance_plugin.adapters.langgraph.planned import Hearing, finish
from agentbalance_plugin.adapters.langgraph.planning import (
    allot,
    amake_plan,
    make_plan,
    prompt_of,
)
from agentbalance_plugin.adapters.langgraph.race import Decided
from agentbalance_plugin.adapters.langgraph.removals import tolerant
from agentbalance_plugin.adapters.langgraph.retries import too_late
from agentbalance_plugin.adapters.langgraph.run import (
    Caller,
    OutOfBudget,
    Run,
    caller_of,
    calling,
    is_running,
    own_run,
)
from agentbalance_plugin.adapters.langgraph.stored import (
    AUTHORS,
    NO_TASK,
    SPEND,
    TASK,
    furthest,
    signed,
    spend_value,
    task_value,
)
from agentbalance_plugin.plan import Plan

_AnyCompiled = CompiledStateGraph[Any, Any, Any, Any]
# What LangGraph makes of every function; subclassed to do without its way to find arguments.
_Callable = cast("type[Any]", RunnableCallable)


def dress(compiled: _AnyCompiled, layout: Layout) -> None:
    """Add the planning, the books and the agents' wrappers to a compiled graph."""
    compiled.channels[TASK] = LastValue(dict)
    compiled.channels[SPEND] = BinaryOperatorAggregate(dict, furthest)
    compiled.channels[AUTHORS] = BinaryOperatorAggregate(dict, signed)
    channels = list(cast("dict[str, Any]", layout.builder.channels))
    select = "__root__" if channels == ["__root__"] else channels
    writers = cast("list[Any]", compiled.nodes[START].writers)
    writes = [writer for writer in writers if isinstance(writer, ChannelWrite)]
    routes = [writer for writer in writers if not isinstance(writer, ChannelWrite)]
    # After the input has been written to the state, before a route looks at it. Routes of the
    # user's own stay where drawings look for them.
    plan, aplan = _planner(layout, select)
    if layout.messages is None:
        writers[:] = [WriteThen(writes, plan, aplan), *routes]
    else:
        writers[:] = [WriteThen(writes, plan, aplan, routes)]
    for name in layout.team.names:
        node = compiled.nodes[name]
        books = node.cache_policy is None and compiled.cache_policy is None
        retries = tuple(cast("Sequence[RetryPolicy]", node.retry_policy or ()))
        node.bound = _AgentNode(name, node.bound, layout, retries, books=books)
        for writer in cast("list[Any]", node.writers) if name in layout.routed else ():
            if (path := path_of(writer)) is not None:
                replace_path(writer, _unless_denied(name, path))
    if layout.messages is not None:
        finish(compiled.nodes)
        compiled.channels[layout.messages] = tolerant(compiled.channels[layout.messages])
    for name, node in compiled.nodes.items():
        if node.cache_policy is not None:
            node.cache_policy = _by_backbone(name, cast("CachePolicy[Any]", node.cache_policy))


def _planner(layout: Layout, select: str | list[str]) -> tuple[Any, Any]:
    """Plan, when a task enters the graph; a resumed run does not pass here."""

    def read(config: RunnableConfig) -> Any:
        return ChannelRead.do_read(config, select=select, fresh=True)

    def lay_out(run: Run, made: Plan, values: Any, config: RunnableConfig) -> None:
        run.plan, steps = layout.in_steps(made)
        if layout.messages is not None and steps is not None:
            run.lay_out(run.plan, steps)
        allot(run, layout.certain, prompt_of(values))
        if not run.stored:
            return
        writes = [
            ChannelWriteEntry(TASK, task_value(run, layout.mode)),
            ChannelWriteEntry(SPEND, spend_value(run)),
            ChannelWriteEntry(AUTHORS, {}),
        ]
        ChannelWrite.do_write(config, writes)

    def forget(config: RunnableConfig) -> None:
        """The user's update of a state enters the graph: a new task, planned when it runs."""
        writes = [ChannelWriteEntry(TASK, NO_TASK), ChannelWriteEntry(AUTHORS, {})]
        ChannelWrite.do_write(config, writes)

    def plan(value: Any, config: RunnableConfig) -> Any:
        run = own_run(config, START)
        if run is not None:
            values = read(config)
            lay_out(run, make_plan(run, values, layout.settings.query), values, config)
        elif not is_running(config):
            forget(config)
        return value

    async def aplan(value: Any, config: RunnableConfig) -> Any:
        run = own_run(config, START)
        if run is not None:
            values = read(config)
            lay_out(run, await amake_plan(run, values, layout.settings.query), values, config)
        elif not is_running(config):
            forget(config)
        return value

    return plan, aplan


def _unless_denied(agent: str, path: Runnable[Any, Any]) -> Any:
    """A condition that leads nowhere from an agent whose call was denied: it said nothing to go
    by."""

    def denied(config: RunnableConfig) -> bool:
        run = own_run(config, agent)
        return run is not None and run.is_denied(agent)

    def route(state: Any, config: RunnableConfig) -> Any:
        return [] if denied(config) else path.invoke(state, config)

    async def aroute(state: Any, config: RunnableConfig) -> Any:
        return [] if denied(config) else await path.ainvoke(state, config)

    return RunnableCallable(route, aroute, name=path.get_name(), trace=False, recurse=False)


class _AgentNode(_Callable):
    """An agent's node; unless code routes it, a denied call leaves it out instead of ending the
    run.

    Args:
        inner: the user's node.
        retries: what LangGraph does when it fails.
        books: whether to put the spend so far into the checkpoint; what a cache keeps has none.
    """

    def __init__(
        self,
        name: str,
        inner: Runnable[Any, Any],
        layout: Layout,
        retries: Sequence[RetryPolicy],
        *,
        books: bool,
    ) -> None:
        # The node as a function is what LangGraph looks for subgraphs in.
        def call(state: Any) -> Any:
            return inner.invoke(state)

        super().__init__(call, name=inner.get_name(), trace=False)
        self._agent = name
        self._inner = inner
        self._layout = layout
        self._retries = retries
        self._books = books
        self._skips = name not in layout.routed
        self._leads_on = name in layout.lead_on
        self._hearing = None if layout.messages is None else Hearing(name, layout.messages)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or ensure_config()
        run = own_run(config, self._agent)
        if run is None:
            return self._inner.invoke(input, config, **kwargs)
        if run.plan is None:
            self._plan_late(run, input)
        seen = self._view(run, input, config)
        if run.race is not None and run.race.decided:
            return self._not_needed(run)
        try:
            with calling(Caller(run, self._agent)):
                result = self._inner.invoke(seen, config, **kwargs)
        except OutOfBudget as stop:
            return self._leave_out(run, stop, config)
        except Decided:
            return self._not_needed(run)
        except ParentCommand:
            self._hand_over(run, config)
            raise
        except GraphBubbleUp:
            raise
        except Exception as error:
            stop = too_late(run, self._agent, self._retries, error, config)
            if stop is None:
                raise
            return self._leave_out(run, stop, config)
        return self._leave(run, seen, result, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = config or ensure_config()
        run = own_run(config, self._agent)
        if run is None:
            return await self._inner.ainvoke(input, config, **kwargs)
        if run.plan is None:
            # Few tasks do not pass START.
            await asyncio.to_thread(self._plan_late, run, input)
        seen = self._view(run, input, config)
        try:
            with calling(Caller(run, self._agent)):
                if run.race is None:
                    result = await self._inner.ainvoke(seen, config, **kwargs)
                else:
                    result = await run.race.run(self._inner.ainvoke(seen, config, **kwargs))
        except OutOfBudget as stop:
            return self._leave_out(run, stop, config)
        except Decided:
            return self._not_needed(run)
        except ParentCommand:
            self._hand_over(run, config)
            raise
        return self._leave(run, seen, result, config)

    def _plan_late(self, run: Run, state: Any) -> None:
        """The thread was begun by the user's own graph and is resumed by this one, or a new task
        did not pass START."""
        with run.planning:
            if run.plan is None:
                run.team = self._layout.kept
                make_plan(run, _values(state), self._layout.settings.query)

    def _view(self, run: Run, state: Any, config: RunnableConfig) -> Any:
        """What the node is given."""
        if self._hearing is None or run.plan is None or run.steps is None:
            return state
        return self._hearing.view(run.plan, state, config)

    def _leave(self, run: Run, seen: Any, result: Any, config: RunnableConfig) -> Any:
        run.spoke(self._agent)
        if self._hearing is not None and run.steps is not None:
            result, message = self._hearing.sign(seen, result, config)
            if message is not None:
                run.speakers.add(self._agent)
            extract = self._layout.settings.extract
            answer = None if message is None else run.answer(message.text, extract)
            if run.race is not None:
                run.race.answered(self._agent, answer)
        self._book(run, config)
        return result

    def _hand_over(self, run: Run, config: RunnableConfig) -> None:
        """Its turn ends with a command to the graph around it."""
        run.spoke(self._agent)
        self._book(run, config)

    def _leave_out(self, run: Run, stop: OutOfBudget, config: RunnableConfig) -> None:
        is_part = is_sent(config)
        if not self._skips and not (is_part and self._leads_on):
            if run.stored:
                # Others of its step are kept as pending writes; a resumed run asks this one again.
                raise stop
            run.end_after_step(self._agent, stop.denial)
            return
        run.skip(self._agent, stop.denial.reason, is_part=is_part)
        self._book(run, config)

    def _not_needed(self, run: Run) -> None:
        run.close(self._agent)

    def _book(self, run: Run, config: RunnableConfig) -> None:
        """Into the checkpoint, together with what the agent wrote."""
        if self._books and run.stored:
            ChannelWrite.do_write(config, [ChannelWriteEntry(SPEND, spend_value(run))])


def _values(state: Any) -> Any:
    """A state's values by key, whatever class the user has for it."""
    held: Any = getattr(state, "__dict__", None)
    return state if held is None else held


def _by_backbone(name: str, policy: CachePolicy[Any]) -> CachePolicy[Any]:
    """What one backbone said must not be taken for what another would say."""
    key_of: Any = policy.key_func

    def key(*args: Any, **options: Any) -> bytes:
        # LangGraph asks for it outside of any node.
        caller = caller_of(None)
        plan = caller.run.plan if caller is not None else None
        backbone = plan.assignment.get(name) if plan is not None else None
        found = key_of(*args, **options)
        return f"{backbone}|".encode() + (found.encode() if isinstance(found, str) else found)

    return dataclasses.replace(policy, key_func=key)
