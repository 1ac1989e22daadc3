"""How many tokens a LangChain prompt can have at most, without a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage

MESSAGE_FRAMING = 16
"""Role markers and separators of one message; the known chat formats use 3 to 8 tokens."""

SCHEMA_FRAMING = 64
"""What wraps one tool or response schema when the endpoint renders it into the prompt."""

IMAGE_TOKENS = 40_000
"""More than any known model bills for one image (gpt-4o-mini bills up to 36,835)."""

_IN_PROMPT = ("tools", "functions", "response_format", "tool_choice")


def prompt_bound(messages: Sequence[BaseMessage], options: Mapping[str, Any]) -> int:
    """An upper bound of a request's prompt tokens.

    No byte-level tokenizer makes more tokens than there are UTF-8 bytes, so text counts its bytes.

    Args:
        messages: as sent.
        options: the call's keyword arguments; schemas in them become part of the prompt.

    Returns:
        Tokens; about four times the real count for English text.
    """
    total = MESSAGE_FRAMING + sum(_message_bound(message) for message in messages)
    for name in _IN_PROMPT:
        if options.get(name):
            parts = options[name] if isinstance(options[name], (list, tuple)) else [options[name]]
            total += sum(SCHEMA_FRAMING + _size(_as_json(part)) for part in parts)
    return total


def text_bound(text: str) -> int:
    """An upper bound of the tokens of one user message with this text."""
    return 2 * MESSAGE_FRAMING + _size(text)


def _message_bound(message: BaseMessage) -> int:
    total = MESSAGE_FRAMING + _size(message.name or "") + _content_bound(message.content)
    total += _size(getattr(message, "tool_call_id", None) or "")
    if message.additional_kwargs:
        total += _size(_as_json(message.additional_kwargs))
    if isinstance(message, AIMessage):
        for call in [*message.tool_calls, *message.invalid_tool_calls]:
            total += MESSAGE_FRAMING + _size(_as_json(call))
    return total


def _content_bound(content: object) -> int:
    if isinstance(content, str):
        return _size(content)
    total = 0
    for part in cast("list[Any]", content):
        if isinstance(part, str):
            total += _size(part)
        elif part.get("type") == "text":
            total += _size(str(part.get("text", "")))
        elif "image" in str(part.get("type")):
            total += IMAGE_TOKENS
        else:
            # Other media come as data or as a reference; either may be long.
            total += IMAGE_TOKENS + _size(_as_json(part))
    return total


def _as_json(value: object) -> str:
    schema = getattr(value, "model_json_schema", None)
    return json.dumps(schema() if callable(schema) else value, default=str)


def _size(text: str) -> int:
    return len(text.encode("utf-8", errors="surrogatepass"))
