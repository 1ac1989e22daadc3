"""How many tokens text can have at most, without a tokenizer.

No byte-level tokenizer makes more tokens than there are UTF-8 bytes, so text counts its bytes.
"""

from __future__ import annotations

MESSAGE_FRAMING = 16
"""Role markers and separators of one message; the known chat formats use 3 to 8 tokens."""

SCHEMA_FRAMING = 64
"""What wraps one tool or response schema when the endpoint renders it into the prompt."""

IMAGE_TOKENS = 40_000
"""More than any known model bills for one image (gpt-4o-mini bills up to 36,835)."""


def text_bound(text: str) -> int:
    """An upper bound of the tokens of one user message with this text."""
    return 2 * MESSAGE_FRAMING + size(text)


def size(text: str) -> int:
    """UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", errors="surrogatepass"))
