"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random draw.")]
Traces = Annotated[
    Path | None, typer.Option(help="Folder of recorded traces; left out: the shipped figures.")
]


def check_mean(option: str, mean_usd: float | None, cap_option: str, cap_usd: float | None) -> None:
    """Refuse a mean above the hard cap in the words of the command line (ValueError)."""
    if mean_usd is not None and cap_usd is not None and mean_usd > cap_usd:
        raise ValueError(
            f"{option} {mean_usd:g} is above {cap_option} {cap_usd:g}, which no task may pass; "
            f"raise {cap_option} or lower {option}"
        )
