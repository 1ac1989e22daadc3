"""Chat models inside a backbone's own chat model: its call pays for them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from inspect import Signature, signature
from typing import Any

from agentbalance_plugin.adapters.langgraph.internals import (
    AREPLY,
    ASTREAM,
    REPLY,
    STREAM,
    describe,
)
from agentbalance_plugin.adapters.langgraph.models import ChatModel
from agentbalance_plugin.runtime.call import Call

_Payer = tuple[object, Call]
"""A run, and the call of it that pays."""

_payer: ContextVar[_Payer | None] = ContextVar("agentbalance_payer", default=None)
_END = object()


def is_paid_by(run: object) -> bool:
    """Whether what is called here is part of a call that the run pays for."""
    payer = _payer.get()
    return payer is not None and payer[0] is run


def replied() -> None:
    """A chat model has replied here: the call that pays for it, if any, costs something even where
    the next model that it calls is refused."""
    payer = _payer.get()
    if payer is not None:
        payer[1].worked = True


def paying(model: ChatModel, run: object, call: Call) -> ChatModel:
    """A copy of a backbone's chat model for one call, inside which `run` pays for no other.

    Callbacks are not inside it: what they call is a call of its own.
    """
    describe(model)
    copy = model.model_copy()
    for name, wrap in _WRAPPERS.items():
        original = getattr(model, name)
        wrapped = wrap(original, (run, call))
        # LangChain asks for the parameters with every call, which takes longer than to tell them.
        wrapped.__signature__ = _signature_of(original)
        vars(copy)[name] = wrapped
    return copy


@contextmanager
def _paid_by(payer: _Payer) -> Generator[None]:
    token = _payer.set(payer)
    try:
        yield
    finally:
        _payer.reset(token)


def _signature_of(call: Callable[..., Any]) -> Signature:
    function = getattr(call, "__func__", None)
    # What else somebody put there, in a test say.
    return signature(call) if function is None else _bound(function)


@lru_cache(maxsize=256)
def _bound(function: Callable[..., Any]) -> Signature:
    """A method's signature, without the object."""
    found = signature(function)
    return found.replace(parameters=list(found.parameters.values())[1:])


def _wrap_reply(original: Callable[..., Any], payer: _Payer) -> Any:
    def reply(*args: Any, **options: Any) -> Any:
        with _paid_by(payer):
            return original(*args, **options)

    return reply


def _wrap_areply(original: Callable[..., Any], payer: _Payer) -> Any:
    async def reply(*args: Any, **options: Any) -> Any:
        with _paid_by(payer):
            return await original(*args, **options)

    return reply


def _wrap_stream(original: Callable[..., Any], payer: _Payer) -> Any:
    def stream(*args: Any, **options: Any) -> Generator[Any]:
        chunks = original(*args, **options)
        while True:
            # Who reads the chunks is outside.
            with _paid_by(payer):
                chunk = next(chunks, _END)
            if chunk is _END:
                return
            yield chunk

    return stream


def _wrap_astream(original: Callable[..., Any], payer: _Payer) -> Any:
    async def stream(*args: Any, **options: Any) -> AsyncGenerator[Any]:
        chunks = original(*args, **options)
        while True:
            with _paid_by(payer):
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
