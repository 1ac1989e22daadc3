"""What is bound to a node's model holds for its backbone's, whoever's that is."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from graphs import Assign, Bench, OllamaServer, calling, chain_of, ollama
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
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


def openai(**more: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=NOWHERE, api_key="local", **more)


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


async def test_what_a_nodes_model_was_made_with_holds_for_its_backbone(instant: Bench) -> None:
    server = OllamaServer()
    own = openai(temperature=0.0, seed=3, stop=["END"])
    app = instant.balance(
        chain_of({"a": calling(own)}), backbones=server.backbones, policy=Assign({"a": "llama"})
    ).compile()
    await app.ainvoke({"messages": [("user", "hello")]})
    options = server.asked[0]["options"]
    assert (options["seed"], options["temperature"], options["stop"]) == (3, 0.0, ["END"])


@pytest.mark.parametrize("other", [True, False])
async def test_marks_of_what_to_cache_do_not_reach_an_endpoint_that_refuses_them(
    instant: Bench, other: bool
) -> None:
    marked = {"type": "text", "text": instant.task(), "cache_control": {"type": "ephemeral"}}
    told: list[Any] = []

    class Listener(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
            told.extend(message.content for message in messages[0])

    # Whoever asks OpenAI's own models for it knows what is behind the endpoint.
    asked = ollama() if other else instant.model()
    app = instant.balance(chain_of({"a": calling(asked)})).compile()
    given = {"messages": [("system", "Solve."), ("user", [marked])]}
    result = await app.ainvoke(given, {"callbacks": [Listener()]})
    plain = {"type": "text", "text": instant.task()}
    assert told == ["Solve.", [plain if other else marked]]
    assert result["messages"][1].content == [marked]


def test_settings_reach_a_model_of_the_same_provider() -> None:
    own = {"temperature": 0.0, "stop": ["END"]}
    assert fit({}, openai(**own), openai())[1] == own
    model, options = fit({}, ollama(**own), ollama())
    assert (getattr(model, "temperature", None), options) == (0.0, {"stop": ["END"]})


def test_no_other_model_and_no_dearer_tier_answers_at_the_backbones_price() -> None:
    body = {"models": ["gpt-5"], "service_tier": "priority", "user": "u"}
    options = {"model": "gpt-5", "service_tier": "priority", "extra_body": body}
    assert fit(options, openai(), openai())[1] == {"extra_body": {"user": "u"}}


def test_a_call_goes_before_the_backbones_maker_and_that_before_the_nodes() -> None:
    asked, model = openai(temperature=0.0, seed=1, top_p=0.5), openai(temperature=0.3, seed=2)
    assert fit({"seed": 3}, asked, model)[1] == {"seed": 3, "top_p": 0.5}


def test_a_backbone_that_always_reasons_is_not_told_how_to_sample() -> None:
    asked = openai(temperature=0.0, stop=["END"])
    options = {"seed": 3, "reasoning_effort": "low"}
    assert fit(options, asked, openai(), reasons=True)[1] == {"reasoning_effort": "low"}


def test_json_that_a_model_was_made_for_needs_a_backbone_that_can(instant: Bench) -> None:
    json_mode = openai(model_kwargs={"response_format": {"type": "json_object"}})
    assert fit({}, json_mode, openai())[1] == {"response_format": {"type": "json_object"}}
    assert fit({}, ollama(format="json"), ollama())[1] == {"format": "json"}
    with pytest.raises(ValueError, match="structured output by format is ChatOllama's own"):
        fit({}, ollama(format="json"), openai())
    with pytest.raises(ValueError, match=r"agent 'a' needs \['json', 'text'\]"):
        instant.balance(chain_of({"a": calling(json_mode)})).compile()


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


@pytest.mark.parametrize("written", [True, False])
async def test_a_schema_in_the_words_of_openai_reaches_its_endpoints(written: bool) -> None:
    """Agents say it so to every model. Beside it OpenAI's SDK refuses tools that are not strict."""
    schema = {"name": "out", "schema": {"type": "object", "properties": {}}}
    shape = {"type": "json_schema", "json_schema": schema}
    tool = {"name": "add", "description": "", "input_schema": {"type": "object", "properties": {}}}
    tools = ollama().bind_tools([add]).kwargs["tools"] if written else [tool]  # pyright: ignore[reportAttributeAccessIssue]
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"}}
        said = {"id": "1", "created": 1, "model": "m", "object": "chat.completion"}
        return httpx.Response(200, json={**said, "choices": [choice]})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    model, options = fit(
        {"tools": tools, "response_format": shape}, ollama(), openai(http_async_client=http)
    )
    await model.ainvoke("What is 1 and 1?", **options)
    assert asked[0]["response_format"]["json_schema"]["name"] == "out"
    assert [tool["function"]["name"] for tool in asked[0]["tools"]] == ["add"]
    with pytest.raises(ValueError, match="or ToolStrategy"):
        fit({"response_format": shape}, openai(), ollama())


def test_models_of_one_provider_share_everything() -> None:
    azure = AzureChatOpenAI(
        azure_endpoint=NOWHERE, api_key="local", api_version="1", azure_deployment="d"
    )
    options = {"extra_body": {"store": True}, "logprobs": True, "stop": ["END"], "seed": 3}
    assert fit(options, openai(), azure) == (azure, options)
