"""Calls of a backbone under a meter: nothing is sent that the budget could not pay."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs

from agentbalance_plugin.adapters.covered import check_covered
from agentbalance_plugin.adapters.in_time import result_of, start
from agentbalance_plugin.adapters.langgraph.caps import capped, is_openai, wanted
from agentbalance_plugin.adapters.langgraph.chunks import Chunks, reports_in
from agentbalance_plugin.adapters.langgraph.fit import PARSED, fit, fit_prompt, marks, needs_of
from agentbalance_plugin.adapters.langgraph.internals import found_no_reply
from agentbalance_plugin.adapters.langgraph.paid import paying
from agentbalance_plugin.adapters.langgraph.prompt_bound import prompt_bound
from agentbalance_plugin.adapters.langgraph.race import Decided
from agentbalance_plugin.adapters.langgraph.run import Caller
from agentbalance_plugin.backbone import Backbone
from agentbalance_plugin.runtime.call import Call, CallDenied
from agentbalance_plugin.runtime.failures import MAX_RETRIES, NoReply, pause_before_retry
from agentbalance_plugin.runtime.tokenizers import measure_of
from agentbalance_plugin.runtime.usage import is_running_total

Result = TypeVar("Result")

_END = object()
_CUT = ("length", "max_tokens")
# Where OpenAI, Anthropic and Google, Ollama, and OpenAI's Responses API say why a reply ended.
_REASONS = ("finish_reason", "stop_reason", "done_reason")
_ENDS = (*_REASONS, "status")


@dataclass(frozen=True)
class Request:
    """One call of a caller, on its backbone.

    Args:
        caller: who calls.
        backbone: whose prices hold.
        model: that is called.
        messages: the prompt.
        options: keyword arguments of the call, fit for `model`.
        wanted: most output tokens asked for; None leaves it to the backbone.
        granted: most that the plan gives it; None leaves it to the budget.
        marks: tags, metadata and callbacks of the model that the call was meant for. Streams and
            traces are told apart by them.
        structured: whether the reply is parsed, so that one without its end is of no use.
    """

    caller: Caller
    backbone: Backbone
    model: BaseChatModel
    messages: list[BaseMessage]
    options: Mapping[str, Any]
    wanted: int | None
    granted: int | None
    marks: RunnableConfig
    structured: bool

    @classmethod
    def of(
        cls,
        caller: Caller,
        asked: BaseChatModel,
        prompt: object,
        options: Mapping[str, Any],
        backbone: Backbone,
        *,
        planned: bool = True,
    ) -> Request:
        """A call that was meant for the model `asked`, on a backbone.

        Args:
            planned: whether it is the one that the plan's output cap was made for.

        Raises:
            ValueError: the call asks for something that no budget can cover, or that does not
                cross from one provider's model to another's.
        """
        check_covered(options, "call this model through direct(...), outside the budget")
        run, reasons = caller.run, backbone.reasoning == "yes"
        model, fitting = fit(options, asked, run.models(backbone.name), reasons=reasons)
        most = min(wanted(asked, options), default=None)
        messages = fit_prompt(_as_messages(prompt), asked, model)
        granted = run.output_cap(caller.agent) if planned else None
        return cls(
            caller,
            backbone,
            model,
            messages,
            fitting,
            most,
            granted,
            marks(asked, model),
            # LangChain's `with_structured_output` binds it, whatever the method.
            bool(options.get("ls_structured_output_format") or needs_of(fitting) & PARSED),
        )

    def invoke(self, config: RunnableConfig | None) -> AIMessage:
        """The reply (OutOfBudget where the budget has no room)."""
        config = self._marked(config)
        for attempt in range(MAX_RETRIES + 1):
            with self._reserved() as call:
                model, options = self._capped(call)
                chunks = Chunks()
                heard = chunks.heard_in(config, model, options)
                asked = partial(model.invoke, self.messages, heard, **options)
                try:
                    message = self._in_time(call, asked)
                    self._settle(call, message, chunks.reports)
                    return message
                except Exception as error:
                    pause = self._pause(call, error, attempt)
            time.sleep(pause * self._meter.clock.scale)
        raise AssertionError("the last attempt returns or raises")

    async def ainvoke(self, config: RunnableConfig | None) -> AIMessage:
        """As `invoke`."""
        config = self._marked(config)
        for attempt in range(MAX_RETRIES + 1):
            async with self._areserved() as call:
                model, options = self._capped(call)
                chunks = Chunks()
                heard = chunks.heard_in(config, model, options)
                try:
                    async with call.in_time():
                        message = await model.ainvoke(self.messages, heard, **options)
                    self._settle(call, message, chunks.reports)
                    return message
                except Exception as error:
                    pause = self._pause(call, error, attempt)
            await self._meter.clock.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def stream(self, config: RunnableConfig | None) -> Generator[AIMessageChunk]:
        """The reply in chunks."""
        config = self._marked(config)
        for attempt in range(MAX_RETRIES + 1):
            said: AIMessageChunk | None = None
            reports: list[tuple[int, int]] = []
            with self._reserved(streamed=True) as call:
                model, options = self._capped(call)
                chunks = model.stream(self.messages, config, **options)
                try:
                    while True:
                        found = self._in_time(call, lambda chunks=chunks: next(chunks, _END))
                        if found is _END:
                            self._settle(call, said, reports)
                            return
                        # Of a model that does not stream it is the whole message.
                        chunk = cast("AIMessageChunk", found)
                        said = chunk if said is None else said + chunk
                        reports += reports_in(chunk)
                        yield chunk
                except Exception as error:
                    pause = self._pause(call, error, attempt if said is None else MAX_RETRIES)
                finally:
                    # One that is still at work in a thread can't be closed; it ends by itself.
                    with suppress(ValueError):
                        cast("Generator[AIMessageChunk]", chunks).close()
            time.sleep(pause * self._meter.clock.scale)

    async def astream(self, config: RunnableConfig | None) -> AsyncGenerator[AIMessageChunk]:
        """As `stream`."""
        config = self._marked(config)
        for attempt in range(MAX_RETRIES + 1):
            said: AIMessageChunk | None = None
            reports: list[tuple[int, int]] = []
            async with self._areserved(streamed=True) as call:
                model, options = self._capped(call)
                stream = model.astream(self.messages, config, **options)
                chunks = cast("AsyncGenerator[AIMessageChunk]", stream)
                try:
                    async with aclosing(chunks):
                        # A timeout around the whole loop would also time what the consumer does.
                        while True:
                            async with call.in_time():
                                chunk = await anext(chunks, None)
                            if chunk is None:
                                self._settle(call, said, reports)
                                return
                            said = chunk if said is None else said + chunk
                            reports += reports_in(chunk)
                            yield chunk
                except Exception as error:
                    pause = self._pause(call, error, attempt if said is None else MAX_RETRIES)
            await self._meter.clock.sleep(pause)

    @property
    def _meter(self) -> Any:
        return self.caller.run.meter

    def _settle(
        self, call: Call, message: BaseMessage | None, parts: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Book what a reply says that it used, or what the parts of a stream say."""
        usage: Any = getattr(message, "usage_metadata", None) or {}
        # What LangChain's cache answers has cost nothing, and says so.
        if usage.get("total_cost") == 0 and (self.model.cache or get_llm_cache()):
            call.release()
            return
        running_total = len(parts) > 1 and is_running_total(parts)
        # A message has the sum of its parts'.
        used = parts[-1:] if running_total else reports_in(message)
        asked, made = used[0] if used else (0, 0)
        if made < call.output_cap and parts and self._broke_off(message, running_total):
            # What it had made by then is not all that it is billed for.
            made = 0
        call.settle(asked, made)
        if call.lowered and _is_cut(message) and (self.structured or _calls_tools(message)):
            # A parser may make nothing of it, or half of a list, and not say so; a tool that was
            # cut is not called, and its call stays in the history without an answer.
            raise call.cut_short()

    def _broke_off(self, said: BaseMessage | None, running_total: bool) -> bool:
        """Whether a stream ended before its reply did. Chat models of the user's own may not say
        why a reply ends, but report what it used once it has."""
        told: dict[str, Any] = getattr(said, "response_metadata", None) or {}
        return (running_total or is_openai(self.model)) and not any(map(told.get, _ENDS))

    def _marked(self, config: RunnableConfig | None) -> RunnableConfig | None:
        return merge_configs(ensure_config(config), self.marks) if self.marks else config

    @contextmanager
    def _reserved(self, *, streamed: bool = False) -> Generator[Call]:
        run, reserve = self.caller.run, self._reserve()
        with self._denied():
            while isinstance(call := run.turns.take(reserve, None, streamed=streamed), Future):
                call.result()
                if run.race is not None and run.race.decided:
                    raise Decided
        with run.turns.under_way(call, None, streamed=streamed):
            yield call

    @asynccontextmanager
    async def _areserved(self, *, streamed: bool = False) -> AsyncGenerator[Call]:
        with self._denied():
            async with self.caller.run.turns.reserved(self._reserve(), streamed=streamed) as call:
                yield call

    def _reserve(self) -> Callable[[], Call]:
        measure = measure_of(self.backbone)
        bound = prompt_bound(self.messages, self.options, vars(self.model), measure=measure)
        caps = self.wanted, self.granted
        return partial(self._meter.reserve, self.caller.agent, self.backbone, bound, *caps)

    @contextmanager
    def _denied(self) -> Generator[None]:
        try:
            yield
        except CallDenied as denial:
            self.caller.deny(denial)

    def _capped(self, call: Call) -> tuple[BaseChatModel, dict[str, Any]]:
        model, options = capped(self.model, self.backbone.endpoint, self.options, call.output_cap)
        run = self.caller.run
        if self.backbone.name in run.models.ready:
            model = paying(model, run, call)
        return model, options

    def _pause(self, call: Call, error: Exception, attempt: int) -> float:
        if found_no_reply(error):
            error = NoReply(f"{self.backbone.name}: {type(error).__name__}: {error}")
        with self._denied():
            return pause_before_retry(self._meter, call, error, attempt)

    def _in_time(self, call: Call, work: Callable[[], Result]) -> Result:
        """`work()`, given up at the deadline (DeadlineReached) or when a vote is decided (Decided).

        Only a call that may have to be given up needs a thread.
        """
        meter, race = self._meter, self.caller.run.race
        left = meter.seconds_left(self.caller.agent)
        if left is None and race is None:
            return work()
        outcome = start(work)
        seconds = None if left is None else left * meter.clock.scale
        stopping = nullcontext() if race is None else race.stopping(outcome.cancel)
        try:
            with stopping:
                return result_of(outcome, seconds, call.late)
        except CancelledError:
            raise Decided from None


def _is_cut(message: BaseMessage | None) -> bool:
    """Whether a reply ends because it reached its cap, as OpenAI, Anthropic, Google and Ollama put
    it."""
    said: dict[str, Any] = getattr(message, "response_metadata", None) or {}
    reasons = (said.get(name) for name in _REASONS)
    return any(str(reason).lower() in _CUT for reason in reasons)


def _calls_tools(message: BaseMessage | None) -> bool:
    calls = isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls)
    return bool(calls)


def _as_messages(prompt: object) -> list[BaseMessage]:
    if isinstance(prompt, PromptValue):
        return prompt.to_messages()
    if isinstance(prompt, str):
        return [HumanMessage(prompt)]
    if not isinstance(prompt, Sequence):
        raise ValueError(
            "a chat model's input must be a string, a list of messages or a prompt value, got "
            f"{prompt!r}"
        )
    return convert_to_messages(cast("Sequence[Any]", prompt))
