"""What is bound to a node's model holds for its backbone's, whoever's that is."""

from __future__ import annotations

from typing import Any

import pytest
from graphs import Assign, Bench, OllamaServer, calling, chain_of, ollama
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langgraph.graph import MessagesState
from pydantic import BaseModel

from agentbalance_plugin.adapters.langgraph.fit import fit

NOWHERE = "http://127.0.0.1:9"


class Out(BaseModel):
    """An answer."""

    number: int


@tool
def add(x: int) -> str:
    "Adds one."
    return str(x + 1)


def openai() -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=NOWHERE, api_key="local")


async def test_an_agent_with_tools_runs_on_another_providers_model(instant: Bench) -> None:
    server = OllamaServer()
    agent = create_agent(openai(), [add], name="a")
    app = instant.balance(
        chain_of({"a": agent}), backbones=server.backbones, policy=Assign({"a": "llama"})
    ).compile()
    result = await app.ainvoke({"messages": [("user", "2 + 1")]})
    assert [message.text for message in result["messages"]] == ["2 + 1", "", "3", "Answer: 3"]
    assert app.report.spend.calls == 2


async def test_structured_output_comes_from_another_providers_model(instant: Bench) -> None:
    server = OllamaServer()
    model = openai().with_structured_output(Out, method="function_calling")

    async def node(state: MessagesState) -> Any:
        found = await model.ainvoke(state["messages"])
        assert isinstance(found, Out)
        return {"messages": [f"Answer: {found.number}"]}

    app = instant.balance(
        chain_of({"a": node}), backbones=server.backbones, policy=Assign({"a": "llama"})
    ).compile()
    result = await app.ainvoke({"messages": [("user", "What is 1 + 1?")]})
    assert result["messages"][-1].text == "Answer: 2"


async def test_settings_go_along_where_the_other_knows_them(instant: Bench) -> None:
    server = OllamaServer()
    bound = openai().bind(
        seed=3, temperature=0.5, stop=["END"], logprobs=True, extra_body={"store": True}
    )
    app = instant.balance(
        chain_of({"a": calling(bound)}), backbones=server.backbones, policy=Assign({"a": "llama"})
    ).compile()
    await app.ainvoke({"messages": [("user", "hello")]})
    options = server.asked[0]["options"]
    assert (options["seed"], options["temperature"], options["stop"]) == (3, 0.5, ["END"])
    assert server.backbones[0][1].seed is None


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"type": "function", "function": {"name": "add"}}, {"name": "add"}),
        ({"type": "tool", "name": "add"}, {"name": "add"}),
        ("add", {"name": "add"}),
        ({"type": "any"}, "required"),
        ("required", "required"),
        (True, "required"),
        ({"type": "auto"}, "auto"),
        ("none", "none"),
    ],
)
def test_the_choice_among_tools_is_said_in_the_others_words(choice: Any, found: Any) -> None:
    anthropic = {"name": "add", "description": "Adds one.", "input_schema": {"properties": {}}}
    _, options = fit({"tools": [anthropic], "tool_choice": choice}, ollama(), openai())
    assert options["tools"][0]["function"]["name"] == "add"
    said = options["tool_choice"]
    assert (said["function"] if isinstance(said, dict) else said) == found


def test_a_structure_that_is_a_tool_has_to_be_called() -> None:
    asked = ollama().with_structured_output(Out, method="function_calling")
    bound: Any = asked.first  # pyright: ignore[reportAttributeAccessIssue]
    _, options = fit(bound.kwargs, ollama(), openai())
    assert options["tool_choice"] == "required"


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_other_ways_to_a_structure_do_not_cross(method: Any) -> None:
    for asked, other in ((openai(), ollama()), (ollama(), openai())):
        bound: Any = asked.with_structured_output(Out, method=method).first  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(ValueError, match=r"use with_structured_output.*function_calling"):
            fit(bound.kwargs, asked, other)
        assert fit(bound.kwargs, asked, asked) == (asked, bound.kwargs)


def test_models_of_one_provider_share_everything() -> None:
    azure = AzureChatOpenAI(
        azure_endpoint=NOWHERE, api_key="local", api_version="1", azure_deployment="d"
    )
    options = {"extra_body": {"store": True}, "logprobs": True, "stop": ["END"], "seed": 3}
    assert fit(options, openai(), azure) == (azure, options)
