"""What is bound to a node's model holds for its backbone's, whoever's that is."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from graphs import Assign, Bench, chain_of
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langgraph.graph import MessagesState
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentbalance_plugin import Backbone
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


def ollama(**more: Any) -> ChatOllama:
    return ChatOllama(model="llama", base_url=NOWHERE, **more)


class Local:
    """An Ollama server that calls the first tool it is given, and then answers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        routes = [Route("/api/chat", self._chat, methods=["POST"])]
        self._transport = httpx.ASGITransport(Starlette(routes=routes))

    @property
    def backbones(self) -> list[tuple[Backbone, ChatOllama]]:
        backbone = Backbone(
            "llama",
            price_in_usd_per_mtok=Decimal(1),
            price_out_usd_per_mtok=Decimal(2),
            capabilities=frozenset({"text", "tools"}),
        )
        return [(backbone, ollama(async_client_kwargs={"transport": self._transport}))]

    async def _chat(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        self.asked.append(asked)
        message: dict[str, Any] = {"role": "assistant", "content": "Answer: 3"}
        if asked.get("tools") and asked["messages"][-1]["role"] != "tool":
            function = asked["tools"][0]["function"]
            arguments = dict.fromkeys(function["parameters"]["properties"], 2)
            call = {"function": {"name": function["name"], "arguments": arguments}}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
        done = {
            "model": "llama",
            "created_at": "2026-01-01T00:00:00Z",
            "message": message,
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 8,
            "eval_count": 5,
        }
        return Response(json.dumps(done) + "\n", media_type="application/x-ndjson")


async def test_an_agent_with_tools_runs_on_another_providers_model(instant: Bench) -> None:
    server = Local()
    agent = create_agent(openai(), [add], name="a")
    app = instant.balance(
        chain_of({"a": agent}), backbones=server.backbones, policy=Assign({"a": "llama"})
    ).compile()
    result = await app.ainvoke({"messages": [("user", "2 + 1")]})
    assert [message.text for message in result["messages"]] == ["2 + 1", "", "3", "Answer: 3"]
    assert app.report.spend.calls == 2


async def test_structured_output_comes_from_another_providers_model(instant: Bench) -> None:
    server = Local()
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
    server = Local()
    bound = openai().bind(
        seed=3, temperature=0.5, stop=["END"], logprobs=True, extra_body={"store": True}
    )

    async def node(state: MessagesState) -> Any:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    app = instant.balance(
        chain_of({"a": node}), backbones=server.backbones, policy=Assign({"a": "llama"})
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
