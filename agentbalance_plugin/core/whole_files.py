"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def put(path: Path, content: str | bytes) -> None:
    """Write a file in one go: whoever reads it meanwhile, or after a kill, finds the old one or the
    new one, and other processes may write it too."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    beside.replace(path)
