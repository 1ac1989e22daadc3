"""Figures that all studies draw alike (extra `report`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentbalance_plugin.extras import require


def new_figure(columns: int, width: float = 4.6, height: float = 3.6) -> tuple[Any, list[Any]]:
    """(a figure, its axes side by side)."""
    require("matplotlib", extra="report")
    figures = require("matplotlib.figure", extra="report")
    figure = figures.Figure(figsize=(width * columns, height), layout="constrained")
    axes: list[Any] = list(figure.subplots(1, columns, squeeze=False)[0])
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
        # A logarithmic axis over less than two decades labels its minor ticks, side by side.
        each.tick_params(axis="x", which="both", labelrotation=45, labelsize=8)
    return figure, axes


def save_figure(figure: Any, folder: Path, name: str) -> list[Path]:
    """As PNG and SVG."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        # Without a date two runs write the same bytes.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, metadata=metadata)
    return paths
