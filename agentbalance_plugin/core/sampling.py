"""Counter-based random draws: each number is a hash of what it is for, never of when it was asked.

Two runs that ask for the same draw get the same number, whatever else happened in between and in
whatever order, which is what lets a simulated endpoint and the vectorised replay agree call by
call. Strings become 64-bit keys (blake2b), keys are mixed with the finaliser of splitmix64
(Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

KeyArray = NDArray[np.uint64]
FloatArray = NDArray[np.float64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@lru_cache(maxsize=65_536)
def string_key(text: str) -> np.uint64:
    """The 64-bit key of a string."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def string_keys(texts: Iterable[str]) -> KeyArray:
    """The keys of several strings."""
    return np.array([string_key(text) for text in texts], dtype=np.uint64)


def draw_keys(seed: int, *parts: KeyArray | NDArray[np.int64] | np.uint64 | int) -> KeyArray:
    """One key per element of the parts, which are broadcast against each other.

    Args:
        seed: any integer; its low 64 bits count.
        parts: what the draw is for (keys of the query, the backbone, ...). Their order matters.
    """
    key = _mix(np.atleast_1d(np.uint64(seed & 0xFFFFFFFFFFFFFFFF)))
    for part in parts:
        key = _mix(key ^ np.asarray(part).astype(np.uint64))
    return key


def uniforms(keys: KeyArray) -> FloatArray:
    """A number in [0, 1) per key, with 53 random bits."""
    return (_mix(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(keys: KeyArray) -> FloatArray:
    """A standard normal number per key (Box-Muller)."""
    radius = np.sqrt(-2.0 * np.log1p(-uniforms(keys)))
    return radius * np.cos(2.0 * np.pi * uniforms(_mix(keys)))


def _mix(keys: KeyArray) -> KeyArray:
    with np.errstate(over="ignore"):
        keys = keys + _GAMMA
        keys = (keys ^ (keys >> np.uint64(30))) * _MIX_1
        keys = (keys ^ (keys >> np.uint64(27))) * _MIX_2
    return keys ^ (keys >> np.uint64(31))
