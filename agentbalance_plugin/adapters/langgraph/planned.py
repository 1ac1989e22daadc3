"""Agents that are planned in full: who runs, who hears whom, who decides.

LangGraph runs in steps, each of which waits for all of its nodes. An agent's step is one after the
last of those it waits for, so the agents of one step need no other join.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AnyMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.constants import TAG_HIDDEN
from langgraph.graph import END, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from agentbalance_plugin.adapters.langgraph.internals import (
    ChannelRead,
    ChannelWrite,
    ChannelWriteEntry,
    RunnableCallable,
)
from agentbalance_plugin.adapters.langgraph.run import Run, own_run
from agentbalance_plugin.adapters.langgraph.stored import AUTHORS, TASK, plan_from_dict
from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.plan import Plan

DECISION = "agentbalance_decision"
"""The hidden node after the last agents: makes the answer the last message."""

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
    for end in sorted(exits or {END}):
        builder.add_edge(DECISION, end)
    ends = [*agents, DECISION]
    builder.add_conditional_edges(feeder, _route(None, as_it_was), ends)
    for agent in agents:
        builder.add_conditional_edges(
            agent, _route(agent, as_it_was), [e for e in ends if e != agent]
        )


def hide_decision(nodes: Mapping[str, Any]) -> None:
    """Keep the decision out of streams of updates and out of traces."""
    nodes[DECISION].tags = [TAG_HIDDEN]


def steps_of(plan: Plan) -> dict[str, int]:
    """Agent -> its step, from 0: one after the last of those it waits for."""
    steps: dict[str, int] = {}
    for agent in plan.order:
        steps[agent] = 1 + max((steps[before] for before in plan.waits_for(agent)), default=-1)
    return steps


class Hearing:
    """What one agent hears, and what is heard of it.

    Args:
        agent: whose.
        key: the state's key of the messages.
        extract: the answer in a message's text.
    """

    def __init__(self, agent: str, key: str, extract: AnswerExtractor) -> None:
        self._agent = agent
        self._key = key
        self._extract = extract

    def planned(self, config: RunnableConfig) -> bool:
        """Whether the task has a plan; one that the user's own graph began has none."""
        return bool(ChannelRead.do_read(config, select=TASK))

    def stays_out(self, state: Any, config: RunnableConfig) -> bool:
        """Whether its late gate stays closed."""
        plan = _plan(config)
        gate = plan.late_gates.get(self._agent)
        if gate is None:
            return False
        said = _said(_messages(state, self._key), _authors(config))
        voters = [name for name in gate.watches if name in said]
        answers = [self._extract(said[name].text) for name in voters]
        _, confidence = leading_answer(answers, [plan.weight(name) for name in voters])
        return confidence >= gate.threshold

    def view(self, state: Any, config: RunnableConfig) -> Any:
        """The state without the messages of agents that this one does not hear."""
        authors = _authors(config)
        heard = {self._agent, *_plan(config).parents(self._agent)}
        kept = [
            message
            for message in _messages(state, self._key)
            if authors.get(message.id or "", self._agent) in heard
        ]
        known: Any = state
        if isinstance(state, dict):
            return {**known, self._key: kept}
        if isinstance(state, BaseModel):
            return state.model_copy(update={self._key: kept})
        return dataclasses.replace(known, **{self._key: kept})

    def sign(self, seen: Any, result: Any, config: RunnableConfig) -> Any:
        """The node's result; its new messages are noted as the agent's.

        Args:
            seen: the state that the node was given.
        """
        update: Any = result.update if isinstance(result, Command) else result
        if not isinstance(update, dict) or self._key not in update:
            return cast("Any", result)
        given = cast("dict[str, Any]", update)
        old = {message.id for message in _messages(seen, self._key)}
        listed = given[self._key] if isinstance(given[self._key], list) else [given[self._key]]
        messages = convert_to_messages(listed)
        for message in messages:
            message.id = message.id or str(uuid.uuid4())
        by = {cast("str", m.id): self._agent for m in messages if m.id not in old}
        ChannelWrite.do_write(config, [ChannelWriteEntry(AUTHORS, by)])
        signed = {**given, self._key: messages}
        if isinstance(result, Command):
            return dataclasses.replace(cast("Any", result), update=signed)
        return signed


def decide(plan: Plan, said: Mapping[str, BaseMessage], extract: AnswerExtractor, run: Run) -> str:
    """Whose message is the answer: the decider's, else the one with most weight behind it."""
    decider = plan.decider
    if plan.decision == "agent" and decider in said:
        return cast("str", decider)
    speakers = [name for name in plan.assignment if name in said]
    answers = [extract(said[name].text) for name in speakers]
    leader, confidence = leading_answer(answers, [plan.weight(name) for name in speakers])
    if leader is not None:
        run.confidence = confidence
        return speakers[leader]
    return cast("str", decider) if decider in said else max(reversed(speakers), key=plan.weight)


def _decision(key: str, extract: AnswerExtractor) -> Any:
    def make_last(state: Any, config: RunnableConfig) -> Any:
        run = own_run(config, DECISION)
        messages = _messages(state, key)
        said = _said(messages, _authors(config))
        if run is None or not said:
            return None
        chosen = run.chosen = decide(_plan(config), said, extract, run)
        if messages[-1] is said[chosen]:
            return None
        # Users read the last message as the answer; the winner may have spoken earlier.
        return {key: [said[chosen].model_copy(update={"id": str(uuid.uuid4())})]}

    return RunnableCallable(make_last, name=DECISION, trace=False)


def _route(agent: str | None, as_it_was: Plan) -> Any:
    """From an agent, or from what comes before all of them, to those that start next."""

    def following(_: Any, config: RunnableConfig) -> list[str]:
        task = ChannelRead.do_read(config, select=TASK, fresh=True)
        plan = plan_from_dict(task["plan"]) if task else as_it_was
        steps = steps_of(plan)
        if agent is None:
            return [name for name, step in steps.items() if step == 0]
        if agent not in steps:
            return []
        step = steps[agent]
        if step == max(steps.values()):
            return [DECISION]
        return [n for n in steps if steps[n] == step + 1 and agent in plan.waits_for(n)]

    name = f"agentbalance:after_{agent or 'start'}"
    return RunnableCallable(following, name=name, trace=False, recurse=False)


def _plan(config: RunnableConfig) -> Plan:
    return plan_from_dict(ChannelRead.do_read(config, select=TASK)["plan"])


def _authors(config: RunnableConfig) -> dict[str, str]:
    return ChannelRead.do_read(config, select=AUTHORS) or {}


def _messages(state: Any, key: str) -> list[AnyMessage]:
    known: Any = state
    return known[key] if isinstance(state, dict) else getattr(known, key)


def _said(messages: Sequence[BaseMessage], authors: Mapping[str, str]) -> dict[str, BaseMessage]:
    """Agent -> the last message it wrote for this task."""
    return {authors[m.id]: m for m in messages if m.id is not None and m.id in authors}
