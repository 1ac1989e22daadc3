"""A balanced graph that a stock graph calls has a budget of its own, and keeps it when resumed."""

from __future__ import annotations

from typing import Any

import pytest
from graphs import LLAMA, Assign, Bench, chain_of, speakers
from langgraph.checkpoint.memory import InMemorySaver

THREAD: Any = {"configurable": {"thread_id": "one"}}


@pytest.mark.virtual_time
async def test_a_subgraph_with_a_history_of_its_own_is_planned_at_every_turn(bench: Bench) -> None:
    planner = Assign({"a": LLAMA, "b": LLAMA})
    inner = bench.balance(bench.chain(("a", "b")), policy=planner).compile(checkpointer=True)
    app = chain_of({"team": inner}).compile(checkpointer=InMemorySaver())
    for number in range(2):
        spent = bench.billed()
        result = await app.ainvoke(bench.ask(number), THREAD)
        assert speakers(result)[-2:] == ["a", "b"]
        assert [line.status for line in inner.report.agents] == ["done", "done"]
        assert inner.report.spend.nanodollars == bench.billed() - spent
    assert [query for query, _ in planner.asked] == [bench.task(0), bench.task(1)]
    assert bench.called() == [("a", LLAMA), ("b", LLAMA)] * 2
