"""A tool whose model the budget has no room for says so, and the tools beside it keep their say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from graphs import Bench
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from agentbalance_plugin import Budget, BudgetExceeded

THREAD: Any = {"configurable": {"thread_id": "one"}}


@pytest.mark.parametrize("on_exceeded", ["finish", "raise"])
@pytest.mark.parametrize("blocking", [True, False])
async def test_a_denied_tool_leaves_a_history_that_an_endpoint_takes(
    instant: Bench, blocking: bool, on_exceeded: Any
) -> None:
    inside = instant.model()

    @tool
    def ask(text: str, times: int) -> str:
        "Asks another."
        return inside.invoke(text * times).text

    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([ask]))
    builder.add_node("writer", instant.blocking("writer") if blocking else instant.node("writer"))
    builder.add_edge(START, "tools").add_edge("tools", "writer")
    app = instant.balance(
        builder, budget=Budget(cost_usd=0.005, on_exceeded=on_exceeded), agents=["writer"]
    ).compile(checkpointer=InMemorySaver())
    calls = [
        ToolCall(name="ask", args={"text": "hello ", "times": times}, id=f"{times} times")
        for times in (1, 40_000)
    ]
    task = [HumanMessage(instant.task()), AIMessage("", tool_calls=calls)]

    async def run() -> Any:
        if blocking:
            return await asyncio.to_thread(app.invoke, {"messages": task}, THREAD)
        return await app.ainvoke({"messages": task}, THREAD)

    if on_exceeded == "raise":
        with pytest.raises(BudgetExceeded, match="tools: a call of"):
            await run()
    else:
        await run()
    state = await app.aget_state(THREAD)
    paid, denied = state.values["messages"][2:4]
    assert paid.tool_call_id == "1 times"
    assert paid.status == "success"
    assert denied.tool_call_id == "40000 times"
    assert denied.content.startswith("Stopped: tools: a call of")
    assert denied.status == "error"
    assert state.next == (("writer",) if on_exceeded == "raise" else ())
    assert len(state.values["messages"]) == (4 if on_exceeded == "raise" else 5)
    assert not app.report.complete
    assert app.report.spend.nanodollars == instant.billed()
