"""The budget's cap on output tokens reaches the endpoint, whatever chat model is on the way."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, cast

import pytest
from graphs import LARGE, Assign, Bench, OllamaServer, calling, chain_of, ollama
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from langgraph.graph import MessagesState

from agentbalance_plugin import Backbone, Budget, Catalog
from agentbalance_plugin.adapters.langgraph import direct
from agentbalance_plugin.adapters.langgraph.caps import capped, wanted
from agentbalance_plugin.adapters.langgraph.models import Models
from agentbalance_plugin.adapters.langgraph.prompt_bound import prompt_bound
from agentbalance_plugin.backbone import Endpoint

OLDER = Endpoint(model="m", base_url="http://127.0.0.1:9")
NEWER = Endpoint(model="m", base_url="http://127.0.0.1:9", output_cap="max_completion_tokens")


def openai(model: str = "gpt-4o", **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url="http://127.0.0.1:9", api_key="local", **more)


def caps_in(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """All caps of the request that langchain-openai makes, by name."""
    payload = model._get_request_payload([("user", "hello")], **options)
    body = {**payload, **payload.get("extra_body", {})}
    return {name: body[name] for name in body if name.startswith("max_")}


@pytest.mark.parametrize(
    ("model", "endpoint", "options", "found"),
    [
        (openai(), OLDER, {}, {"max_tokens": 77}),
        (openai(), NEWER, {}, {"max_completion_tokens": 77}),
        (openai(), OLDER, {"extra_body": {"max_completion_tokens": 9000}}, {"max_tokens": 77}),
        (openai(), None, {}, {"max_completion_tokens": 77}),
        (openai(), None, {"extra_body": {"max_tokens": 9000}}, {"max_completion_tokens": 77}),
        (openai(max_tokens=9000), None, {}, {"max_completion_tokens": 77}),
        (openai(max_tokens=9000), OLDER, {}, {"max_tokens": 77}),
        (openai(use_responses_api=True), None, {}, {"max_output_tokens": 77}),
        (openai(use_responses_api=True), OLDER, {}, {"max_output_tokens": 77}),
        (openai(), OLDER, {"reasoning": {"effort": "low"}}, {"max_output_tokens": 77}),
        (openai(reasoning={"effort": "low"}), NEWER, {}, {"max_output_tokens": 77}),
    ],
)
def test_openai_is_told_by_the_name_that_the_api_knows(
    model: ChatOpenAI, endpoint: Endpoint | None, options: dict[str, Any], found: dict[str, int]
) -> None:
    used, given = capped(model, endpoint, options, 77)
    assert caps_in(used, given) == found


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-5-pro", "gpt-5.2-codex"])
def test_a_model_that_knows_one_api_alone_is_told_by_its_name(name: str) -> None:
    """Which models those are depends on the version of langchain-openai."""
    model, given = capped(openai(name), NEWER, {}, 77)
    payload = cast("Any", model)._get_request_payload([("user", "hello")], **given)
    cap = "max_output_tokens" if "input" in payload else "max_completion_tokens"
    assert caps_in(model, given) == {cap: 77}


class Gemini(BaseChatModel):
    """As langchain-google-genai: has a field for the cap and overlooks `max_tokens`."""

    max_output_tokens: int | None = None

    @property
    def _llm_type(self) -> str:
        return "gemini"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
        used = self.max_output_tokens or 8192
        usage: Any = {"input_tokens": 8, "output_tokens": used, "total_tokens": 8 + used}
        reply = AIMessage("Answer: 1", usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=reply)])


GEMINI = Backbone(
    "gemini",
    price_in_usd_per_mtok=Decimal(1),
    price_out_usd_per_mtok=Decimal(10),
    max_output_tokens=4096,
)


async def test_a_model_with_a_field_of_another_name_keeps_the_budget(instant: Bench) -> None:
    app = instant.balance(
        chain_of({"a": calling(instant.model())}),
        backbones=[(GEMINI, Gemini())],
        policy=Assign({"a": "gemini"}),
        budget=Budget(cost_usd=0.02),
    ).compile()
    await app.ainvoke({"messages": [("user", "hello")]})
    assert app.report.within_budget
    assert not any(call.overrun for call in app.report.calls)
    assert 16 <= app.report.calls[0].completion_tokens < 2000


class Shared(Gemini):
    """LangChain's cache tells replies of such models apart by what the model says of itself."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True


async def test_a_cache_tells_replies_under_different_caps_apart(instant: Bench) -> None:
    model = Shared()
    set_llm_cache(InMemoryCache())
    try:
        model.invoke("something else")

        async def node(state: MessagesState) -> Any:
            short = await model.ainvoke("hello", max_output_tokens=20)
            return {"messages": [short, await model.ainvoke("hello")]}

        app = instant.balance(
            chain_of({"a": node}),
            backbones=[(GEMINI, model)],
            policy=Assign({"a": "gemini"}),
            budget=Budget(cost_usd=1.0),
        ).compile()
        await app.ainvoke({"messages": [("user", "hello")]})
    finally:
        set_llm_cache(None)
    assert [call.completion_tokens for call in app.report.calls] == [20, 4096]


async def test_ollama_is_told_in_its_options(instant: Bench) -> None:
    server, model = OllamaServer(), ollama()

    async def node(state: MessagesState) -> Any:
        first = await model.ainvoke(state["messages"])
        second = await model.ainvoke(state["messages"], options={"temperature": 0.0})
        third = await model.ainvoke(state["messages"], options={"num_predict": 20})
        return {"messages": [first, second, third]}

    app = instant.balance(
        chain_of({"a": node}),
        backbones=server.backbones,
        policy=Assign({"a": "llama"}),
        budget=Budget(cost_usd=1.0),
    ).compile()
    await app.ainvoke({"messages": [("user", "hello")]})
    assert [each["options"]["num_predict"] for each in server.asked] == [500, 500, 20]
    assert server.asked[1]["options"]["temperature"] == 0.0
    assert [call.completion_tokens for call in app.report.calls] == [500, 500, 20]


def test_a_copy_that_carries_a_cap_is_as_direct_as_the_model() -> None:
    model = direct(Gemini())
    copy, _ = capped(model, None, {}, 77)
    assert copy is not model
    assert model.max_output_tokens is None
    assert vars(copy).keys() == vars(model).keys()


def test_all_that_callers_ask_for_counts() -> None:
    assert wanted(openai(max_tokens=900), {}) == [900]
    assert wanted(Gemini(max_output_tokens=800), {"max_tokens": 70}) == [800, 70]
    asked = {"extra_body": {"max_tokens": 5}, "generation_config": {"max_output_tokens": 6}}
    assert sorted(wanted(Gemini(), asked)) == [5, 6]


def test_a_cap_below_zero_is_none() -> None:
    assert wanted(openai(max_tokens=-1), {"max_tokens": -1, "extra_body": {"max_tokens": -2}}) == []


def test_a_cap_in_the_body_of_every_request_is_refused(instant: Bench) -> None:
    backbone = instant.catalog(LARGE)[LARGE]
    model = openai(extra_body={"max_completion_tokens": 9000}, max_retries=0)
    with pytest.raises(ValueError, match="'max_completion_tokens' in extra_body"):
        Models(Catalog([backbone]), {LARGE: model})


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "web_search_20250305", "name": "web_search"},
        {"google_search": {}},
    ],
)
async def test_tools_that_vendors_run_are_refused_before_anything_is_sent(
    instant: Bench, tool: dict[str, Any]
) -> None:
    node = calling(instant.model().bind(tools=[tool]))
    app = instant.balance(chain_of({"a": node})).compile()
    with pytest.raises(ValueError, match="runs at the vendor"):
        await app.ainvoke(instant.ask())
    assert instant.called() == []


@pytest.mark.parametrize(
    "options",
    [
        {"web_search_options": {}, "extra_body": {"plugins": [{"id": "web"}]}},
        {"search_parameters": {"mode": "on"}},
        {"mcp_servers": [{"url": "https://x"}]},
        {"extra_body": {"tools": [{"type": "web_search"}]}},
    ],
)
async def test_searches_of_vendors_are_refused_however_they_are_asked_for(
    instant: Bench, options: dict[str, Any]
) -> None:
    app = instant.balance(chain_of({"a": calling(instant.model(), **options)})).compile()
    with pytest.raises(ValueError, match="runs at the vendor"):
        await app.ainvoke(instant.ask())
    assert instant.called() == []
    backbone = instant.catalog(LARGE)[LARGE]
    extra = {**options, **options.pop("extra_body", {})}
    with pytest.raises(ValueError, match=f"ChatOpenAI of '{LARGE}': .* runs at the vendor"):
        Models(Catalog([backbone]), {LARGE: openai(extra_body=extra, max_retries=0)})


@pytest.mark.parametrize(
    "options",
    [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}, {"cached_content": "c"}],
)
async def test_what_vendors_keep_is_refused_before_anything_is_sent(
    instant: Bench, options: dict[str, Any]
) -> None:
    node = calling(instant.model(), **options)
    app = instant.balance(chain_of({"a": node})).compile()
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*what the vendor keeps"):
        await app.ainvoke(instant.ask())
    assert instant.called() == []


@pytest.mark.parametrize(
    ("part", "refused"),
    [
        ({"type": "file", "file_id": "file-1"}, True),
        ({"type": "file", "file": {"file_id": "file-1"}}, True),
        ({"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}}, True),
        ({"type": "media", "mime_type": "video/mp4", "file_uri": "gs://x/a.mp4"}, True),
        ({"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}, False),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}, False),
        ({"type": "image_url", "image_url": {"url": "https://x/a.png"}}, False),
        ({"type": "tool_use", "name": "get", "id": "1", "input": {"url": "https://x"}}, False),
    ],
)
def test_a_file_counts_by_its_bytes_and_is_refused_by_reference(
    part: dict[str, Any], refused: bool
) -> None:
    message = AIMessage([{"type": "text", "text": "Look."}, part])
    if refused:
        with pytest.raises(ValueError, match="how many tokens that has"):
            prompt_bound([message], {})
    else:
        assert prompt_bound([message], {}) > len(json.dumps(part)) / 2


SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}}


@pytest.mark.parametrize(
    "source",
    [
        {"tools": [SCHEMA]},
        {"format": SCHEMA},
        {"response_schema": SCHEMA},
        {"response_json_schema": SCHEMA},
        {"output_config": {"format": SCHEMA}},
        {"extra_body": {"guided_json": SCHEMA}},
        vars(openai(model_kwargs={"response_format": SCHEMA})),
        vars(ollama(format=SCHEMA)),
    ],
)
def test_a_schema_counts_under_whichever_name_it_is_given(source: dict[str, Any]) -> None:
    plain = prompt_bound([AIMessage("x")])
    assert prompt_bound([AIMessage("x")], source) > plain + len(json.dumps(SCHEMA))


@pytest.mark.parametrize(
    "source",
    [
        {"options": {"instructions": "x" * 900}},
        {"options": {"documents": [{"text": "x" * 900}]}},
        {"fields": {"system": "x" * 900}},
        {"fields": vars(openai(model_kwargs={"instructions": "x" * 900}))},
    ],
)
def test_text_beside_the_messages_counts(source: dict[str, Any]) -> None:
    plain = prompt_bound([AIMessage("x")])
    assert prompt_bound([AIMessage("x")], **source) > plain + 900
    # How to sample and what LangChain keeps for itself are in no prompt.
    beside = {"temperature": 0.5, "logprobs": True, "ls_structured_output_format": {"x": "x" * 900}}
    assert prompt_bound([AIMessage("x")], beside) == plain


async def test_a_prediction_is_refused_before_anything_is_sent(instant: Bench) -> None:
    told = {"prediction": {"type": "content", "content": "x"}}
    app = instant.balance(chain_of({"a": calling(instant.model(), **told)})).compile()
    with pytest.raises(ValueError, match=r"prediction=.* billed as output beside the cap"):
        await app.ainvoke(instant.ask())
    assert instant.called() == []


async def test_no_call_is_sent_whose_schema_the_budget_could_not_pay(instant: Bench) -> None:
    server = OllamaServer()
    long = {**SCHEMA, "description": "x" * 4000}
    [(backbone, model)] = server.backbones
    backbones = [(backbone, model.model_copy(update={"format": long}))]
    app = instant.balance(
        chain_of({"a": calling(instant.model())}),
        backbones=backbones,
        budget=Budget(tokens=4000),
        policy=Assign({"a": "llama"}),
    ).compile()
    await app.ainvoke({"messages": [("user", "hello")]})
    assert server.asked == []
    assert [agent.status for agent in app.report.agents] == ["skipped"]
