"""Chat models inside a backbone's own chat model: its call pays for them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from inspect import Signature, signature
from typing import Any

from langchain_core.language_models import BaseChatModel

from agentbalance_plugin.adapters.langgraph.internals import (
    AREPLY,
    ASTREAM,
    REPLY,
    STREAM,
    describe,
)
from agentbalance_plugin.adapters.langgraph.models import ChatModel

_payer: ContextVar[object] = ContextVar("agentbalance_payer", default=None)
_END = object()


def is_paid_by(run: object) -> bool:
    """Whether what is called here is part of a call that the run pays for."""
    return _payer.get() is run


def paying(model: ChatModel, run: object) -> ChatModel:
    """A copy of a backbone's chat model, inside which `run` pays for no other.

    Callbacks are not inside it: what they call is a call of its own.
    """
    describe(model)
    copy = model.model_copy()
    for name, wrap in _WRAPPERS.items():
        wrapped = wrap(getattr(model, name), run)
        # LangChain asks for the parameters with every call, which takes longer than to tell them.
        wrapped.__signature__ = _signature(type(model), name)
        vars(copy)[name] = wrapped
    return copy


@contextmanager
def _paid_by(run: object) -> Generator[None]:
    token = _payer.set(run)
    try:
        yield
    finally:
        _payer.reset(token)


@lru_cache(maxsize=256)
def _signature(kind: type[BaseChatModel], name: str) -> Signature:
    return signature(getattr(kind, name).__get__(object()))


def _wrap_reply(original: Callable[..., Any], run: object) -> Any:
    def reply(*args: Any, **options: Any) -> Any:
        with _paid_by(run):
            return original(*args, **options)

    return reply


def _wrap_areply(original: Callable[..., Any], run: object) -> Any:
    async def reply(*args: Any, **options: Any) -> Any:
        with _paid_by(run):
            return await original(*args, **options)

    return reply


def _wrap_stream(original: Callable[..., Any], run: object) -> Any:
    def stream(*args: Any, **options: Any) -> Generator[Any]:
        chunks = original(*args, **options)
        while True:
            # Who reads the chunks is outside.
            with _paid_by(run):
                chunk = next(chunks, _END)
            if chunk is _END:
                return
            yield chunk

    return stream


def _wrap_astream(original: Callable[..., Any], run: object) -> Any:
    async def stream(*args: Any, **options: Any) -> AsyncGenerator[Any]:
        chunks = original(*args, **options)
        while True:
            with _paid_by(run):
                chunk = await anext(chunks, _END)
            if chunk is _END:
                return
            yield chunk

    return stream


_WRAPPERS = {
    REPLY: _wrap_reply,
    AREPLY: _wrap_areply,
    STREAM: _wrap_stream,
    ASTREAM: _wrap_astream,
}
