"""A wrapped chat of AutoGen's inside a balanced graph of LangGraph's, and the other way round."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

from agentbalance_plugin import Budget, Catalog, balance, wrap_groupchat
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.simulator.server import Simulator

MINI = "gpt-4o-mini-2024-07-18"
CAN_CALL = ModelInfo(
    vision=False,
    function_calling=True,
    json_output=False,
    structured_output=False,
    family="unknown",
)


def asking(simulator: Simulator) -> StateGraph[Any, Any, Any, Any]:
    """A graph of one agent."""
    model = ChatOpenAI(model="stock", base_url=simulator.base_url, api_key="local", max_retries=0)

    async def solver(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("solver", solver)
    builder.add_edge(START, "solver")
    builder.add_edge("solver", END)
    return builder


def wrapped(simulator: Simulator, catalog: Catalog, *tools: Any) -> Any:
    client = OpenAIChatCompletionClient(
        model="stock", base_url=simulator.base_url, api_key="local", model_info=CAN_CALL
    )
    chat = RoundRobinGroupChat([AssistantAgent("helper", client, tools=list(tools))], max_turns=1)
    return wrap_groupchat(chat, budget=Budget(cost_usd=1), backbones=catalog)


@pytest.mark.parametrize("nested", [True, False])
async def test_each_call_is_in_one_of_the_budgets(replay: Replay, nested: bool) -> None:
    async with Simulator(replay, scale=0) as simulator:
        found = replay.traces.profiled_candidates().subset([MINI])
        able = frozenset({"text", "tools"})
        served = simulator.serving(found).values()
        catalog = Catalog(replace(backbone, capabilities=able) for backbone in served)
        inner = balance(asking(simulator), budget=Budget(cost_usd=1), backbones=catalog).compile()

        async def ask(x: int) -> str:
            "Asks a graph."
            return (await inner.ainvoke({"messages": [("user", "1 + 2?")]}))["messages"][-1].text

        team = wrapped(simulator, catalog, ask)
        task = '1 + 2? [[tool:ask {"x": 1}]]'

        async def chat(state: MessagesState) -> Any:
            said = await team.run(task=task)
            return {"messages": [("ai", said.messages[-1].to_text())]}

        reports: list[Any] = []
        if nested:
            builder = asking(simulator)
            builder.add_node("chat", chat)
            builder.add_edge("solver", "chat")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outer = balance(builder, budget=Budget(cost_usd=1), backbones=catalog).compile()
            await outer.ainvoke({"messages": [("user", "1 + 2?")]})
            reports = [outer.report, team.report]
            with pytest.raises(RuntimeError, match="no run has ended"):
                _ = inner.report
        else:
            await team.run(task=task)
            reports = [team.report, inner.report]
        await team.close()
        calls = [report.spend.calls for report in reports]
        spent = [report.spend.nanodollars for report in reports]
        assert calls == ([2, 1] if nested else [1, 1])
        assert sum(spent) == simulator.books.spend().nanodollars
