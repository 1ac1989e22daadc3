"""One turn of an agent or of a team that takes part as one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from autogen_agentchat.base import ChatAgent, Response, TaskResult
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage
from autogen_core import CancellationToken

from agentbalance_plugin.adapters.autogen.rebind import Participant
from agentbalance_plugin.runtime.call import CallDenied


async def take_turn(
    participant: Participant, inbox: list[BaseChatMessage], token: CancellationToken
) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
    """What a participant says on an inbox, its Response last; a team's is the last chat message
    that came before."""
    if isinstance(participant, ChatAgent):
        async for event in participant.on_messages_stream(inbox, token):
            yield event
        return
    # Teams refuse an empty list; without a task they go on where they are.
    stream = participant.run_stream(
        task=inbox or None, cancellation_token=token, output_task_messages=False
    )
    last: BaseChatMessage | None = None
    async for event in stream:
        if isinstance(event, TaskResult):
            # The stream ends when all agents have heard what was said last.
            continue
        # At once: a team that runs out of budget has paid for what it said.
        yield event
        if isinstance(event, BaseChatMessage):
            last = event
    if last is not None:
        yield Response(chat_message=last)


def denial_of(denials: Sequence[CallDenied], name: str) -> CallDenied | None:
    """The last one of a participant's own calls."""
    found = [each for each in denials if each.reason.startswith(f"{name}:")]
    return found[-1] if found else None
