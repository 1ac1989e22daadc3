"""How many tokens a LangChain prompt can have at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agentbalance_plugin.adapters.covered import NESTED
from agentbalance_plugin.adapters.langgraph.arguments import SHAPES
from agentbalance_plugin.runtime.byte_bound import (
    IMAGE_TOKENS,
    MESSAGE_FRAMING,
    SCHEMA_FRAMING,
    Measure,
    holds_text,
    json_size,
    size,
)

_MEDIA = ("file", "document", "audio", "video", "media")
# Names under which integrations take what lies elsewhere.
_REFERENCES = ("file_id", "file_uri", "file_url", "url")

_SCHEMAS = frozenset(("tools", "functions", "tool_choice", *SHAPES))
# Fields of chat models whose text goes along with every prompt.
_INSTRUCTIONS = ("instructions", "system", "system_instruction", "preamble", "documents")
_FIELDS = frozenset((*_SCHEMAS, *NESTED, *_INSTRUCTIONS))
# LangChain's own notes, which stay here.
_NOTES = "ls_"


def prompt_bound(
    messages: Sequence[BaseMessage],
    options: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
    *,
    measure: Measure = size,
) -> int:
    """An upper bound of a request's prompt tokens.

    No byte-level tokenizer makes more tokens than there are UTF-8 bytes, so text counts its bytes
    unless the tokenizer is known. Schemas always do: how endpoints write them down is not.

    Args:
        messages: as sent.
        options: the call's keyword arguments. Which of them an endpoint puts into the prompt is its
            own affair, so all count that hold text.
        fields: of the chat model; those count whose names say that they go into prompts.
        measure: tokens of a text.

    Returns:
        Tokens; without a tokenizer about four times the real count for English text.

    Raises:
        ValueError: a message refers to a file, whose length is not known.
    """
    total = MESSAGE_FRAMING + sum(_message_bound(message, measure) for message in messages)
    sent = [(name, value) for name, value in (options or {}).items() if not name.startswith(_NOTES)]
    if fields:
        sent += [(name, fields[name]) for name in fields.keys() & _FIELDS]
    return total + sum(_bound_of(name, value) for name, value in sent if holds_text(value))


def _bound_of(name: str, value: Any) -> int:
    if name not in _SCHEMAS and name not in NESTED:
        return MESSAGE_FRAMING + json_size(value)
    parts = cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else [value]
    return sum(SCHEMA_FRAMING + json_size(part) for part in parts)


def _message_bound(message: BaseMessage, measure: Measure) -> int:
    total = MESSAGE_FRAMING + measure(message.name or "")
    total += _content_bound(message.content, measure)
    if isinstance(message, ToolMessage):
        total += measure(message.tool_call_id)
    if message.additional_kwargs:
        total += json_size(message.additional_kwargs)
    if isinstance(message, AIMessage):
        for call in [*message.tool_calls, *message.invalid_tool_calls]:
            total += MESSAGE_FRAMING + json_size(call)
    return total


def _content_bound(content: object, measure: Measure) -> int:
    if isinstance(content, str):
        return measure(content)
    total = 0
    for part in cast("list[Any]", content):
        if isinstance(part, str):
            total += measure(part)
        elif part.get("type") == "text":
            total += measure(str(part.get("text", "")))
        elif "image" in str(part.get("type")):
            total += IMAGE_TOKENS
        else:
            _check_inline(part)
            total += IMAGE_TOKENS + json_size(part)
    return total


def _check_inline(part: dict[str, Any]) -> None:
    """A document may have any number of tokens; one that comes inline has its bytes at most."""
    kind = str(part.get("type"))
    if not any(medium in kind for medium in _MEDIA):
        return
    levels = [part, *(cast("dict[str, Any]", v) for v in part.values() if isinstance(v, dict))]
    for level, name in product(levels, _REFERENCES):
        given = str(level.get(name) or "")
        if given and not given.startswith("data:"):
            raise ValueError(
                f"a message refers to a {kind} by {name}={given!r}, and how many tokens that has "
                "no budget can know; put its text or its data into the message"
            )
