"""The one progress bar of all commands."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


def counting(console: Console, *more: ProgressColumn, transient: bool = True) -> Progress:
    """Counts what is done of each task, with the time it took.

    Args:
        more: further columns.
        transient: whether the bars vanish at the end.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *more,
        console=console,
        transient=transient,
    )
