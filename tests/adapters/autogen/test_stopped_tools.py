"""What an agent was stopped in leaves it a history that endpoints take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage
from autogen_agentchat.teams import RoundRobinGroupChat, Swarm
from autogen_agentchat.tools import AgentTool
from autogen_core import CancellationToken
from autogen_core.models import AssistantMessage, FunctionExecutionResultMessage
from chats import MINI, Bench, Echo, chain, texts

from agentbalance_plugin import Budget

pytestmark = pytest.mark.virtual_time


async def unanswered(agent: AssistantAgent) -> tuple[int, int]:
    """(calls of tools, those without an answer) in an agent's history."""
    calls: set[str] = set()
    answered: set[str] = set()
    for message in await agent.model_context.get_messages():
        if isinstance(message, AssistantMessage) and not isinstance(message.content, str):
            calls |= {call.id for call in message.content}
        if isinstance(message, FunctionExecutionResultMessage):
            answered |= {result.call_id for result in message.content}
    return len(calls), len(calls - answered)


class Sleeper(Echo):
    """An agent that takes long."""

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        await asyncio.sleep(1000)
        raise AssertionError("nobody waits so long")


async def wait(task: str) -> str:
    """Takes long."""
    await asyncio.sleep(1000)
    return task


@pytest.mark.parametrize("tool", [wait, AgentTool(Sleeper("wait"))])
async def test_a_tool_that_the_deadline_stopped_is_answered(bench: Bench, tool: Any) -> None:
    agent = bench.assistant("solver", tools=[tool])
    team = bench.wrap(
        RoundRobinGroupChat([agent], max_turns=1),
        chain({"solver": MINI}),
        budget=Budget(cost_usd=1, latency_s=100),
    )
    result = await team.run(task=f'{bench.task()} [[tool:wait {{"task": "wait"}}]]')
    assert str(result.stop_reason).startswith("Budget exhausted: ")
    assert await unanswered(agent) == (1, 0)
    result = await team.run(task=bench.task(1))
    assert texts(result.messages)[-1][0] == "solver"
    assert team.report.complete


@pytest.mark.parametrize("chat", ["routed", "nested"])
async def test_a_tool_that_the_deadline_stopped_leaves_no_task_behind(
    bench: Bench, chat: str
) -> None:
    inner: Any = Swarm([bench.assistant("solver", tools=[wait])], max_turns=2, name="inner")
    if chat == "nested":
        inner = RoundRobinGroupChat([inner], max_turns=1)
    team = bench.wrap(inner, mode="backbones", budget=Budget(cost_usd=1, latency_s=100))
    result = await team.run(task=f'{bench.task()} [[tool:wait {{"task": "wait"}}]]')
    assert str(result.stop_reason).startswith("Budget exhausted: ")
    await asyncio.sleep(1)
    assert not [task for task in asyncio.all_tasks() if "autogen" in str(task.get_coro()).lower()]
