"""Nodes that make their chat model when they run are agents too."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from graphs import LARGE, MINI, Assign, Bench, chain_of
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, trim_messages
from langchain_openai import ChatOpenAI
from langgraph.graph import MessagesState
from openai import OpenAI

from agentbalance_plugin.adapters.langgraph import explain

URL = ""


def made() -> ChatOpenAI:
    return ChatOpenAI(model=LARGE, base_url=URL, api_key="local")


MAKERS = {"large": lambda: made()}


class Service:
    def model(self) -> BaseChatModel:
        return made()

    def solve(self, state: MessagesState) -> Any:
        return {"messages": [self._model.invoke(state["messages"])]}

    @property
    def _model(self) -> BaseChatModel:
        return self.model()

    def __call__(self, state: MessagesState) -> Any:
        return self.solve(state)


class Solver:
    def __init__(self) -> None:
        self.held = ChatOpenAI(model=LARGE, base_url=URL, api_key="local")


SERVICE = Service()


def by_class(state: MessagesState) -> Any:
    model = ChatOpenAI(model=LARGE, base_url=URL, api_key="local")
    return {"messages": [model.invoke(state["messages"])]}


def by_init(state: MessagesState) -> Any:
    model = init_chat_model(LARGE, model_provider="openai", base_url=URL, api_key="local")
    return {"messages": [model.invoke(state["messages"])]}


def by_function(state: MessagesState) -> Any:
    return {"messages": [made().invoke(state["messages"])]}


def by_registry(state: MessagesState) -> Any:
    return {"messages": [MAKERS["large"]().invoke(state["messages"])]}


def by_method(state: MessagesState) -> Any:
    return {"messages": [SERVICE.model().invoke(state["messages"])]}


def by_class_of_ones_own(state: MessagesState) -> Any:
    return {"messages": [Solver().held.invoke(state["messages"])]}


def by_import(state: MessagesState) -> Any:
    from langchain_openai import ChatOpenAI as Model

    model = Model(model=LARGE, base_url=URL, api_key="local")
    return {"messages": [model.invoke(state["messages"])]}


def by_agent(state: MessagesState) -> Any:
    return create_agent(made(), []).invoke({"messages": state["messages"]})


STYLES: dict[str, Any] = {
    "class": by_class,
    "init_chat_model": by_init,
    "function": by_function,
    "registry": by_registry,
    "method": by_method,
    "property of the same object": SERVICE.solve,
    "callable object": Service(),
    "class of one's own": by_class_of_ones_own,
    "import in the node": by_import,
    "create_agent": by_agent,
}


@pytest.mark.parametrize("style", STYLES)
async def test_they_are_found_and_run_on_the_planned_backbone(
    instant: Bench, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "URL", instant.simulator.base_url)
    app = instant.balance(
        chain_of({"solver": STYLES[style]}), policy=Assign({"solver": MINI})
    ).compile()
    await app.ainvoke(instant.ask())
    assert {entry.backbone for entry in instant.simulator.books.entries} == {MINI}
    assert app.report.spend.nanodollars == instant.billed() > 0
    assert [agent.name for agent in app.report.agents] == ["solver"]


def annotated(state: MessagesState, model: ChatOpenAI | None = None) -> Any:
    # `isinstance` names the kind of models that there are, and makes none.
    return {"messages": [AIMessage(str(isinstance(model, BaseChatModel)))]}


def trims(state: MessagesState) -> Any:
    return {"messages": trim_messages(state["messages"], max_tokens=9, token_counter=len)}


async def test_who_makes_none_is_no_agent(instant: Bench) -> None:
    nodes = {"solver": by_class, "annotated": annotated, "trims": trims}
    found = explain(chain_of(nodes))
    assert {node.name: node.models for node in found.nodes} == {
        "solver": ("ChatOpenAI",),
        "annotated": (),
        "trims": (),
    }


async def test_a_vendors_client_that_a_node_makes_is_told(instant: Bench) -> None:
    def asks(state: MessagesState) -> Any:
        client = OpenAI(base_url=URL, api_key="local")
        return {"messages": [str(client.models.list())]}

    builder = chain_of({"solver": by_class, "asks": asks})
    assert {node.name: node.beyond for node in explain(builder).nodes}["asks"] == ("OpenAI",)
    with pytest.warns(UserWarning, match="node 'asks' reaches OpenAI"):
        instant.balance(builder).compile()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        instant.balance(chain_of({"solver": by_class})).compile()
