"""Chats and plans that the tests of the AG2 adapter share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from autogen import ConversableAgent, GroupChat, GroupChatManager, UserProxyAgent

from agentbalance_plugin import Budget, Catalog, Plan, Team
from agentbalance_plugin.adapters.ag2 import wrap_groupchat
from agentbalance_plugin.adapters.ag2.manager import WrappedManager
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.simulator.server import Simulator

MINI = "gpt-4o-mini-2024-07-18"
LARGE = "gpt-4o-2024-08-06"
NAMES = ("planner", "solver", "critic")
WIDE = Budget(cost_usd=10.0)
# What the user's agents were made with. Nothing listens there: a call of it would fail.
OWN = {"model": "own-model", "api_key": "none", "base_url": "http://127.0.0.1:9/v1"}


@dataclass
class Assign:
    """A planner that keeps the team as it is, on backbones of the test's choice."""

    backbones: Mapping[str, str] = field(default_factory=dict[str, str])
    asked: list[tuple[str, Team]] = field(default_factory=list[tuple[str, Team]])

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        self.asked.append((query, team))
        return Plan(
            {
                agent.name: self.backbones.get(agent.name, MINI) if agent.calls_backbone else None
                for agent in team.agents
            }
        )


def agent(name: str, **more: Any) -> ConversableAgent:
    options = {"llm_config": dict(OWN), "human_input_mode": "NEVER", "silent": True, **more}
    return ConversableAgent(name, system_message=f"You are the {name}. [[agent:{name}]]", **options)


def user(**more: Any) -> UserProxyAgent:
    """Who starts a chat: no model, no code."""
    options = {"human_input_mode": "NEVER", "code_execution_config": False, **more}
    return UserProxyAgent("user", **options)


@dataclass(frozen=True)
class Bench:
    """A simulator, and what tests need to talk to it."""

    simulator: Simulator
    replay: Replay

    def task(self, number: int = 0) -> str:
        """A recorded test query as text."""
        queries = [
            query
            for query in self.replay.traces.queries
            if query.split == "test" and query.benchmark == "gsm8k"
        ]
        return task_text(queries[number], self.replay)

    def catalog(self, *names: str, dear: str | None = None) -> Catalog:
        able = frozenset({"text", "tools", "structured_output"})
        known = (replace(self.replay.catalog[name], capabilities=able) for name in names)
        backbones = list(known)
        if dear is not None:
            usual = self.replay.catalog[dear]
            backbones.append(replace(usual, price_in_usd_per_mtok=Decimal(1000)))
        return self.simulator.serving(Catalog(backbones))

    def manager(self, *agents: ConversableAgent, turns: int = 3, **chat: Any) -> GroupChatManager:
        """Of a chat in turn, if nothing else is said."""
        members = agents or tuple(agent(name) for name in NAMES)
        options = {"speaker_selection_method": "round_robin", **chat}
        group = GroupChat(agents=list(members), max_round=turns + 1, **options)
        return GroupChatManager(group, llm_config=dict(OWN), silent=True)

    def wrapped(self, manager: GroupChatManager | None = None, **options: Any) -> WrappedManager:
        given = {
            "budget": WIDE,
            "backbones": self.catalog(MINI, LARGE),
            "policy": Assign(),
            **options,
        }
        return wrap_groupchat(manager or self.manager(), **given)

    def billed(self) -> int:
        """Nano-dollars, by the server's books."""
        return self.simulator.books.spend().nanodollars

    def agents_billed(self) -> list[str]:
        return [entry.agent for entry in self.simulator.books.entries]


async def start(
    manager: GroupChatManager, task: str, asker: UserProxyAgent | None = None, **more: Any
) -> Any:
    """The result of a chat that somebody starts, in a thread of its own."""
    begin = (asker or user()).initiate_chat
    return await asyncio.to_thread(begin, manager, message=task, silent=True, **more)
