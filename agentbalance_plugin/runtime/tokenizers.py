"""Counting text by the tokenizer that an endpoint bills by, where the catalog names it."""

from __future__ import annotations

from functools import cache

from agentbalance_plugin.backbone import Backbone
from agentbalance_plugin.runtime.byte_bound import Measure, size


def measure_of(backbone: Backbone) -> Measure:
    """How many tokens of a backbone a text has at most.

    Raises:
        ValueError: its tokenizer can't be had, naming both.
    """
    if backbone.tokenizer is None:
        return size
    try:
        return _counter(backbone.tokenizer)
    except ValueError as error:
        raise ValueError(f"backbone {backbone.name!r}: {error}") from error


@cache
def _counter(name: str) -> Measure:
    try:
        import tiktoken
    except ImportError as error:
        raise ValueError(
            f"tokenizer {name!r} needs tiktoken: pip install tiktoken, or leave the field out"
        ) from error
    known = tiktoken.list_encoding_names()
    if name not in known:
        raise ValueError(
            f"tokenizer must be one of tiktoken's encodings ({', '.join(known)}), got {name!r}"
        )
    try:
        encoding = tiktoken.get_encoding(name)
    # It is downloaded once; offline anything of the HTTP client that tiktoken uses comes out.
    except Exception as error:
        raise ValueError(
            f"tokenizer {name!r} can't be loaded ({type(error).__name__}); tiktoken downloads it "
            "on first use: connect once, set TIKTOKEN_CACHE_DIR to a folder that has it, or leave "
            "the field out"
        ) from error

    def count(text: str) -> int:
        # As plain text: what looks like a special token is none in a message.
        return len(encoding.encode_ordinary(text))

    return count
