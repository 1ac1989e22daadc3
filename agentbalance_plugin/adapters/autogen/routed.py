"""Chats that route by themselves (Swarm, MagenticOne, GraphFlow): backbones and budget only."""

from __future__ import annotations

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from autogen_agentchat.base import TaskResult, Team
from autogen_agentchat.messages import BaseChatMessage
from autogen_agentchat.teams import BaseGroupChat
from autogen_core import CancellationToken
from autogen_core.models import ChatCompletionClient

from agentbalance_plugin.adapters.autogen.chat_state import load_into, state_of
from agentbalance_plugin.adapters.autogen.client import BudgetClient
from agentbalance_plugin.adapters.autogen.conversation import bytes_in, images_saved
from agentbalance_plugin.adapters.autogen.halt import Halt, quiet_runtime_log
from agentbalance_plugin.adapters.autogen.rebind import (
    Participant,
    adopt_state,
    copy_chat,
    everyone_in,
    model_client_of,
    participants_of,
    rebind,
    stop_runtimes,
    termination_of,
)
from agentbalance_plugin.adapters.autogen.reports import routed_report
from agentbalance_plugin.adapters.autogen.run import Event, Run
from agentbalance_plugin.adapters.autogen.standby import client_for
from agentbalance_plugin.adapters.autogen.termination import reset_copies
from agentbalance_plugin.adapters.autogen.wrapped import (
    Wiring,
    WrappedTeam,
    next_event,
    start_driver,
)
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.report import RunReport

# Turns of the event loop without a call, after which nobody of a chat is at work any more: what an
# agent says takes a few dozen through AutoGen's queues.
_QUIET = 300


class RoutedTeam(WrappedTeam):
    """Runs each task on a fresh copy of the chat, its agents on planned backbones.

    An error leaves AutoGen's own teams unusable; a copy per run keeps that to its run. State is
    carried from one finished run to the next.

    Args:
        chat: the user's.
        manager: the name that the chat's own model calls (selector, orchestrator) have in reports;
            None if it makes none.
    """

    def __init__(self, wiring: Wiring, *, chat: BaseGroupChat, manager: str | None) -> None:
        super().__init__(wiring)
        self._chat = chat
        self._manager = manager
        self._state: Mapping[str, Any] | None = None
        self._inner: BaseGroupChat | None = None
        quiet_runtime_log()

    async def reset(self) -> None:
        """Forget everything said.

        Raises:
            RuntimeError: a run is under way, as with AutoGen's own teams.
        """
        if self._inner is not None:
            raise RuntimeError(
                "The group chat is currently running. It must be stopped before it can be reset."
            )
        self._state = None
        self._forget()
        await self._chat.reset()

    async def pause(self) -> None:
        """Tell the agents of the run under way to pause."""
        if self._inner is not None:
            await self._inner.pause()

    async def resume(self) -> None:
        """Go on after `pause`."""
        if self._inner is not None:
            await self._inner.resume()

    async def save_state(self) -> Mapping[str, Any]:
        """AutoGen's own state of the chat after the last finished run."""
        return self._state if self._state is not None else await self._chat.save_state()

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore AutoGen's own state of such a chat.

        Raises:
            ValueError: AutoGen's own, where it is none.
            RuntimeError: a run is under way.
        """
        if self._inner is not None:
            raise RuntimeError("The team cannot be loaded while it is running.")
        await self._chat.load_state(state)
        self._state = dict(state)
        self._remember(bytes_in(state.get("agent_states") or {}), images_saved(state))

    async def _events(
        self, run: Run, messages: list[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[Event, None]:
        self._refuse_while_running()
        plan = await self._plan(run, messages)
        # Another run may have started while this one was planned.
        self._refuse_while_running()
        halt = Halt()
        inner = self._inner = self._bind(plan, run, halt)
        condition = termination_of(inner)
        await reset_copies(condition, termination_of(self._chat))
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        # The user's token ends the driver, which ends the rest.
        driver = start_driver(self._drive(run, inner, messages, queue, halt), queue, token)
        try:
            while (event := await next_event(queue, driver)) is not None:
                yield event
        finally:
            driver.cancel()
            self._inner = None
            # AutoGen's own chat does so where it ends by itself, which a denied call prevents.
            if condition is not None:
                await condition.reset()

    async def _drive(
        self,
        run: Run,
        inner: BaseGroupChat,
        messages: list[BaseChatMessage],
        queue: asyncio.Queue[Event | None],
        halt: Halt,
    ) -> None:
        denied = asyncio.create_task(halt.wait())
        work = asyncio.create_task(self._run_inner(run, inner, messages, queue, halt))
        try:
            left = run.meter.seconds_left()
            timeout = None if left is None else max(0.0, left) * run.meter.clock.scale
            # wait() returns at the deadline even if the chat does not heed its cancellation.
            await asyncio.wait({work, denied}, timeout=timeout, return_when=FIRST_COMPLETED)
            if halt.denial is not None:
                await _let_others_end(run, work)
            if not work.done():
                run.exceeded = True
                reason = halt.denial.reason if halt.denial else "cancelled at the deadline"
                run.stop_reason = f"Budget exhausted: {reason}"
                return
            error = work.exception()
            if error is not None:
                run.stop_reason = f"Agents failed: {error}"
                raise error
            self._state = await state_of(inner)
            # Agents whose state does not say everything keep the rest themselves.
            for participant, twin in zip(
                participants_of(self._chat), participants_of(inner), strict=True
            ):
                adopt_state(participant, twin)
        finally:
            denied.cancel()
            halt.release()
            work.cancel()
            stop_runtimes(inner)

    async def _run_inner(
        self,
        run: Run,
        inner: BaseGroupChat,
        messages: list[BaseChatMessage],
        queue: asyncio.Queue[Event | None],
        halt: Halt,
    ) -> None:
        halt.claim()
        # A chat may have run before it was wrapped.
        state = self._state if self._state is not None else await state_of(self._chat)
        if state is not None:
            await load_into(inner, await self._up_to_date(state))
        stream = inner.run_stream(
            task=messages or None, cancellation_token=halt.token, output_task_messages=False
        )
        # MagenticOne says the task although it is told not to, and it has been said.
        told = {message.id for message in messages}
        async for event in stream:
            if isinstance(event, TaskResult):
                run.stop_reason, run.ended = event.stop_reason, True
            elif event.id not in told:
                run.spoke.add(event.source)
                queue.put_nowait(event)

    async def _up_to_date(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """A chat's state with what its agents know by now: they may have been reset, told
        something or used elsewhere since the last run."""
        saved = dict(state.get("agent_states") or {})
        for participant in participants_of(self._chat):
            own = saved.get(participant.name)
            # What runs inside of others is not theirs to tell: its state was put aside.
            if own and not any(isinstance(held, Team) for held in everyone_in(participant)):
                saved[participant.name] = {**own, "agent_state": await participant.save_state()}
        return {**state, "agent_states": saved}

    def _remembers(self, run: Run) -> bool:
        return run.ended

    def _refuse_while_running(self) -> None:
        if self._inner is not None:
            raise ValueError(
                "The team is already running, it cannot run again until it is stopped."
            )

    def _bind(self, plan: Plan, run: Run, halt: Halt) -> BaseGroupChat:
        """A copy of the chat whose every model call is on a planned backbone, under the meter."""

        def client(name: str, asked: ChatCompletionClient | None) -> BudgetClient | None:
            backbone = plan.assignment.get(name)
            if backbone is None:
                return None
            agent = self._team.agent(name)
            return client_for(agent, backbone, self._clients, run, halt=halt, asked=asked)

        contexts: dict[int, Any] = {}
        agents: list[Participant] = [
            rebind(participant, client(participant.name, model_client_of(participant)), contexts)
            for participant in participants_of(self._chat)
        ]
        own = vars(self._chat).get("_model_client")
        manager = client(self._manager, own) if self._manager else None
        return copy_chat(self._chat, agents, manager, alone=True)

    def _make_report(self, run: Run) -> RunReport:
        return routed_report(run, self._team.names)


async def _let_others_end(run: Run, work: asyncio.Task[None]) -> None:
    """Wait for those that are at work beside an agent whose call was denied: they are paid for."""
    meter, quiet = run.meter, 0
    while quiet < _QUIET and not work.done():
        ending = run.turns.next_end()
        if ending is None:
            quiet += 1
            await asyncio.sleep(0)
            continue
        quiet, left = 0, meter.seconds_left()
        timeout = None if left is None else max(0.0, left) * meter.clock.scale
        ended = asyncio.wrap_future(ending)
        done, _ = await asyncio.wait({work, ended}, timeout=timeout, return_when=FIRST_COMPLETED)
        if not done:
            return


def manager_name(chat: BaseGroupChat, taken: set[str]) -> str | None:
    """A name for the chat's own model calls that none of its agents has; None if it makes none."""
    if vars(chat).get("_model_client") is None:
        return None
    name = "orchestrator" if "magentic" in type(chat).__name__.lower() else "selector"
    while name in taken:
        name = f"_{name}"
    return name
