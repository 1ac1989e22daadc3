"""Agents that were planned side by side remove messages, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from graphs import MINI, WIDE, Always, Bench, chain_of, speakers
from langchain_core.messages import AIMessage, AnyMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from agentbalance_plugin import Plan, balance

THREAD: Any = {"configurable": {"thread_id": "one"}}
BESIDE = Plan(dict.fromkeys("abc", MINI), edges=(("a", "c"), ("b", "c")), decider="c")

REMOVALS: dict[str, Callable[[list[AnyMessage]], list[Any]]] = {
    "by id": lambda seen: [RemoveMessage(each.id or "") for each in seen[:-1]],
    "all but the last": lambda seen: [RemoveMessage(REMOVE_ALL_MESSAGES), seen[-1]],
    "all": lambda seen: [RemoveMessage(REMOVE_ALL_MESSAGES)],
}


def graph(bench: Bench, **removing: Callable[[list[AnyMessage]], list[Any]]) -> Any:
    """Agents a and b beside each other, some of which remove messages, and c behind them."""

    def agent(name: str) -> Any:
        speak = bench.node(name)

        async def node(state: Any) -> Any:
            said = (await speak(state))["messages"]
            removed = removing[name](state["messages"]) if name in removing else []
            return {"messages": [*removed, *said]}

        return node

    builder = chain_of({name: agent(name) for name in "abc"})
    return balance(
        builder, budget=WIDE, backbones=bench.catalog(), policy=Always(BESIDE), mode="full"
    ).compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize("way", REMOVALS)
async def test_agents_beside_each_other_remove_what_they_have_seen(
    instant: Bench, way: str
) -> None:
    app = graph(instant, a=REMOVALS[way], b=REMOVALS[way])
    kept = [] if way == "all" else ["human"]
    for number in range(3):
        result = await app.ainvoke(instant.ask(number), THREAD)
        assert speakers(result) == [*kept, "a", "b", "c"]
        assert [line.status for line in app.report.agents] == ["done"] * 3
    assert len(instant.called()) == 9


async def test_a_summary_stays_before_the_messages_that_an_agent_keeps(instant: Bench) -> None:
    def summarized(seen: list[AnyMessage]) -> list[Any]:
        summary = AIMessage("In short.", name="summary")
        return [RemoveMessage(REMOVE_ALL_MESSAGES), summary, seen[-1]]

    app = graph(instant, b=summarized)
    await app.ainvoke(instant.ask(), THREAD)
    result = await app.ainvoke(instant.ask(1), THREAD)
    assert speakers(result) == ["summary", "human", "a", "b", "c"]
