"""The SDKs of OpenAI and Anthropic behind AutoGen's clients: without retries of their own, and with
all that a call used in the usage that AutoGen reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from autogen_core.models import ChatCompletionClient

from agentbalance_plugin.adapters.autogen.caps import behind_cache
from agentbalance_plugin.runtime.usage import reported

_made: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

_OPENAI = ("prompt_tokens", "completion_tokens", "total_tokens")
# Anthropic reports what it writes to its cache, or reads from it, apart from the rest of a prompt.
_ANTHROPIC_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def in_the_open(client: ChatCompletionClient) -> ChatCompletionClient:
    """The client, sharing its connections, with no call that nothing was reserved for and no usage
    that is not seen."""
    real = behind_cache(client)
    sdk: Any = getattr(client, "_client", None)
    if real is not client:
        changed = {"client": in_the_open(real)}
    elif hasattr(sdk, "with_options") and hasattr(sdk, "post"):
        changed = {"_client": _open_sdk(sdk)}
    else:
        return client
    # `copy.copy` would make AutoGen's clients connect anew, which takes longer than a call.
    seen = type(client).__new__(type(client))
    vars(seen).update({**vars(client), **changed})
    return seen


def _open_sdk(sdk: Any) -> Any:
    made = _made.get(sdk)
    if made is None:
        made = sdk.with_options(max_retries=0)
        # Every call of these SDKs is a post of the client that it is asked of.
        made.post = _reporting_all(made.post)
        _made[sdk] = made
    return made


def _reporting_all(post: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def reporting(*args: Any, **options: Any) -> Any:
        reply = await post(*args, **options)
        if options.get("stream"):
            return _Stream(reply)
        _complete(reply)
        return reply

    return reporting


class _Stream:
    """An SDK's stream, whose chunks are looked at on the way."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._chunks = self._looked_at()

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        return self._chunks

    async def __anext__(self) -> Any:
        return await anext(self._chunks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def _looked_at(self) -> AsyncGenerator[Any, None]:
        ended = False
        async for chunk in self._stream:
            _complete(chunk)
            # Anthropic's chunks have no choices, and say what was used as it ends.
            if (choices := getattr(chunk, "choices", None)) is not None and not ended:
                ended = any(getattr(choice, "finish_reason", None) for choice in choices)
                if not ended and getattr(chunk, "usage", None) is not None:
                    # If the stream breaks off here, that is not all that the reply is billed for.
                    chunk.usage.completion_tokens = 0
            # Anthropic's first chunk has it in the message that begins.
            _complete(getattr(chunk, "message", None))
            yield chunk


def _complete(reply: Any) -> None:
    """Change a reply's usage, if it has one, to numbers that hold everything that is billed."""
    usage = getattr(reply, "usage", None)
    if usage is None:
        return
    if hasattr(usage, "prompt_tokens"):
        figures = (getattr(usage, name, None) for name in _OPENAI)
        usage.prompt_tokens, usage.completion_tokens = reported(*figures)
    elif hasattr(usage, "input_tokens"):
        parts = [reported(getattr(usage, name, 0), 0)[0] for name in _ANTHROPIC_PROMPT]
        usage.input_tokens, usage.output_tokens = sum(parts), reported(usage.output_tokens, 0)[0]
    elif not hasattr(usage, "output_tokens"):
        # Something else in its place, which AutoGen's clients fail over.
        reply.usage = None
