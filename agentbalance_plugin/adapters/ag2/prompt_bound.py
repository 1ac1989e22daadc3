"""How many tokens a prompt in OpenAI's form can have at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentbalance_plugin.runtime.byte_bound import (
    IMAGE_TOKENS,
    MESSAGE_FRAMING,
    SCHEMA_FRAMING,
    Measure,
    holds_text,
    json_size,
    size,
)

_SCHEMAS = ("tools", "functions", "response_format")


def prompt_bound(params: Mapping[str, Any], *, measure: Measure = size) -> int:
    """An upper bound of a request's prompt tokens.

    No byte-level tokenizer makes more tokens than there are UTF-8 bytes, so text counts its bytes
    unless the tokenizer is known. Schemas always do: how endpoints write them down is not.

    Args:
        params: of the request, all that goes along with it. Which of them an endpoint puts into
            the prompt is its own affair, so all count that hold text.
        measure: tokens of a text.

    Returns:
        Tokens; without a tokenizer about four times the real count for English text.

    Raises:
        ValueError: a message refers to what lies elsewhere, whose length is not known.
    """
    total = MESSAGE_FRAMING
    for message in cast("Sequence[Mapping[str, Any]]", params.get("messages") or ()):
        total += _message_bound(message, measure)
    for name, value in params.items():
        if name in _SCHEMAS and value:
            parts = cast("Sequence[Any]", value) if isinstance(value, list) else [value]
            total += sum(_schema_bound(part) for part in parts)
        elif name not in ("messages", "model") and holds_text(value):
            total += SCHEMA_FRAMING + json_size(value)
    return total


def _schema_bound(schema: Any) -> int:
    # Of one that is no class AG2 makes a strict one: its names come again as those required.
    times = 1 if isinstance(schema, type) else 2
    return SCHEMA_FRAMING + times * json_size(schema)


def _message_bound(message: Mapping[str, Any], measure: Measure) -> int:
    total = MESSAGE_FRAMING
    for name, value in message.items():
        if name == "content":
            total += _content_bound(value, measure)
        elif isinstance(value, str):
            total += measure(value)
        elif value:
            # Calls of tools, each with its framing.
            parts = cast("Sequence[Any]", value) if isinstance(value, list) else [value]
            total += sum(MESSAGE_FRAMING + json_size(part) for part in parts)
    return total


def _content_bound(content: Any, measure: Measure) -> int:
    if isinstance(content, str):
        return measure(content)
    total = 0
    for part in cast("Sequence[str | Mapping[str, Any]]", content or ()):
        if isinstance(part, str):
            total += measure(part)
            continue
        kind = part.get("type")
        if kind == "text":
            total += measure(str(part.get("text", "")))
        elif kind == "image_url":
            total += IMAGE_TOKENS
        else:
            raise ValueError(
                f"a message has a part of type {kind!r}, and how many tokens that has no budget "
                "can know; put its text into the message"
            )
    return total
