"""Faults on request, so that error paths can be tried."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, cast, get_args

Fault = Literal["429", "500", "timeout", "malformed", "no_usage", "zero_usage", "cut_stream"]

FAULTS: tuple[str, ...] = get_args(Fault)

_MARKER = re.compile(r"\[\[fault:(?P<kind>\w+)(?:@(?P<backbone>[^\]*]+))?(?:\*(?P<times>\d+))?\]\]")


class Faults:
    """Decides which requests fail, and how.

    A fault is asked for by the header `x-simulate-fault: KIND` or by a marker in a message:
    `[[fault:KIND]]`, `[[fault:KIND*2]]` for the first two requests that carry it alone,
    `[[fault:KIND@BACKBONE]]` for one backbone alone.
    """

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()

    def of(self, header: str | None, texts: Sequence[str], backbone: str) -> Fault | None:
        """The fault of a request with messages of these texts (ValueError for an unknown kind)."""
        if header:
            return _known(header)
        markers = [(text, found) for text in texts for found in _MARKER.finditer(text)]
        for message, found in markers:
            fault = _known(found["kind"])
            if found["backbone"] not in (None, backbone):
                continue
            # The same marker in another message counts on its own.
            key = (found[0], message)
            self._seen[key] += 1
            if found["times"] is None or self._seen[key] <= int(found["times"]):
                return fault
        return None


def _known(kind: str) -> Fault:
    if kind not in FAULTS:
        raise ValueError(f"unknown fault {kind!r}; known are {', '.join(FAULTS)}")
    return cast("Fault", kind)
