"""The demo's team as a LangGraph graph."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.demo import ROLES, Runner
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.extras import require
from agentbalance_plugin.runtime.report import RunReport

if TYPE_CHECKING:
    from langgraph.graph import StateGraph


class Demo:
    """Four nodes in a chain; see `agentbalance_plugin.cli.demo.Framework`."""

    team = f"graph of {len(ROLES)} nodes in a chain"

    def stock(self, backbone: str, base_url: str) -> Runner:
        app: Any = _graph(backbone, base_url).compile()

        async def run(task: str) -> tuple[str, RunReport | None]:
            result = await app.ainvoke({"messages": [("user", task)]})
            return result["messages"][-1].text, None

        return run

    def wrapped(
        self, backbone: str, base_url: str, budget: Budget, catalog: Catalog, policy: Policy
    ) -> Runner:
        from agentbalance_plugin.adapters.langgraph import balance

        graph = _graph(backbone, base_url)
        app: Any = balance(graph, budget=budget, backbones=catalog, policy=policy).compile()

        async def run(task: str) -> tuple[str, RunReport | None]:
            result = await app.ainvoke({"messages": [("user", task)]})
            return result["messages"][-1].text, app.report

        return run


def _graph(backbone: str, base_url: str) -> StateGraph[Any, Any, Any, Any]:
    graphs: Any = require("langgraph.graph", extra="langgraph")
    messages: Any = require("langchain_core.messages", extra="langgraph")
    openai = require("langchain_openai", extra="langgraph")
    model = openai.ChatOpenAI(model=backbone, base_url=base_url, api_key="local")

    def agent(name: str, role: str) -> Any:
        async def node(state: Any) -> dict[str, Any]:
            system = ("system", f"[[agent:{name}]] {role}")
            reply = await model.ainvoke([system, *state["messages"]])
            return {"messages": [messages.AIMessage(reply.content, name=name)]}

        return node

    builder = graphs.StateGraph(graphs.MessagesState)
    for name, role in ROLES.items():
        builder.add_node(name, agent(name, role))
    for before, after in pairwise((graphs.START, *ROLES, graphs.END)):
        builder.add_edge(before, after)
    return builder
