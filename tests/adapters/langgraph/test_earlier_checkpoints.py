"""Who goes back on a thread, behind where it is now, goes on with all that the task has spent."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from graphs import Bench
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

THREAD: Any = {"configurable": {"thread_id": "one"}}


async def test_no_spend_is_lost_of_a_task_that_another_came_after(instant: Bench) -> None:
    speak, left = instant.node("b"), [True, True]

    async def broken(state: Any) -> Any:
        said = await speak(state)
        if left:
            left.pop()
            raise RuntimeError("broken")
        return said

    app = instant.balance(instant.chain(("a", "b"), b=broken)).compile(checkpointer=InMemorySaver())
    for asked in (instant.ask(), None):
        with suppress(RuntimeError):
            await app.ainvoke(asked, THREAD)
    before_b = (await app.aget_state(THREAD)).config
    first = instant.billed()
    await app.ainvoke(instant.ask(1), THREAD)
    second = instant.billed() - first
    noted = {"messages": [AIMessage("note", name="a")]}
    edited = await app.aupdate_state(before_b, noted, as_node="a")
    await app.ainvoke(None, edited)
    assert [agent for agent, _ in instant.called()] == ["a", "b", "b", "a", "b", "b"]
    assert app.report.spend.nanodollars == instant.billed() - second
