"""Plans as PNG or SVG pictures (extra `report`)."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentbalance_plugin.extras import require
from agentbalance_plugin.plan import Plan

FORMATS = (".png", ".svg")

_TASK, _ANSWER = "task", "answer"
_FILLS = {
    "done": "#cfe8cf",
    "closed": "#eeeeee",
    "skipped": "#f6d9b8",
    "failed": "#f2c4c4",
}
_PLANNED = "#dbe7f5"


def draw(plan: Plan, path: str | Path, status: Mapping[str, str] | None = None) -> None:
    """Draw a valid plan: hops from left to right, messages as arrows, late gates dashed.

    Args:
        path: ends in .png or .svg.
        status: agent -> its status in a run, shown as its colour.

    Raises:
        ValueError: another kind of file.
        ImportError: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"path: a picture ends in {' or '.join(FORMATS)}, got {str(path)!r}")
    require("matplotlib", extra="report")
    figures = require("matplotlib.figure", extra="report")
    layers = _layers(plan)
    spots = _spots(layers)
    width = 1.2 + 2.4 * len(layers)
    height = 0.9 + 1.1 * max(len(layer) for layer in layers)
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    axes: Any = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_ylim(-max(len(layer) for layer in layers) / 2 - 0.1,
                  max(len(layer) for layer in layers) / 2 + 0.1)  # fmt: skip
    boxes: dict[str, Any] = {}
    for name, spot in spots.items():
        fill = "white"
        if name in plan.assignment:
            fill = _FILLS.get((status or {}).get(name, ""), _PLANNED)
        boxes[name] = _box(axes, spot, _label(plan, name), fill, gated=name in plan.late_gates)
    # Boxes have a size only when they have been drawn; arrows end at their edges.
    figure.draw_without_rendering()
    for start, end, dashed, label in _arrows(plan):
        _arrow(axes, boxes[start], boxes[end], spots[start], spots[end], dashed, label)
    if plan.expected is not None:
        expected = plan.expected
        axes.set_title(
            f"expected: {expected.success:.0%} right, {expected.cost_usd:.6f} USD, "
            f"{expected.latency_s:.1f} s",
            fontsize=9,
        )
    figure.savefig(path, dpi=150)


def _layers(plan: Plan) -> list[list[str]]:
    """Agents by hop, between the task and the answer."""
    sorter = graphlib.TopologicalSorter({name: plan.waits_for(name) for name in plan.assignment})
    sorter.prepare()
    hops: list[list[str]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        hops.append(sorted(ready, key=list(plan.assignment).index))
        sorter.done(*ready)
    return [[_TASK], *hops, [_ANSWER]]


def _spots(layers: list[list[str]]) -> dict[str, tuple[float, float]]:
    return {
        name: (float(x), (len(layer) - 1) / 2 - y)
        for x, layer in enumerate(layers)
        for y, name in enumerate(layer)
    }


def _arrows(plan: Plan) -> list[tuple[str, str, bool, str]]:
    """(start, end, dashed, label)"""
    arrows = [(_TASK, name, False, "") for name in plan.assignment if not plan.waits_for(name)]
    arrows += [(speaker, listener, False, "") for speaker, listener in plan.edges]
    for name, gate in plan.late_gates.items():
        label = f"agreement < {gate.threshold:.2f}"
        for number, watched in enumerate(gate.watches):
            arrows.append((watched, name, True, "" if number else label))
    # Everyone who speaks votes; arrows from the last of them alone keep the picture clear.
    waited_for = {before for name in plan.assignment for before in plan.waits_for(name)}
    last = [name for name in plan.assignment if name not in waited_for]
    deciding = [plan.decider] if plan.decision == "agent" and plan.decider else last
    arrows += [(name, _ANSWER, False, "") for name in deciding]
    return arrows


def _arrow(
    axes: Any,
    box: Any,
    target: Any,
    start: tuple[float, float],
    end: tuple[float, float],
    dashed: bool,
    label: str,
) -> None:
    # Arrows over more than one hop bend, so that they do not run through the boxes between.
    bend = 0.0 if end[0] - start[0] < 1.5 else (-0.3 if start[1] > 0 else 0.3)
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        zorder=1,
        arrowprops={
            "arrowstyle": "-|>",
            "linestyle": "--" if dashed else "-",
            "color": "#777777",
            "patchA": box.get_bbox_patch(),
            "patchB": target.get_bbox_patch(),
            "shrinkA": 1,
            "shrinkB": 1,
            "connectionstyle": f"arc3,rad={bend}",
        },
    )
    if label:
        axes.text(end[0], end[1] + 0.3, label, ha="center", fontsize=6, color="#777777")


def _box(axes: Any, spot: tuple[float, float], label: str, fill: str, *, gated: bool) -> Any:
    return axes.text(
        *spot,
        label,
        ha="center",
        va="center",
        fontsize=7,
        zorder=2,
        bbox={
            "boxstyle": "round,pad=0.5",
            "facecolor": fill,
            "edgecolor": "#444444",
            "linestyle": "--" if gated else "-",
        },
    )


def _label(plan: Plan, name: str) -> str:
    if name == _ANSWER and plan.decision == "vote":
        return "vote"
    backbone = plan.assignment.get(name)
    if not backbone:
        return name
    # Names of backbones are long; a box is not.
    short = backbone if len(backbone) <= 22 else backbone[:21] + "…"
    return f"{name}\n{short}"
