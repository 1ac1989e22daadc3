"""How many tokens text can have at most, without a tokenizer.

No byte-level tokenizer makes more tokens than there are UTF-8 bytes, so text counts its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

Measure = Callable[[str], int]
"""How many tokens a text has at most."""

MESSAGE_FRAMING = 16
"""Role markers and separators of one message; the known chat formats use 3 to 8 tokens."""

SCHEMA_FRAMING = 64
"""What wraps one tool or response schema when the endpoint renders it into the prompt."""

IMAGE_TOKENS = 40_000
"""More than any known model bills for one image (gpt-4o-mini bills up to 36,835)."""


def text_bound(text: str, measure: Measure | None = None) -> int:
    """An upper bound of the tokens of one user message with this text; its bytes unless there is a
    better measure."""
    return 2 * MESSAGE_FRAMING + (measure or size)(text)


def size(text: str) -> int:
    """UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", errors="surrogatepass"))


def json_size(value: object) -> int:
    """UTF-8 bytes of a value's JSON; a pydantic class counts by its schema."""
    return size(json.dumps(value, default=_written))


def holds_text(value: object) -> bool:
    """Whether an argument of a call may add to its prompt: numbers and switches can't."""
    return bool(value) and not isinstance(value, (bool, int, float))


def _written(value: object) -> object:
    schema = isinstance(value, type) and hasattr(value, "model_json_schema")
    return _schema_of(cast("type", value)) if schema else str(value)


@lru_cache(maxsize=256)
def _schema_of(kind: type) -> object:
    """As it is sent, at its longest: OpenAI's SDK writes out what a schema refers to."""
    plain = cast("Any", kind).model_json_schema()
    try:
        import openai

        strict = openai.pydantic_function_tool(cast("Any", kind))
    # Without the SDK nobody sends that, and what it can't write it does not send.
    except Exception:
        return plain
    return max(plain, strict, key=lambda schema: len(json.dumps(schema, default=str)))
