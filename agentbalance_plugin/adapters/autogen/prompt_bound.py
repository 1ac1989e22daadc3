"""How many tokens a prompt can have at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autogen_core import FunctionCall, Image
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResultMessage,
    LLMMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from agentbalance_plugin.runtime.byte_bound import (
    IMAGE_TOKENS,
    MESSAGE_FRAMING,
    SCHEMA_FRAMING,
    Measure,
    json_size,
    size,
)


def prompt_bound(
    messages: Sequence[LLMMessage],
    tools: Sequence[Tool | ToolSchema] = (),
    json_output: bool | type[BaseModel] | None = None,
    extra_create_args: Mapping[str, Any] | None = None,
    *,
    measure: Measure = size,
) -> int:
    """An upper bound of a request's prompt tokens.

    No byte-level tokenizer makes more tokens than there are UTF-8 bytes, so text counts its bytes
    unless the tokenizer is known. Schemas always do: how endpoints write them down is not.

    Args:
        messages, tools, json_output, extra_create_args: as given to a model client.
        measure: tokens of a text.

    Returns:
        Tokens; without a tokenizer about four times the real count for English text.
    """
    total = MESSAGE_FRAMING + sum(_message_bound(message, measure) for message in messages)
    for tool in tools:
        schema = tool if isinstance(tool, dict) else tool.schema
        total += SCHEMA_FRAMING + json_size(schema)
    if isinstance(json_output, type):
        total += SCHEMA_FRAMING + json_size(json_output)
    if extra_create_args:
        total += SCHEMA_FRAMING + json_size(dict(extra_create_args))
    return total


def _message_bound(message: LLMMessage, measure: Measure) -> int:
    total = MESSAGE_FRAMING
    if isinstance(message, FunctionExecutionResultMessage):
        for result in message.content:
            total += MESSAGE_FRAMING + sum(
                map(measure, (result.content, result.name, result.call_id))
            )
        return total
    if isinstance(message, (UserMessage, AssistantMessage)):
        total += measure(message.source)
    if isinstance(message, AssistantMessage):
        total += measure(message.thought or "")
    if isinstance(message.content, str):
        return total + measure(message.content)
    for part in message.content:
        if isinstance(part, Image):
            total += IMAGE_TOKENS
        elif isinstance(part, FunctionCall):
            total += MESSAGE_FRAMING + sum(map(measure, (part.name, part.arguments, part.id)))
        else:
            total += measure(part)
    return total
