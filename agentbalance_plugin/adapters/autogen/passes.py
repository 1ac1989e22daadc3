"""The passes of a planned chat's run: who speaks, who hears it, and when the chat is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from autogen_agentchat.base import Response, Team, TerminationCondition
from autogen_agentchat.messages import (
    BaseChatMessage,
    ModelClientStreamingChunkEvent,
    SelectSpeakerEvent,
)
from autogen_core import AgentId, CancellationToken, MessageHandlerContext

from agentbalance_plugin.adapters.autogen.conversation import Conversation
from agentbalance_plugin.adapters.autogen.halt import Halt
from agentbalance_plugin.adapters.autogen.rebind import Participant
from agentbalance_plugin.adapters.autogen.run import Event, Run
from agentbalance_plugin.adapters.autogen.turn import denial_of, take_turn
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.scheduler import NotNeeded, Pass, run_pass


@dataclass(frozen=True)
class Cast:
    """Who plays a plan.

    Args:
        agents: per-run copies.
        halts: how those that hide errors are stopped.
        in_turn: whether they speak one after the other as in the chat, which may thus be over
            after any of them.
    """

    plan: Plan
    agents: Mapping[str, Participant]
    halts: Mapping[str, Halt]
    in_turn: bool


@dataclass
class Passes:
    """Of one run.

    Args:
        condition: the chat's, for this run alone.
        queue: of what happens, for the run's stream; None ends it.
        extract: the answer in a message.
        announcer: in whose name the chat says who speaks next; None where it does not.
        unpaused: set while agents may start.
        id: of the chat, as its agents' ids have it.
        stopped: why the chat is over, once its condition was met.
        last: what the last pass gave; spoke: agents that said something in any.
    """

    run: Run
    conversation: Conversation
    condition: TerminationCondition | None
    queue: asyncio.Queue[Event | None]
    token: CancellationToken
    extract: Callable[[BaseChatMessage], str | None]
    announcer: str | None
    unpaused: asyncio.Event
    id: str
    stopped: str | None = None
    last: Pass[BaseChatMessage] = field(default_factory=Pass[BaseChatMessage])
    spoke: set[str] = field(default_factory=set[str])

    async def one(self, cast: Cast) -> list[Event]:
        """One pass; what was said in it in order, the answer last."""
        plan, conversation, queue = cast.plan, self.conversation, self.queue
        said: list[Event] = []
        spoken: dict[str, list[BaseChatMessage]] = {}

        async def speak(name: str, heard: tuple[str, ...]) -> BaseChatMessage:
            if self.stopped is not None:
                raise NotNeeded
            await self.unpaused.wait()
            if self.announcer is not None:
                queue.put_nowait(SelectSpeakerEvent(content=[name], source=self.announcer))
            inbox = conversation.collect(name)
            for parent in heard:
                inbox += spoken[parent]
            before = len(said)
            # As the chat's own runtime does: events of calls name the agent by it.
            with MessageHandlerContext.populate_context(AgentId(f"{name}_{self.id}", self.id)):
                message, own = await self._turn(cast, name, inbox, said)
            # Of an agent others hear the answer alone, of a team every message.
            spoken[name] = own if isinstance(cast.agents[name], Team) else [message]
            if cast.in_turn:
                await self._ask_condition(said[before:])
            return message

        result = self.last = await run_pass(plan, speak, self.extract, self.run.meter)
        self.spoke.update(result.messages)
        if self.stopped is not None:
            # What ended the chat is its last word, whoever would have decided.
            result.chosen, result.confidence = next(reversed(result.messages)), None
        if result.chosen is not None:
            answer, repeated = result.messages[result.chosen], False
            if not _is_last(answer, said):
                answer, repeated = self.repeat(answer, said), True
            if not cast.in_turn:
                spoken = {result.chosen: [answer]}
            elif repeated:
                spoken[result.chosen] = [*spoken[result.chosen], answer]
        # In a chat that goes round everyone hears everything, else the answer.
        for name, messages in spoken.items():
            known = {name} | {n for n in result.messages if name in plan.parents(n)}
            conversation.tell(messages, except_for=known)
        if not cast.in_turn:
            await self._ask_condition(said)
        return said

    def repeat(self, answer: BaseChatMessage, said: list[Event]) -> BaseChatMessage:
        """Say the answer again: users read the last message as the answer."""
        answer = answer.model_copy(
            update={"metadata": {**answer.metadata, "agentbalance": "decision"}}
        )
        said.append(answer)
        self.queue.put_nowait(answer)
        return answer

    async def _turn(
        self, cast: Cast, name: str, inbox: list[BaseChatMessage], said: list[Event]
    ) -> tuple[BaseChatMessage, list[BaseChatMessage]]:
        """(an agent's response, all of its messages); what it does goes to `said` as it comes."""
        message: BaseChatMessage | None = None
        own: list[BaseChatMessage] = []
        denied = len(self.run.denials)
        halt = cast.halts.get(name)
        token = self.token if halt is None else halt.begin()
        stream = take_turn(cast.agents[name], inbox, token)
        if halt is not None:
            stream = halt.guard(stream)
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, Response):
                    message = event.chat_message
                    continue
                said.append(event)
                self.queue.put_nowait(event)
                if isinstance(event, BaseChatMessage):
                    own.append(event)
        if message is None:
            raise RuntimeError(f"agent {name!r} gave no response")
        if not any(each is message for each in said):
            said.append(message)
            self.queue.put_nowait(message)
        if (hidden := denial_of(self.run.denials[denied:], name)) is not None:
            # It caught what its model client raised, and what it says is most likely that it could
            # not answer.
            raise hidden
        return message, own

    async def _ask_condition(self, said: Sequence[Event]) -> None:
        if self.condition is None or not said:
            return
        stop = await self.condition(said)
        if stop is not None:
            self.stopped = stop.content


def _is_last(answer: BaseChatMessage, said: Sequence[Event]) -> bool:
    """Whether the answer is the last of what goes into the result."""
    kept = [event for event in said if not isinstance(event, ModelClientStreamingChunkEvent)]
    return bool(kept) and kept[-1] is answer
