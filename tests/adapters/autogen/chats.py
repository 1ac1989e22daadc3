"""Chats, plans and catalogs that the tests of the AutoGen adapter share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken
from autogen_core.models import ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient

from agentbalance_plugin import Budget, Catalog, Plan, Team, wrap_groupchat
from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.simulator.server import Simulator

MINI = "gpt-4o-mini-2024-07-18"
LLAMA = "Meta-Llama-3.1-70B-Instruct"
LARGE = "gpt-4o-2024-08-06"
NAMES = ("planner", "solver", "critic", "decider")
WIDE = Budget(cost_usd=10.0, latency_s=10_000)

CAN_DO_ALL = ModelInfo(
    vision=True,
    function_calling=True,
    json_output=True,
    structured_output=True,
    family="unknown",
    multiple_system_messages=True,
)


class FixedPlanner:
    """Always the same plan, so that a test knows what runs."""

    def __init__(self, plan: Plan) -> None:
        self.made = plan
        self.queries: list[str] = []

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        self.queries.append(query)
        return self.made


class Echo(BaseChatAgent):
    """An agent without a model client: says what it heard, and how often it was called."""

    def __init__(self, name: str = "echo", fail: bool = False) -> None:
        super().__init__(name, "Repeats.")
        self.heard: list[list[str]] = []
        self.resets = 0
        self.pauses = 0
        self.fail = fail

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        if self.fail:
            raise RuntimeError("the echo is broken")
        self.heard.append([message.source for message in messages])
        text = f"heard {len(messages)}\nAnswer: echo"
        return Response(chat_message=TextMessage(content=text, source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        self.resets += 1
        self.heard.clear()

    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        self.pauses += 1


@dataclass(frozen=True)
class Bench:
    """A simulator, and what tests need to talk to it; `close` closes what was made."""

    simulator: Simulator
    replay: Replay
    made: list[Any] = field(default_factory=list)

    async def close(self) -> None:
        for closable in self.made:
            await closable.close()

    def task(self, number: int = 0, benchmark: str = "gsm8k") -> str:
        """A recorded test query as text."""
        return task_text(self.query(number, benchmark), self.replay)

    def key(self, number: int = 0, benchmark: str = "gsm8k") -> str:
        return self.query(number, benchmark).key

    def query(self, number: int, benchmark: str) -> Any:
        found = [
            query
            for query in self.replay.traces.queries
            if query.split == "test" and query.benchmark == benchmark
        ]
        return found[number]

    def client(self, model: str = LARGE, **more: Any) -> OpenAIChatCompletionClient:
        """What a user's agents call before they are wrapped."""
        client = OpenAIChatCompletionClient(
            model=model,
            base_url=self.simulator.base_url,
            api_key="local",
            model_info=CAN_DO_ALL,
            **more,
        )
        self.made.append(client)
        return client

    def assistant(self, name: str, system: str = "Solve.", **more: Any) -> AssistantAgent:
        return AssistantAgent(
            name, self.client(), system_message=f"[[agent:{name}]] {system}", **more
        )

    def chat(self, names: Sequence[str] = NAMES, **more: Any) -> RoundRobinGroupChat:
        more.setdefault("max_turns", len(names))
        return RoundRobinGroupChat([self.assistant(name) for name in names], **more)

    def catalog(self, *names: str, capabilities: Sequence[str] = ("text", "tools")) -> Catalog:
        """Profiled candidates that are called at the simulator."""
        candidates = self.replay.traces.profiled_candidates()
        found = self.simulator.serving(candidates.subset(names or candidates))
        able = frozenset(capabilities)
        return Catalog(replace(backbone, capabilities=able) for backbone in found.values())

    def policy(self) -> Policy:
        return Policy.load("default", RecordedEncoder(self.replay.traces))

    def wrap(self, chat: Any, plan: Plan | None = None, **more: Any) -> WrappedTeam:
        """Wrapped under a wide budget, with a plan of the test's choice."""
        more.setdefault("budget", WIDE)
        more.setdefault("backbones", self.catalog())
        more.setdefault("policy", self.policy() if plan is None else FixedPlanner(plan))
        team = wrap_groupchat(chat, **more)
        self.made.append(team)
        return team

    def billed(self, key: str | None = None) -> int:
        return self.simulator.books.spend(key).nanodollars


def chain(assignment: Mapping[str, str | None], **more: Any) -> Plan:
    """Everyone hears all before; the last decides."""
    names = list(assignment)
    edges = tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    return Plan(assignment=assignment, edges=edges, decider=names[-1], **more)


def texts(messages: Sequence[Any]) -> list[tuple[str, str]]:
    """(source, text) of the chat messages."""
    return [
        (message.source, message.to_text())
        for message in messages
        if isinstance(message, BaseChatMessage)
    ]


async def cancel_before_start(bench: Bench, team: WrappedTeam) -> None:
    """A run whose token was cancelled already ends at once, at no cost, and the next one runs."""
    token = CancellationToken()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(team.run(task=bench.task(), cancellation_token=token), 1000)
    assert not bench.simulator.books.entries
    assert (await team.run(task=bench.task())).messages
