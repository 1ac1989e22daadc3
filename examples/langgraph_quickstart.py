"""Put a LangGraph graph under a budget.

pip install 'agentbalance-plugin[langgraph]'
OPENAI_API_KEY=... GEMINI_API_KEY=... python langgraph_quickstart.py backbones.yaml "17 * 23 = ?"
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

from agentbalance_plugin import Budget
from agentbalance_plugin.adapters.langgraph import balance, explain


async def main(backbones: str, task: str) -> None:
    # Your graph as it is today, all agents on one chat model.
    model = ChatOpenAI(model="gpt-4o-mini")
    ask = "Solve the task. End with a line 'Answer: ...'."

    def agent(name: str, system: str) -> Any:
        async def node(state: MessagesState) -> dict[str, Any]:
            reply = await model.ainvoke([("system", f"{system} {ask}"), *state["messages"]])
            return {"messages": [AIMessage(reply.content, name=name)]}

        return node

    builder = StateGraph(MessagesState)
    builder.add_node("planner", agent("planner", "You plan, then solve."))
    builder.add_node("solver", agent("solver", "You solve step by step."))
    builder.add_node("critic", agent("critic", "You solve again and look for mistakes."))
    builder.add_node("decider", agent("decider", "You weigh what was said."))
    builder.add_edge(START, "planner")
    builder.add_edge("planner", "solver")
    builder.add_edge("solver", "critic")
    builder.add_edge("critic", "decider")
    builder.add_edge("decider", END)

    explain(builder)
    budget = Budget(cost_usd=0.004, latency_s=12)
    app = balance(builder, budget=budget, backbones=backbones).compile()
    result = await app.ainvoke({"messages": [("user", task)]})
    print(result["messages"][-1].text)
    print(app.report.to_text())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
