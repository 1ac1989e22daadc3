"""Who goes back on a thread, behind where it is now, goes on with all that the task has spent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from graphs import Bench
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

THREAD: Any = {"configurable": {"thread_id": "one"}}


async def test_no_spend_is_lost_of_a_task_that_another_came_after(instant: Bench) -> None:
    broken = instant.failing("b", 2, RuntimeError("broken"))
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


@pytest.mark.parametrize("blocking", [True, False])
async def test_an_earlier_question_that_is_answered_in_vain_is_no_matter_of_the_task_after(
    instant: Bench, blocking: bool
) -> None:
    speak, broken = instant.blocking("b"), [False]

    def asks(state: Any) -> Any:
        interrupt("sure?")
        said = speak(state)
        if broken[0]:
            raise RuntimeError("broken")
        return said

    builder = instant.chain(("a", "b"), blocking=True, b=asks)
    app = instant.balance(builder).compile(checkpointer=InMemorySaver())

    async def run(asked: Any, config: Any) -> int:
        """What was billed for it."""
        before = instant.billed()
        with suppress(RuntimeError):
            await (partial(asyncio.to_thread, app.invoke) if blocking else app.ainvoke)(
                asked, config
            )
        return instant.billed() - before

    first = await run(instant.ask(), THREAD)
    asked = (await app.aget_state(THREAD)).config
    second = await run(instant.ask(1), THREAD)
    broken[0] = True
    for _ in range(2):
        first += await run(Command(resume="yes"), asked)
        assert app.report.spend.nanodollars == first
    broken[0] = False
    second += await run(Command(resume="yes"), THREAD)
    assert app.report.spend.nanodollars == second
    assert app.report.complete
    # That task is over, and the first is where it was.
    first += await run(Command(resume="yes"), asked)
    assert app.report.spend.nanodollars == first
