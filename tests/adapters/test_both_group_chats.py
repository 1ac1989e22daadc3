"""One `wrap_groupchat` for chats of AutoGen and of AG2, which go together in one process."""

from __future__ import annotations

import asyncio
import sys
import warnings
from importlib.util import find_spec
from typing import Any

import pytest

from agentbalance_plugin import (
    Budget,
    Catalog,
    CatalogError,
    Plan,
    Team,
    balance,
    wrap_groupchat,
)
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


@pytest.mark.parametrize("own_kind", [False, True])
def test_a_graph_leaves_a_wrapped_manager_in_a_node_to_its_own_budget(
    replay: Replay, own_kind: bool
) -> None:
    import autogen
    from langchain_openai import ChatOpenAI
    from langgraph.graph import END, START, MessagesState, StateGraph

    class Mine(autogen.GroupChatManager):
        pass

    backbone, budget = replay.catalog[MINI], Budget(cost_usd=1.0)
    model = ChatOpenAI(model=MINI, api_key="none", base_url="http://127.0.0.1:9/v1")
    agents = [autogen.ConversableAgent(name, llm_config=dict(OWN)) for name in "ab"]
    group = autogen.GroupChat(agents, speaker_selection_method="round_robin")
    kind = Mine if own_kind else autogen.GroupChatManager
    manager = kind(group, llm_config=dict(OWN))
    manager = wrap_groupchat(manager, budget=budget, backbones=[(backbone, dict(OWN))])
    user = autogen.UserProxyAgent("user", code_execution_config=False)

    def node(state: MessagesState) -> Any:
        user.initiate_chat(manager, message="What is 17 * 23?")
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balance(builder, budget=budget, backbones=[(backbone, model)]).compile()


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
