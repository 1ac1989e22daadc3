"""The evaluation as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.evaluate import Score, evaluate
from agentbalance_plugin.evaluation.trials import (
    Axis,
    CategoryTable,
    Method,
    PolicyMethod,
    SingleBackbones,
)


def run_evaluation(
    *, traces: Path | None, suite: str, policy: str, split: str, seed: int, console: Console
) -> list[Score]:
    """Score the policy and the simple baselines on a split."""
    loaded = TraceSet.shipped(suite) if traces is None else TraceSet.load(traces, suite=suite)
    replay = Replay(loaded, seed=seed)
    methods: list[Method] = [
        SingleBackbones(),
        CategoryTable(),
        PolicyMethod(Policy.load(policy, RecordedEncoder(loaded)), loaded.profiled_candidates()),
    ]
    with counting(console) as bar:

        def watch(method: str, axis: Axis, part: str) -> Callable[[], None]:
            task = bar.add_task(f"{axis}: {method}, {part}", total=len(loaded.positions(part)))
            return lambda: bar.advance(task)

        return evaluate(replay, methods, split=split, progress=watch)


def print_scores(scores: list[Score], suite: str, split: str, console: Console) -> None:
    """One table for each axis."""
    for axis, unit, name in (("cost", "USD", "T"), ("latency", "s", "L")):
        rows = [score for score in scores if score.axis == axis]
        table = Table(title=f"{suite}, {split}: right answers by mean {axis}", title_justify="left")
        table.add_column("method")
        for number, budget in enumerate(rows[0].budgets, start=1):
            table.add_column(f"P@{name}{number} {budget:.2g} {unit}", justify="right")
        table.add_column("AUC", justify="right")
        table.add_column("- single", justify="right")
        for row in rows:
            shares = [f"{share:.1f}" if share == share else "-" for share in row.performance]
            lower, upper = row.difference
            table.add_row(row.method, *shares, f"{row.auc:.1f}", f"{lower:+.1f} to {upper:+.1f}")
        console.print(table)
    console.print(
        "Answers are replayed from recorded ones; latency is nominal. Which points count is chosen "
        "on val; intervals are 95 %, paired over queries.",
        highlight=False,
    )
