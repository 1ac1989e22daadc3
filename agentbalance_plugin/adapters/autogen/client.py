"""A model client under a meter: nothing is sent that the budget could not pay."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from autogen_core import CancellationToken
from autogen_core._component_config import ComponentModel
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelCapabilities,  # pyright: ignore[reportDeprecated]
    ModelInfo,
    RequestUsage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from agentbalance_plugin.adapters.autogen.caps import OutputCap, behind_cache, create_args
from agentbalance_plugin.adapters.autogen.halt import Halt
from agentbalance_plugin.adapters.autogen.no_reply import (
    found_no_reply,
    has_no_end,
    is_no_reply,
)
from agentbalance_plugin.adapters.autogen.prompt_bound import prompt_bound
from agentbalance_plugin.adapters.autogen.sdk import in_the_open
from agentbalance_plugin.adapters.autogen.settings import OwnSettings
from agentbalance_plugin.adapters.covered import check_covered, without_price
from agentbalance_plugin.backbone import Backbone
from agentbalance_plugin.runtime.byte_bound import holds_text
from agentbalance_plugin.runtime.call import Call, CallDenied
from agentbalance_plugin.runtime.failures import (
    MAX_RETRIES,
    NoReply,
    outage,
    pause_before_retry,
)
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.tokenizers import measure_of
from agentbalance_plugin.runtime.turns import Turns
from agentbalance_plugin.runtime.usage import reported

_TYPICAL_CONTEXT_TOKENS = 128_000


@dataclass(frozen=True, slots=True)
class _Request:
    """What of a call makes up its prompt."""

    messages: Sequence[LLMMessage]
    tools: Sequence[Tool | ToolSchema]
    json_output: bool | type[BaseModel] | None
    extra_create_args: Mapping[str, Any]


class BudgetClient(ChatCompletionClient):
    """`inner` for one agent in one run.

    Every call reserves its worst case first, is sent with the affordable cap on output tokens, and
    settles with the usage that comes back. Retries of the SDK are off; temporary errors are retried
    here.

    Args:
        inner: the backbone's own client.
        backbone: whose prices hold.
        meter: of this run.
        agent: whose calls these are.
        output_cap: most output tokens that the plan gives each call; None leaves it to the
            backbone's own cap.
        halt: where denied calls wait, for an agent inside a stock team; None raises.
        asked: the agent's own client, whose settings hold where `inner` has none.
        standby: makes the client of another backbone, for when this one's endpoint fails.
        turns: of this run's calls; None for a client that shares its meter with no other.
        denials: gets what is raised for want of money or time, which agents may hide.

    Raises (by `create` and `create_stream`):
        CallDenied: the budget has no room.
        DeadlineReached: time is up.
    """

    component_type = "model"

    def __init__(
        self,
        inner: ChatCompletionClient,
        backbone: Backbone,
        meter: Meter,
        agent: str,
        output_cap: int | None = None,
        halt: Halt | None = None,
        asked: ChatCompletionClient | None = None,
        standby: Callable[[], BudgetClient] | None = None,
        turns: Turns | None = None,
        denials: list[CallDenied] | None = None,
    ) -> None:
        self._halt = halt
        self._inner = in_the_open(inner)
        self._backbone = backbone
        self._measure = measure_of(backbone)
        self._meter = meter
        self._agent = agent
        self._output_cap = output_cap
        real = behind_cache(inner)
        self._has_cache = real is not inner
        self._cap = OutputCap.of(real, backbone)
        self._own = OwnSettings.of(asked, real, backbone)
        given = create_args(real)
        sent = without_price(given).items()
        self._in_prompt = {name: value for name, value in sent if holds_text(value)}
        self._usage = RequestUsage(0, 0)
        self._turns = turns or Turns()
        self._denials = [] if denials is None else denials
        self._make_standby = standby
        self._standby: BudgetClient | None = None

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = [],
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        request = self._request(messages, tools, json_output, extra_create_args)
        options: dict[str, Any] = {
            "tool_choice": tool_choice,
            "cancellation_token": cancellation_token,
        }
        try:
            if (other := self._in_place()) is None:
                return await self._create(request, options)
        except CallDenied as denied:
            await self._deny(denied)
        except Exception as error:
            if (other := self._in_place(error)) is None:
                raise
        return await other.create(
            messages,
            tools=tools,
            json_output=json_output,
            extra_create_args=extra_create_args,
            **options,
        )

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = [],
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        request = self._request(messages, tools, json_output, extra_create_args)
        options: dict[str, Any] = {
            "tool_choice": tool_choice,
            "cancellation_token": cancellation_token,
        }
        spoken = False
        try:
            if (other := self._in_place()) is None:
                async with aclosing(self._create_stream(request, options)) as stream:
                    async for chunk in stream:
                        spoken = True
                        yield chunk
                return
        except CallDenied as denied:
            await self._deny(denied)
        except Exception as error:
            if spoken or (other := self._in_place(error)) is None:
                raise
        rest = other.create_stream(
            messages,
            tools=tools,
            json_output=json_output,
            extra_create_args=extra_create_args,
            **options,
        )
        async with aclosing(rest) as stream:
            async for chunk in stream:
                yield chunk

    async def _deny(self, denied: CallDenied) -> NoReturn:
        self._denials.append(denied)
        if self._halt is None:
            raise denied
        await self._halt.hold(denied)

    def _in_place(self, error: Exception | None = None) -> BudgetClient | None:
        """Who answers in this backbone's place: where its endpoint has failed in this run, or
        fails now; None where nobody does."""
        if self._make_standby is None:
            return None
        name = self._backbone.name
        if error is None:
            if name not in self._meter.outages:
                return None
        elif (fault := outage(error)) is None:
            return None
        else:
            self._meter.outages.note(self._agent, name, fault)
        if self._standby is None:
            self._standby = self._make_standby()
        return self._standby

    def _request(
        self,
        messages: Sequence[LLMMessage],
        tools: Sequence[Tool | ToolSchema],
        json_output: bool | type[BaseModel] | None,
        extra_create_args: Mapping[str, Any],
    ) -> _Request:
        check_covered(extra_create_args, "leave it out")
        own, arguments = self._own, without_price(extra_create_args)
        shape = own.json_output if json_output is None else json_output
        return _Request(messages, tools, shape, {**own.arguments, **arguments})

    async def _create(self, request: _Request, options: dict[str, Any]) -> CreateResult:
        failed: Exception | None = None
        for attempt in range(MAX_RETRIES + 1):
            async with self._reserved(request, failed) as call:
                arguments = self._cap.set(request.extra_create_args, call.output_cap)
                try:
                    async with call.in_time():
                        result = await self._inner.create(
                            request.messages,
                            tools=request.tools,
                            json_output=request.json_output,
                            extra_create_args=arguments,
                            **options,
                        )
                    self._settle(call, result)
                    return result
                except Exception as error:
                    failed = error
                    await self._give_up_or_wait(call, error, attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _create_stream(
        self, request: _Request, options: dict[str, Any]
    ) -> AsyncGenerator[str | CreateResult, None]:
        failed: Exception | None = None
        for attempt in range(MAX_RETRIES + 1):
            spoken = False
            async with self._reserved(request, failed, streamed=True) as call:
                arguments = self._cap.set(request.extra_create_args, call.output_cap)
                if self._cap.streams_usage_on_request:
                    # Without it a stream reports no usage and the whole reservation is booked.
                    arguments["stream_options"] = {"include_usage": True}
                stream = self._inner.create_stream(
                    request.messages,
                    tools=request.tools,
                    json_output=request.json_output,
                    extra_create_args=arguments,
                    **options,
                )
                try:
                    # A timeout around the whole loop would also time what the consumer does.
                    while True:
                        async with call.in_time():
                            chunk = await anext(stream, None)
                        if chunk is None:
                            return
                        if isinstance(chunk, CreateResult):
                            if not spoken and is_no_reply(chunk):
                                raise NoReply(f"{self._backbone.name}: a stream of nothing")
                            self._settle(call, chunk)
                        spoken = True
                        yield chunk
                except Exception as error:
                    failed = error
                    await self._give_up_or_wait(call, error, MAX_RETRIES if spoken else attempt)
                finally:
                    await stream.aclose()

    async def close(self) -> None:
        """The backbone's client outlives the run; it is closed by whoever made it."""

    def actual_usage(self) -> RequestUsage:
        return self.total_usage()

    def total_usage(self) -> RequestUsage:
        if self._standby is None:
            return self._usage
        own, other = self._usage, self._standby.total_usage()
        return RequestUsage(
            own.prompt_tokens + other.prompt_tokens,
            own.completion_tokens + other.completion_tokens,
        )

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = []
    ) -> int:
        """The inner client's count, or the byte bound where its tokenizer is not at hand."""
        try:
            return self._inner.count_tokens(messages, tools=tools)
        # tiktoken downloads its tables on first use; offline anything of its HTTP client comes out.
        except Exception:
            return prompt_bound(messages, tools, measure=self._measure)

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = []
    ) -> int:
        context = self._backbone.context_tokens
        if context is None:
            try:
                return self._inner.remaining_tokens(messages, tools=tools)
            # As in `count_tokens`; or the client does not know the model's limit.
            except Exception:
                context = _TYPICAL_CONTEXT_TOKENS
        return context - self.count_tokens(messages, tools=tools)

    @property
    def capabilities(self) -> ModelCapabilities:  # pyright: ignore[reportDeprecated]
        return self._inner.capabilities  # pyright: ignore[reportDeprecated]

    @property
    def model_info(self) -> ModelInfo:
        return self._inner.model_info

    def dump_component(self) -> ComponentModel:
        raise TypeError("a BudgetClient belongs to one run and can't be dumped; dump the chat")

    def _reserved(
        self, request: _Request, failed: Exception | None, *, streamed: bool = False
    ) -> AbstractAsyncContextManager[Call]:
        """Of another try, after `failed`, the denial says what it comes from."""
        bound, wanted = self._bounds(request)

        def reserve() -> Call:
            try:
                return self._meter.reserve(
                    self._agent, self._backbone, bound, wanted, self._output_cap
                )
            except CallDenied as denied:
                raise denied from failed

        return self._turns.reserved(reserve, streamed=streamed)

    def _bounds(self, request: _Request) -> tuple[int, int | None]:
        """(prompt tokens, output tokens that are asked for), at most."""
        arguments = {**self._in_prompt, **request.extra_create_args}
        bound = prompt_bound(
            request.messages,
            request.tools,
            request.json_output,
            arguments,
            measure=self._measure,
        )
        return bound, self._cap.wanted(request.extra_create_args)

    def _settle(self, call: Call, result: CreateResult) -> None:
        if result.cached and self._has_cache:
            call.release()
            return
        usage = result.usage
        prompt, completion = reported(usage.prompt_tokens, usage.completion_tokens)
        call.settle(prompt, completion)
        self._usage = RequestUsage(
            self._usage.prompt_tokens + prompt, self._usage.completion_tokens + completion
        )
        if call.lowered and usage.completion_tokens >= call.output_cap and has_no_end(result):
            raise call.cut_short()

    async def _give_up_or_wait(self, call: Call, error: Exception, attempt: int) -> None:
        """Book the failed call; raise, or return after the pause before the next try."""
        if found_no_reply(error):
            error = NoReply(f"{self._backbone.name}: {type(error).__name__}: {error}")
        await self._meter.clock.sleep(pause_before_retry(self._meter, call, error, attempt))
