"""Agents that are planned in full: who runs, who hears whom, who decides.

LangGraph runs in steps, each of which waits for all of its nodes, so the agents of one step need no
other join: each of them leads to all of the next.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from langchain_core.messages import AnyMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.constants import TAG_HIDDEN
from langgraph.graph import END, StateGraph
from langgraph.types import Command, Overwrite
from pydantic import BaseModel

from agentbalance_plugin.adapters.langgraph.internals import (
    ChannelRead,
    ChannelWrite,
    ChannelWriteEntry,
    RunnableCallable,
    get_overwrite,
    path_of,
    read_nothing,
)
from agentbalance_plugin.adapters.langgraph.removals import is_removal, of_seen
from agentbalance_plugin.adapters.langgraph.run import Run, own_run
from agentbalance_plugin.adapters.langgraph.steps import Steps, steps_of
from agentbalance_plugin.adapters.langgraph.stored import (
    AUTHORS,
    TASK,
    enters_anew,
    plan_from_dict,
)
from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.plan import Plan

DECISION = "agentbalance_decision"
"""The hidden node after the last agents: makes the answer the last message."""

_GATES = "agentbalance_gates_{}"
"""The hidden node before a step that has late gates. What it routes to is decided on what all
agents of the step before have said; a route of theirs would see its own agent's message alone."""

_AFTER = "agentbalance:after_"
_THROUGH = "agentbalance:through_"

_AnyGraph = StateGraph[Any, Any, Any, Any]
AnswerExtractor = Callable[[str], str | None]


def lay_edges(builder: _AnyGraph, as_it_was: Plan, key: str, extract: AnswerExtractor) -> None:
    """Replace the edges between agents by routes that follow the plan.

    Args:
        builder: a copy of the user's; changed.
        as_it_was: the user's own edges between all agents, which hold where there is no plan: in
            a graph that is part of another one's run.
        key: the state's key of the messages.
        extract: the answer in a message's text.
    """
    agents = tuple(as_it_was.assignment)
    among = set(agents)
    joins = {edge for edge in builder.waiting_edges if among & {*edge[0], edge[1]}}
    edges = set(builder.edges) | {(start, end) for starts, end in joins for start in starts}
    (feeder,) = {start for start, end in edges if end in among and start not in among}
    exits = {end for start, end in edges if start in among and end not in among}
    builder.waiting_edges -= joins
    builder.edges = {edge for edge in edges if not among & set(edge)}
    builder.add_node(DECISION, _decision(key, extract))
    leaves = sorted(exits or {END})
    for end in leaves:
        builder.add_edge(DECISION, end)
    gates = {_GATES.format(step): step for step in range(1, len(agents))}
    routes = _Routes(as_it_was, key, extract, leaves)
    for gate in gates:
        builder.add_node(gate, routes.before(gate, gates[gate]))
    ends = [*agents, *gates, DECISION, *leaves]
    builder.add_conditional_edges(feeder, routes.after(feeder, None), ends)
    for agent in agents:
        others = [end for end in ends if end != agent]
        builder.add_conditional_edges(agent, routes.after(agent, agent), others)
    for gate, step in gates.items():
        builder.add_conditional_edges(gate, routes.through(gate, step), [*agents, *leaves])


def finish(nodes: Mapping[str, Any]) -> None:
    """Keep what `lay_edges` added out of streams of updates and out of traces, and let routes that
    follow the plan alone not read the state.

    Args:
        nodes: of the compiled graph.
    """
    for name, node in nodes.items():
        if name == DECISION or name.startswith(_GATES.format("")):
            node.tags = [TAG_HIDDEN]
        for writer in node.writers:
            if str(getattr(path_of(writer), "name", "")).startswith(_AFTER):
                read_nothing(writer)


class _Routes:
    """Who starts next."""

    def __init__(
        self, as_it_was: Plan, key: str, extract: AnswerExtractor, leaves: list[str]
    ) -> None:
        steps = steps_of(as_it_was, dict.fromkeys(as_it_was.assignment, 0.0))
        self._as_it_was = (as_it_was, steps)
        self._key = key
        self._extract = extract
        self._leaves = leaves

    def after(self, node: str, agent: str | None) -> Any:
        """From an agent, or from the node before all of them (None), to the next step."""

        def following(_: Any, config: RunnableConfig) -> list[str]:
            run = own_run(config, node)
            plan, steps = self._laid_out(run, config)
            if agent is None:
                return _at(steps, 0)
            if agent not in steps:
                return []
            step = steps[agent] + 1
            agents = _at(steps, step)
            if any(name in plan.late_gates for name in agents):
                return [_GATES.format(step)]
            if agents:
                return agents
            if plan is self._as_it_was[0]:
                # The agents are the user's own, and so is their answer.
                return self._leaves
            if run is not None and _has_decided(run, plan, agent, _at(steps, step - 1)):
                run.chosen = agent
                return self._leaves
            return [DECISION]

        return _route(following, _AFTER + node)

    def before(self, gate: str, step: int) -> Any:
        """The node before a step: makes the decision if nobody is to run any more."""

        def decide_if_done(state: Any, config: RunnableConfig) -> Any:
            run = own_run(config, gate)
            if self._opened(run, step, state, config):
                return None
            return _make_last(state, self._key, self._extract, run, config)

        return RunnableCallable(decide_if_done, name=gate, trace=False)

    def through(self, gate: str, step: int) -> Any:
        """From the node before a step to those of its agents that are to run; if there are none,
        to those of the next step that has some."""

        def following(state: Any, config: RunnableConfig) -> list[str]:
            return self._opened(own_run(config, gate), step, state, config) or self._leaves

        return _route(following, _THROUGH + gate)

    def _opened(self, run: Run | None, step: int, state: Any, config: RunnableConfig) -> list[str]:
        plan, steps = self._laid_out(run, config)
        said = _said(_messages(state, self._key), authors_of(config))
        read = self._extract if run is None else partial(run.answer, extract=self._extract)
        answers = {name: read(message.text) for name, message in said.items()}
        for later in range(step, len(steps)):
            agents = _at(steps, later)
            closed = [name for name in agents if _stays_closed(plan, name, answers)]
            if run is not None:
                for name in closed:
                    run.close(name)
            if len(closed) < len(agents):
                return [name for name in agents if name not in closed]
        return []

    def _laid_out(self, run: Run | None, config: RunnableConfig) -> tuple[Plan, Steps]:
        if run is not None:
            if run.plan is None or run.steps is None:
                return self._as_it_was
            return run.plan, run.steps
        if enters_anew():
            return self._as_it_was
        # The state is updated from outside of a run.
        task = ChannelRead.do_read(config, select=TASK, fresh=True)
        planned = task and task["steps"] is not None
        return (plan_from_dict(task["plan"]), task["steps"]) if planned else self._as_it_was


class Hearing:
    """What one agent hears, and what is heard of it.

    Args:
        agent: whose.
        key: the state's key of the messages.
    """

    def __init__(self, agent: str, key: str) -> None:
        self._agent = agent
        self._key = key

    def view(self, plan: Plan, state: Any, config: RunnableConfig) -> Any:
        """The state without the messages of agents that this one does not hear."""
        authors = authors_of(config)
        if not authors or not _messages(state, self._key):
            return state
        heard = {self._agent, *plan.parents(self._agent)}
        kept = [
            message
            for message in _messages(state, self._key)
            if authors.get(message.id or "", self._agent) in heard
        ]
        if isinstance(state, dict):
            return {**cast("dict[str, Any]", state), self._key: kept}
        return _with(state, self._key, kept)

    def sign(
        self, seen: Any, result: Any, config: RunnableConfig
    ) -> tuple[Any, BaseMessage | None]:
        """The node's result, whose new messages are noted as the agent's, and the last of them.

        Args:
            seen: the state that the node was given.
        """
        old = {message.id for message in _messages(seen, self._key)}
        new: list[BaseMessage] = []
        signed = self._signed(result, old, new)
        if new:
            by = {cast("str", message.id): self._agent for message in new}
            ChannelWrite.do_write(config, [ChannelWriteEntry(AUTHORS, by)])
        return signed, new[-1] if new else None

    def _signed(self, result: Any, old: set[str | None], new: list[BaseMessage]) -> Any:
        """A result in any of LangGraph's forms, its messages with ids; fills `new`."""
        if isinstance(result, Command):
            update: Any = self._signed(cast("Any", result).update, old, new)
            return dataclasses.replace(cast("Any", result), update=update)
        if isinstance(result, dict):
            given = cast("dict[str, Any]", result)
            return {k: self._value(k, value, old, new) for k, value in given.items()}
        if _is_pair(result):
            return result[0], self._value(result[0], result[1], old, new)
        if isinstance(result, (list, tuple)):
            # Commands beside updates, or pairs of a key and a value in a Command.
            return [self._signed(item, old, new) for item in cast("list[Any]", result)]
        if isinstance(result, BaseModel) or dataclasses.is_dataclass(result):
            value = getattr(result, self._key, None)
            if value is not None:
                return _with(result, self._key, self._value(self._key, value, old, new))
        return result

    def _value(self, key: str, value: Any, old: set[str | None], new: list[BaseMessage]) -> Any:
        if key != self._key or value is None:
            return value
        replaces, inner = get_overwrite(value)
        listed: Any = inner if replaces else value
        if not isinstance(listed, list):
            listed = [listed]
        messages = convert_to_messages(cast("list[Any]", listed))
        for message in messages:
            message.id = message.id or str(uuid.uuid4())
        new += [each for each in messages if each.id not in old and not is_removal(each)]
        return Overwrite(messages) if replaces else [of_seen(each, old) for each in messages]


def _is_pair(item: Any) -> bool:
    known: Any = item
    return isinstance(item, tuple) and len(known) == 2 and isinstance(known[0], str)


def _with(state: Any, key: str, value: Any) -> Any:
    """A copy of a state that is no dict, with another value."""
    if isinstance(state, BaseModel):
        return state.model_copy(update={key: value})
    return dataclasses.replace(state, **{key: value})


def decide(plan: Plan, said: Mapping[str, BaseMessage], extract: AnswerExtractor, run: Run) -> str:
    """Whose message is the answer: the decider's, else the one with most weight behind it."""
    decider = plan.decider
    if plan.decision == "agent" and decider in said:
        return cast("str", decider)
    speakers = [name for name in plan.assignment if name in said]
    answers = [run.answer(said[name].text, extract) for name in speakers]
    leader, confidence = leading_answer(answers, [plan.weight(name) for name in speakers])
    if leader is not None:
        run.confidence = confidence
        return speakers[leader]
    return cast("str", decider) if decider in said else max(reversed(speakers), key=plan.weight)


def _decision(key: str, extract: AnswerExtractor) -> Any:
    def make(state: Any, config: RunnableConfig) -> Any:
        return _make_last(state, key, extract, own_run(config, DECISION), config)

    return RunnableCallable(make, name=DECISION, trace=False)


def _make_last(
    state: Any, key: str, extract: AnswerExtractor, run: Run | None, config: RunnableConfig
) -> Any:
    """The update that makes the answer the last message, which is where users look for it; the
    winner of a vote may have spoken earlier."""
    messages = _messages(state, key)
    said = _said(messages, authors_of(config))
    if run is None or run.plan is None or run.steps is None or not said:
        # Without steps the agents are the user's own, and so is their answer.
        return None
    chosen = run.chosen = decide(run.plan, said, extract, run)
    if messages[-1] is said[chosen]:
        return None
    return {key: [said[chosen].model_copy(update={"id": str(uuid.uuid4())})]}


def authors_of(config: RunnableConfig) -> dict[str, str]:
    """Id of a message -> the agent that wrote it for this task."""
    return ChannelRead.do_read(config, select=AUTHORS) or {}


def _route(following: Any, name: str) -> Any:
    return RunnableCallable(following, name=name, trace=False, recurse=False)


def _has_decided(run: Run, plan: Plan, agent: str, last: Sequence[str]) -> bool:
    """Whether the last message is the answer as it is, which saves a step."""
    by_itself = plan.decision == "agent" and agent == plan.decider and list(last) == [agent]
    return by_itself and agent in run.speakers


def _at(steps: Steps, step: int) -> list[str]:
    return [name for name, at in steps.items() if at == step]


def _stays_closed(plan: Plan, agent: str, answers: Mapping[str, str | None]) -> bool:
    gate = plan.late_gates.get(agent)
    if gate is None:
        return False
    voters = [name for name in gate.watches if name in answers]
    weights = [plan.weight(name) for name in voters]
    _, confidence = leading_answer([answers[name] for name in voters], weights)
    return confidence >= gate.threshold


def _messages(state: Any, key: str) -> list[AnyMessage]:
    # A node whose input is only a part of the state may not see them.
    known: Any = state
    return known.get(key, []) if isinstance(state, dict) else getattr(known, key, [])


def _said(messages: Sequence[BaseMessage], authors: Mapping[str, str]) -> dict[str, BaseMessage]:
    """Agent -> the last message it wrote for this task."""
    return {authors[m.id]: m for m in messages if m.id is not None and m.id in authors}
