"""LangGraph graphs as written and the same graphs under a budget, on recorded answers.

pip install 'agentbalance-plugin[langgraph,simulator]'
python plugin_pat1_langgraph.py                              # reasoning, mmlu, mmlu_pro
python plugin_pat1_langgraph.py --traces DIR --suite gpqa_diamond --suite humaneval

Real graphs and OpenAI clients talk over HTTP to a local server that replays what backbones
answered. Nothing here is live, and nothing needs a key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

from agentbalance_plugin import Budget, balance
from agentbalance_plugin.cli.framework_runs import Ask
from agentbalance_plugin.cli.plugin_results import Endpoint, main
from agentbalance_plugin.runtime.report import RunReport

CHAIN = {
    "planner": "You break the task down and solve it.",
    "solver": "You solve the task step by step.",
    "critic": "You solve the task again and look for mistakes.",
    "decider": "You weigh what was said and give the final answer.",
}


def agent(endpoint: Endpoint, name: str, role: str) -> Any:
    """A node on the reference backbone that reads all messages."""
    model = ChatOpenAI(model=endpoint.reference, base_url=endpoint.base_url, api_key="local")

    async def node(state: MessagesState) -> dict[str, Any]:
        # The marker tells the server who asks, so that its draws do not depend on the order.
        system = ("system", f"[[agent:{name}]] {role}")
        reply = await model.ainvoke([system, *state["messages"]])
        return {"messages": [AIMessage(reply.content, name=name)]}

    return node


def chain(endpoint: Endpoint) -> StateGraph[Any, Any, Any, Any]:
    """Four agents one after the other, each reading all before it; the last decides."""
    builder = StateGraph(MessagesState)
    before = START
    for name, role in CHAIN.items():
        builder.add_node(name, agent(endpoint, name, role))
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder


def debate(endpoint: Endpoint) -> StateGraph[Any, Any, Any, Any]:
    """Three answer at once, and a judge reads them (after LLM-Debate, arXiv 2305.14325)."""
    builder = StateGraph(MessagesState)
    names = ["debater_1", "debater_2", "debater_3"]
    for name in names:
        builder.add_node(name, agent(endpoint, name, "You solve the task step by step."))
        builder.add_edge(START, name)
    builder.add_node("judge", agent(endpoint, "judge", "You weigh the answers and give yours."))
    builder.add_edge(names, "judge")
    builder.add_edge("judge", END)
    return builder


class Graph:
    """A graph, as written and balanced."""

    def __init__(self, make: Callable[[Endpoint], StateGraph[Any, Any, Any, Any]]) -> None:
        self.make = make

    def stock(self, endpoint: Endpoint) -> Ask:
        return ask(self.make(endpoint).compile())

    def balanced(self, endpoint: Endpoint, budget: Budget) -> Ask:
        builder = balance(
            self.make(endpoint), budget=budget, backbones=endpoint.catalog, policy=endpoint.policy
        )
        return ask(builder.compile())

    async def close(self) -> None:
        """Nothing to do: LangChain shares its HTTP clients and keeps them."""


def ask(app: Any) -> Ask:
    """Each task is a run of its own."""

    async def run(task: str) -> tuple[str, RunReport | None]:
        result = await app.ainvoke({"messages": [("user", task)]})
        return result["messages"][-1].text, getattr(app, "report", None)

    return run


SYSTEMS = {"chain": Graph(chain), "debate": Graph(debate)}

if __name__ == "__main__":
    main(SYSTEMS, "LangGraph graphs as written and under a budget, on recorded answers.")
