"""How many tokens a prompt can have at most, without a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autogen_core import FunctionCall, Image
from autogen_core.models import FunctionExecutionResultMessage, LLMMessage
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

MESSAGE_FRAMING = 16
"""Role markers and separators of one message; the known chat formats use 3 to 8 tokens."""

SCHEMA_FRAMING = 64
"""What wraps one tool or response schema when the endpoint renders it into the prompt."""

IMAGE_TOKENS = 40_000
"""More than any known model bills for one image (gpt-4o-mini bills up to 36,835)."""


def prompt_bound(
    messages: Sequence[LLMMessage],
    tools: Sequence[Tool | ToolSchema] = (),
    json_output: bool | type[BaseModel] | None = None,
    extra_create_args: Mapping[str, Any] | None = None,
) -> int:
    """An upper bound of a request's prompt tokens.

    No byte-level tokenizer makes more tokens than there are UTF-8 bytes, so text counts its bytes.

    Args:
        messages, tools, json_output, extra_create_args: as given to a model client.

    Returns:
        Tokens; about four times the real count for English text.
    """
    total = MESSAGE_FRAMING + sum(_message_bound(message) for message in messages)
    for tool in tools:
        schema = tool if isinstance(tool, dict) else tool.schema
        total += SCHEMA_FRAMING + _size(json.dumps(schema, default=str))
    if isinstance(json_output, type):
        total += SCHEMA_FRAMING + _size(json.dumps(json_output.model_json_schema()))
    if extra_create_args:
        total += _size(json.dumps(dict(extra_create_args), default=str))
    return total


def text_bound(text: str) -> int:
    """An upper bound of the tokens of one user message with this text."""
    return 2 * MESSAGE_FRAMING + _size(text)


def _message_bound(message: LLMMessage) -> int:
    total = MESSAGE_FRAMING + _size(getattr(message, "source", ""))
    total += _size(getattr(message, "thought", None) or "")
    if isinstance(message, FunctionExecutionResultMessage):
        for result in message.content:
            total += MESSAGE_FRAMING + sum(
                map(_size, (result.content, result.name, result.call_id))
            )
        return total
    if isinstance(message.content, str):
        return total + _size(message.content)
    for part in message.content:
        if isinstance(part, Image):
            total += IMAGE_TOKENS
        elif isinstance(part, FunctionCall):
            total += MESSAGE_FRAMING + sum(map(_size, (part.name, part.arguments, part.id)))
        else:
            total += _size(part)
    return total


def _size(text: str) -> int:
    return len(text.encode("utf-8", errors="surrogatepass"))
