"""What OpenAI's own client sees of each fault, and what the books bill for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from endpoint import QUERY, SMALL, WORDY, Endpoint, marked, messages, visible

from agentbalance_plugin.simulator.faults import FAULTS, Faults

pytestmark = pytest.mark.virtual_time

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["marker", "header"])
def way(request: pytest.FixtureRequest) -> str:
    """How the fault is asked for."""
    return request.param


def asked(way: str, kind: str) -> dict[str, Any]:
    """Arguments of a request for the recorded query that carries a fault."""
    if way == "header":
        return {"task": marked(QUERY), "extra_headers": {"x-simulate-fault": kind}}
    return {"task": f"{marked(QUERY)} [[fault:{kind}]]"}


def billed_once(endpoint: Endpoint) -> bool:
    """Whether the books hold one entry, of what the recorded call costs."""
    reply = endpoint.replay.reply(QUERY, WORDY, agent="solver")
    entries = endpoint.simulator.books.entries
    return [(e.prompt_tokens, e.completion_tokens, e.nanodollars) for e in entries] == [
        (reply.prompt_tokens, reply.completion_tokens, reply.cost_nanodollars)
    ]


async def test_a_429_tells_when_to_retry_and_bills_nothing(endpoint: Endpoint, way: str) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        await endpoint.create(**asked(way, "429"))
    assert raised.value.response.headers["retry-after"] == "1"
    assert endpoint.simulator.books.entries == []


async def test_a_500_is_a_server_error_and_bills_nothing(endpoint: Endpoint, way: str) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        await endpoint.create(**asked(way, "500"))
    assert raised.value.status_code == 500
    assert "retry-after" not in raised.value.response.headers
    assert endpoint.simulator.books.entries == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_timeout_never_answers_and_is_billed(
    endpoint: Endpoint, way: str, stream: bool
) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    ask: Ask = endpoint.stream if stream else endpoint.create
    with pytest.raises(openai.APITimeoutError):
        await ask(**asked(way, "timeout"), timeout=500)
    assert loop.time() - begin == pytest.approx(500)
    assert billed_once(endpoint)


async def test_a_malformed_body_cannot_be_read_and_is_billed(endpoint: Endpoint, way: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        await endpoint.create(**asked(way, "malformed"))
    assert billed_once(endpoint)


async def test_a_malformed_stream_breaks_in_its_middle_and_is_billed(
    endpoint: Endpoint, way: str
) -> None:
    text = ""
    arguments = asked(way, "malformed")
    chunks = await endpoint.client.chat.completions.create(
        model=WORDY, messages=messages(arguments.pop("task")), stream=True, **arguments
    )
    with pytest.raises(json.JSONDecodeError):
        async for chunk in chunks:
            text += chunk.choices[0].delta.content or ""
    whole = visible(await endpoint.create(marked(QUERY)))
    assert text
    assert whole.startswith(text)
    assert len(text) < len(whole)
    del endpoint.simulator.books.entries[1:]
    assert billed_once(endpoint)


async def test_without_usage_the_reply_is_whole_and_billed(endpoint: Endpoint, way: str) -> None:
    whole = visible(await endpoint.create(marked(QUERY)))
    endpoint.simulator.books.clear()
    completion = await endpoint.create(**asked(way, "no_usage"))
    assert completion.usage is None
    assert visible(completion) == whole
    assert billed_once(endpoint)


async def test_a_stream_without_usage_has_none_though_asked(endpoint: Endpoint, way: str) -> None:
    streamed = await endpoint.stream(
        **asked(way, "no_usage"), stream_options={"include_usage": True}
    )
    assert streamed.usage is None
    assert streamed.finish == "stop"
    assert billed_once(endpoint)


@pytest.mark.parametrize("stream", [False, True])
async def test_zero_usage_claims_nothing_but_is_billed_in_full(
    endpoint: Endpoint, way: str, stream: bool
) -> None:
    arguments = asked(way, "zero_usage")
    if stream:
        options = {"include_usage": True}
        usage = (await endpoint.stream(**arguments, stream_options=options)).usage
    else:
        usage = (await endpoint.create(**arguments)).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (0, 0, 0)
    assert billed_once(endpoint)


async def test_a_cut_stream_ends_without_finish_and_is_billed_as_aborted(
    endpoint: Endpoint, way: str
) -> None:
    text, finishes = "", set()
    arguments = asked(way, "cut_stream")
    chunks = await endpoint.client.chat.completions.create(
        model=WORDY, messages=messages(arguments.pop("task")), stream=True, **arguments
    )
    with pytest.raises(openai.APIConnectionError):
        async for chunk in chunks:
            text += chunk.choices[0].delta.content or ""
            finishes.add(chunk.choices[0].finish_reason)
    assert text
    assert finishes == {None}
    assert billed_once(endpoint)
    assert endpoint.simulator.books.entries[0].aborted


async def test_only_streams_are_cut(endpoint: Endpoint, way: str) -> None:
    completion = await endpoint.create(**asked(way, "cut_stream"))
    assert completion.choices[0].finish_reason == "stop"
    assert visible(completion).endswith("Answer: 0")
    assert not endpoint.simulator.books.entries[0].aborted


async def test_an_unknown_fault_is_refused_by_name(endpoint: Endpoint, way: str) -> None:
    with pytest.raises(openai.BadRequestError, match="unknown fault 'flood'"):
        await endpoint.create(**asked(way, "flood"))
    assert endpoint.simulator.books.entries == []


async def test_a_counted_fault_stops_after_its_count(endpoint: Endpoint) -> None:
    task = f"{marked(QUERY)} [[fault:500*2]]"
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await endpoint.create(task)
    for _ in range(2):
        assert visible(await endpoint.create(task)).endswith("Answer: 0")
    assert len(endpoint.simulator.books.entries) == 2


async def test_the_client_retries_a_counted_429_after_the_time_it_is_told(
    endpoint: Endpoint,
) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with endpoint.new_client(max_retries=2) as client:
        completion = await client.chat.completions.create(
            model=WORDY, messages=messages(f"{marked(QUERY)} [[fault:429*2]]")
        )
    latency_s = endpoint.replay.reply(QUERY, WORDY, agent="solver").latency_s
    assert visible(completion).endswith("Answer: 0")
    assert loop.time() - begin == pytest.approx(latency_s + 2)
    assert billed_once(endpoint)


async def test_a_count_starts_anew_in_another_task(endpoint: Endpoint) -> None:
    for number in range(3):
        with pytest.raises(openai.InternalServerError):
            await endpoint.create(f"Task {number}: [[fault:500*1]]")


async def test_a_count_starts_anew_in_another_task_behind_a_long_prompt(
    endpoint: Endpoint,
) -> None:
    system = {"role": "system", "content": "You are a careful solver of tasks. " * 20}
    for number in range(2):
        task = {"role": "user", "content": f"Task {number}: [[fault:500*1]]"}
        with pytest.raises(openai.InternalServerError):
            await endpoint.create("", messages=[system, task])


async def test_a_fault_of_one_backbone_spares_the_others(endpoint: Endpoint) -> None:
    task = f"{marked(QUERY)} [[fault:429@{SMALL}]]"
    with pytest.raises(openai.RateLimitError):
        await endpoint.create(task, SMALL)
    assert visible(await endpoint.create(task, WORDY)).endswith("Answer: 0")


async def test_the_header_goes_before_the_marker(endpoint: Endpoint) -> None:
    with pytest.raises(openai.InternalServerError):
        await endpoint.create(
            f"{marked(QUERY)} [[fault:429]]", extra_headers={"x-simulate-fault": "500"}
        )


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_can_be_asked_for_one_backbone_and_a_number_of_times(kind: str) -> None:
    faults = Faults()
    text = f"[[fault:{kind}@big*1]]"
    assert [faults.of(None, [text], name) for name in ("small", "big", "big")] == [None, kind, None]
