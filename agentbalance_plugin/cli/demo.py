"""A stock AutoGen chat or LangGraph graph against the same under a budget, on recorded answers.

Both go through the framework and real OpenAI clients over HTTP to the simulator. The event loop's
time is the simulated one, so latencies are those of the recorded backbones and nothing waits for
real.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.options import check_mean
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.kinds import candidates_of
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.reference import reference_budgets
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.core.traces import Query, TraceSet
from agentbalance_plugin.extras import require
from agentbalance_plugin.runtime.report import RunReport
from agentbalance_plugin.simulator.server import Simulator
from agentbalance_plugin.simulator.virtual_time import run_virtual

FrameworkName = Literal["autogen", "langgraph"]
FRAMEWORKS: tuple[FrameworkName, ...] = ("autogen", "langgraph")
_LIBRARIES: dict[FrameworkName, tuple[str, ...]] = {
    "autogen": ("autogen_agentchat", "autogen_ext.models.openai"),
    "langgraph": ("langgraph.graph", "langchain_openai"),
}

ROLES = {
    "planner": "You break the task down and solve it.",
    "solver": "You solve the task step by step.",
    "critic": "You solve the task again and look for mistakes.",
    "decider": "You weigh what was said and give the final answer.",
}


Runner = Callable[[str], Awaitable[tuple[str, RunReport | None]]]
"""From a task, with no history, to the last message's text and the report, if it has a budget."""


class Framework(Protocol):
    """One framework's team of four: an agent for each of `ROLES`, one turn each."""

    @property
    def team(self) -> str:
        """What the team is there, in words."""
        ...

    def stock(self, backbone: str, base_url: str) -> Runner:
        """What a user has: all agents on one backbone."""
        ...

    def wrapped(
        self, backbone: str, base_url: str, budget: Budget, catalog: Catalog, policy: Policy
    ) -> Runner:
        """The same team under a budget."""
        ...


@dataclass(frozen=True)
class Row:
    """Means over the queries of one team.

    Args:
        accuracy: share of right answers, in percent.
        cost_usd: by the server's own books.
        latency_s: simulated seconds a query.
        wall_s: real seconds a query.
        violations: runs that passed their hard cap by the server's books.
    """

    accuracy: float
    cost_usd: float
    latency_s: float
    wall_s: float
    violations: int


@dataclass(frozen=True)
class DemoResult:
    """Both teams on the same queries.

    Args:
        framework: whose.
        team: what the team is there, in words.
        backbone: of the stock team.
        budget: of the wrapped one.
        plan: one of its plans as a text tree, and the query it is for.
    """

    framework: FrameworkName
    team: str
    suite: str
    backbone: str
    queries: int
    budget: Budget
    stock: Row
    wrapped: Row
    plan: tuple[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        keys = ("accuracy", "cost_usd", "latency_s")
        wrapped = asdict(self.wrapped)
        return {
            "framework": self.framework,
            "queries": self.queries,
            "stock": {key: asdict(self.stock)[key] for key in keys},
            "wrapped": {key: wrapped[key] for key in (*keys, "violations")},
            "replayed": True,
        }


def run_demo(
    *,
    framework: FrameworkName,
    queries: int | None,
    suite: str,
    mean_usd: float | None,
    cap_usd: float | None,
    traces: Path | None,
    seed: int,
    console: Console,
) -> DemoResult:
    """Run both teams on evenly picked test queries (None: all of them).

    Args:
        mean_usd, cap_usd: of the wrapped team's budget; None: a tenth of four calls of the
            reference backbone, and all of it, or four times the mean if that is more.

    Raises:
        TraceError: no such suite or traces.
        ValueError: no such framework, more queries than the test split has, a suite without a
            reference backbone, or amounts that make no budget.
    """
    if framework not in FRAMEWORKS:
        raise ValueError(f"framework: {framework!r}; known are {', '.join(FRAMEWORKS)}")
    # Both at once: each of them alone would be followed by a request for the other.
    for module in ("starlette", "pyarrow", *_LIBRARIES[framework]):
        require(module, extra=f"{framework},simulator")
    loaded = TraceSet.shipped(suite) if traces is None else TraceSet.load(traces, suite=suite)
    demo = _Demo(framework, loaded, suite, mean_usd, cap_usd, queries, seed, console)
    return run_virtual(demo.run())


class _Demo:
    def __init__(
        self,
        framework: FrameworkName,
        traces: TraceSet,
        suite: str,
        mean_usd: float | None,
        cap_usd: float | None,
        queries: int | None,
        seed: int,
        console: Console,
    ) -> None:
        test = traces.positions("test")
        queries = len(test) if queries is None else queries
        if queries > len(test):
            raise ValueError(f"queries: {queries}, but suite {suite!r} has {len(test)} to test on")
        if traces.reference is None:
            raise ValueError(f"suite {suite!r} names no reference backbone for the stock chat")
        picked = test[np.linspace(0, len(test) - 1, queries).round().astype(int)]
        # Benchmarks one after the other would be three streams; tasks of all kinds come mixed.
        picked = np.random.default_rng(seed).permutation(picked)
        positions: list[int] = picked.tolist()
        self._queries = [traces.queries[position] for position in positions]
        self._traces = traces
        self._reference = traces.reference
        self._suite = suite
        self._replay = Replay(traces, seed=seed)
        self._console = console
        tenth, _, whole = reference_budgets(traces).cost_usd
        mean = tenth if mean_usd is None else mean_usd
        cap = max(whole, 4 * mean) if cap_usd is None else cap_usd
        check_mean("--mean", mean, "--cap", cap)
        self._budget = Budget.average(cost_usd=mean, max_cost_usd=cap)
        self._name: FrameworkName = framework
        # Each needs its framework's extra, so only the one that is asked for is loaded.
        loaded: Any = import_module(f"agentbalance_plugin.cli.demo_{framework}")
        self._framework = cast("Framework", loaded.Demo())

    async def run(self) -> DemoResult:
        framework, reference = self._framework, self._reference
        async with Simulator(self._replay) as simulator:
            with counting(self._console) as progress:
                runner = framework.stock(reference, simulator.base_url)
                stock, _ = await self._phase("stock", runner, simulator, progress)
                runner = framework.wrapped(
                    reference,
                    simulator.base_url,
                    self._budget,
                    simulator.serving(candidates_of(self._traces)),
                    # A figures-only trace has no texts: the policy takes a query's recorded
                    # features by its id.
                    Policy.load("default", RecordedEncoder(self._traces)),
                )
                wrapped, reports = await self._phase("wrapped", runner, simulator, progress)
        return DemoResult(
            framework=self._name,
            team=framework.team,
            suite=self._suite,
            backbone=reference,
            queries=len(self._queries),
            budget=self._budget,
            stock=stock,
            wrapped=wrapped,
            plan=self._typical_plan(reports),
        )

    async def _phase(
        self, title: str, runner: Runner, simulator: Simulator, progress: Progress
    ) -> tuple[Row, list[tuple[Query, RunReport]]]:
        """Every query once, each from an empty history."""
        simulator.books.clear()
        now = asyncio.get_running_loop().time
        bar = progress.add_task(title, total=len(self._queries))
        right: list[bool] = []
        seconds: list[float] = []
        reports: list[tuple[Query, RunReport]] = []
        violations = 0
        wall = time.perf_counter()
        for query in self._queries:
            began = now()
            answer, report = await runner(task_text(query, self._replay))
            seconds.append(now() - began)
            right.append(simulator.correct(answer))
            if report is not None:
                reports.append((query, report))
                cap = report.budget.nanodollars
                billed = simulator.books.spend(query.key).nanodollars
                violations += cap is not None and billed > cap
            progress.advance(bar)
        return (
            Row(
                accuracy=100.0 * float(np.mean(right)),
                cost_usd=simulator.books.spend().cost_usd / len(self._queries),
                latency_s=float(np.mean(seconds)),
                wall_s=(time.perf_counter() - wall) / len(self._queries),
                violations=violations,
            ),
            reports,
        )

    def _typical_plan(self, reports: list[tuple[Query, RunReport]]) -> tuple[str, str]:
        """Of the first plan with the most frequent number of agents above one."""
        plans = [(query.key, report.plan) for query, report in reports if report.plan is not None]
        several = [(key, plan) for key, plan in plans if len(plan.assignment) > 1] or plans
        sizes = [len(plan.assignment) for _, plan in several]
        size = max(set(sizes), key=sizes.count)
        key, plan = next(item for item in several if len(item[1].assignment) == size)
        return key, plan.to_tree()


def print_table(result: DemoResult, console: Console) -> None:
    """The table, one plan, and what the figures are."""
    budget = result.budget
    title = f"{result.queries} recorded test queries of suite '{result.suite}', means"
    table = Table(title=title, title_justify="left")
    table.add_column("chat" if result.framework == "autogen" else "graph")
    for column in ("right", "USD", "simulated s", "wall s", "violations"):
        table.add_column(column, justify="right")
    rows = (
        ("stock", result.stock, "-"),
        ("wrapped", result.wrapped, str(result.wrapped.violations)),
    )
    for name, row, violations in rows:
        table.add_row(
            name,
            f"{row.accuracy:.1f} %",
            f"{row.cost_usd:.6f}",
            f"{row.latency_s:.2f}",
            f"{row.wall_s:.3f}",
            violations,
        )
    console.print(table)
    console.print(
        f"stock: {result.team} on {result.backbone}; wrapped: the same under a budget.\n"
        f"Budget: {budget.mean_cost_usd:.6f} USD a query on average, "
        f"never more than {budget.cost_usd:.6f}.",
        highlight=False,
    )
    console.print(f"\nA plan (for {result.plan[0]}):", highlight=False)
    console.print(result.plan[1], highlight=False, markup=False, soft_wrap=True)
    console.print(
        "\nAnswers are replayed from recorded ones, not live; seconds are recorded, or else those "
        "of the backbones' nominal speeds.",
        highlight=False,
    )
