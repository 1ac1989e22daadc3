"""Many runs in one event loop: how long planning holds it up, and what gets through."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.benches import made_up
from agentbalance_plugin.cli.benches.local_server import local_server, served
from agentbalance_plugin.cli.benches.measure import Figure, Findings, Ratio
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.knobs import NO_PAST, Knobs, Past
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Team

NAMES = ("planner", "solver", "critic", "decider")
"""Agents of a run; each makes one call."""

BUDGET = Budget(cost_usd=0.5, latency_s=600.0)

# Runs at a time, and how many are run.
_LOADS = {1: 2, 20: 40, 200: 200}
_REPLY_S = 0.2
_AT_ONCE = 8
_LIMIT = _AT_ONCE / _REPLY_S
_BLOCKED_MS = 5.0


class _Watched(Policy):
    """Notes how long each plan took that was made in the event loop's own thread."""

    def watch(self) -> None:
        """Begin anew."""
        self.wall: list[float] = []
        self.busy: list[float] = []
        self.beside = 0

    def plan(
        self,
        query: str,
        team: Team,
        budget: Budget,
        catalog: Catalog,
        knobs: Knobs | None = None,
        past: Past = NO_PAST,
    ) -> Plan:
        began, busy = time.perf_counter(), time.thread_time()
        plan = super().plan(query, team, budget, catalog, knobs, past)
        if threading.current_thread() is threading.main_thread():
            self.busy.append(time.thread_time() - busy)
            self.wall.append(time.perf_counter() - began)
        else:
            self.beside += 1
        return plan


class Service(Protocol):
    """A chat or graph under `BUDGET` that serves all runs, agents pinned and order kept."""

    async def run(self, task: str) -> object: ...

    async def reset(self) -> None:
        """Forget the runs so far."""
        ...

    async def close(self) -> None: ...


async def measure_concurrency(
    found: Findings, serve: Callable[[Catalog, Policy], Service], seed: int, console: Console
) -> None:
    """Add figures of 1, 20 and 200 runs at a time, each of four calls to a slow server.

    Args:
        serve: makes the service from what answers and what plans.
    """
    policy = _Watched.load("default")
    assert isinstance(policy, _Watched)
    policy.watch()
    async with local_server(_REPLY_S, _AT_ONCE) as url:
        catalog = served(TraceSet.shipped("reasoning").profiled_candidates(), url)
        tasks = made_up.tasks(max(_LOADS.values()), seed)
        service = serve(catalog, policy)
        rates: dict[int, float] = {}
        with counting(console) as progress:
            for at_once, runs in _LOADS.items():
                policy.watch()
                bar = progress.add_task(f"{at_once} at a time", total=runs)
                free = asyncio.Semaphore(at_once)

                async def run(task: str, free: asyncio.Semaphore = free) -> None:
                    async with free:
                        await service.run(task)

                await service.reset()
                began = time.perf_counter()
                for each in asyncio.as_completed([run(task) for task in tasks[:runs]]):
                    await each
                    progress.advance(bar)
                rates[at_once] = runs * len(NAMES) / (time.perf_counter() - began)
                found.figures[f"{at_once} runs at a time"] = Figure([rates[at_once]], "calls/s")
        await service.close()
    wall, busy = ([1e3 * t for t in times] for times in (policy.wall, policy.busy))
    most = max(_LOADS)
    found.figures[f"plans made beside the loop, {most} runs"] = Figure([policy.beside], "plans")
    if busy:
        found.figures["a plan in the loop's thread"] = Figure(wall, "ms")
        found.figures["a plan in the loop's thread, processor"] = Figure(busy, "ms")
    longest = max(busy, default=0.0)
    found.ratios[f"longest planning in the loop, processor / {_BLOCKED_MS:.0f} ms"] = Ratio(
        [longest / _BLOCKED_MS], bar=1.0
    )
    found.ratios[f"{most} runs: calls a second / the server's limit"] = Ratio(
        [rates[most] / _LIMIT], bar=0.9, better="above"
    )
    found.notes.append(
        f"Runs at a time: four calls each to a server that takes {_REPLY_S} s a reply and makes "
        f"{_AT_ONCE} of them at a time, {_LIMIT:.0f} a second."
    )
