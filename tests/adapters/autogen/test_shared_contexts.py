"""Agents that are made with one model context share it in a wrapped chat too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest
from autogen_agentchat.base import ChatAgent
from autogen_agentchat.teams import BaseGroupChat, RoundRobinGroupChat, Swarm
from autogen_core.model_context import UnboundedChatCompletionContext
from chats import Bench

pytestmark = pytest.mark.virtual_time


async def heard_by(bench: Bench, chat: BaseGroupChat, context: Any, **wrap: Any) -> list[list[str]]:
    """The kinds of messages in the shared context after each of two runs."""
    team = bench.wrap(chat, **wrap) if wrap else chat
    found: list[list[str]] = []
    for number in range(2):
        await team.run(task=bench.task(number))
        found.append([type(message).__name__ for message in await context.get_messages()])
    return found


@pytest.mark.parametrize("mode", ["full", "backbones"])
@pytest.mark.parametrize("kind", [RoundRobinGroupChat, Swarm])
async def test_agents_of_one_context_share_it(
    bench: Bench, kind: Any, mode: Literal["full", "backbones"]
) -> None:
    def chat() -> tuple[BaseGroupChat, UnboundedChatCompletionContext]:
        context = UnboundedChatCompletionContext()
        agents: Sequence[ChatAgent] = [
            bench.assistant(name, model_context=context) for name in ("solver", "critic")
        ]
        return kind(agents, max_turns=2), context

    stock = await heard_by(bench, *chat())
    assert stock[0].count("AssistantMessage") == 2
    assert await heard_by(bench, *chat(), mode=mode) == stock
