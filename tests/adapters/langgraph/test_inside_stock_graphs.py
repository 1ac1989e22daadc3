"""A balanced graph that a stock graph calls has a budget of its own, and keeps it when resumed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from graphs import LLAMA, Assign, Bench, chain_of, speakers
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

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


@pytest.mark.parametrize("history", [None, True])
@pytest.mark.parametrize("blocking", [False, True])
async def test_a_subgraph_that_asks_goes_on_with_the_books_it_had(
    instant: Bench, history: bool | None, blocking: bool
) -> None:
    speak, blocking_speak = instant.node("a"), instant.blocking("a")

    async def asks(state: Any) -> Any:
        return (await speak(state), interrupt("one?"), interrupt("two?"))[0]

    def blocking_asks(state: Any) -> Any:
        return (blocking_speak(state), interrupt("one?"), interrupt("two?"))[0]

    inner = instant.balance(chain_of({"a": blocking_asks if blocking else asks})).compile(
        checkpointer=history
    )
    app: Any = chain_of({"team": inner}).compile(checkpointer=InMemorySaver())
    told: list[str] = []
    for given in (instant.ask(), Command(resume="yes"), Command(resume="yes")):
        if blocking:
            result = await asyncio.to_thread(app.invoke, given, THREAD)
        else:
            result = await app.ainvoke(given, THREAD)
        assert inner.report.spend.nanodollars == instant.billed()
        told.append(inner.report.stop_reason)
    assert speakers(result) == ["human", "a"]
    assert (told[0], told[-1]) == ("Waits to be resumed at a", "Graph complete")
    assert inner.report.spend.calls == 3


async def test_a_subgraph_without_checkpoints_runs_inside_a_graph_that_has_them(
    instant: Bench,
) -> None:
    async def fails(state: Any) -> Any:
        raise RuntimeError(f"broken after {await instant.node('a')(state)}")

    inner = instant.balance(chain_of({"a": fails}), agents=["a"]).compile(checkpointer=False)
    app = chain_of({"team": inner}).compile(checkpointer=InMemorySaver())
    with pytest.raises(RuntimeError, match="broken after"):
        await app.ainvoke(instant.ask(), THREAD)
    assert inner.report.spend.nanodollars == instant.billed() > 0
