"""Where commands print, and the folders they write into."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile

from rich.console import Console

_WIDE = 160


def plain_console(*, stderr: bool = False) -> Console:
    """Names are the user's, and shown as they are: no markup or emoji is read out of them."""
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # A file has no edge; in 80 columns, which are assumed for it, figures are cut off.
        console.width = _WIDE
    return console


def check_writable(folder: Path) -> None:
    """Make the folder, and fail before the work whose results it is for.

    Raises:
        ValueError: it can't be made or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--out {folder}: can't be written into: {error.strerror}; name another folder"
        ) from error
