"""The budget client in front of a real endpoint that misbehaves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from autogen_core.models import ChatCompletionClient, CreateResult, SystemMessage, UserMessage
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.models.replay import ReplayChatCompletionClient
from chats import LARGE, MINI, Bench
from openai import APIConnectionError, APIStatusError, LengthFinishReasonError, NotFoundError
from pydantic import BaseModel

from agentbalance_plugin import Budget, Meter
from agentbalance_plugin.adapters.autogen.client import BudgetClient
from agentbalance_plugin.adapters.autogen.prompt_bound import prompt_bound
from agentbalance_plugin.runtime.call import CallDenied, DeadlineReached
from agentbalance_plugin.runtime.failures import MAX_RETRIES

pytestmark = pytest.mark.virtual_time


def messages(bench: Bench, marker: str = "") -> list[SystemMessage | UserMessage]:
    return [
        SystemMessage(content="[[agent:solver]] Solve."),
        UserMessage(content=f"{marker} {bench.task()}", source="user"),
    ]


def client(
    bench: Bench,
    budget: Budget | None = None,
    backbone: str = MINI,
    inner: ChatCompletionClient | None = None,
    output_cap: int | None = None,
) -> tuple[BudgetClient, Meter]:
    meter = Meter(budget or Budget(cost_usd=1.0))
    inner = inner or bench.client(backbone)
    entry = bench.replay.catalog[backbone]
    return BudgetClient(inner, entry, meter, "solver", output_cap), meter


def of_family_o1(bench: Bench) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(
        model=MINI,
        base_url=bench.simulator.base_url,
        api_key="local",
        model_info={**bench.client().model_info, "family": "o1"},
    )


async def test_what_is_settled_is_what_the_server_billed(bench: Bench) -> None:
    budgeted, meter = client(bench)
    result = await budgeted.create(messages(bench))
    assert meter.spend().nanodollars == bench.billed()
    assert budgeted.total_usage() == result.usage
    assert meter.spend("solver").calls == 1


async def test_the_prompt_bound_is_above_what_is_billed(bench: Bench) -> None:
    for number in range(5):
        for benchmark in ("gsm8k", "crux", "math_l5"):
            asked = [UserMessage(content=bench.task(number, benchmark), source="user")]
            budgeted, meter = client(bench)
            await budgeted.create(asked)
            assert meter.calls[0].prompt_tokens <= prompt_bound(asked)


class Out(BaseModel):
    """An answer."""

    number: int


async def test_a_schema_counts_wherever_it_is_given(bench: Bench) -> None:
    task = [UserMessage(content="x", source="user")]
    plain = prompt_bound(task)
    schema = len(json.dumps(Out.model_json_schema()))
    assert prompt_bound(task, extra_create_args={"response_format": Out}) > plain + schema
    shape = {"type": "json_schema", "schema": Out.model_json_schema()}
    with_schema = bench.client(MINI, response_format=shape)
    budgeted, meter = client(bench, inner=with_schema)
    # Without usage the whole reservation is booked.
    unmetered = [UserMessage(content=f"[[fault:no_usage]] {bench.task()}", source="user")]
    await budgeted.create(unmetered)
    assert meter.calls[0].prompt_tokens > prompt_bound(unmetered) + schema


async def test_a_structured_reply_that_the_budget_cuts_is_a_denied_call(bench: Bench) -> None:
    budgeted, meter = client(bench, output_cap=20)
    with pytest.raises(CallDenied, match="did not fit into the 20 tokens that the budget had left"):
        await budgeted.create(messages(bench), json_output=Out)
    assert meter.calls[0].metered
    assert meter.spend().nanodollars == bench.billed() > 0
    # Its caller wanted no more.
    with pytest.raises(LengthFinishReasonError):
        await budgeted.create(
            messages(bench), json_output=Out, extra_create_args={"max_tokens": 20}
        )
    assert meter.spend().nanodollars == bench.billed()


@pytest.mark.filterwarnings("ignore:Finish reason mismatch")
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_call_that_the_budget_cuts_is_a_denied_call(
    bench: Bench, streamed: bool
) -> None:
    def cut(request: httpx.Request) -> httpx.Response:
        """The beginning of a long tool call, as many tokens as were allowed."""
        asked = json.loads(request.content)
        function = {"name": "remove", "arguments": '{"path": "/home'}
        said = {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": function}]}
        choice = {"index": 0, "finish_reason": "length", "delta" if streamed else "message": said}
        used = {"prompt_tokens": 9, "completion_tokens": asked["max_tokens"], "total_tokens": 0}
        body = {"id": "1", "created": 1, "model": MINI, "choices": [choice], "usage": used}
        if not streamed:
            return httpx.Response(200, json=body)
        return httpx.Response(200, text=f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n")

    http = httpx.AsyncClient(transport=httpx.MockTransport(cut))
    inner = bench.client(MINI, http_client=http)

    async def ask(budgeted: BudgetClient, **options: Any) -> Any:
        if not streamed:
            return await budgeted.create(messages(bench), **options)
        chunks = [each async for each in budgeted.create_stream(messages(bench), **options)]
        return chunks[-1]

    budgeted, meter = client(bench, inner=inner, output_cap=20)
    with pytest.raises(CallDenied, match="did not fit into the 20 tokens that the budget had left"):
        await ask(budgeted)
    assert [call.completion_tokens for call in meter.calls] == [20]
    # Its caller wanted no more.
    result = await ask(budgeted, extra_create_args={"max_tokens": 20})
    assert result.content[0].name == "remove"


@pytest.mark.parametrize("status", [429, 500])
async def test_refused_calls_are_tried_again_each_with_its_own_reservation(
    bench: Bench, status: int
) -> None:
    budgeted, meter = client(bench)
    result = await budgeted.create(messages(bench, f"[[fault:{status}*2]]"))
    assert isinstance(result.content, str)
    # A 429 is refused and free; a server error may have been billed, and is booked in full.
    metered = [call.metered for call in meter.calls]
    assert metered == ([True] if status == 429 else [False, False, True])
    assert meter.spend().nanodollars >= bench.billed()


async def test_a_cache_before_a_client_hides_neither_its_retries_nor_its_cap(bench: Bench) -> None:
    own = of_family_o1(bench)
    budgeted, meter = client(bench, inner=ChatCompletionCache(own), output_cap=30)
    await budgeted.create(messages(bench, "[[fault:500*2]]"))
    assert [call.metered for call in meter.calls] == [False, False, True]
    assert meter.calls[-1].completion_tokens == 30
    async for _ in budgeted.create_stream(messages(bench)):
        pass
    assert meter.calls[-1].metered
    await own.close()


async def test_what_a_cache_answers_costs_nothing(bench: Bench) -> None:
    own = bench.client(MINI)
    budgeted, meter = client(bench, inner=ChatCompletionCache(own))
    asked = messages(bench)
    first = await budgeted.create(asked)
    assert not first.cached
    again = await budgeted.create(asked)
    assert again.cached
    assert again.content == first.content
    assert meter.spend().nanodollars == bench.billed() > 0
    assert meter.spend().calls == 1
    for _ in range(2):
        async for _ in budgeted.create_stream(asked):
            pass
    assert meter.spend().nanodollars == bench.billed()
    assert meter.spend().calls == 2
    await own.close()


async def test_who_says_cached_without_a_cache_is_booked(bench: Bench) -> None:
    budgeted, meter = client(bench, inner=ReplayChatCompletionClient(["Answer: 4"]))
    assert (await budgeted.create(messages(bench))).cached
    assert meter.spend().calls == 1
    assert meter.spend().nanodollars > 0


async def test_retries_end(bench: Bench) -> None:
    budgeted, meter = client(bench)
    with pytest.raises(APIStatusError):
        await budgeted.create(messages(bench, f"[[fault:429*{MAX_RETRIES + 1}]]"))
    assert meter.spend().nanodollars == 0
    assert bench.billed() == 0


async def test_errors_of_the_caller_are_not_tried_again(bench: Bench) -> None:
    budgeted, meter = client(bench, inner=bench.client("no-such-model"))
    with pytest.raises(NotFoundError):
        await budgeted.create(messages(bench))
    assert meter.spend().calls == 0


async def test_an_endpoint_that_is_not_there_costs_nothing(bench: Bench) -> None:
    inner = OpenAIChatCompletionClient(
        model=MINI,
        base_url="http://127.0.0.1:9/v1",
        api_key="local",
        model_info=bench.client().model_info,
    )
    budgeted, meter = client(bench, inner=inner)
    with pytest.raises(APIConnectionError):
        await budgeted.create(messages(bench))
    assert meter.spend().calls == 0
    await inner.close()


@pytest.mark.parametrize("fault", ["no_usage", "zero_usage"])
async def test_missing_usage_books_the_whole_reservation(bench: Bench, fault: str) -> None:
    budgeted, meter = client(bench, Budget(cost_usd=0.002))
    await budgeted.create(messages(bench, f"[[fault:{fault}*1]]"))
    call = meter.calls[0]
    assert not call.metered
    assert bench.billed() < call.nanodollars <= 2_000_000
    # Nothing that could not be paid is sent after it.
    assert meter.spend().nanodollars == call.nanodollars


async def test_a_reply_that_cannot_be_read_is_booked_in_full(bench: Bench) -> None:
    budgeted, meter = client(bench)
    with pytest.raises(json.JSONDecodeError):
        await budgeted.create(messages(bench, "[[fault:malformed*9]]"))
    assert meter.spend().nanodollars >= bench.billed() > 0
    assert [call.metered for call in meter.calls] == [False] * (MAX_RETRIES + 1)


async def test_a_reply_that_cannot_be_read_is_asked_for_again(bench: Bench) -> None:
    budgeted, meter = client(bench)
    result = await budgeted.create(messages(bench, "[[fault:malformed*1]]"))
    assert "Answer:" in str(result.content)
    assert [call.metered for call in meter.calls] == [False, True]
    assert meter.spend().nanodollars >= bench.billed()


async def test_an_endpoint_that_never_answers_ends_at_the_deadline(bench: Bench) -> None:
    budgeted, meter = client(bench, Budget(cost_usd=1.0, latency_s=7.0))
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DeadlineReached):
        await budgeted.create(messages(bench, "[[fault:timeout*1]]"))
    assert loop.time() - began == pytest.approx(7.0, abs=1e-6)
    assert meter.spend().nanodollars >= bench.billed() > 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_time_that_another_agent_leaves_does_not_hide_the_deadline(
    bench: Bench, streamed: bool
) -> None:
    budgeted, meter = client(bench, Budget(cost_usd=1.0, latency_s=7.0))
    meter.protect("decider", seconds=3.0)
    asyncio.get_running_loop().call_later(1.0, meter.unprotect, "decider")
    task = messages(bench, "[[fault:timeout*1]]")
    with pytest.raises(DeadlineReached):
        if streamed:
            await anext(budgeted.create_stream(task))
        else:
            await budgeted.create(task)


async def test_a_retry_that_would_come_too_late_is_not_waited_for(bench: Bench) -> None:
    budgeted, _ = client(bench, Budget(latency_s=0.9))
    loop = asyncio.get_running_loop()
    began = loop.time()
    # The endpoint asks for one second.
    with pytest.raises(APIStatusError):
        await budgeted.create(messages(bench, "[[fault:429*1]]"))
    assert loop.time() - began < 0.9


async def test_streams_are_settled_with_their_usage(bench: Bench) -> None:
    budgeted, meter = client(bench)
    chunks = [chunk async for chunk in budgeted.create_stream(messages(bench))]
    assert isinstance(chunks[-1], CreateResult)
    assert "".join(c for c in chunks if isinstance(c, str)) == chunks[-1].content
    assert meter.calls[0].metered
    assert meter.spend().nanodollars == bench.billed()


async def test_a_stream_that_breaks_off_is_booked_in_full_and_not_repeated(bench: Bench) -> None:
    budgeted, meter = client(bench)
    seen = 0
    with pytest.raises(Exception, match=r"."):
        async for _ in budgeted.create_stream(messages(bench, "[[fault:cut_stream*9]]")):
            seen += 1
    assert seen > 0
    assert [call.metered for call in meter.calls] == [False]
    assert meter.spend().nanodollars >= bench.billed()


async def test_a_stream_that_is_left_early_is_booked_in_full(bench: Bench) -> None:
    budgeted, meter = client(bench)
    stream = budgeted.create_stream(messages(bench))
    await anext(stream)
    await stream.aclose()
    assert [call.metered for call in meter.calls] == [False]
    assert meter.spend().nanodollars >= bench.billed()


async def test_what_a_consumer_does_between_chunks_does_not_count_as_the_calls_time(
    bench: Bench,
) -> None:
    budgeted, _ = client(bench, Budget(latency_s=20.0))
    async for _ in budgeted.create_stream(messages(bench)):
        await asyncio.sleep(1.0)
    with pytest.raises(DeadlineReached):
        async for _ in budgeted.create_stream(messages(bench)):
            await asyncio.sleep(3.0)


async def test_output_is_capped_at_what_is_affordable(bench: Bench) -> None:
    large = bench.replay.catalog[LARGE]
    bound = prompt_bound(messages(bench))
    affordable = 40
    budget = Budget(cost_usd=large.cost(bound, affordable) / 1e9)
    budgeted, meter = client(bench, budget, LARGE)
    result = await budgeted.create(messages(bench))
    assert result.finish_reason == "length"
    assert affordable <= meter.calls[0].completion_tokens <= affordable + 1
    assert meter.spend().nanodollars == bench.billed() <= round(budget.cost_usd * 1e9)
    with pytest.raises(CallDenied):
        await budgeted.create(messages(bench))
    assert len(bench.simulator.books.entries) == 1


async def test_the_smallest_of_all_caps_holds(bench: Bench) -> None:
    budgeted, meter = client(bench, output_cap=30)
    await budgeted.create(messages(bench))
    await budgeted.create(messages(bench), extra_create_args={"max_tokens": 20})
    await budgeted.create(messages(bench), extra_create_args={"max_tokens": 2_000})
    assert [call.completion_tokens for call in meter.calls] == [30, 20, 30]
    own = OpenAIChatCompletionClient(
        model=MINI,
        base_url=bench.simulator.base_url,
        api_key="local",
        max_tokens=25,
        model_info=bench.client().model_info,
    )
    budgeted, meter = client(bench, inner=own)
    await budgeted.create(messages(bench))
    assert meter.calls[0].completion_tokens == 25
    await own.close()


async def test_reasoning_models_are_capped_by_their_own_field(bench: Bench) -> None:
    own = of_family_o1(bench)
    budgeted, meter = client(bench, inner=own, output_cap=30)
    result = await budgeted.create(messages(bench))
    assert result.finish_reason == "length"
    assert meter.calls[0].completion_tokens == 30
    await own.close()


async def test_concurrent_calls_never_pass_the_cap_together(bench: Bench) -> None:
    budget = Budget(cost_usd=0.006)
    budgeted, meter = client(bench, budget, LARGE)
    results = await asyncio.gather(
        *(budgeted.create(messages(bench)) for _ in range(10)), return_exceptions=True
    )
    assert any(isinstance(result, CreateResult) for result in results)
    assert any(isinstance(result, CallDenied) for result in results)
    assert bench.billed() <= 6_000_000
    assert meter.spend().nanodollars == bench.billed()


async def test_a_budget_client_cannot_be_dumped_with_its_key(bench: Bench) -> None:
    budgeted, _ = client(bench)
    with pytest.raises(TypeError, match="belongs to one run"):
        budgeted.dump_component()
    assert budgeted.model_info == bench.client().model_info
    # Without a tokenizer's tables at hand the byte bound counts.
    assert budgeted.count_tokens(messages(bench)) == prompt_bound(messages(bench))
    assert budgeted.remaining_tokens(messages(bench)) > 100_000


@pytest.mark.parametrize(
    "arguments",
    [{"n": 2}, {"n": 2.0}, {"n": "2"}, {"web_search_options": {"search_context_size": "low"}}],
)
async def test_what_is_billed_beside_the_tokens_is_refused(
    bench: Bench, arguments: dict[str, Any]
) -> None:
    budgeted, meter = client(bench)
    with pytest.raises(ValueError, match=r"budgeted call makes one|no budget covers"):
        await budgeted.create(messages(bench), extra_create_args=arguments)
    assert (meter.spend().calls, bench.billed()) == (0, 0)


async def test_no_other_model_answers_at_the_backbones_price(bench: Bench) -> None:
    budgeted, meter = client(bench)
    await budgeted.create(messages(bench), extra_create_args={"model": LARGE})
    assert [entry.backbone for entry in bench.simulator.books.entries] == [MINI]
    assert meter.spend().nanodollars == bench.billed()
