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
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


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
    return further_keys(_mix(np.atleast_1d(np.uint64(seed & 0xFFFFFFFFFFFFFFFF))), *parts)


def further_keys(
    keys: KeyArray, *parts: KeyArray | NDArray[np.int64] | np.uint64 | int
) -> KeyArray:
    """The keys that `draw_keys` gives for what `keys` were made of and some parts more."""
    for part in parts:
        keys = _mix(keys ^ np.asarray(part).astype(np.uint64, copy=False))
    return keys


def uniforms(keys: KeyArray) -> FloatArray:
    """A number in [0, 1) per key, with 53 random bits."""
    return (_mix(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(keys: KeyArray) -> FloatArray:
    """A standard normal number per key (Box-Muller)."""
    radius = np.sqrt(-2.0 * np.log1p(-uniforms(keys)))
    return radius * np.cos(2.0 * np.pi * uniforms(_mix(keys)))


def _mix(keys: KeyArray) -> KeyArray:
    # In place: most of a replay's time goes here.
    keys = keys + _GAMMA
    shifted = keys >> _SHIFTS[0]
    keys ^= shifted
    keys *= _MIX_1
    np.right_shift(keys, _SHIFTS[1], out=shifted)
    keys ^= shifted
    keys *= _MIX_2
    np.right_shift(keys, _SHIFTS[2], out=shifted)
    keys ^= shifted
    return keys
