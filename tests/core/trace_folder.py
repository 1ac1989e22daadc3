"""Small trace folders, written by the tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CATALOG_HEADER = "backbone,price_in_usd_per_mtok,price_out_usd_per_mtok,ttft_s,tokens_per_s"

Row = dict[str, Any]


def row(query: str, backbone: str, answer: Any, correct: int, **more: Any) -> Row:
    """One response row with plausible tokens."""
    return {
        "query_id": query,
        "backbone": backbone,
        "sample": 0,
        "answer": answer,
        "correct": correct,
        "prompt_tokens": 100,
        "completion_tokens": 50,
        **more,
    }


def write_benchmark(root: Path, name: str, queries: list[Row], rows: list[Row]) -> None:
    folder = root / "traces" / name
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "queries.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(query) + "\n" for query in queries)
    pq.write_table(pa.Table.from_pylist(rows), folder / "responses.parquet")


def write_catalog(root: Path, lines: list[str], header: str = CATALOG_HEADER) -> None:
    (root / "catalog.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


SIX = {"small": 0.35, "small2": 0.4, "mid": 0.6, "mid2": 0.65, "big": 0.85, "thinker": 0.9}


def write_random(root: Path, seed: int = 0, queries: int = 80) -> None:
    """Two benchmarks, six backbones, repeats of one of them, holes, and long replies.

    `sums` has two categories and texts; `crux` has an answer that is the empty string.
    """
    rng = np.random.default_rng(seed)
    write_catalog(
        root,
        [
            "small,0.1,0.1,0.3,120,0,0,300",
            "small2,0.15,0.2,0.3,100,0,0,",
            "mid,0.5,1.5,0.4,80,0,0,",
            "mid2,0.6,1.4,,,0,0,",
            "big,3,15,0.6,60,0,0,",
            "thinker,1.1,4.4,1.5,90,700,200,",
        ],
        CATALOG_HEADER
        + ",hidden_reasoning_tokens_sums,hidden_reasoning_tokens_crux,max_output_tokens",
    )
    (root / "suites.yaml").write_text(
        "both:\n  benchmarks: [sums, crux]\n  reference: big\n"
        "  candidates: [small, mid, mid2, big, thinker]\n  unseen: [small2]\n"
        "sums:\n  benchmarks: [sums]\n  reference: mid\n  candidates: [big, mid, small]\n",
        encoding="utf-8",
    )
    (root / "PROVENANCE.md").write_text("From a friend.\n", encoding="utf-8")
    splits = ["train", "train", "val", "test"]
    for benchmark in ("sums", "crux"):
        entries: list[Row] = []
        rows: list[Row] = []
        for number in range(queries):
            key = f"q{number}"
            entry: Row = {"query_id": key, "split": splits[number % 4], "gold": "secret gold"}
            if benchmark == "sums":
                entry["category"] = "easy" if number % 3 else "hard"
                entry["question"] = f"What are {number} and {rng.integers(90)} together, roughly?"
                entry["options"] = [f"option {i}" for i in rng.integers(99, size=3)]
            else:
                entry |= {"category": "", "question": f"assert f({number}) == ??", "options": []}
            entries.append(entry)
            wrong = ["", "zweiundvierzig", "dreizehn"] if benchmark == "crux" else ["A", "B", "C"]
            for backbone, skill in SIX.items():
                repeats = 3 if backbone == "mid" and benchmark == "sums" else 1
                for sample in range(repeats):
                    if rng.random() < 0.04 and sample == repeats - 1:
                        continue
                    right = rng.random() < skill
                    answer = "richtig" if right else rng.choice(wrong)
                    missing = not right and rng.random() < 0.1
                    rows.append(
                        row(
                            key,
                            backbone,
                            None if missing else str(answer),
                            int(right),
                            sample=sample,
                            prompt_tokens=int(rng.integers(50, 300)),
                            completion_tokens=int(rng.integers(5, 400)),
                        )
                    )
        write_benchmark(root, benchmark, entries, rows)
