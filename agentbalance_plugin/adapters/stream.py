"""What the runs of one wrapped chat, and of others like it, have in common."""

from __future__ import annotations

import threading
from typing import Generic, Protocol, TypeVar

from agentbalance_plugin.adapters.planning import Planner, pacer_of, takes_long
from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.runtime.habits import Habits
from agentbalance_plugin.runtime.pacing import Pacer
from agentbalance_plugin.team import Team


class _OfCatalog(Protocol):
    @property
    def catalog(self) -> Catalog: ...


Clients = TypeVar("Clients", bound=_OfCatalog)


class Stream(Generic[Clients]):
    """Backbones, planner and budget; one mean for all runs, and what earlier ones taught. Safe to
    use from several threads.

    Args:
        clients: of the backbones, whatever calls these in a framework.
        budget: of each run, or an average over them.
        planner: makes the plans.
        clock: what deadlines are measured on.
    """

    def __init__(self, clients: Clients, budget: Budget, planner: Planner, clock: Clock) -> None:
        self.clients = clients
        self.budget = budget
        self.planner = planner
        self.clock = clock
        self._pacer: Pacer | None = None
        self._habits: dict[Team, Habits] = {}
        self._slow: dict[Team, bool] = {}
        self._lock = threading.Lock()

    def pacer(self, team: Team) -> Pacer | None:
        """What steers the mean, from a price on that suits the first team; None without a mean."""
        with self._lock:
            if self._pacer is None:
                catalog = self.clients.catalog
                self._pacer = pacer_of(self.planner, team, self.budget, catalog)
            return self._pacer

    def habits(self, team: Team) -> Habits:
        """Of chats with these very agents."""
        with self._lock:
            return self._habits.setdefault(team, Habits())

    def takes_long(self, team: Team) -> bool:
        """Whether an event loop should not wait for plans of these agents."""
        with self._lock:
            if team not in self._slow:
                catalog = self.clients.catalog
                self._slow[team] = takes_long(self.planner, team, self.budget, catalog)
            return self._slow[team]


def check_terms(budget: object, clock: object) -> None:
    """Refuse what is no budget, or no clock (ValueError)."""
    if not isinstance(budget, Budget):
        raise ValueError(f"budget must be a Budget, got {budget!r}")
    if clock is not None and not isinstance(clock, Clock):
        raise ValueError(f"clock must be a Clock, got {clock!r}")
