"""Recorded queries through a framework, over HTTP, one by one or many at once.

A framework is anything that answers a task; what it cost is read off the simulator's own books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.core.traces import Query, TraceSet
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.runtime.report import RunReport
from agentbalance_plugin.simulator.server import Simulator

FloatArray = NDArray[np.float64]

Ask = Callable[[str], Awaitable["tuple[str, RunReport | None]"]]
"""A task -> (the text of the answer, the report of a run under a budget)."""


@dataclass(frozen=True)
class FrameworkRun:
    """One query.

    Args:
        query: its key.
        right: whether the answer is.
        nanodollars, tokens: by the server's books.
        latency_s: seconds of the simulated clock.
        report: None for a run without a budget, and for one that failed.
        error: what the framework raised; such a run is wrong. None otherwise.
    """

    query: str
    right: bool
    nanodollars: int
    tokens: int
    latency_s: float
    report: RunReport | None
    error: str | None = None

    @property
    def violates(self) -> bool:
        """Whether it billed more than its hard cap, or returned after its deadline."""
        if self.report is None:
            return False
        budget = self.report.budget
        over = budget.nanodollars is not None and self.nanodollars > budget.nanodollars
        # A float of a sum of sleeps may be off in its last bits.
        late = budget.latency_s is not None and self.latency_s > budget.latency_s + 1e-6
        tokens = budget.tokens is not None and self.tokens > budget.tokens
        return over or late or tokens


async def run_queries(
    ask: Ask,
    queries: Sequence[Query],
    replay: Replay,
    simulator: Simulator,
    *,
    concurrent: int = 1,
    clock: Clock | None = None,
    tick: Callable[[], None] = lambda: None,
) -> list[FrameworkRun]:
    """Every query once, at most so many at a time.

    The books are cleared first, so nothing else may talk to the simulator meanwhile.

    Args:
        clock: of latencies; the event loop's by default.
    """
    clock = clock or Clock()
    simulator.books.clear()
    free = asyncio.Semaphore(concurrent)

    async def one(query: Query) -> tuple[str, RunReport | None, float, str | None]:
        async with free:
            began = clock.now()
            text, report, error = "", None, None
            try:
                text, report = await ask(task_text(query, replay))
            # Whatever a framework raises, a failure is a wrong answer and not the end of the rest.
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
            seconds = clock.now() - began
            tick()
            return text, report, seconds, error

    found = await asyncio.gather(*(one(query) for query in queries))
    runs: list[FrameworkRun] = []
    for query, (text, report, seconds, error) in zip(queries, found, strict=True):
        billed = simulator.books.spend(query.key)
        runs.append(
            FrameworkRun(
                query=query.key,
                right=simulator.correct(text),
                nanodollars=billed.nanodollars,
                tokens=billed.tokens,
                latency_s=seconds,
                report=report,
                error=error,
            )
        )
    return runs


def pick_queries(traces: TraceSet, count: int | None, seed: int) -> list[Query]:
    """Test queries, evenly picked from the recorded ones and mixed; None takes all.

    Raises:
        ValueError: more than there are.
    """
    test = traces.positions("test")
    if count is not None and count > len(test):
        raise ValueError(f"queries: {count}, but there are {len(test)} to test on")
    picked = test[np.linspace(0, len(test) - 1, count or len(test)).round().astype(int)]
    # Benchmarks one after the other would be several streams; tasks of all kinds come mixed.
    positions: list[int] = np.random.default_rng(seed).permutation(picked).tolist()
    return [traces.queries[position] for position in positions]


@dataclass(frozen=True)
class Mean:
    """A mean over queries and its 95 % interval (bootstrap)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | FloatArray, seed: int = 0, samples: int = 2000) -> Mean:
        array = np.asarray(values, dtype=np.float64)
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, len(array), size=(samples, len(array)))
        low, high = np.quantile(array[rows].mean(axis=1), [0.025, 0.975])
        return cls(float(array.mean()), float(low), float(high))


@dataclass(frozen=True)
class Summary:
    """Means over the runs of one chat or graph: percent, US dollars, simulated seconds.

    Args:
        violations: runs that passed their hard cap or deadline.
        failed: runs that raised; they count as wrong.
    """

    right: Mean
    cost_usd: Mean
    latency_s: Mean
    violations: int
    failed: int

    @classmethod
    def of(cls, runs: Sequence[FrameworkRun]) -> Summary:
        return cls(
            right=Mean.of([100.0 * run.right for run in runs]),
            cost_usd=Mean.of([run.nanodollars / 1e9 for run in runs]),
            latency_s=Mean.of([run.latency_s for run in runs]),
            violations=sum(run.violates for run in runs),
            failed=sum(run.error is not None for run in runs),
        )
