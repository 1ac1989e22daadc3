"""Puts every chat model call inside a balanced graph on its planned backbone.

`BaseChatModel`'s entry points are wrapped once per process. Outside balanced graphs, and for
models that are called directly, the wrapped entry points do nothing but look.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig, ensure_config

from agentbalance_plugin.adapters.langgraph.astray import warn_if_astray
from agentbalance_plugin.adapters.langgraph.internals import set_retrying, set_tool_answers
from agentbalance_plugin.adapters.langgraph.models import is_direct
from agentbalance_plugin.adapters.langgraph.paid import is_paid_by, replied
from agentbalance_plugin.adapters.langgraph.retries import within_budget
from agentbalance_plugin.adapters.langgraph.run import Caller, OutOfBudget, caller_of, told
from agentbalance_plugin.adapters.langgraph.standby import Wish

_lock = threading.Lock()
_wrapped: list[str] = []


def intercept() -> None:
    """Wrap the entry points, unless that has been done."""
    with _lock:
        if _wrapped:
            return
        for name, wrap in _WRAPPERS.items():
            setattr(BaseChatModel, name, wrap(getattr(BaseChatModel, name)))
            _wrapped.append(name)
        set_retrying(within_budget)
        set_tool_answers(OutOfBudget, _say_so)


def _caller(model: BaseChatModel, config: RunnableConfig | None) -> Caller | None:
    if is_direct(model):
        return None
    caller = caller_of(config, model)
    if caller is None:
        warn_if_astray(config)
        return None
    return None if is_paid_by(caller.run) else caller


def _say_so(stop: OutOfBudget, call: ToolCall) -> ToolMessage:
    """A tool whose model is denied says so. Without an answer of every tool a history is of no use
    to any endpoint, and what others of its step said would be lost."""
    caller = caller_of(None)
    if caller is not None and caller.run.budget.on_exceeded == "raise":
        caller.run.end_after_step(caller.agent, stop.denial)
    return told(stop, call)


def _wrap_invoke(original: Any) -> Any:
    @functools.wraps(original)
    def invoke(
        self: BaseChatModel, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AIMessage:
        caller = _caller(self, config)
        if caller is None:
            return original(self, input, config, **options)
        return Wish(caller, self, input, options).invoke(config)

    return invoke


def _wrap_ainvoke(original: Any) -> Any:
    @functools.wraps(original)
    async def ainvoke(
        self: BaseChatModel, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AIMessage:
        caller = _caller(self, config)
        if caller is None:
            return await original(self, input, config, **options)
        return await Wish(caller, self, input, options).ainvoke(config)

    return ainvoke


def _wrap_stream(original: Any) -> Any:
    @functools.wraps(original)
    def stream(
        self: BaseChatModel, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> Generator[AIMessageChunk]:
        caller = _caller(self, config)
        if caller is None:
            with closing(original(self, input, config, **options)) as chunks:
                for chunk in chunks:
                    replied()
                    yield chunk
        else:
            yield from Wish(caller, self, input, options).stream(config)

    return stream


def _wrap_astream(original: Any) -> Any:
    @functools.wraps(original)
    async def astream(
        self: BaseChatModel, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncGenerator[AIMessageChunk]:
        caller = _caller(self, config)
        if caller is None:
            chunks = original(self, input, config, **options)
        else:
            chunks = Wish(caller, self, input, options).astream(config)
        async with aclosing(chunks):
            async for chunk in chunks:
                replied()
                yield chunk

    return astream


def _wrap_generate(original: Any) -> Any:
    @functools.wraps(original)
    def generate(
        self: BaseChatModel, messages: list[list[BaseMessage]], *positional: Any, **options: Any
    ) -> LLMResult:
        caller = _caller(self, None)
        if caller is None:
            result = original(self, messages, *positional, **options)
            replied()
            return result
        config, options = _as_config(positional, options)
        return _as_result([Wish(caller, self, each, options).invoke(config) for each in messages])

    return generate


def _wrap_agenerate(original: Any) -> Any:
    @functools.wraps(original)
    async def agenerate(
        self: BaseChatModel, messages: list[list[BaseMessage]], *positional: Any, **options: Any
    ) -> LLMResult:
        caller = _caller(self, None)
        if caller is None:
            result = await original(self, messages, *positional, **options)
            replied()
            return result
        config, options = _as_config(positional, options)
        return _as_result(
            [await Wish(caller, self, each, options).ainvoke(config) for each in messages]
        )

    return agenerate


def _wrap_events(original: Any) -> Any:
    """Older versions of events come from `stream`; the third has a way to the endpoint of its own,
    which no cap and no reservation could be put into."""

    @functools.wraps(original)
    def events(
        self: BaseChatModel,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        version: str = "v2",
        **options: Any,
    ) -> Any:
        if version == "v3" and _caller(self, config) is not None:
            raise ValueError(
                "a chat model's events of version 'v3' can't be budgeted; inside a balanced graph "
                "use stream(), astream() or version='v2'"
            )
        return original(self, input, config, version=version, **options)

    return events


def _as_config(
    positional: Sequence[Any], options: dict[str, Any]
) -> tuple[RunnableConfig, dict[str, Any]]:
    """`generate` takes apart what `invoke` calls a config."""
    options = {**dict(zip(("stop", "callbacks"), positional, strict=False)), **options}
    config = ensure_config()
    for name in ("callbacks", "tags", "metadata", "run_name", "run_id"):
        value = options.pop(name, None)
        if value is not None:
            config[name] = value
    return config, options


def _as_result(messages: Sequence[AIMessage]) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=message)] for message in messages])


_WRAPPERS = {
    "invoke": _wrap_invoke,
    "ainvoke": _wrap_ainvoke,
    "stream": _wrap_stream,
    "astream": _wrap_astream,
    "generate": _wrap_generate,
    "agenerate": _wrap_agenerate,
    "stream_events": _wrap_events,
    "astream_events": _wrap_events,
}
