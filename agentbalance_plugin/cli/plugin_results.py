"""A chat or graph as written beside itself under budgets, on recorded queries.

The frameworks' own code, in examples/plugin_pat1_*.py, says what a chat is and how it is put under
a budget; here it is run and tabulated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from agentbalance_plugin.adapters.planning import Planner
from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.framework_runs import (
    Ask,
    Mean,
    Summary,
    pick_queries,
    run_queries,
)
from agentbalance_plugin.cli.output import plain_console
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.kinds import candidates_of
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.reference import reference_budgets
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.simulator.server import Simulator
from agentbalance_plugin.simulator.virtual_time import run_virtual


@dataclass(frozen=True)
class Endpoint:
    """Where the backbones answer.

    Args:
        base_url: OpenAI-compatible.
        reference: backbone of the chat as written.
        catalog: what plans may use.
        policy: that makes them, or any planner.
    """

    base_url: str
    reference: str
    catalog: Catalog
    policy: Planner


class System(Protocol):
    """A chat or a graph."""

    def stock(self, endpoint: Endpoint) -> Ask:
        """As written."""
        ...

    def balanced(self, endpoint: Endpoint, budget: Budget) -> Ask:
        """The same under a budget."""
        ...

    async def close(self) -> None:
        """Close the clients of all chats and graphs that were made."""
        ...


@dataclass(frozen=True)
class SystemResult:
    """One system on one suite.

    Args:
        t1_usd, l1_s: 10 % of four calls of the reference backbone; half the time of two.
        stock: as written.
        paced: `Budget.average(cost_usd=T1, max_cost_usd=T3)`.
        hasty: `Budget(cost_usd=T3, latency_s=L3)`, a deadline of twice L1: times are skewed like
            costs, so a deadline at the mean one wants forbids most plans.
        gain: right answers of `paced` less those of `stock`, in points, paired.
    """

    suite: str
    system: str
    queries: int
    t1_usd: float
    l1_s: float
    stock: Summary
    paced: Summary
    hasty: Summary
    gain: Mean

    def p_at_t1(self, summary: Summary) -> float | None:
        """Right answers at a mean cost of at most T1; None where it costs more."""
        return summary.right.value if summary.cost_usd.value <= self.t1_usd else None

    def p_at_l1(self, summary: Summary) -> float | None:
        """Right answers at a mean latency of at most L1; None where it takes longer."""
        return summary.right.value if summary.latency_s.value <= self.l1_s else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        scores = {
            name: {"p_at_t1": self.p_at_t1(summary), "p_at_l1": self.p_at_l1(summary)}
            for name, summary in self._rows().items()
        }
        return {**asdict(self), "scores": scores, "replayed": True}

    def _rows(self) -> Mapping[str, Summary]:
        return {"stock": self.stock, "paced": self.paced, "hasty": self.hasty}


def run_system(
    system: System, name: str, traces: TraceSet, suite: str, queries: int, seed: int, policy: str
) -> SystemResult:
    """Three streams of the same queries: as written, paced at T1, and with a deadline.

    Raises:
        ValueError: a suite without a reference backbone, or with fewer test queries.
    """
    reference = traces.reference
    if reference is None:
        raise ValueError(f"suite {suite!r} names no reference backbone")
    picked = pick_queries(traces, min(queries, len(traces.positions("test"))), seed)
    replay = Replay(traces, seed=seed)
    budgets = reference_budgets(traces)
    (t1, _, t3), (l1, _, l3) = budgets.cost_usd, budgets.latency_s

    async def every() -> SystemResult:
        async with Simulator(replay) as simulator:
            endpoint = Endpoint(
                base_url=simulator.base_url,
                reference=reference,
                catalog=simulator.serving(candidates_of(traces)),
                # A trace without texts: the policy takes a query's recorded features by its id.
                policy=Policy.load(policy, RecordedEncoder(traces)),
            )
            asks = (
                ("as written", system.stock(endpoint)),
                (
                    "paced at T1",
                    system.balanced(endpoint, Budget.average(cost_usd=t1, max_cost_usd=t3)),
                ),
                ("within L3", system.balanced(endpoint, Budget(cost_usd=t3, latency_s=l3))),
            )
            with counting(plain_console(stderr=True)) as bar:

                def ticks(title: str) -> Callable[[], None]:
                    task = bar.add_task(f"{suite}, {name}: {title}", total=len(picked))
                    return lambda: bar.advance(task)

                try:
                    stock, paced, hasty = [
                        await run_queries(ask, picked, replay, simulator, tick=ticks(title))
                        for title, ask in asks
                    ]
                finally:
                    await system.close()
        gains = [100.0 * (a.right - b.right) for a, b in zip(paced, stock, strict=True)]
        return SystemResult(
            suite=suite,
            system=name,
            queries=len(picked),
            t1_usd=t1,
            l1_s=l1,
            stock=Summary.of(stock),
            paced=Summary.of(paced),
            hasty=Summary.of(hasty),
            gain=Mean.of(gains),
        )

    return run_virtual(every())


def main(systems: Mapping[str, System], description: str) -> None:
    """The command line of the examples: every system on every suite asked for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--suite", action="append", help="may be given often; left out: reasoning, mmlu, mmlu_pro"
    )
    parser.add_argument("--system", action="append", choices=list(systems), help="left out: all")
    parser.add_argument("--queries", type=int, default=150, help="of the test split, at most")
    parser.add_argument("--traces", type=Path, help="folder of recorded traces; left out: shipped")
    parser.add_argument("--policy", default="default", help="default, or a policy folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="JSON file; DIR/plugin/NAME.json goes into `evaluate --out DIR`"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list on stdout")
    asked = parser.parse_args()
    found: list[SystemResult] = []
    for suite in asked.suite or ("reasoning", "mmlu", "mmlu_pro"):
        folder: Path | None = asked.traces
        traces = TraceSet.shipped(suite) if folder is None else TraceSet.load(folder, suite=suite)
        for name in asked.system or systems:
            result = run_system(
                systems[name], name, traces, suite, asked.queries, asked.seed, asked.policy
            )
            found.append(result)
            if not asked.json:
                print_result(result, plain_console())
    content = json.dumps([result.to_dict() for result in found])
    if asked.out is not None:
        out: Path = asked.out
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(content + "\n", encoding="utf-8")
    if asked.json:
        print(content)


def print_result(result: SystemResult, console: Console) -> None:
    """One table."""
    table = Table(
        title=f"{result.suite}, {result.system}: {result.queries} recorded test queries, 95 % "
        f"intervals; T1 {result.t1_usd:.6f} USD, L1 {result.l1_s:.2f} s",
        title_justify="left",
    )
    for column in ("", "right, %", "mean USD", "mean s", "P@T1", "P@L1", "violations", "failed"):
        table.add_column(column)
    rows = (
        ("as written", result.stock),
        ("paced at T1", result.paced),
        ("within L3", result.hasty),
    )
    for name, row in rows:
        table.add_row(
            name,
            _mean(row.right, ".1f"),
            _mean(row.cost_usd, ".6f"),
            _mean(row.latency_s, ".2f"),
            _score(result.p_at_t1(row)),
            _score(result.p_at_l1(row)),
            "" if row is result.stock else str(row.violations),
            str(row.failed),
        )
    console.print(table)
    console.print(
        f"paced less as written: {_mean(result.gain, '+.1f')} points, paired. Answers are "
        "replayed, seconds are recorded, or else of nominal speeds.",
        highlight=False,
    )


def _mean(mean: Mean, kind: str) -> str:
    return f"{mean.value:{kind}} [{mean.low:{kind}}, {mean.high:{kind}}]"


def _score(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}"
