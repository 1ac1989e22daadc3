"""What failed is tried again, by LangGraph, LangChain and the meter; what was denied is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from graphs import LARGE, Assign, Bench, chain_of, speakers
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

from agentbalance_plugin import Budget

NO_PAUSES = {"max": 0.0}


async def test_a_retried_node_pays_for_each_try(instant: Bench) -> None:
    flaky = instant.failing("a", 2, ConnectionError("lost"))
    builder = StateGraph(MessagesState)
    policy = RetryPolicy(max_attempts=3, initial_interval=0.001)
    builder.add_node("a", flaky, retry_policy=policy)
    builder.add_edge(START, "a")
    app = instant.balance(builder).compile()
    await app.ainvoke(instant.ask())
    assert app.report.spend.calls == len(instant.called()) == 3


async def test_a_denied_call_is_not_retried(instant: Bench) -> None:
    calls: list[Any] = []
    speak = instant.node("a")

    async def node(state: Any) -> Any:
        calls.append(state)
        return await speak(state)

    builder = StateGraph(MessagesState)
    builder.add_node("a", node, retry_policy=RetryPolicy(max_attempts=5))
    builder.add_edge(START, "a")
    app = instant.balance(builder, policy=Assign({"a": LARGE}), budget=Budget(cost_usd=0.0002))
    result = await app.compile().ainvoke(instant.ask())
    assert speakers(result) == ["human"]
    assert len(calls) == 1


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_denied_call_is_not_retried_by_langchain(instant: Bench, blocking: bool) -> None:
    calls: list[Any] = []
    app = instant.balance(
        chain_of({"a": _retrying(instant, calls, blocking=blocking)}),
        agents=["a"],
        policy=Assign({"a": LARGE}),
        budget=Budget(cost_usd=0.0002),
    ).compile()
    result = await (
        asyncio.to_thread(app.invoke, instant.ask()) if blocking else app.ainvoke(instant.ask())
    )
    assert speakers(result) == ["human"]
    assert app.report.agents[0].reason.startswith("a: a call of gpt-4o")
    assert len(calls) == 1


@pytest.mark.parametrize("blocking", [False, True])
async def test_what_langchain_retries_otherwise_it_still_does(
    instant: Bench, blocking: bool
) -> None:
    calls: list[Any] = []
    node = _retrying(instant, calls, blocking=blocking, lost=2)
    app = instant.balance(chain_of({"a": node}), agents=["a"]).compile()
    await (asyncio.to_thread(app.invoke, instant.ask()) if blocking else app.ainvoke(instant.ask()))
    assert app.report.complete
    assert app.report.spend.calls == 1
    assert len(calls) == 3


async def test_no_pause_of_langchain_goes_on_past_the_deadline(
    instant: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    monkeypatch.setattr("tenacity.wait.random.uniform", lambda least, most: most)
    calls: list[Any] = []
    node = _retrying(instant, calls, blocking=True, lost=2, pauses={"jitter": 60.0})
    budget = Budget(cost_usd=1.0, latency_s=5.0)
    app = instant.balance(chain_of({"a": node}), agents=["a"], budget=budget).compile()
    await asyncio.to_thread(app.invoke, instant.ask())
    assert len(slept) == 2
    assert all(0.0 < seconds <= 5.0 for seconds in slept)
    assert app.report.complete


@pytest.mark.parametrize(
    ("interval", "budget", "tries"),
    [
        (60.0, Budget(cost_usd=1.0, latency_s=5.0), 1),
        (0.001, Budget(cost_usd=1.0, latency_s=60.0), 3),
        (0.001, Budget(cost_usd=1.0), 3),
    ],
)
async def test_a_node_is_not_tried_again_after_the_deadline(
    instant: Bench, interval: float, budget: Budget, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langgraph.pregel._retry.time.sleep", lambda seconds: None)
    seen: list[Any] = []

    def flaky(state: MessagesState) -> Any:
        seen.append(state)
        raise ConnectionError("lost")

    builder = StateGraph(MessagesState)
    policy = RetryPolicy(max_attempts=3, initial_interval=interval, jitter=False)
    builder.add_node("a", flaky, retry_policy=policy)
    builder.add_node("b", instant.blocking("b"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    app = instant.balance(builder, agents=["a", "b"], budget=budget).compile()
    if tries == 3:
        with pytest.raises(ConnectionError, match="lost"):
            await asyncio.to_thread(app.invoke, instant.ask())
    else:
        result = await asyncio.to_thread(app.invoke, instant.ask())
        assert speakers(result) == ["human", "b"]
        reason = "a: ConnectionError: lost; no time is left to try again"
        assert (app.report.agents[0].status, app.report.agents[0].reason) == ("skipped", reason)
    assert len(seen) == tries


async def test_an_error_that_is_not_retried_is_raised_however_little_time_is_left(
    instant: Bench,
) -> None:
    def wrong(state: MessagesState) -> Any:
        raise ValueError("wrong")

    builder = StateGraph(MessagesState)
    builder.add_node("a", wrong, retry_policy=RetryPolicy(initial_interval=60.0))
    builder.add_edge(START, "a")
    app = instant.balance(builder, agents=["a"], budget=Budget(cost_usd=1.0, latency_s=5.0))
    with pytest.raises(ValueError, match="wrong"):
        await asyncio.to_thread(app.compile().invoke, instant.ask())


def _retrying(
    bench: Bench, calls: list[Any], *, blocking: bool, lost: int = 0, pauses: Any = NO_PAUSES
) -> Any:
    """An agent that asks its model up to three times; the first `lost` answers get lost."""
    model = bench.model()

    def ask(prompt: Any) -> Any:
        calls.append(prompt)
        if len(calls) <= lost:
            raise ConnectionError("lost")
        return model.invoke(prompt)

    async def aask(prompt: Any) -> Any:
        calls.append(prompt)
        if len(calls) <= lost:
            raise ConnectionError("lost")
        return await model.ainvoke(prompt)

    asking = RunnableLambda(ask, aask).with_retry(exponential_jitter_params=pauses)

    def speak(state: MessagesState) -> Any:
        return {"messages": [asking.invoke(state["messages"])]}

    async def aspeak(state: MessagesState) -> Any:
        return {"messages": [await asking.ainvoke(state["messages"])]}

    return speak if blocking else aspeak
