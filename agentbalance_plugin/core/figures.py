"""Figures-only traces: the recorded numbers without any question text or model output.

What is written reads with `TraceSet.load`: per query id, category, split and hashed features; per
response an anonymous answer number (equal numbers within a query are equal answers), whether it
was right, tokens and measured latency. Writing twice gives the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agentbalance_plugin.core.encoder import hash_features
from agentbalance_plugin.core.suites import read_suites, suites_text
from agentbalance_plugin.core.trace_files import Query, pack_features
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.extras import require

_HEADER = """# Provenance of these figures

Derived from recorded answers of real backbones; nothing is simulated. Question texts, options,
gold answers and model outputs are left out. What is kept, per query: its id, category, split and
hashed n-gram features; per answer: a number that is equal where answers to one query are equal,
whether it was right, tokens, and measured latency where there is one.

Benchmarks: {benchmarks}.
"""
_SOURCES = """
Below: the provenance of the recorded answers that the figures were derived from. It also covers
tables that are not included here.

---

"""


def export_figures(traces_path: str | Path, out: str | Path, benchmarks: Sequence[str]) -> None:
    """Write the figures of a trace folder to another folder.

    Args:
        traces_path: a folder as in `TraceSet.load`.
        out: created if need be; files of the same names are replaced.
        benchmarks: which ones.

    Raises:
        TraceError: the traces can't be read.
    """
    source, target = Path(traces_path), Path(out)
    target.mkdir(parents=True, exist_ok=True)
    backbones: set[str] = set()
    for benchmark in benchmarks:
        traces = TraceSet.load(source, benchmarks=[benchmark])
        backbones.update(traces.backbones)
        folder = target / "traces" / benchmark
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "queries.jsonl.gz").write_bytes(_packed_queries(traces.queries))
        _write_responses(traces, benchmark, folder / "responses.parquet")
    _write_catalog(source / "catalog.csv", target / "catalog.csv", backbones)
    suites = {
        name: suite
        for name, suite in read_suites(source / "suites.yaml").items()
        if set(suite.benchmarks) <= set(benchmarks)
    }
    (target / "suites.yaml").write_text(suites_text(suites), encoding="utf-8")
    text = _HEADER.format(benchmarks=", ".join(benchmarks))
    origin = source / "PROVENANCE.md"
    if origin.is_file():
        text += _SOURCES + origin.read_text(encoding="utf-8")
    (target / "PROVENANCE.md").write_text(text, encoding="utf-8")


def export_profiles(suites: Sequence[TraceSet], path: str | Path) -> None:
    """Write what the training split of each suite says of each backbone, for catalogs that name a
    recorded backbone instead of a profile."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for suite in suites:
        for name, profile in suite.profiles("train").items():
            entry = found.setdefault(name, {})
            for field, values in asdict(profile).items():
                entry.setdefault(field, {}).update(values)
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    Path(path).write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def _packed_queries(queries: Iterable[Query]) -> bytes:
    lines: list[str] = []
    for query in queries:
        features = query.features
        if features is None:
            # A withheld text has no n-grams either.
            features = hash_features(query.question or "")
        entry = {
            "query_id": query.key.removeprefix(f"{query.benchmark}/"),
            "category": query.category.removeprefix(query.benchmark).removeprefix("/"),
            "split": query.split,
            "features": pack_features(features),
        }
        lines.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")
    # A time stamp would make every export differ.
    return gzip.compress("".join(lines).encode("utf-8"), compresslevel=9, mtime=0)


def _write_responses(traces: TraceSet, benchmark: str, path: Path) -> None:
    pyarrow = require("pyarrow", extra="train")
    parquet = require("pyarrow.parquet", extra="train")
    samples = traces.samples
    # Backbone by backbone: neighbouring values are alike, which is what compresses.
    column, row, sample = np.nonzero(np.transpose(samples.correct >= 0, (1, 0, 2)))
    cells = (row, column, sample)
    ids = [query.key.removeprefix(f"{benchmark}/") for query in traces.queries]
    answer = samples.answer[cells]

    def repeated(index: np.ndarray[tuple[int], np.dtype[np.int64]], names: Sequence[str]) -> object:
        dictionary = pyarrow.array(list(names), type=pyarrow.string())
        return pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(index, type=pyarrow.int32()), dictionary
        )

    columns: dict[str, object] = {
        "query_id": repeated(row, ids),
        "backbone": repeated(column, traces.backbones),
        "sample": pyarrow.array(sample, type=pyarrow.int16()),
        "answer": pyarrow.array(answer, type=pyarrow.int32(), mask=answer < 0),
        "correct": pyarrow.array(samples.correct[cells], type=pyarrow.int8()),
        "prompt_tokens": pyarrow.array(samples.prompt_tokens[cells], type=pyarrow.int32()),
        "completion_tokens": pyarrow.array(samples.visible_tokens[cells], type=pyarrow.int32()),
    }
    if traces.latency_s is not None:
        latency_s = np.where(sample == 0, traces.latency_s[row, column], np.nan)
        columns["latency_s"] = pyarrow.array(latency_s, mask=np.isnan(latency_s))
    parquet.write_table(
        pyarrow.table(columns), path, compression="zstd", compression_level=19, store_schema=False
    )


def _write_catalog(source: Path, target: Path, backbones: set[str]) -> None:
    """The rows of the exported backbones, cell by cell as they are."""
    with source.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    name = header.index("backbone")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(row for row in rows if row and row[name] in backbones)
    target.write_text(text.getvalue(), encoding="utf-8")
