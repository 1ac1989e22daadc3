"""Chat models are reached however a node uses them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from graphs import LARGE, MINI, Assign, Bench, chain_of
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import (
    FakeListChatModel,
    FakeMessagesListChatModel,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import MessagesState
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel

from agentbalance_plugin.adapters.langgraph import direct

MODEL: Any = None


class Answer(BaseModel):
    number: int


@tool
def add(x: int) -> str:
    "Adds one."
    return str(x + 1)


def closure(model: Any) -> Any:
    return lambda state: {"messages": [model.invoke(state["messages"])]}


def uses_global(state: MessagesState) -> Any:
    return {"messages": [MODEL.invoke(state["messages"])]}


class Holder:
    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, state: MessagesState) -> Any:
        return {"messages": [self.model.invoke(state["messages"])]}

    def method(self, state: MessagesState) -> Any:
        return self(state)


def default(model: Any) -> Any:
    def node(state: MessagesState, *, model: Any = model) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    return node


def decorated(model: Any) -> Any:
    def with_model(node: Any) -> Any:
        @functools.wraps(node)
        def given(state: MessagesState) -> Any:
            return node(state, model)

        return given

    @with_model
    def node(state: MessagesState, model: Any) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    return node


def streaming(model: Any) -> Any:
    def node(state: MessagesState) -> Any:
        said = None
        for chunk in model.stream(state["messages"]):
            said = chunk if said is None else said + chunk
        return {"messages": [AIMessage(said.content)]}

    return node


def explicit_config(model: Any) -> Any:
    def node(state: MessagesState, config: RunnableConfig) -> Any:
        return {"messages": [model.invoke(state["messages"], config)]}

    return node


def thread_with_config(model: Any) -> Any:
    def node(state: MessagesState, config: RunnableConfig) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return {"messages": [pool.submit(model.invoke, state["messages"], config).result()]}

    return node


def sequence(model: Any) -> Any:
    prompt = ChatPromptTemplate.from_messages([("system", "s"), ("placeholder", "{messages}")])
    return prompt | model | (lambda reply: {"messages": [reply]})


def bound_tools(model: Any) -> Any:
    return sequence(model.bind_tools([add]))


def generate(model: Any) -> Any:
    def node(state: MessagesState) -> Any:
        result = model.generate([state["messages"]])
        return {"messages": [result.generations[0][0].message]}

    return node


def batch(model: Any) -> Any:
    return lambda state: {"messages": model.batch([state["messages"], state["messages"]])}


def retrying(model: Any) -> Any:
    chained = model.with_retry().with_fallbacks([model])
    return lambda state: {"messages": [chained.invoke(state["messages"])]}


def configurable(model: Any) -> Any:
    made = init_chat_model(
        f"openai:{LARGE}",
        configurable_fields=("temperature",),
        base_url=model.openai_api_base,
        api_key="local",
    )
    return lambda state: {"messages": [made.invoke(state["messages"])]}


STYLES: dict[str, Callable[[Any], Any]] = {
    "closure": closure,
    "global": lambda model: uses_global,
    "default of an argument": default,
    "decorator": decorated,
    "callable object": Holder,
    "bound method": lambda model: Holder(model).method,
    "stream": streaming,
    "explicit config": explicit_config,
    "thread with config": thread_with_config,
    "sequence": sequence,
    "bound tools": bound_tools,
    "runnable lambda": lambda model: RunnableLambda(closure(model)),
    "generate": generate,
    "batch": batch,
    "retry and fallbacks": retrying,
    "init_chat_model": configurable,
    "create_agent": lambda model: create_agent(model, [add]),
    "create_react_agent": lambda model: create_react_agent(model, [add]),
}


@pytest.mark.parametrize("style", STYLES)
async def test_every_call_is_on_the_planned_backbone_and_in_the_books(
    instant: Bench, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = instant.model(LARGE)
    monkeypatch.setitem(globals(), "MODEL", model)
    builder = chain_of({"solver": STYLES[style](model)})
    app = instant.balance(builder, policy=Assign({"solver": MINI})).compile()
    await asyncio.to_thread(app.invoke, instant.ask())
    await app.ainvoke(instant.ask())
    async for _ in app.astream(instant.ask(), stream_mode="messages", subgraphs=True):
        pass
    assert {backbone for _, backbone in instant.called()} == {MINI}
    assert len(instant.called()) >= 3
    assert app.report.spend.nanodollars * 3 == instant.billed()
    assert all(call.metered for call in app.report.calls)


async def test_a_direct_model_stays_what_it_is(instant: Bench) -> None:
    paid_elsewhere = direct(instant.model(LARGE))
    app = instant.balance(
        chain_of({"solver": closure(paid_elsewhere)}), agents=["solver"]
    ).compile()
    await app.ainvoke(instant.ask())
    assert [backbone for _, backbone in instant.called()] == [LARGE]
    assert app.report.spend.calls == 0


async def test_models_inside_tools_are_in_the_budget_unless_they_are_direct(
    instant: Bench,
) -> None:
    inside, outside = instant.model(LARGE), direct(instant.model(LARGE))

    @tool
    def ask(x: int) -> str:
        "Asks two others."
        return inside.invoke("[[agent:inside]]").text + outside.invoke("hello").text

    agent = create_agent(instant.model(LARGE), [ask])
    app = instant.balance(chain_of({"solver": agent}), policy=Assign({"solver": MINI})).compile()
    task = {"messages": [("user", instant.task() + '[[tool:ask {"x": 1}]]')]}
    await app.ainvoke(task)
    assert sorted(backbone for _, backbone in instant.called()) == [LARGE, MINI, MINI, MINI]
    assert app.report.spend.calls == 3


async def test_structured_output_by_function_calling_works(instant: Bench) -> None:
    model = instant.model(LARGE).with_structured_output(Answer, method="function_calling")

    def node(state: MessagesState) -> Any:
        return {"messages": [AIMessage(str(model.invoke(state["messages"]).number))]}

    app = instant.balance(chain_of({"solver": node})).compile()
    task = {"messages": [("user", instant.task() + '[[tool:Answer {"number": 7}]]')]}
    result = await app.ainvoke(task)
    assert result["messages"][-1].content == "7"
    assert instant.called()[0][1] == MINI


class Elsewhere(FakeListChatModel):
    """Of another provider than the backbones."""

    def with_structured_output(self, schema: Any, **options: Any) -> Any:
        return self.bind(response_format=schema.model_json_schema())


async def test_structured_output_of_another_provider_is_refused_before_it_is_paid_for(
    instant: Bench,
) -> None:
    model = Elsewhere(responses=["{}"]).with_structured_output(Answer)
    able = instant.catalog(capabilities=("text", "structured_output"))
    app = instant.balance(chain_of({"solver": closure(model)}), backbones=able).compile()
    with pytest.raises(ValueError, match="method='function_calling'"):
        await app.ainvoke(instant.ask())
    assert instant.called() == []


class Counts(BaseCallbackHandler):
    def __init__(self) -> None:
        self.replies = 0

    def on_llm_end(self, *_: Any, **more: Any) -> None:
        self.replies += 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_tags_metadata_and_callbacks_of_a_nodes_model_stay_with_its_calls(
    instant: Bench, streamed: bool
) -> None:
    """They say which of several models a stream's message is from, and who is told of it."""
    counts = Counts()
    model = instant.model(tags=["joke"], metadata={"team": "a"}, callbacks=[counts])
    style = streaming(model) if streamed else closure(model)
    app = instant.balance(chain_of({"a": style, "b": closure(instant.model())})).compile()
    marks: dict[str, Any] = {}
    async for _, about in app.astream(instant.ask(), stream_mode="messages"):
        if about.get("ls_model_name"):
            marks[about["langgraph_node"]] = (about.get("tags") or [], about.get("team"))
    assert marks["a"] == (["joke"], "a")
    assert marks["b"] == ([], None)
    assert counts.replies == 1


async def test_what_a_node_keeps_out_of_streams_stays_out(instant: Bench) -> None:
    model = instant.model(tags=["nostream"])

    async def node(state: MessagesState) -> Any:
        await model.ainvoke(state["messages"])
        return {}

    app = instant.balance(chain_of({"a": node})).compile()
    assert [c async for c in app.astream(instant.ask(), stream_mode="messages")] == []
    assert app.report.spend.calls == 1


async def test_a_model_that_a_node_names_is_not_called_at_the_backbones_price(
    instant: Bench,
) -> None:
    model = instant.model().bind(model=LARGE)
    app = instant.balance(chain_of({"solver": closure(model)})).compile()
    await app.ainvoke(instant.ask())
    assert [backbone for _, backbone in instant.called()] == [MINI]
    assert app.report.spend.nanodollars == instant.billed()


@pytest.mark.parametrize("prompt", [HumanMessage("hello"), 3, None])
async def test_what_is_no_prompt_is_refused_as_the_model_itself_does(
    instant: Bench, prompt: Any
) -> None:
    model: Any = instant.model()
    app = instant.balance(chain_of({"solver": lambda state: model.invoke(prompt)})).compile()
    with pytest.raises(ValueError, match="input must be a string, a list of messages"):
        await app.ainvoke(instant.ask())


async def test_calls_for_several_replies_are_refused(instant: Bench) -> None:
    model = instant.model().bind(n=3)
    app = instant.balance(chain_of({"solver": closure(model)})).compile()
    with pytest.raises(ValueError, match="n=3"):
        await app.ainvoke(instant.ask())
    assert instant.called() == []


async def test_a_backbones_chat_model_need_not_stream(instant: Bench) -> None:
    model = instant.model()

    def node(state: MessagesState) -> Any:
        return {"messages": ["".join(chunk.text for chunk in model.stream(state["messages"]))]}

    speaks = FakeMessagesListChatModel(responses=[AIMessage("Answer: 4")])
    backbones = [(instant.catalog(MINI)[MINI], speaks)]
    app = instant.balance(chain_of({"a": node}), backbones=backbones).compile()
    result = await app.ainvoke(instant.ask())
    assert result["messages"][-1].text == "Answer: 4"
    assert app.report.spend.calls == 1
