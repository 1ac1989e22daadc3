"""Catalog files: CSV tables and YAML lists of backbones."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from agentbalance_plugin.backbone import (
    REASONED_TOKENS,
    USUAL_TOKENS,
    Backbone,
    CatalogError,
    Endpoint,
    Profile,
)

_RECORDED = Path(__file__).resolve().parent / "data" / "profiles.json.gz"
_HIDDEN = "hidden_reasoning_tokens_"
_SPREAD = "output_spread_"
_NUMBERS = {"ttft_s": float, "tokens_per_s": float, "params_b": float}
_COUNTS = {"max_output_tokens": int, "context_tokens": int}
_ENDPOINT = ("model", "base_url", "api_key_env", "output_cap", "component")
_TEXTS = ("reasoning", "price_source", "speed_source", "tokenizer")
# Columns that describe a backbone to people; read by nobody here.
_INFORMATION = frozenset({"base", "provider", "weights", "notes"})
_ALIASES = {"params_total_b": "params_b"}


def read_catalog(path: str | Path) -> tuple[list[Backbone], Path | None]:
    """The backbones of a CSV or YAML file, and the file that tells their kinds of tasks apart
    (CatalogError names file, row, field and value)."""
    path = Path(path)
    if not path.is_file():
        raise CatalogError(
            f"{path}: no such catalog file in {path.absolute().parent}; name the one that lists "
            "your backbones (docs/catalog.md says what goes into it)"
        )
    content: Any = None
    try:
        if _is_table(path):
            rows = list(_csv_rows(path))
        else:
            content = _yaml(path)
            rows = list(_yaml_rows(path, content))
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path}: can't be read as UTF-8 text: {error}") from error
    if not rows:
        raise CatalogError(f"{path}: the catalog is empty; it needs at least one backbone")
    backbones: list[Backbone] = []
    seen: dict[str, str] = {}
    for where, row in rows:
        backbone = _backbone(f"{path}, {where}", row)
        if backbone.name in seen:
            raise CatalogError(
                f"{path}, {where}: backbone {backbone.name!r} is already in {seen[backbone.name]}"
            )
        seen[backbone.name] = where
        backbones.append(backbone)
    return backbones, _kinds(path, content)


def catalog_text(
    path: str | Path, found: Mapping[str, Mapping[str, Any]], kinds: str | None = None
) -> str:
    """Entries of a CSV or YAML file as YAML, with further fields.

    Args:
        path: as in `read_catalog`, which has read it.
        found: backbone -> fields, which take the place of those that are there; others are left
            out.
        kinds: name of the file beside it that tells their kinds of tasks apart.
    """
    import yaml

    path = Path(path)
    rows = [row for _, row in _rows(path)]
    entries = [{**row, **found[name]} for row in rows if (name := str(row["backbone"])) in found]
    head = {} if kinds is None else {"kinds": kinds}
    return yaml.safe_dump(
        {**head, "backbones": entries}, sort_keys=False, allow_unicode=True, default_flow_style=None
    )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    return _csv_rows(path) if _is_table(path) else _yaml_rows(path, _yaml(path))


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # Spreadsheets put a byte order mark before the first column's name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in (reader := csv.DictReader(file)):
            if None in row:
                raise CatalogError(
                    f"{path}, line {reader.line_num}: more cells than the header has columns"
                )
            yield f"line {reader.line_num}", {k: v for k, v in row.items() if v not in ("", None)}


def _kinds(path: Path, content: Any) -> Path | None:
    if not isinstance(content, dict):
        return None
    name = cast("dict[str, Any]", content).get("kinds")
    if name is None:
        return None
    if not isinstance(name, str) or not (path.parent / name).is_file():
        raise CatalogError(
            f"{path}, kinds: no such file: {name!r}; agentbalance record writes it beside the "
            "catalog, and without the line all tasks are taken to be of one kind"
        )
    return path.parent / name


def _yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CatalogError(f"{path}: not valid YAML: {error}") from error


def _yaml_rows(path: Path, content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    entries: Any = (
        cast("dict[str, Any]", content).get("backbones") if isinstance(content, dict) else content
    )
    if not isinstance(entries, list):
        raise CatalogError(f"{path}: expected a list of backbones under the key 'backbones'")
    for number, entry in enumerate(cast("list[Any]", entries), start=1):
        if not isinstance(entry, dict):
            raise CatalogError(f"{path}, entry {number}: expected fields, got {entry!r}")
        yield f"entry {number}", cast("dict[str, Any]", entry)


def _backbone(where: str, row: Mapping[str, Any]) -> Backbone:
    fields: dict[str, Any] = {}
    endpoint: dict[str, Any] = {}
    hidden: dict[str, int] = {}
    spread: dict[str, float] = {}
    where = f"{where} ({row.get('backbone', 'unnamed')})"
    for raw_key, value in row.items():
        # YAML keys may be numbers.
        key = _ALIASES.get(raw_key, str(raw_key))
        if value is None or key in _INFORMATION:
            continue
        if key == "backbone":
            fields["name"] = str(value)
        elif key in ("price_in_usd_per_mtok", "price_out_usd_per_mtok"):
            fields[key] = _decimal(where, raw_key, value)
        elif key in _NUMBERS or key in _COUNTS:
            fields[key] = _number(where, raw_key, value, whole=key in _COUNTS)
        elif key in _TEXTS:
            # YAML 1.1 reads a bare yes or no as a boolean.
            fields[key] = "yes" if value is True else "no" if value is False else str(value)
        elif key == "capabilities":
            fields[key] = _capabilities(where, value)
        elif key.startswith(_HIDDEN):
            hidden[key.removeprefix(_HIDDEN)] = int(_number(where, raw_key, value, whole=True))
        elif key.startswith(_SPREAD):
            spread[key.removeprefix(_SPREAD)] = _number(where, raw_key, value, whole=False)
        elif key in _ENDPOINT:
            endpoint[key] = value
        elif key == "profile":
            fields[key] = _profile(where, value)
        else:
            if key.lower().endswith(("key", "token", "secret", "password")):
                # It may be the key itself, and messages go into logs.
                raise CatalogError(
                    f"{where}: unknown field {raw_key!r} (value not shown); name the environment "
                    "variable that holds the key in api_key_env"
                )
            raise CatalogError(f"{where}: unknown field {raw_key!r} (value {value!r})")
    for key in ("price_in_usd_per_mtok", "price_out_usd_per_mtok"):
        if key not in fields:
            raise CatalogError(f"{where}: {key} is missing; an unpriced backbone can't be budgeted")
    if "name" not in fields:
        raise CatalogError(f"{where}: backbone (the name) is missing")
    try:
        if endpoint:
            fields["endpoint"] = Endpoint(**endpoint)
        return Backbone(hidden_tokens=hidden, output_spread=spread, **fields)
    except ValueError as error:
        raise CatalogError(f"{where}: {error}") from error


def _decimal(where: str, key: str, value: Any) -> Decimal:
    try:
        # str() first: Decimal(0.1) would carry the binary representation.
        return Decimal(str(value))
    except InvalidOperation:
        raise CatalogError(f"{where}: {key} must be a number, got {value!r}") from None


def _number(where: str, key: str, value: Any, *, whole: bool) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
        if whole and number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        kind = "a whole number" if whole else "a number"
        raise CatalogError(f"{where}: {key} must be {kind}, got {value!r}") from None
    return int(number) if whole else number


def _capabilities(where: str, value: Any) -> frozenset[str]:
    """A YAML list, or one CSV cell with the capabilities separated by spaces or `|`."""
    if isinstance(value, str):
        return frozenset(value.replace("|", " ").split())
    if isinstance(value, list):
        return frozenset(str(item) for item in cast("list[Any]", value))
    raise CatalogError(f"{where}: capabilities must be a list, got {value!r}")


def _profile(where: str, value: Any) -> Profile:
    names: list[Any] = [value] if isinstance(value, str) else value
    if isinstance(names, list):
        return _recorded_profile(where, names)
    if not isinstance(value, dict):
        raise CatalogError(
            f"{where}: profile must be a mapping, or names of recorded backbones, got {value!r}"
        )
    try:
        return Profile(**cast("dict[str, Any]", value))
    except (TypeError, ValueError) as error:
        raise CatalogError(f"{where}: profile: {error}") from error


def _recorded_profile(where: str, names: list[Any]) -> Profile:
    """What the shipped traces say of recorded backbones, later ones first where several do.

    How right they are is theirs; how long they write depends on what they are asked for. Some
    benchmarks were answered by a letter, and where the longest replies begin was measured on
    those prompts alone.
    """
    recorded = _recorded_profiles()
    if not names:
        raise CatalogError(f"{where}: profile names no recorded backbone; leave the field out")
    parts: dict[str, dict[str, Any]] = {}
    for name in names:
        if not isinstance(name, str) or name not in recorded:
            near = get_close_matches(str(name), recorded, n=3, cutoff=0.4) or sorted(recorded)
            raise CatalogError(
                f"{where}: profile: no recorded backbone {name!r}; there are {', '.join(near)}"
            )
        for field, values in recorded[name].items():
            if field != "cuts":
                parts.setdefault(field, {}).update(values)
    lengths = parts.get("visible_tokens", {})
    reasoned = [tokens for tokens in lengths.values() if tokens >= REASONED_TOKENS]
    usual = fmean(reasoned) if reasoned else USUAL_TOKENS
    parts["visible_tokens"] = {
        kind: tokens if tokens >= REASONED_TOKENS else usual for kind, tokens in lengths.items()
    }
    return Profile(**parts)


@cache
def _recorded_profiles() -> dict[str, dict[str, Any]]:
    return json.loads(gzip.decompress(_RECORDED.read_bytes()))
