"""Reading suites.yaml: which benchmarks and backbones belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentbalance_plugin.core.trace_files import TraceError


@dataclass(frozen=True)
class Suite:
    """One entry of suites.yaml."""

    benchmarks: tuple[str, ...]
    reference: str | None
    candidates: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def backbones(self) -> tuple[str, ...]:
        """Everyone the suite names, once."""
        reference = () if self.reference is None else (self.reference,)
        return tuple(dict.fromkeys((*self.candidates, *self.unseen, *reference)))


def read_suites(path: Path) -> dict[str, Suite]:
    """The suites of a suites.yaml; {} when the file does not exist.

    Raises:
        TraceError: the file is no mapping of suites, or a suite lacks a list or contradicts itself.
    """
    import yaml

    if not path.is_file():
        return {}
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise TraceError(f"{path}: expected suite names with their fields, got {content!r}")
    suites: dict[str, Suite] = {}
    for name, fields in cast("dict[Any, Any]", content).items():
        if not isinstance(fields, dict) or "benchmarks" not in fields:
            raise TraceError(f"{path}: suite {name!r} needs a list 'benchmarks', got {fields!r}")
        entry = cast("dict[str, Any]", fields)
        if not entry.get("candidates"):
            raise TraceError(
                f"{path}: suite {name!r} needs a list 'candidates', the backbones that plans may "
                f"use; it has {', '.join(map(str, entry))}"
            )
        reference: Any = entry.get("reference")
        candidates = _names(path, name, "candidates", entry)
        unseen = _names(path, name, "unseen", entry)
        if both := [backbone for backbone in unseen if backbone in candidates]:
            raise TraceError(
                f"{path}: suite {name!r} lists {both} as candidates and as unseen; training sees "
                "the candidates, so take them out of one of the two"
            )
        suites[str(name)] = Suite(
            benchmarks=_names(path, name, "benchmarks", entry),
            reference=None if reference is None else str(reference),
            candidates=candidates,
            unseen=unseen,
        )
    return suites


def suites_text(suites: Mapping[str, Suite]) -> str:
    """A suites.yaml, as `read_suites` reads it."""
    import yaml

    content = {
        name: {
            "benchmarks": list(suite.benchmarks),
            "reference": suite.reference,
            "candidates": list(suite.candidates),
            "unseen": list(suite.unseen),
        }
        for name, suite in suites.items()
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _names(path: Path, suite: Any, field: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    value: Any = entry.get(field) or []
    if not isinstance(value, list):
        raise TraceError(f"{path}: suite {suite!r}: {field} must be a list, got {value!r}")
    # Who is named twice counts once.
    return tuple(dict.fromkeys(str(name) for name in cast("list[Any]", value)))
