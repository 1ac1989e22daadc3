"""The endpoints, as OpenAI's own client and AutoGen's see them."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
from autogen_core.models import CreateResult, ModelFamily, SystemMessage, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from endpoint import QUERY, THINKER, WORDY, Answered, Endpoint, marked, messages

from agentbalance_plugin.core.replay import Replay, Reply
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.simulator.server import Simulator

pytestmark = pytest.mark.virtual_time

USAGE = {"include_usage": True}


def agrees(answered: Answered, reply: Reply) -> None:
    """Every field that a client sees is the replay's."""
    assert answered.usage is not None
    details = answered.usage.completion_tokens_details
    assert details is not None
    assert answered.answer == reply.answer
    assert answered.finish == reply.finish
    assert answered.usage.prompt_tokens == reply.prompt_tokens
    assert answered.usage.completion_tokens == reply.visible_tokens + reply.hidden_tokens
    assert answered.usage.total_tokens == reply.prompt_tokens + reply.completion_tokens
    assert details.reasoning_tokens == reply.hidden_tokens
    assert answered.seconds == pytest.approx(reply.latency_s, rel=1e-6)


def cell(traces: TraceSet, kind: str) -> tuple[str, str]:
    """(query, backbone) of a recorded row of some kind."""
    recorded = traces.correct >= 0
    found = {
        "right": traces.correct == 1,
        "wrong": (traces.correct == 0) & (traces.answer >= 0),
        "without an answer": recorded & (traces.answer < 0),
        "with hidden tokens": recorded & (traces.hidden_tokens > 0),
        "not recorded": ~recorded,
    }[kind]
    row, column = np.argwhere(found)[-1]
    return traces.queries[int(row)].key, traces.backbones[int(column)]


@pytest.mark.parametrize(
    "kind", ["right", "wrong", "without an answer", "with hidden tokens", "not recorded"]
)
async def test_a_completion_agrees_with_the_replay(endpoint: Endpoint, kind: str) -> None:
    query, backbone = cell(endpoint.replay.traces, kind)
    answered = await endpoint.ask(query, backbone)
    agrees(answered, endpoint.replay.reply(query, backbone, agent="solver"))
    assert (answered.answer == -1) == (kind in ("without an answer", "not recorded"))


async def test_a_stream_gives_the_text_and_usage_of_the_completion(endpoint: Endpoint) -> None:
    plain = await endpoint.ask(QUERY, THINKER)
    streamed = await endpoint.stream(marked(QUERY), THINKER, stream_options=USAGE)
    agrees(streamed, endpoint.replay.reply(QUERY, THINKER, agent="solver"))
    assert streamed.text == plain.text
    assert streamed.usage == plain.usage


async def test_a_stream_says_its_usage_only_if_asked(endpoint: Endpoint) -> None:
    assert (await endpoint.stream(marked(QUERY))).usage is None
    options = {"include_usage": False}
    assert (await endpoint.stream(marked(QUERY), stream_options=options)).usage is None


async def test_a_stream_arrives_in_pieces_over_its_latency(endpoint: Endpoint) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    chunks = await endpoint.client.chat.completions.create(
        model=WORDY, messages=messages(marked(QUERY)), stream=True
    )
    arrivals = [loop.time() - begin async for chunk in chunks if chunk.choices[0].delta.content]
    latency_s = endpoint.replay.reply(QUERY, WORDY, agent="solver").latency_s
    assert len(arrivals) > 1
    steps = np.arange(1, len(arrivals) + 1) / len(arrivals)
    assert arrivals == pytest.approx(list(latency_s * steps))


def autogen_client(endpoint: Endpoint, model: str) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(
        model=model,
        base_url=endpoint.simulator.base_url,
        api_key="local",
        max_retries=0,
        model_info={
            "vision": False,
            "function_calling": True,
            "json_output": False,
            "structured_output": False,
            "family": ModelFamily.UNKNOWN,
        },
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_autogens_client_gets_the_same_reply(endpoint: Endpoint, stream: bool) -> None:
    said = [
        SystemMessage(content="[[agent:solver]] You solve tasks."),
        UserMessage(content=marked(QUERY), source="user"),
    ]
    plain = await endpoint.ask(QUERY, THINKER)
    reply = endpoint.replay.reply(QUERY, THINKER, agent="solver")
    client = autogen_client(endpoint, THINKER)
    if stream:
        parts = [p async for p in client.create_stream(said, include_usage=True)]
        result = parts.pop()
        assert "".join(p for p in parts if isinstance(p, str)) == plain.text
    else:
        result = await client.create(said)
    await client.close()
    assert isinstance(result, CreateResult)
    assert result.content == plain.text
    assert result.finish_reason == "stop"
    assert result.usage.prompt_tokens == reply.prompt_tokens
    assert result.usage.completion_tokens == reply.completion_tokens


async def test_the_models_are_the_catalogs(endpoint: Endpoint) -> None:
    models = [model.id async for model in endpoint.client.models.list()]
    assert models == list(endpoint.replay.catalog)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("model", [WORDY, THINKER])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_output_cap_cuts_the_reply(
    endpoint: Endpoint, field: str, model: str, stream: bool
) -> None:
    cap: dict[str, Any] = {field: 50}
    if stream:
        cut = await endpoint.stream(marked(QUERY), model, stream_options=USAGE, **cap)
    else:
        cut = await endpoint.ask(QUERY, model, **cap)
    agrees(cut, endpoint.replay.reply(QUERY, model, agent="solver", output_cap=50))
    assert (cut.finish, cut.answer) == ("length", -1)
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 50


async def test_an_output_cap_that_fits_changes_nothing(endpoint: Endpoint) -> None:
    reply = endpoint.replay.reply(QUERY, THINKER, agent="solver")
    answered = await endpoint.ask(QUERY, THINKER, max_tokens=reply.completion_tokens)
    agrees(answered, reply)
    assert answered.finish == "stop"
    short = await endpoint.ask(QUERY, THINKER, max_tokens=reply.completion_tokens - 1)
    assert short.finish == "length"


async def test_an_unknown_model_is_not_found(endpoint: Endpoint) -> None:
    with pytest.raises(openai.NotFoundError, match="`gpt-9` does not exist"):
        await endpoint.ask(model="gpt-9")
    assert endpoint.simulator.books.entries == []


async def test_an_unknown_path_is_not_found(endpoint: Endpoint) -> None:
    with pytest.raises(openai.NotFoundError):
        await endpoint.client.embeddings.create(model=WORDY, input="text")


def body(**fields: Any) -> dict[str, Any]:
    """A request that would be answered but for some of its fields."""
    return {"model": WORDY, "messages": [{"role": "user", "content": "Hello"}], **fields}


def message(**fields: Any) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": "Hello", **fields}])


MALFORMED: dict[str, Any] = {
    "not JSON": b"{",
    "not UTF-8": b'{"model": "\xff"}',
    "a list": [],
    "no model": body(model=None),
    "a model that is a number": body(model=5),
    "no messages": body(messages=None),
    "no message": body(messages=[]),
    "a message that is a text": body(messages=["Hello"]),
    "a message without a role": body(messages=[{"content": "Hello"}]),
    "no tokens": body(max_tokens=0),
    "tokens in words": body(max_completion_tokens="many"),
    "tokens that are true": body(max_tokens=True),
    "a seed that is a fraction": body(seed=0.5),
    "a role that is a list": message(role=["user"]),
    "content of bare texts": message(content=["Hello"]),
    "tools that are texts": body(tools=["search"]),
    "a function that is a text": body(tools=[{"function": "search"}]),
    "stream options that are a text": body(stream=True, stream_options="usage"),
    "a seed beyond 64 bits": message(content=marked(QUERY)) | {"seed": 2**70},
}


@pytest.mark.parametrize("content", [pytest.param(c, id=name) for name, c in MALFORMED.items()])
async def test_a_malformed_body_is_a_bad_request(endpoint: Endpoint, content: Any) -> None:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(openai.BadRequestError):
        await endpoint.client.post("/chat/completions", cast_to=object, content=raw)
    assert endpoint.simulator.books.entries == []


async def test_a_cap_beyond_64_bits_caps_nothing(endpoint: Endpoint) -> None:
    assert (await endpoint.ask(max_tokens=2**70)).finish == "stop"


async def test_the_server_binds_the_loopback_alone_until_it_ends(replay: Replay) -> None:
    simulator = Simulator(replay)
    with pytest.raises(RuntimeError, match="does not run"):
        _ = simulator.base_url
    endpoint = Endpoint(replay)
    async with endpoint:
        url = urlsplit(endpoint.simulator.base_url)
        assert (url.scheme, url.hostname, url.path) == ("http", "127.0.0.1", "/v1")
        assert url.port
        client = endpoint.new_client()
        assert (await client.models.list()).data
    with pytest.raises(openai.APIConnectionError):
        await client.models.list()
    await client.close()


async def test_the_base_url_of_an_ipv6_address_can_be_parsed(replay: Replay) -> None:
    try:
        async with Simulator(replay, host="::1") as simulator:
            url = simulator.base_url
    except OSError:
        pytest.skip("no IPv6 here")
    assert urlsplit(url).hostname == "::1"


async def test_the_scale_stretches_latencies(replay: Replay) -> None:
    latency_s = replay.reply(QUERY, WORDY, agent="solver").latency_s
    for scale in (0.0, 3.0):
        async with Endpoint(replay, scale=scale) as endpoint:
            assert (await endpoint.ask()).seconds == pytest.approx(scale * latency_s)
            streamed = await endpoint.stream(marked(QUERY))
            assert streamed.seconds == pytest.approx(scale * latency_s)
    with pytest.raises(ValueError, match="scale"):
        Simulator(replay, scale=-1)
