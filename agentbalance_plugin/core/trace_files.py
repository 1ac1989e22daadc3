"""Reading the trace format: queries and responses, with errors that name the place."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.encoder import FEATURE_BUCKETS, hash_features
from agentbalance_plugin.extras import require

IntArray = NDArray[np.int32]

# The benchmark on which the empty string is an answer (code that returns ''); elsewhere it means
# that none was found.
_EMPTY_IS_AN_ANSWER = frozenset({"crux"})

# What the arrays that hold them can: more would wrap around without a word.
_MOST = int(np.iinfo(np.int32).max)

_COLUMNS = (
    "query_id",
    "backbone",
    "sample",
    "answer",
    "correct",
    "prompt_tokens",
    "completion_tokens",
)


class TraceError(ValueError):
    """A trace folder that can't be used; the message names file, column or row, and value."""


@dataclass(frozen=True)
class Query:
    """One recorded question.

    Args:
        key: "benchmark/query_id", unique over benchmarks.
        benchmark: the folder it comes from.
        category: "benchmark/category", or the benchmark's name where there are no categories.
        split: train, val, test, or whatever the folder says.
        question: the text a policy reads: the question and one line per option; None where it may
            not be shown.
        features: the recorded `hash_features` of that text; None where the folder has none.
    """

    key: str
    benchmark: str
    category: str
    split: str
    question: str | None = None
    features: IntArray | None = None

    @property
    def ngrams(self) -> IntArray:
        """[n] `hash_features` of its text, recorded or made; none where neither is there."""
        return hash_features(self.question or "") if self.features is None else self.features


@dataclass(frozen=True)
class Responses:
    """The rows of a responses.parquet as flat arrays of one length.

    Args:
        query, backbone: positions in the lists given to `read_responses`.
        sample: rank of the repeat within its (query, backbone), from 0.
        answer: code of the answer within the file; -1 where there is none.
        correct: 0 or 1.
        prompt_tokens, completion_tokens: as recorded.
        latency_s: measured seconds, nan where not measured; None without such a column.
    """

    query: NDArray[np.int64]
    backbone: NDArray[np.int64]
    sample: NDArray[np.int64]
    answer: NDArray[np.int64]
    correct: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    completion_tokens: NDArray[np.int64]
    latency_s: NDArray[np.float64] | None


def read_queries(path: Path, benchmark: str) -> list[Query]:
    """The queries of a queries.jsonl.gz, in the file's order.

    Raises:
        TraceError: naming line and field.
    """
    if not path.is_file():
        raise TraceError(f"{path}: no such file")
    queries: list[Query] = []
    seen: dict[str, int] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    query = _query(f"{path}, line {number}", line, benchmark)
                    if query.key in seen:
                        raise TraceError(
                            f"{path}, line {number}: query_id "
                            f"{query.key.removeprefix(f'{benchmark}/')!r} is already in "
                            f"line {seen[query.key]}"
                        )
                    seen[query.key] = number
                    queries.append(query)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise TraceError(f"{path}: can't be read as gzipped UTF-8 text: {error}") from error
    if not queries:
        raise TraceError(f"{path}: holds no queries")
    return queries


def fields_of(where: str, line: str) -> dict[str, Any]:
    """The fields of a line of JSON (TraceError: it holds none)."""
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise TraceError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(entry, dict):
        raise TraceError(f"{where}: expected fields, got {entry!r}")
    return cast("dict[str, Any]", entry)


def check_present(where: str, fields: Mapping[str, Any], needed: Sequence[str]) -> None:
    """TraceError for a field that is missing or empty."""
    for field in needed:
        if fields.get(field) in (None, ""):
            there = ", ".join(map(str, fields)) or "none"
            raise TraceError(f"{where}: field {field!r} is missing; there are {there}")


def _query(where: str, line: str, benchmark: str) -> Query:
    fields = fields_of(where, line)
    check_present(where, fields, ("query_id", "split"))
    named = (fields.get("category"), fields.get("domain"))
    # Labels may be numbers, of which 0 is one.
    category = next((str(name) for name in named if name not in (None, "")), "")
    return Query(
        key=f"{benchmark}/{fields['query_id']}",
        benchmark=benchmark,
        category=f"{benchmark}/{category}" if category else benchmark,
        split=str(fields["split"]),
        question=_text(where, fields),
        features=_features(where, fields.get("features")),
    )


def _text(where: str, fields: Mapping[str, Any]) -> str | None:
    question: Any = fields.get("question")
    if question is None:
        return None
    options: Any = fields.get("options") or []
    if not isinstance(options, list):
        raise TraceError(f"{where}: options must be a list, got {options!r}")
    lines = [str(question)]
    for number, option in enumerate(cast("list[Any]", options)):
        lines.append(f"{chr(ord('A') + number)}. {option}")
    return "\n".join(lines)


def pack_features(ids: IntArray) -> str:
    """Sorted ids as text: their differences as variable-length bytes, in base64."""
    packed = bytearray()
    for gap in np.diff(ids, prepend=0).tolist():
        for shift in (14, 7):
            if gap >> shift:
                packed.append(0x80 | gap >> shift & 0x7F)
        packed.append(gap & 0x7F)
    return base64.b64encode(bytes(packed)).decode("ascii")


def _features(where: str, value: Any) -> IntArray | None:
    if value is None:
        return None
    try:
        packed = base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise TraceError(f"{where}: features must be base64, got {value!r}") from error
    gaps: list[int] = []
    high = 0
    for byte in packed:
        if byte & 0x80:
            high = (high | byte & 0x7F) << 7
        else:
            gaps.append(high | byte)
            high = 0
    ids = np.cumsum(np.array(gaps, dtype=np.int64))
    truncated = packed[-1:] >= b"\x80"
    if truncated or (len(ids) and (ids[-1] >= FEATURE_BUCKETS or min(gaps[1:], default=1) < 1)):
        raise TraceError(f"{where}: features are no sorted ids below {FEATURE_BUCKETS}: {value!r}")
    return ids.astype(np.int32)


def recorded_backbones(path: Path) -> list[str]:
    """The names in the column `backbone` of a responses.parquet, sorted."""
    return sorted(set(_strings(path, _table(path), "backbone")[1]))


def read_responses(
    path: Path, query_ids: Sequence[str], backbones: Sequence[str], benchmark: str
) -> Responses:
    """The rows of a responses.parquet that belong to the given backbones, in a canonical order.

    Args:
        path: the file.
        query_ids: every id that may occur, in the order to which `Responses.query` refers.
        backbones: rows of other backbones are left out.
        benchmark: decides what an empty answer means.

    Raises:
        TraceError: naming the column, or the row (counted from 1) and the value.
    """
    table = _table(path)
    query = _positions(path, table, "query_id", query_ids)
    if (query < 0).any():
        row = int(np.argmax(query < 0))
        raise TraceError(
            f"{path}, row {row + 1}: query_id {table['query_id'][row].as_py()!r} is not in "
            "queries.jsonl.gz"
        )
    backbone = _positions(path, table, "backbone", backbones)
    columns = {
        "query": query,
        "backbone": backbone,
        "sample": _integers(path, table, "sample", low=0),
        "answer": _answers(path, table, empty_counts=benchmark in _EMPTY_IS_AN_ANSWER),
        "correct": _integers(path, table, "correct", low=0, high=1),
        "prompt_tokens": _integers(path, table, "prompt_tokens", low=0),
        "completion_tokens": _integers(path, table, "completion_tokens", low=0),
    }
    order = np.lexsort((columns["sample"], backbone, query))
    order = order[backbone[order] >= 0]
    rows = {name: column[order] for name, column in columns.items()}
    same_pair = (np.diff(rows["query"]) == 0) & (np.diff(rows["backbone"]) == 0)
    repeated = same_pair & (np.diff(rows["sample"]) == 0)
    if repeated.any():
        at = int(np.argmax(repeated))
        first, second = sorted((int(order[at]) + 1, int(order[at + 1]) + 1))
        raise TraceError(
            f"{path}, row {second}: query_id {query_ids[rows['query'][at]]!r}, backbone "
            f"{backbones[rows['backbone'][at]]!r}, sample {rows['sample'][at]} is already in "
            f"row {first}"
        )
    # Sources number their repeats as they like; here they count from 0 without holes.
    begins = np.flatnonzero(np.concatenate(([True], ~same_pair))) if len(order) else order
    rows["sample"] = np.arange(len(order)) - np.repeat(
        begins, np.diff(np.append(begins, len(order)))
    )
    latency_s: NDArray[np.float64] | None = None
    if "latency_s" in table.column_names:
        latency_s = _seconds(path, table)[order]
    return Responses(**rows, latency_s=latency_s)


def _table(path: Path) -> Any:
    pyarrow = require("pyarrow", extra="simulator")
    parquet = require("pyarrow.parquet", extra="simulator")
    if not path.is_file():
        raise TraceError(f"{path}: no such file")
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise TraceError(f"{path}: can't be read as parquet: {error}") from error
    for column in _COLUMNS:
        if column not in table.column_names:
            raise TraceError(
                f"{path}: column {column!r} is missing; there are {', '.join(table.column_names)}"
            )
    return table


def _strings(path: Path, table: Any, column: str) -> tuple[NDArray[np.int64], list[str]]:
    """A text column as (code per row, text per code)."""
    pyarrow = require("pyarrow", extra="simulator")
    values = table[column]
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy()))
        raise TraceError(f"{path}, row {row + 1}: {column} is missing")
    try:
        encoded = values.cast(pyarrow.string()).combine_chunks().dictionary_encode()
    except pyarrow.ArrowException as error:
        raise TraceError(
            f"{path}: column {column!r} must hold texts, got {values.type}: {error}"
        ) from error
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _positions(path: Path, table: Any, column: str, names: Sequence[str]) -> NDArray[np.int64]:
    """Per row the position of its value in `names`, -1 for others."""
    codes, values = _strings(path, table, column)
    position = {name: index for index, name in enumerate(names)}
    return np.array([position.get(value, -1) for value in values], dtype=np.int64)[codes]


def _integers(
    path: Path, table: Any, column: str, *, low: int, high: int | None = None
) -> NDArray[np.int64]:
    pyarrow = require("pyarrow", extra="simulator")
    values = table[column]
    missing = values.is_null().to_numpy()
    if pyarrow.types.is_boolean(values.type):
        values = values.cast(pyarrow.int8())
    try:
        numbers = np.asarray(values.fill_null(0).to_numpy()).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{path}: column {column!r} must hold whole numbers: {error}") from error
    most = _MOST if high is None else high
    wrong = missing | (numbers != np.floor(numbers)) | (numbers < low) | (numbers > most)
    if wrong.any():
        row = int(np.argmax(wrong))
        allowed = f"a whole number from {low} to {most}" if high is None else f"{low} or {high}"
        raise TraceError(
            f"{path}, row {row + 1}: {column} must be {allowed}, got {values[row].as_py()!r}"
        )
    return numbers.astype(np.int64)


def _seconds(path: Path, table: Any) -> NDArray[np.float64]:
    """The measured seconds, nan where there are none."""
    try:
        seconds = np.asarray(table["latency_s"].to_numpy(), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{path}: column 'latency_s' must hold numbers: {error}") from error
    wrong = (seconds < 0) | np.isinf(seconds)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TraceError(
            f"{path}, row {row + 1}: latency_s must be a finite number of at least 0, or missing, "
            f"got {float(seconds[row])}"
        )
    return seconds


def _answers(path: Path, table: Any, *, empty_counts: bool) -> NDArray[np.int64]:
    """Codes that are equal where the answers are equal, -1 for a missing answer."""
    pyarrow = require("pyarrow", extra="simulator")
    try:
        encoded = table["answer"].combine_chunks().dictionary_encode()
    except pyarrow.ArrowNotImplementedError as error:
        raise TraceError(
            f"{path}: column 'answer' must hold texts or numbers, got {table['answer'].type}; "
            "write each answer as one text"
        ) from error
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    if not empty_counts:
        for code, value in enumerate(encoded.dictionary.to_pylist()):
            if value == "":
                codes[codes == code] = -1
    return codes
