"""Backbones whose endpoints fail while others could answer."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outage:
    """A backbone's endpoint failed, and another one was asked.

    Args:
        agent: who called it.
        reason: what failed.
    """

    agent: str
    backbone: str
    reason: str


class Outages:
    """Those of one run, which asks such a backbone no more. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Outage] = []

    def note(self, agent: str, backbone: str, reason: str) -> None:
        with self._lock:
            self._found.append(Outage(agent, backbone, reason))

    def __contains__(self, backbone: str) -> bool:
        with self._lock:
            return any(found.backbone == backbone for found in self._found)

    def of(self, agent: str) -> tuple[Outage, ...]:
        """What failed while an agent called it, in that order."""
        with self._lock:
            return tuple(found for found in self._found if found.agent == agent)
