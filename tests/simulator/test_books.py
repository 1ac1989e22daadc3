"""What the server bills, whatever its clients believe."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import openai
import pytest
from endpoint import QUERY, SMALL, THINKER, WORDY, Endpoint, marked, messages

from agentbalance_plugin.budget import Spend

pytestmark = pytest.mark.virtual_time


async def test_an_entry_says_what_was_answered_and_billed(endpoint: Endpoint) -> None:
    answered = await endpoint.ask(QUERY, THINKER, agent="critic")
    (entry,) = endpoint.simulator.books.entries
    reply = endpoint.replay.reply(QUERY, THINKER, agent="critic")
    price = endpoint.replay.catalog[THINKER]
    assert answered.usage is not None
    assert (entry.query, entry.backbone, entry.agent) == (QUERY, THINKER, "critic")
    assert entry.prompt_tokens == answered.usage.prompt_tokens
    assert entry.completion_tokens == answered.usage.completion_tokens
    assert entry.nanodollars == price.cost(entry.prompt_tokens, entry.completion_tokens)
    assert entry.nanodollars == reply.cost_nanodollars
    assert entry.latency_s == pytest.approx(answered.seconds)
    assert (entry.finish, entry.answer, entry.correct) == ("stop", reply.answer, reply.correct)
    assert not entry.aborted


async def test_a_stream_is_billed_like_a_completion(endpoint: Endpoint) -> None:
    await endpoint.ask(QUERY, THINKER)
    await endpoint.stream(marked(QUERY), THINKER)
    plain, streamed = endpoint.simulator.books.entries
    assert streamed == plain


async def test_runs_are_told_apart_by_the_header_else_by_the_query(endpoint: Endpoint) -> None:
    first = {"x-simulate-run": "first"}
    await endpoint.ask(model=WORDY, extra_headers=first)
    await endpoint.ask(model=SMALL, extra_headers=first)
    await endpoint.ask(model=SMALL)
    books = endpoint.simulator.books
    assert [entry.run for entry in books.entries] == ["first", "first", QUERY]
    big, small = (endpoint.replay.reply(QUERY, b, agent="solver") for b in (WORDY, SMALL))

    spend = books.spend("first")
    assert spend.nanodollars == big.cost_nanodollars + small.cost_nanodollars
    assert spend.prompt_tokens == big.prompt_tokens + small.prompt_tokens
    assert spend.completion_tokens == big.completion_tokens + small.completion_tokens
    assert spend.calls == 2
    assert spend.latency_s == pytest.approx(big.latency_s + small.latency_s)
    assert books.spend(QUERY).nanodollars == small.cost_nanodollars
    assert books.spend().nanodollars == big.cost_nanodollars + 2 * small.cost_nanodollars
    assert books.spend("never") == Spend()


async def test_cleared_books_start_anew(endpoint: Endpoint) -> None:
    await endpoint.ask(model=WORDY)
    endpoint.simulator.books.clear()
    assert endpoint.simulator.books.spend() == Spend()
    await endpoint.ask(model=SMALL)
    assert [entry.backbone for entry in endpoint.simulator.books.entries] == [SMALL]


async def test_the_books_are_served(endpoint: Endpoint) -> None:
    await endpoint.ask(model=WORDY)
    await endpoint.ask(model=THINKER, max_tokens=10)
    url = endpoint.simulator.base_url.removesuffix("/v1") + "/books"
    served = cast("dict[str, Any]", await endpoint.client.get(url, cast_to=object))
    assert served == {"entries": endpoint.simulator.books.to_list()}
    assert [entry["finish"] for entry in served["entries"]] == ["stop", "length"]


async def test_requests_are_entered_when_they_are_accepted(endpoint: Endpoint) -> None:
    slow = asyncio.create_task(endpoint.ask(model="claude-3-opus-20240229"))
    await asyncio.sleep(0.1)
    fast = await endpoint.ask(model=SMALL)
    assert not slow.done()
    entries = endpoint.simulator.books.entries
    assert [entry.backbone for entry in entries] == ["claude-3-opus-20240229", SMALL]
    assert fast.seconds < (await slow).seconds


async def test_a_stream_that_its_client_leaves_is_billed_as_aborted(endpoint: Endpoint) -> None:
    chunks = await endpoint.client.chat.completions.create(
        model=WORDY, messages=messages(marked(QUERY)), stream=True
    )
    async for _ in chunks:
        break
    await chunks.close()
    await asyncio.sleep(60)
    (entry,) = endpoint.simulator.books.entries
    reply = endpoint.replay.reply(QUERY, WORDY, agent="solver")
    assert entry.aborted
    assert entry.completion_tokens == reply.completion_tokens
    assert entry.nanodollars == reply.cost_nanodollars


async def test_a_completion_that_its_client_leaves_is_marked_as_aborted(
    endpoint: Endpoint,
) -> None:
    with pytest.raises(openai.APITimeoutError):
        await endpoint.ask(timeout=0.5)
    await asyncio.sleep(60)
    assert [entry.aborted for entry in endpoint.simulator.books.entries] == [True]


async def test_a_completion_that_its_client_leaves_is_billed(endpoint: Endpoint) -> None:
    with pytest.raises(openai.APITimeoutError):
        await endpoint.ask(timeout=0.5)
    reply = endpoint.replay.reply(QUERY, WORDY, agent="solver")
    assert endpoint.simulator.books.spend().nanodollars == reply.cost_nanodollars
