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
