"""The query encoder: hashed word and character n-grams, and recorded features.

On the recorded questions hashed n-grams predict which backbone will be right as well as sentence
embeddings do, at a small fraction of their time.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from agentbalance_plugin.core.traces import TraceSet

IntArray = NDArray[np.int32]

FEATURE_BUCKETS = 2**15

# A long text is known by its beginning and its end (where the options stand).
_HEAD_TOKENS = 112
_TAIL_TOKENS = 32
_MOST_FRAGMENTS = 112
_FRAGMENT = 4

_TOKEN = re.compile(rb"[a-z\x80-\xff]+|[0-9]+|[^\sa-z0-9]")
_MASK = FEATURE_BUCKETS - 1

QUERY_MARKER = re.compile(r"\[\[query:([^\[\]]+)\]\]")


class QueryEncoder(Protocol):
    """Turns a query's text into features."""

    def features(self, text: str) -> IntArray:
        """Sorted unique ids below `FEATURE_BUCKETS`."""
        ...


def hash_features(text: str) -> IntArray:
    """Ids of the n-grams of a text.

    Counted are the lower-cased words, numbers and single signs, each pair of neighbours, and the
    four-character fragments of longer words. At most 144 tokens of a text are looked at (its
    first 112 and last 32) and at most 112 fragments, so a long text costs no more than a page.

    Returns:
        sorted unique int32 ids in [0, FEATURE_BUCKETS), shape [n]; n = 0 for an empty text.
    """
    # The longest text that can matter: sixteen bytes per token is far above what words take.
    raw = text.encode("utf-8", "replace")
    most = 16 * (_HEAD_TOKENS + _TAIL_TOKENS)
    if len(raw) > 2 * most:
        raw = raw[:most] + b" " + raw[-most:]
    tokens = _TOKEN.findall(raw.lower())
    if len(tokens) > _HEAD_TOKENS + _TAIL_TOKENS:
        tokens = tokens[:_HEAD_TOKENS] + tokens[-_TAIL_TOKENS:]
    crc = zlib.crc32
    words = [crc(token) for token in tokens]
    # The checksum of a pair continues that of its first word, so nothing is joined.
    ids = set(words)
    ids.update(map(crc, tokens[1:], words))
    fragments = [
        token[start : start + _FRAGMENT]
        for token in dict.fromkeys(tokens)
        if len(token) > _FRAGMENT
        for start in range(len(token) - _FRAGMENT + 1)
    ]
    # Fragments start from a checksum of their own, so that "rate" is not the word "rate".
    ids.update([crc(fragment, 1) for fragment in fragments[:_MOST_FRAGMENTS]])
    # Flags sort and drop repeats faster than a sort of so few ids.
    flags = np.zeros(FEATURE_BUCKETS, dtype=np.bool_)
    flags[np.fromiter(ids, dtype=np.int64, count=len(ids)) & _MASK] = True
    return np.flatnonzero(flags).astype(np.int32)


class HashedEncoder:
    """The encoder that needs nothing but the text."""

    def features(self, text: str) -> IntArray:
        """`hash_features` of the text."""
        return hash_features(text)


class RecordedEncoder:
    """Knows recorded queries by their marker; other texts go to another encoder.

    A figures-only trace has no texts: its queries are sent as `[[query:<benchmark>/<id>]]`.

    Args:
        traces: whose queries are known.
        fallback: encodes texts without a marker of a query with features.
    """

    def __init__(self, traces: TraceSet, fallback: QueryEncoder | None = None) -> None:
        self._recorded = {
            query.key: query.features for query in traces.queries if query.features is not None
        }
        self._fallback: QueryEncoder = fallback or HashedEncoder()

    def features(self, text: str) -> IntArray:
        """The recorded features of the query that the text's first marker names, else computed."""
        marker = QUERY_MARKER.search(text)
        recorded = self._recorded.get(marker.group(1)) if marker else None
        return self._fallback.features(text) if recorded is None else recorded
