"""One `wrap_groupchat` for chats of AutoGen and of AG2, which go together in one process."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec

import pytest

from agentbalance_plugin import Budget, Catalog, CatalogError, Plan, Team, wrap_groupchat
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.simulator.server import Simulator

MINI = "gpt-4o-mini-2024-07-18"
OWN = {"model": MINI, "api_key": "none", "base_url": "http://127.0.0.1:9/v1"}

pytestmark = pytest.mark.skipif(
    not (find_spec("autogen") and find_spec("autogen_agentchat")), reason="both are extras"
)


class _Mini:
    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        return Plan(
            {agent.name: MINI if agent.calls_backbone else None for agent in team.agents},
            edges=team.fixed_edges or (),
            decider=team.decider,
        )


async def test_each_is_wrapped_by_its_own_adapter_in_one_process(replay: Replay) -> None:
    import autogen
    from autogen_agentchat.agents import AssistantAgent
    from autogen_agentchat.teams import RoundRobinGroupChat
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    async with Simulator(replay, scale=0) as simulator:
        catalog = simulator.serving(Catalog([replay.catalog[MINI]]))
        client = OpenAIChatCompletionClient(model="gpt-4o-mini", api_key="none")
        chat = RoundRobinGroupChat([AssistantAgent("solver", client)], max_turns=1)
        budget = Budget(cost_usd=1.0)
        team = wrap_groupchat(chat, budget=budget, backbones=catalog, policy=_Mini())
        await team.run(task="What is 17 * 23?")
        first = simulator.books.spend().nanodollars
        agents = [
            autogen.ConversableAgent(name, llm_config=dict(OWN), silent=True) for name in "ab"
        ]
        group = autogen.GroupChat(agents, speaker_selection_method="round_robin", max_round=2)
        manager = wrap_groupchat(
            autogen.GroupChatManager(group, silent=True),
            budget=budget,
            backbones=catalog,
            policy=_Mini(),
        )
        await asyncio.to_thread(
            agents[0].initiate_chat, manager, message="What is 17 * 23?", silent=True
        )
        assert team.report.spend.nanodollars == first > 0
        both = first + manager.report.spend.nanodollars
        assert simulator.books.spend().nanodollars == both > first
        await team.close()


@pytest.mark.parametrize("absent", ["ag2", "autogen"])
def test_neither_adapter_is_needed_for_the_other(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import autogen
    from autogen_agentchat.agents import UserProxyAgent
    from autogen_agentchat.teams import RoundRobinGroupChat

    group = autogen.GroupChat([autogen.ConversableAgent(name) for name in "ab"])
    chats = {
        "ag2": autogen.GroupChatManager(group),
        "autogen": RoundRobinGroupChat([UserProxyAgent("a")]),
    }
    monkeypatch.setitem(sys.modules, f"agentbalance_plugin.adapters.{absent}", None)
    for framework, chat in chats.items():
        # The other one gets as far as the catalog, which is not there.
        with pytest.raises(ImportError if framework == absent else CatalogError):
            wrap_groupchat(chat, budget=Budget(cost_usd=1.0), backbones="none.yaml")
