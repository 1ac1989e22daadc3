"""A chat model that stands where a backbone is going to be."""

from __future__ import annotations

import asyncio
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest
from graphs import LARGE, LLAMA, MINI, Assign, Bench, chain_of
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import MessagesState
from pydantic import BaseModel

from agentbalance_plugin.adapters.langgraph import StandIn


class Answer(BaseModel):
    number: int


@tool
def add(x: int) -> str:
    "Adds one."
    return str(x + 1)


async def test_it_is_the_planned_backbone_with_tools_and_all(instant: Bench) -> None:
    agent = create_agent(StandIn(), [add])
    app = instant.balance(chain_of({"solver": agent}), policy=Assign({"solver": LLAMA})).compile()
    await app.ainvoke({"messages": [("user", instant.task() + '[[tool:add {"x": 1}]]')]})
    assert [backbone for _, backbone in instant.called()] == [LLAMA, LLAMA]


async def test_its_structured_output_fits_any_backbone(instant: Bench) -> None:
    model = StandIn().with_structured_output(Answer)

    async def node(state: MessagesState) -> Any:
        answer: Any = await model.ainvoke(state["messages"])
        return {"messages": [AIMessage(str(answer.number))]}

    app = instant.balance(chain_of({"solver": node})).compile()
    task = {"messages": [("user", instant.task() + '[[tool:Answer {"number": 7}]]')]}
    assert (await app.ainvoke(task))["messages"][-1].content == "7"


async def test_threads_of_the_users_own_are_reached_from_here(instant: Bench) -> None:
    model = StandIn(default=instant.model())

    def node(state: MessagesState) -> Any:
        here = model.here()
        with ThreadPoolExecutor(1) as pool:
            return {"messages": [pool.submit(here.invoke, state["messages"]).result()]}

    app = instant.balance(chain_of({"solver": node}), policy=Assign({"solver": MINI})).compile()
    await app.ainvoke(instant.ask())
    assert [backbone for _, backbone in instant.called()] == [MINI]
    assert app.report.spend.calls == 1


@pytest.mark.parametrize("context", [True, False])
async def test_a_thread_without_its_context_is_told_of(instant: Bench, context: bool) -> None:
    model = instant.model()

    def node(state: MessagesState) -> Any:
        call = partial(model.invoke, state["messages"])
        with ThreadPoolExecutor(1) as pool:
            ask = partial(copy_context().run, call) if context else call
            return {"messages": [pool.submit(ask).result()]}

    app = instant.balance(chain_of({"solver": node}), policy=Assign({"solver": MINI})).compile()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        await app.ainvoke(instant.ask())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Nothing is under way any more that it could belong to.
        await asyncio.get_running_loop().run_in_executor(None, model.invoke, instant.task())
    assert any("copy_context().run" in str(each.message) for each in told) is not context
    assert app.report.spend.calls == (1 if context else 0)


async def test_outside_of_graphs_the_default_answers(instant: Bench) -> None:
    await StandIn(default=instant.model()).ainvoke(instant.task())
    assert [backbone for _, backbone in instant.called()] == [LARGE]
    with pytest.raises(RuntimeError, match="without a default"):
        StandIn().invoke("hello")
    with pytest.raises(RuntimeError, match="belongs inside a node"):
        StandIn().here()
