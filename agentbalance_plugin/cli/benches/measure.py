"""What all measurements share: paired runs, medians and spread, one table, one JSON object.

Machines are noisy and shared. What is compared runs in turns, in a new random order each round, and
a ratio is the median over the rounds of the ratio within a round, so that a slow minute hits both
sides alike.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from agentbalance_plugin.cli.progress import counting

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Figure:
    """A quantity, measured several times.

    Args:
        values: at least one.
        unit: of the values.
    """

    values: Sequence[float]
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; `low` and `high` are the quartiles."""
        low, median, high, p99 = np.percentile(self.values, [25, 50, 75, 99]).tolist()
        return {
            "unit": self.unit,
            "median": median,
            "low": low,
            "high": high,
            "p99": p99,
            "runs": len(self.values),
        }


@dataclass(frozen=True)
class Ratio:
    """A comparison, one value per round.

    Args:
        values: at least one.
        bar: what its median should be; None for a ratio that is shown for what it is.
        better: on which side of the bar it should be.
    """

    values: Sequence[float]
    bar: float | None = None
    better: Literal["below", "above"] = "below"

    @property
    def holds(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.bar is None:
            return None
        median = float(np.median(self.values))
        return median <= self.bar if self.better == "below" else median >= self.bar

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; `low` and `high` are the quartiles."""
        low, median, high = np.percentile(self.values, [25, 50, 75]).tolist()
        found: dict[str, Any] = {"median": median, "low": low, "high": high}
        if self.bar is not None:
            found |= {"bar": self.bar, "better": self.better, "holds": self.holds}
        return found


@dataclass
class Findings:
    """What one measurement found.

    Args:
        name: of the measurement.
        figures: by what they measure.
        ratios: by what they compare.
        notes: what a reader has to know to read them.
    """

    name: str
    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])
    ratios: dict[str, Ratio] = field(default_factory=dict[str, Ratio])
    notes: list[str] = field(default_factory=list[str])

    def compare(
        self,
        label: str,
        over: Sequence[float],
        under: Sequence[float],
        *,
        bar: float | None = None,
        better: Literal["below", "above"] = "below",
    ) -> None:
        """Add the ratio of two measurements that were made in the same rounds."""
        values = [a / b for a, b in zip(over, under, strict=True)]
        self.ratios[label] = Ratio(values, bar, better)

    def add_spans(self, label: str, spans: Sequence[Span]) -> None:
        """Add how long something took, in milliseconds."""
        self.figures[label] = Figure([1e3 * span.wall for span in spans], "ms")
        self.figures[f"{label}, processor"] = Figure([1e3 * span.busy for span in spans], "ms")

    def compare_spans(
        self, label: str, over: Sequence[Span], under: Sequence[Span], *, bar: float | None = None
    ) -> None:
        """Compare by the clock and by processor time, which other processes do not blur."""
        self.compare(label, [s.wall for s in over], [s.wall for s in under], bar=bar)
        busy = [s.busy for s in over], [s.busy for s in under]
        self.compare(f"{label}, processor", *busy, bar=bar)

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        found: dict[str, Any] = {
            "name": self.name,
            "figures": {label: figure.to_dict() for label, figure in self.figures.items()},
            "ratios": {label: ratio.to_dict() for label, ratio in self.ratios.items()},
        }
        return found | ({"notes": self.notes} if self.notes else {})


class Span(NamedTuple):
    """How long something took, per run.

    Args:
        wall: seconds by the clock, those that other processes took included.
        busy: seconds of processor time of this process.
    """

    wall: float
    busy: float


def timed(work: Callable[[], object], times: int = 1) -> Span:
    """The mean over some calls in a row."""
    began, busy = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    return Span((time.perf_counter() - began) / times, (time.process_time() - busy) / times)


async def timed_async(work: Callable[[], Awaitable[object]], times: int = 1) -> Span:
    """`timed` for what is awaited."""
    began, busy = time.perf_counter(), time.process_time()
    for _ in range(times):
        await work()
    return Span((time.perf_counter() - began) / times, (time.process_time() - busy) / times)


def in_turns(
    ways: Mapping[str, Callable[[], Measured]],
    rounds: int,
    console: Console,
    *,
    title: str,
    seed: int = 0,
) -> dict[str, list[Measured]]:
    """Measure several ways in turns.

    Args:
        ways: each returns what it measured; called once more than `rounds`, to warm up.
        rounds: how often each counts.
        console: shows the progress.
        title: of the progress.
        seed: of the order within the rounds.

    Returns:
        per way, one value per round.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    with counting(console) as progress:
        for _ in progress.track(range(rounds + 1), description=title):
            for name in rng.permutation(list(ways)).tolist():
                found[name].append(ways[name]())
    return {name: values[1:] for name, values in found.items()}


async def in_turns_async(
    ways: Mapping[str, Callable[[], Awaitable[Measured]]],
    rounds: int,
    console: Console,
    *,
    title: str,
    seed: int = 0,
) -> dict[str, list[Measured]]:
    """`in_turns` for ways that are awaited."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    with counting(console) as progress:
        for _ in progress.track(range(rounds + 1), description=title):
            for name in rng.permutation(list(ways)).tolist():
                found[name].append(await ways[name]())
    return {name: values[1:] for name, values in found.items()}


def print_findings(findings: Findings, console: Console) -> None:
    """Figures and ratios as tables, notes below."""
    if findings.figures:
        table = Table(title=f"{findings.name}: figures", title_justify="left")
        table.add_column("what")
        for column in ("median", "quartiles", "p99", "runs"):
            table.add_column(column, justify="right")
        for label, figure in findings.figures.items():
            row = figure.to_dict()
            table.add_row(
                label,
                f"{short(row['median'])} {figure.unit}",
                f"{short(row['low'])} to {short(row['high'])}",
                short(row["p99"]),
                str(row["runs"]),
            )
        console.print(table)
    if findings.ratios:
        table = Table(title=f"{findings.name}: ratios", title_justify="left")
        table.add_column("what")
        for column in ("median", "quartiles", "bar"):
            table.add_column(column, justify="right")
        for label, ratio in findings.ratios.items():
            row = ratio.to_dict()
            table.add_row(
                label,
                short(row["median"]),
                f"{short(row['low'])} to {short(row['high'])}",
                bar_text(ratio),
            )
        console.print(table)
    for note in findings.notes:
        console.print(note)


def bar_text(ratio: Ratio) -> str:
    """The bar and whether it holds, as words; empty without one."""
    if ratio.bar is None:
        return ""
    sign = "≤" if ratio.better == "below" else "≥"
    return f"{sign} {short(ratio.bar)} {'holds' if ratio.holds else 'missed'}"


def short(value: float) -> str:
    """Three significant digits, more for large whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
