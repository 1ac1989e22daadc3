"""Performance against cost and against latency as pictures (extra `report`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentbalance_plugin.evaluation.results import MethodResult, SuiteResult
from agentbalance_plugin.evaluation.trials import AXES, Axis
from agentbalance_plugin.extras import require

_LABEL = {"cost": "mean US dollars per query", "latency": "mean seconds per query"}
_COLOURS = ("#0b6e4f", "#d1495b", "#30638e", "#edae49", "#6c4f94", "#8f8f8f", "#7a4a21")


def draw_suite(result: SuiteResult, folder: Path) -> list[Path]:
    """Write `cost` and `latency` as PNG and SVG: log axis, 95 % bands, the budgets marked.

    Drawn are the policies, the best baseline, and the best of each family.

    Raises:
        ImportError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="report")
    figures = require("matplotlib.figure", extra="report")
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    # Ids of an SVG's parts are random by default: two runs shall give one file.
    with matplotlib.rc_context({"svg.hashsalt": "agentbalance"}):
        for axis in AXES:
            figure = figures.Figure(figsize=(7.0, 4.6), layout="constrained")
            _draw(figure.add_subplot(), result, axis)
            for ending in ("png", "svg"):
                path = folder / f"{axis}.{ending}"
                metadata = {"Date": None} if ending == "svg" else None
                figure.savefig(path, dpi=150, metadata=metadata)
                paths.append(path)
    return paths


def _draw(axes: Any, result: SuiteResult, axis: Axis) -> None:
    for method, colour in zip(shown(result, axis), _COLOURS * 3, strict=False):
        curve = method.axes[axis].curve
        ours = method.family == "agentbalance"
        axes.plot(
            curve.budget,
            curve.right,
            label=method.name,
            color=colour,
            linewidth=2.2 if ours else 1.3,
            linestyle="--" if method.family == "oracle" else "-",
        )
        axes.fill_between(
            curve.budget, curve.lower, curve.upper, color=colour, alpha=0.18 if ours else 0.08
        )
    for budget in result.budgets[axis]:
        axes.axvline(budget, color="#bbbbbb", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel(_LABEL[axis])
    axes.set_ylabel("right answers, %")
    axes.set_title(f"{result.suite}, {result.split}, replayed", fontsize=10)
    axes.legend(fontsize=7, loc="lower right")


def shown(result: SuiteResult, axis: Axis) -> list[MethodResult]:
    """The policies, then the method of each family that is best on val, the best first."""
    ours = [method for method in result.methods if method.family == "agentbalance"]
    best: dict[str, MethodResult] = {}
    for method in result.methods:
        rival = best.get(method.family)
        if method.family in ("agentbalance", "ablation"):
            continue
        if rival is None or method.axes[axis].auc_val > rival.axes[axis].auc_val:
            best[method.family] = method
    return ours + sorted(best.values(), key=lambda method: -method.axes[axis].auc_val)
