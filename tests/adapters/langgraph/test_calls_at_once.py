"""Calls at once that the budget pays for one after the other all get their turn."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Annotated, Any

import httpx
import pytest
from graphs import MINI, Bench, chain_of
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send
from openai import PermissionDeniedError

from agentbalance_plugin import Budget, BudgetExceeded
from agentbalance_plugin.adapters.langgraph import StandIn
from agentbalance_plugin.runtime.call import Call, CallDenied
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.turns import Turns

# The worst case of one call, which uses a tenth of it.
ROOM_FOR_ONE = Budget(cost_usd=0.0026)


class Parts(MessagesState):
    found: Annotated[list[str], operator.add]


def in_parts(bench: Bench, number: int) -> StateGraph[Any, Any, Any, Any]:
    """Parts that are sent out at once, and an agent that joins what they find."""
    builder = StateGraph(Parts)
    builder.add_node("part", bench.part())
    builder.add_node("join", bench.node("join"))
    builder.add_conditional_edges(
        START, lambda state: [Send("part", {"part": n}) for n in range(number)], ["part"]
    )
    builder.add_edge("part", "join")
    return builder


@pytest.mark.virtual_time
async def test_parts_that_are_sent_out_at_once_are_all_done(bench: Bench) -> None:
    app = bench.balance(in_parts(bench, 6), budget=ROOM_FOR_ONE).compile()
    result = await app.ainvoke({**bench.ask(), "found": []})
    assert len(result["found"]) == 6
    assert result["messages"][-1].name == "join"
    assert app.report.complete
    assert app.report.within_budget
    assert app.report.spend.nanodollars == bench.billed()


@pytest.mark.virtual_time
async def test_parts_that_were_paid_for_are_there_when_others_can_not_be(bench: Bench) -> None:
    app = bench.balance(in_parts(bench, 12), budget=Budget(cost_usd=0.0006)).compile()
    result = await app.ainvoke({**bench.ask(), "found": []})
    parts = [agent for agent, _ in bench.called() if agent.startswith("part")]
    assert 0 < len(result["found"]) == len(parts) < 12
    assert app.report.within_budget
    assert not app.report.complete
    assert app.report.agents[0].status == "skipped"
    raising = {"agentbalance": {"budget": {"cost_usd": 0.0006, "on_exceeded": "raise"}}}
    with pytest.raises(BudgetExceeded):
        await app.ainvoke({**bench.ask(), "found": []}, {"configurable": raising})


@pytest.mark.parametrize("leads", ["by a condition", "back to itself"])
async def test_parts_that_say_where_to_go_end_the_run_when_they_are_denied(
    instant: Bench, leads: str
) -> None:
    builder = in_parts(instant, 12)
    if leads == "by a condition":
        builder.add_conditional_edges("part", lambda state: "join", ["join"])
    else:
        builder.add_conditional_edges("join", lambda state: "part", ["part"])
    app = instant.balance(builder, budget=Budget(cost_usd=0.0006)).compile()
    await app.ainvoke({**instant.ask(), "found": []})
    assert app.report.stop_reason.startswith("Budget exhausted: part: a call of gpt-4o-mini")


async def test_replies_of_a_batch_are_all_there(instant: Bench) -> None:
    model = instant.model()

    def node(state: MessagesState) -> Any:
        replies = model.batch([instant.task()] * 6)
        return {"messages": [AIMessage(str(len(replies)))]}

    async def anode(state: MessagesState) -> Any:
        replies = await model.abatch([instant.task()] * 6)
        return {"messages": [AIMessage(str(len(replies)))]}

    for each in (node, anode):
        app = instant.balance(chain_of({"a": each}), budget=ROOM_FOR_ONE).compile()
        result = await app.ainvoke(instant.ask())
        assert result["messages"][-1].text == "6"
        assert app.report.complete
        assert app.report.within_budget


async def test_a_model_that_is_called_while_a_stream_is_read_is_not_waited_for(
    instant: Bench,
) -> None:
    """The stream goes on only when the call is done, and would be waited for for ever."""
    model = instant.model()

    async def node(state: MessagesState) -> Any:
        async for _ in model.astream(state["messages"]):
            await model.ainvoke("hello " * 2000)
        return {}

    app = instant.balance(chain_of({"a": node}), budget=ROOM_FOR_ONE).compile()
    await app.ainvoke(instant.ask())
    assert app.report.agents[0].reason.startswith("a: a call of gpt-4o-mini")
    assert app.report.within_budget


async def test_a_call_waits_only_for_those_that_end_whatever_it_does(instant: Bench) -> None:
    backbone = instant.catalog(MINI)[MINI]
    loop, other = asyncio.get_running_loop(), asyncio.new_event_loop()
    other.close()
    for held, waits in (
        ((None, False), {loop: True, None: True}),
        ((loop, False), {loop: True, other: False, None: False}),
        ((loop, True), {loop: False, other: False, None: False}),
        ((None, True), {loop: False, None: False}),
    ):
        for place, does in waits.items():
            turns, meter = Turns(), Meter(ROOM_FOR_ONE)

            def reserve(meter: Meter = meter) -> Call:
                return meter.reserve("a", backbone, 1000)

            first = turns.take(reserve, held[0], streamed=held[1])
            assert isinstance(first, Call)
            if not does:
                with pytest.raises(CallDenied):
                    turns.take(reserve, place, streamed=False)
                continue
            later = turns.take(reserve, place, streamed=True)
            assert isinstance(later, Future)
            assert not later.done()
            first.settle(1, 1)
            turns.leave(first, held[0], streamed=held[1])
            assert later.done()
            assert isinstance(turns.take(reserve, place, streamed=True), Call)


MODERATE = [("system", "[[agent:moderator]]"), ("user", "hello " * 2000)]


class Moderates(BaseCallbackHandler):
    """Calls a model before any other does."""

    def __init__(self, model: BaseChatModel) -> None:
        self._model = model
        self._within = False

    def on_chat_model_start(self, *_: Any, **more: Any) -> None:
        if not self._within:
            self._within = True
            self._model.invoke(MODERATE)


class ModeratesAsync(AsyncCallbackHandler):
    """As `Moderates`."""

    def __init__(self, model: BaseChatModel) -> None:
        self._model = model
        self._within = False

    async def on_chat_model_start(self, *_: Any, **more: Any) -> None:
        if not self._within:
            self._within = True
            await self._model.ainvoke(MODERATE)


@pytest.mark.parametrize("usd", [ROOM_FOR_ONE.cost_usd, 1.0])
@pytest.mark.parametrize("blocking", [True, False])
async def test_a_call_inside_another_does_not_wait_for_it(
    instant: Bench, blocking: bool, usd: float
) -> None:
    handler = Moderates if blocking else ModeratesAsync
    config: Any = {"callbacks": [handler(instant.model())]}
    builder = instant.chain(("a",), blocking=blocking)
    # With a deadline the call is made in a thread of its own.
    budget = Budget(cost_usd=usd, latency_s=20)
    app = instant.balance(builder, budget=budget).compile()
    if blocking:
        result = await asyncio.to_thread(app.invoke, instant.ask(), config)
    else:
        result = await app.ainvoke(instant.ask(), config)
    assert "Answer:" in result["messages"][-1].text
    called = [agent for agent, _ in instant.called()]
    assert called == (["moderator", "a"] if usd == 1.0 else ["a"])
    assert app.report.within_budget


class Guard(BaseChatModel):
    """Hands on to another chat model, which it makes anew or has; says whatever it says."""

    inner: BaseChatModel
    max_tokens: int | None = None

    @property
    def _llm_type(self) -> str:
        return "guard"

    def _generate(self, messages: Any, *_: Any, **options: Any) -> ChatResult:
        options.pop("run_manager", None)
        reply = self.inner.model_copy().invoke(messages, **options)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    async def _agenerate(self, messages: Any, *_: Any, **options: Any) -> ChatResult:
        options.pop("run_manager", None)
        reply = await self.inner.ainvoke(messages, **options)
        return ChatResult(generations=[ChatGeneration(message=reply)])


class StreamingGuard(Guard):
    """As `Guard`, in chunks."""

    def _stream(self, messages: Any, *_: Any, **options: Any) -> Iterator[ChatGenerationChunk]:
        options.pop("run_manager", None)
        for chunk in self.inner.stream(messages, **options):
            assert isinstance(chunk, AIMessageChunk)
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self, messages: Any, *_: Any, **options: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        options.pop("run_manager", None)
        async for chunk in self.inner.astream(messages, **options):
            assert isinstance(chunk, AIMessageChunk)
            yield ChatGenerationChunk(message=chunk)


@pytest.mark.parametrize("kind", [Guard, StreamingGuard])
@pytest.mark.parametrize("style", ["invoke", "ainvoke", "stream", "astream"])
async def test_models_inside_a_backbones_own_are_part_of_its_call(
    instant: Bench, style: str, kind: type[Guard]
) -> None:
    model, hello = instant.model(), [("system", "[[agent:reader]]"), ("user", "hello")]

    def invoke(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def ainvoke(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def stream(state: MessagesState) -> Any:
        said: list[str] = []
        for chunk in model.stream(state["messages"]):
            if not said:
                model.invoke(hello)
            said.append(chunk.text)
        return {"messages": ["".join(said)]}

    async def astream(state: MessagesState) -> Any:
        said: list[str] = []
        async for chunk in model.astream(state["messages"]):
            if not said:
                await model.ainvoke(hello)
            said.append(chunk.text)
        return {"messages": ["".join(said)]}

    node = {each.__name__: each for each in (invoke, ainvoke, stream, astream)}[style]
    backbone = replace(instant.catalog(MINI)[MINI], endpoint=None)
    backbones = [(backbone, kind(inner=instant.model(MINI)))]
    app = instant.balance(chain_of({"a": node}), backbones=backbones).compile()
    result = await app.ainvoke(instant.ask())
    assert "Answer:" in result["messages"][-1].text
    assert app.report.spend.nanodollars == instant.billed()
    assert len(app.report.calls) == len(instant.called())
    # Who reads a stream is not inside it.
    assert len(instant.called()) == (2 if "stream" in style else 1)


class RefusedAfterwards(StreamingGuard):
    """As those, but the next model that it asks refuses."""

    replies: bool = True

    def _generate(self, messages: Any, *_: Any, **options: Any) -> ChatResult:
        if self.replies:
            super()._generate(messages, **options)
        raise refusal()

    async def _agenerate(self, messages: Any, *_: Any, **options: Any) -> ChatResult:
        if self.replies:
            await super()._agenerate(messages, **options)
        raise refusal()

    def _stream(self, messages: Any, *_: Any, **options: Any) -> Iterator[ChatGenerationChunk]:
        if self.replies:
            list(super()._stream(messages, **options))
        raise refusal()
        yield

    async def _astream(
        self, messages: Any, *_: Any, **options: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if self.replies:
            [_ async for _ in super()._astream(messages, **options)]
        raise refusal()
        yield


def refusal() -> PermissionDeniedError:
    response = httpx.Response(403, request=httpx.Request("POST", "http://127.0.0.1:9/v1"))
    return PermissionDeniedError("refused", response=response, body=None)


@pytest.mark.parametrize("replies", [True, False])
@pytest.mark.parametrize("style", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_refusal_is_free_only_where_no_model_inside_has_replied(
    instant: Bench, style: str, replies: bool
) -> None:
    def blocking(state: MessagesState) -> Any:
        for _ in getattr(StandIn(), style)(state["messages"]):
            pass

    async def awaiting(state: MessagesState) -> Any:
        if style == "ainvoke":
            await StandIn().ainvoke(state["messages"])
        async for _ in StandIn().astream(state["messages"]):
            pass

    node = awaiting if style.startswith("a") else blocking
    inner = instant.model(MINI)
    backbone = replace(instant.catalog(MINI)[MINI], endpoint=None)
    backbones = [(backbone, RefusedAfterwards(inner=inner, replies=replies))]
    app = instant.balance(chain_of({"a": node}), backbones=backbones).compile()
    with pytest.raises(PermissionDeniedError):
        await app.ainvoke(instant.ask())
    assert len(instant.called()) == app.report.spend.calls == replies
    assert app.report.spend.nanodollars >= instant.billed()


async def test_models_inside_parallel_tools_all_answer(instant: Bench) -> None:
    inside = instant.model()

    @tool
    async def ask(x: int) -> str:
        "Asks others."
        replies = await asyncio.gather(*(inside.ainvoke("[[agent:in]] hello") for _ in range(4)))
        return str(len(replies))

    agent = create_agent(instant.model(), [ask])
    app = instant.balance(chain_of({"a": agent}), budget=Budget(cost_usd=0.003)).compile()
    await app.ainvoke({"messages": [("user", instant.task() + '[[tool:ask {"x": 1}]]')]})
    assert app.report.spend.calls == 6
    assert app.report.complete


async def test_a_caller_that_nobody_planned_finds_room_beside_those_who_were(
    instant: Bench,
) -> None:
    async def asks(state: MessagesState, config: RunnableConfig) -> Any:
        model = config["configurable"]["model"]
        return {"messages": [await model.ainvoke(state["messages"])]}

    # The writer's worst case alone is more than there is.
    app = instant.balance(
        chain_of({"asks": asks, "writer": instant.node("writer")}), budget=Budget(cost_usd=0.002)
    ).compile()
    result = await app.ainvoke(instant.ask(), {"configurable": {"model": instant.model()}})
    assert len(result["messages"]) == 3
    assert app.report.complete
    assert {call.agent for call in app.report.calls} == {"asks", "writer"}
    assert app.report.spend.nanodollars == instant.billed() <= 2_000_000
