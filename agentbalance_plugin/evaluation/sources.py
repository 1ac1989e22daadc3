"""Which of the package's sources a piece of code depends on.

What is kept between runs stays valid while the modules it was made by are as they were: a baseline
knows no policy, so a change to the policy does not throw its trials away.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


@lru_cache(maxsize=64)
def code_digest(modules: Sequence[str]) -> str:
    """Digest of the sources of these modules and of all of this package that they import.

    Args:
        modules: full names, hashable as a whole; of others than this package's nothing is read.
    """
    found = hashlib.sha256()
    for name in sorted(imported(modules)):
        path = _source(name)
        assert path is not None
        found.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def imported(modules: Sequence[str]) -> set[str]:
    """These modules and, all the way down, those of this package that they import anywhere."""
    found: set[str] = set()
    left = list(modules)
    while left:
        name = left.pop()
        if name not in found and _source(name) is not None:
            found.add(name)
            left += _imports(name)
    return found


@lru_cache(maxsize=256)
def _imports(module: str) -> tuple[str, ...]:
    path = _source(module)
    assert path is not None
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # What is imported from a package may be a module itself.
            names += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
    return tuple(names)


def _source(module: str) -> Path | None:
    """The file of a module of this package; None for anything else."""
    package, *parts = module.split(".")
    if package != _PACKAGE.name:
        return None
    path = _PACKAGE.joinpath(*parts)
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)
