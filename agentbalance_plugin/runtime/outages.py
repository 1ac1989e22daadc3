"""Backbones whose endpoints fail while others could answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentbalance_plugin.runtime.clock import Clock

# Long enough that an endpoint that is down costs few runs their retries, short enough that one
# that is back is soon asked again.
_REMEMBERED_S = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What ails an endpoint.

    Args:
        reason: not in its own words, which may quote a key.
        lasts: whether the next run would meet it too.
    """

    reason: str
    lasts: bool = True


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


class Downtimes:
    """What the runs of a team tell each other of endpoints that fail. Safe to use from several
    threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, str]] = {}

    def note(self, backbone: str, reason: str, now_s: float) -> None:
        with self._lock:
            self._last[backbone] = (now_s, reason)

    def lately(self, now_s: float) -> dict[str, str]:
        """Backbones that failed within the last half minute, and why."""
        with self._lock:
            return {
                backbone: reason
                for backbone, (at_s, reason) in self._last.items()
                if 0.0 <= now_s - at_s < _REMEMBERED_S
            }


class Outages:
    """Those of one run, which asks such a backbone no more, and one that failed in another run
    only after all others. Safe to use from several threads.

    Args:
        downtimes: shared with other runs.
        clock: what these count time on.
    """

    def __init__(self, downtimes: Downtimes, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._found: list[Outage] = []
        self._passed_over: dict[str, Outage] = {}
        self._downtimes = downtimes
        self._clock = clock
        # As it was when the run began: the order of who is asked must not change under way.
        self.lately: Mapping[str, str] = downtimes.lately(clock.now())
        """Backbones that failed in other runs, and why."""

    def order(self, agent: str, backbones: Sequence[str]) -> tuple[str, ...]:
        """Backbones in the order in which an agent asks them, from that in which it would."""
        planned = backbones[0]
        order = tuple(sorted(backbones, key=lambda backbone: backbone in self.lately))
        if order[0] != planned:
            with self._lock:
                self._passed_over[agent] = Outage(agent, planned, self.lately[planned])
        return order

    def note(self, agent: str, backbone: str, fault: Fault) -> None:
        with self._lock:
            self._found.append(Outage(agent, backbone, fault.reason))
        if fault.lasts:
            self._downtimes.note(backbone, fault.reason, self._clock.now())

    def __contains__(self, backbone: str) -> bool:
        with self._lock:
            return any(found.backbone == backbone for found in self._found)

    def of(self, agent: str) -> tuple[Outage, ...]:
        """What failed while an agent called it, in that order."""
        with self._lock:
            return tuple(found for found in self._found if found.agent == agent)

    def passed_over(self, agent: str) -> Outage | None:
        """The planned backbone that an agent asked only after all others."""
        with self._lock:
            return self._passed_over.get(agent)
