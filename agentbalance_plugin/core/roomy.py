"""Backbones whose context has room for a task."""

from __future__ import annotations

from collections.abc import Iterable

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.core.known import FRAMING_BYTES, fits
from agentbalance_plugin.team import Team

# What a token of a prompt may be short of: code has about three bytes a token, English over four.
_BYTES_PER_TOKEN = 3.0
# For what agents read of each other, and the reply.
_REST_TOKENS = 1_024
_MOST_KEPT = 8


class RoomyCatalogs:
    """Parts of catalogs, each made once: policies know a catalog by identity."""

    def __init__(self) -> None:
        self._kept: list[tuple[Catalog, tuple[str, ...], Catalog]] = []

    def of(self, catalog: Catalog, query: str, team: Team, beside_bytes: int = 0) -> Catalog:
        """The catalog, or the part of it that has room for the query beside any agent's role.

        Where nothing has, what has most.

        Args:
            beside_bytes: of every prompt, beside these.
        """
        if catalog.smallest_context is None:
            return catalog
        roles = (len(agent.role) for agent in team.agents)
        size = len(query.encode("utf-8", errors="surrogatepass")) + max(roles) + FRAMING_BYTES
        size += beside_bytes
        needed = size / _BYTES_PER_TOKEN + _REST_TOKENS
        if needed <= catalog.smallest_context:
            return catalog
        names = _with_room(catalog.values(), needed)
        if len(names) == len(catalog) or not _serves(catalog, names, team):
            return catalog
        for whole, part, found in self._kept:
            if whole is catalog and part == names:
                return found
        found = catalog.subset(names)
        self._kept = [*self._kept[1 - _MOST_KEPT :], (catalog, names, found)]
        return found


def _with_room(backbones: Iterable[Backbone], needed: float) -> tuple[str, ...]:
    rooms = {b.name: float(b.context_tokens or "inf") for b in backbones}
    # One that is not roomy for sure may do.
    enough = min(needed, max(rooms.values()))
    return tuple(name for name, room in rooms.items() if room >= enough)


def _serves(catalog: Catalog, names: Iterable[str], team: Team) -> bool:
    """Whether every agent finds one among these that has what it needs."""
    part = [catalog[name] for name in names]
    callers = (agent for agent in team.agents if agent.calls_backbone)
    return all(any(fits(agent, backbone) for backbone in part) for agent in callers)
