"""Results of a study as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentbalance_plugin.evaluation.results import AxisResult, SuiteResult
from agentbalance_plugin.evaluation.trials import AXES, Axis

SIGN: dict[Axis, str] = {"cost": "T", "latency": "L"}
UNIT: dict[Axis, str] = {"cost": "USD", "latency": "s"}


def suite_tables(result: SuiteResult) -> str:
    """One table per axis, every method a row, as they came."""
    return "\n\n".join(axis_table(result, axis) for axis in AXES) + "\n"


def axis_table(result: SuiteResult, axis: Axis) -> str:
    """Right answers at each budget, AUC with its interval, difference to the best baseline."""
    sign, unit = SIGN[axis], UNIT[axis]
    budgets = [
        f"P@{sign}{number} ({budget:.3g} {unit})"
        for number, budget in enumerate(result.budgets[axis], start=1)
    ]
    best = result.best_baseline[axis]
    header = [f"{result.suite}, by {axis}", *budgets, "AUC", "95 %", "less the best baseline"]
    rows: list[list[str]] = []
    for method in result.methods:
        found = method.axes[axis]
        rows.append(
            [
                f"**{method.name}**" if method.family == "agentbalance" else method.name,
                *(number(share) for share in found.performance),
                f"{found.auc:.1f} ± {found.auc_sd:.1f}",
                f"{found.auc_ci[0]:.1f} to {found.auc_ci[1]:.1f}",
                "best on val" if method.name == best else difference(found),
            ]
        )
    return table(header, rows)


def difference(found: AxisResult) -> str:
    """The interval of the difference to the best baseline."""
    interval = found.diff_to_best_baseline_ci
    return "—" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"


def number(share: float) -> str:
    """Percent, or a dash where nothing fits."""
    return "—" if math.isnan(share) else f"{share:.1f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
