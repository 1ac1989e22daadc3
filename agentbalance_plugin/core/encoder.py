"""Query encoders: hashed word and character n-grams, recorded features, sentence embeddings.

On the recorded questions hashed n-grams predict which backbone will be right as well as sentence
embeddings do, at a small fraction of their time.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from agentbalance_plugin.core.traces import TraceSet

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]

FEATURE_BUCKETS = 2**15

# A long text is known by its beginning and its end (where the options stand).
_HEAD_TOKENS = 112
_TAIL_TOKENS = 32
_MOST_FRAGMENTS = 112
_FRAGMENT = 4

# Features of the recorded training questions: the fewest that say something, and their median.
_SHORT = 40
_USUAL = 175

_TOKEN = re.compile(rb"[a-z\x80-\xff]+|[0-9]+|[^\sa-z0-9]")
_MASK = FEATURE_BUCKETS - 1

QUERY_MARKER = re.compile(r"\[\[query:([^\[\]]+)\]\]")


class Features(NamedTuple):
    """A query's vector is the sum of its features' embeddings by weight, and how many there are.

    Args:
        ids: [n] rows of the embedding table.
        weights: [n]
    """

    ids: IntArray
    weights: FloatArray

    @classmethod
    def mean(cls, ids: IntArray) -> Features:
        """Features of equal weight."""
        return cls(ids, np.full(len(ids), 1.0 / max(1, len(ids)), dtype=np.float32))

    @property
    def log_length(self) -> float:
        """Logarithm of how many there are, over those of a usual question.

        Short texts are alike, and one that is withheld or empty may be of any length.
        """
        count = len(self.ids)
        return math.log(max(count, _SHORT) / _USUAL) if count else 0.0


class QueryEncoder(Protocol):
    """Turns a query's text into features.

    Args:
        name: recorded in policies; a policy works with the encoder that it was trained with.
        size: rows of the embedding table.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def encode(self, text: str) -> Features:
        """Its features, none for a text without any."""
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
    fragments = chain.from_iterable(map(_fragments, dict.fromkeys(tokens)))
    ids.update(islice(fragments, _MOST_FRAGMENTS))
    # Flags sort and drop repeats faster than a sort of so few ids.
    flags = np.zeros(FEATURE_BUCKETS, dtype=np.bool_)
    flags[np.fromiter(ids, dtype=np.int64, count=len(ids)) & _MASK] = True
    return np.flatnonzero(flags).astype(np.int32)


@lru_cache(maxsize=8_192)
def _fragments(token: bytes) -> tuple[int, ...]:
    """Of a word; texts have much the same ones."""
    if len(token) <= _FRAGMENT:
        return ()
    # From a checksum of their own, so that "rate" is not the word "rate".
    starts = range(min(len(token) - _FRAGMENT + 1, _MOST_FRAGMENTS))
    return tuple(zlib.crc32(token[start : start + _FRAGMENT], 1) for start in starts)


class HashedEncoder:
    """The encoder that needs nothing but the text: the mean over its `hash_features`."""

    name = "hashed-ngrams-1"
    size = FEATURE_BUCKETS

    def encode(self, text: str) -> Features:
        return Features.mean(hash_features(text))


class RecordedEncoder(HashedEncoder):
    """Knows recorded queries by their marker; other texts are hashed.

    A figures-only trace has no texts: its queries are sent as `[[query:<benchmark>/<id>]]`.

    Args:
        traces: whose queries are known.
    """

    def __init__(self, traces: TraceSet) -> None:
        # Where a text is withheld there is nothing to read: the marker is no text.
        self._recorded = {
            query.key: np.zeros(0, dtype=np.int32) if query.features is None else query.features
            for query in traces.queries
            if query.features is not None or query.question is None
        }

    def encode(self, text: str) -> Features:
        """The recorded features of the query that the text's first marker names, else computed."""
        marker = QUERY_MARKER.search(text)
        recorded = self._recorded.get(marker.group(1)) if marker else None
        return super().encode(text) if recorded is None else Features.mean(recorded)


class SemanticEncoder:
    """Sentence embeddings of a model of the user's choice; for texts unlike those trained on.

    Args:
        embed: text -> vector, such as the `encode` of a sentence-transformers model.
        name: of that model, recorded in policies.
        size: of its vectors.
    """

    def __init__(self, embed: Callable[[str], ArrayLike], *, name: str, size: int) -> None:
        self.name = f"semantic:{name}"
        self.size = size
        self._embed = embed

    def encode(self, text: str) -> Features:
        """The vector at unit length, one feature a dimension.

        Raises:
            ValueError: `embed` returned something else than a finite vector of `size`.
        """
        vector = np.asarray(self._embed(text), dtype=np.float32)
        if vector.shape != (self.size,) or not np.isfinite(vector).all():
            raise ValueError(
                f"{self.name}: expected a finite vector of shape ({self.size},), got one of shape "
                f"{vector.shape}"
            )
        length = float(np.linalg.norm(vector))
        return Features(np.arange(self.size, dtype=np.int32), vector / max(length, 1e-9))
