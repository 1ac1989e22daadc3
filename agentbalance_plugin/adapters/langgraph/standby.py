"""A chat model call inside a balanced graph: on the planned backbone, or where its endpoint fails
on another one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig

from agentbalance_plugin.adapters.backbones import standbys
from agentbalance_plugin.adapters.langgraph.fit import needs_of, own_options
from agentbalance_plugin.adapters.langgraph.metered import Request
from agentbalance_plugin.adapters.langgraph.run import Caller
from agentbalance_plugin.runtime.failures import outage


@dataclass(slots=True)
class Wish:
    """A call as the user's node makes it.

    Args:
        caller: who calls.
        asked: the model that the call was meant for.
        prompt, options: its arguments.
    """

    caller: Caller
    asked: BaseChatModel
    prompt: object
    options: Mapping[str, Any]

    def invoke(self, config: RunnableConfig | None) -> AIMessage:
        """The reply (OutOfBudget where the budget has no room)."""
        request = self._first()
        while True:
            try:
                return request.invoke(config)
            except Exception as error:
                request = self._after(request, error)

    async def ainvoke(self, config: RunnableConfig | None) -> AIMessage:
        """As `invoke`."""
        request = self._first()
        while True:
            try:
                return await request.ainvoke(config)
            except Exception as error:
                request = self._after(request, error)

    def stream(self, config: RunnableConfig | None) -> Generator[AIMessageChunk]:
        """The reply in chunks; who has begun to speak is not replaced."""
        request, spoken = self._first(), False
        while True:
            try:
                with closing(request.stream(config)) as chunks:
                    for chunk in chunks:
                        spoken = True
                        yield chunk
                return
            except Exception as error:
                if spoken:
                    raise
                request = self._after(request, error)

    async def astream(self, config: RunnableConfig | None) -> AsyncGenerator[AIMessageChunk]:
        """As `stream`."""
        request, spoken = self._first(), False
        while True:
            try:
                async with aclosing(request.astream(config)) as chunks:
                    async for chunk in chunks:
                        spoken = True
                        yield chunk
                return
            except Exception as error:
                if spoken:
                    raise
                request = self._after(request, error)

    def _first(self) -> Request:
        """On the planned backbone, unless it lacks what the call needs, or its endpoint has failed
        in this run or lately."""
        run, needs = self.caller.run, self._needs
        planned, outages = run.backbone_of(self.caller.agent, needs), run.meter.outages
        able = needs <= planned.capabilities
        if not able or planned.name in outages or planned.name in outages.lately:
            other = self._next(self._order)
            if other is not None:
                return other
        return Request.of(self.caller, self.asked, self.prompt, self.options, planned)

    def _after(self, request: Request, error: Exception) -> Request:
        """On the next backbone; the error is raised where it is none of the endpoint's, or nobody
        is left."""
        fault, name = outage(error), request.backbone.name
        if fault is None:
            raise error
        order = self._order
        other = self._next(order[order.index(name) + 1 :])
        if other is None:
            raise error
        self.caller.run.meter.outages.note(self.caller.agent, name, fault)
        return other

    @property
    def _order(self) -> tuple[str, ...]:
        """The backbones that may answer, in the order in which they are asked."""
        run, agent, needs = self.caller.run, self.caller.agent, self._needs
        planned, outages = run.backbone_of(agent, needs), run.meter.outages
        if any(each.name == agent and each.backbone for each in run.team.agents):
            # Nobody stands in for a backbone that the user chose.
            return (planned.name,)
        others = standbys(run.models.catalog, planned.name, needs, outages.lately)
        # No plan knows what a node binds to its model only while it runs.
        able = needs <= planned.capabilities
        names = (planned.name, *others) if able else (*others, planned.name)
        return outages.order(agent, names)

    def _next(self, order: tuple[str, ...]) -> Request | None:
        """On the first that has not failed in this run."""
        run = self.caller.run
        planned = run.backbone_of(self.caller.agent, self._needs).name
        for name in order:
            if name in run.meter.outages:
                continue
            try:
                # The plan's output cap is what it knows of the planned backbone's replies.
                return Request.of(
                    self.caller,
                    self.asked,
                    self.prompt,
                    self.options,
                    run.models.catalog[name],
                    planned=name == planned,
                )
            except ValueError:
                # What was bound does not cross to this one's provider.
                continue
        return None

    @property
    def _needs(self) -> frozenset[str]:
        return needs_of({**own_options(self.asked), **self.options})
