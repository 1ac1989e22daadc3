from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trace_folder import Row, row, write_benchmark, write_catalog

from agentbalance_plugin.core.traces import TraceError, TraceSet

QUERIES: list[Row] = [
    {
        "query_id": "1",
        "category": "",
        "question": "Which?",
        "options": ["red", "blue"],
        "split": "train",
    },
    {"query_id": "2", "category": "colour theory", "question": "Why?", "split": "later"},
    {"query_id": "3", "domain": "Physics", "subdomain": "Optics", "split": "train"},
]
ROWS = [
    row("1", "b", "x", 1, sample=1),
    row("1", "a", "y", 0, prompt_tokens=7, completion_tokens=9),
    row("1", "b", "y", 0, sample=0),
    row("2", "a", "", 0),
    row("2", "b", None, 0),
    row("3", "b", "y", 1),
]


def write(
    root: Path,
    queries: list[Row] = QUERIES,
    rows: list[Row] = ROWS,
    benchmark: str = "bench",
) -> Path:
    write_catalog(root, ["a,1,2,0.5,60", "b,0.1,0.2,0.5,60"])
    write_benchmark(root, benchmark, queries, rows)
    return root


def test_queries_carry_text_category_and_split(tmp_path: Path) -> None:
    traces = TraceSet.load(write(tmp_path))
    assert [query.key for query in traces.queries] == ["bench/1", "bench/2", "bench/3"]
    assert [query.category for query in traces.queries] == [
        "bench",
        "bench/colour theory",
        "bench/Physics",
    ]
    assert traces.queries[0].question == "Which?\nA. red\nB. blue"
    assert traces.queries[1].question == "Why?"
    assert traces.queries[2].question is None
    assert traces.queries[0].features is None
    assert traces.splits == ("train", "later")
    assert traces.index("bench/2") == 1
    with pytest.raises(KeyError, match="bench/9"):
        traces.index("bench/9")


def test_a_category_may_be_the_number_nought(tmp_path: Path) -> None:
    queries = [{"query_id": str(n), "category": n % 2, "split": "train"} for n in range(1, 4)]
    traces = TraceSet.load(write(tmp_path, queries))
    assert [query.category for query in traces.queries] == ["bench/1", "bench/0", "bench/1"]


def test_arrays_hold_sample_zero_and_every_repeat(tmp_path: Path) -> None:
    traces = TraceSet.load(write(tmp_path))
    assert traces.backbones == ("a", "b")
    assert traces.correct.tolist() == [[0, 0], [0, 0], [-1, 1]]
    assert traces.answer[0, 0] == traces.answer[0, 1] >= 0
    assert traces.samples.correct[0, 1].tolist() == [0, 1]
    assert traces.samples.answer[0, 1, 1] not in (-1, traces.answer[0, 1])
    assert traces.samples.correct[1, 1].tolist() == [0, -1]
    assert (traces.prompt_tokens[0, 0], traces.visible_tokens[0, 0]) == (7, 9)
    assert traces.prompt_tokens[2, 0] == 0


def test_samples_count_from_zero_without_holes(tmp_path: Path) -> None:
    rows = [row("1", "a", "y", 1, sample=7), row("1", "a", "x", 0, sample=3)]
    traces = TraceSet.load(write(tmp_path, QUERIES, rows))
    assert traces.samples.correct[0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("benchmark", "known"), [("crux", True), ("bench", False)])
def test_the_empty_string_is_an_answer_on_crux_alone(
    tmp_path: Path, benchmark: str, known: bool
) -> None:
    rows = [row("1", "a", "", 1), row("1", "b", "", 1), row("2", "a", None, 0)]
    traces = TraceSet.load(write(tmp_path, QUERIES, rows, benchmark))
    assert traces.answer[0].tolist() == ([0, 0] if known else [-1, -1])
    assert traces.answer[1].tolist() == [-1, -1]


def test_equal_answers_of_different_queries_are_numbered_apart(tmp_path: Path) -> None:
    rows = [row("1", "a", "u", 0), row("1", "b", "v", 0), row("2", "a", "v", 0)]
    traces = TraceSet.load(write(tmp_path, QUERIES, rows))
    assert traces.answer.tolist() == [[0, 1], [0, -1], [-1, -1]]


def test_row_order_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    one = TraceSet.load(write(tmp_path / "1"))
    (tmp_path / "2").mkdir()
    two = TraceSet.load(write(tmp_path / "2", QUERIES, ROWS[::-1]))
    assert np.array_equal(one.samples.answer, two.samples.answer)
    assert np.array_equal(one.samples.correct, two.samples.correct)


def test_hidden_tokens_come_from_the_catalog(traces: TraceSet) -> None:
    hidden = traces.hidden_tokens[:, traces.backbones.index("thinker")]
    sums = [query.benchmark == "sums" for query in traces.queries]
    assert hidden.tolist() == [700 if is_sums else 200 for is_sums in sums]
    assert traces.hidden_tokens[:, traces.backbones.index("big")].max() == 0


def test_a_suite_names_benchmarks_and_backbones(folder: Path) -> None:
    traces = TraceSet.load(folder, "sums")
    assert traces.benchmarks == ("sums",)
    assert traces.backbones == traces.candidates == ("big", "mid", "small")
    assert traces.reference == "mid"
    assert TraceSet.load(folder / "traces", "both").unseen == ("small2",)
    assert TraceSet.load(folder, "both", benchmarks=["crux"]).benchmarks == ("crux",)
    everything = TraceSet.load(folder)
    assert everything.reference is None
    assert everything.candidates == everything.backbones
    assert len(everything.backbones) == 6


def test_split_and_subset_keep_rows_and_columns_together(traces: TraceSet) -> None:
    test = traces.split("test").subset(["thinker", "small2"])
    rows = traces.positions("test")
    assert [query.key for query in test.queries] == [traces.queries[row].key for row in rows]
    columns = [traces.backbones.index(name) for name in ("thinker", "small2")]
    assert np.array_equal(test.correct, traces.correct[rows][:, columns])
    assert np.array_equal(test.hidden_tokens, traces.hidden_tokens[rows][:, columns])
    assert list(test.catalog) == ["thinker", "small2"]
    assert (test.reference, test.candidates, test.unseen) == (None, ("thinker",), ("small2",))


def test_profiles_count_one_split(tmp_path: Path) -> None:
    profiles = TraceSet.load(write(tmp_path)).profiles("train")
    assert profiles["a"].trials == {"bench": 1.0}
    assert profiles["a"].successes == {"bench": 0.0}
    assert profiles["a"].visible_tokens == {"bench": 9.0}
    assert profiles["b"].trials == {"bench": 2.0, "bench/Physics": 1.0}
    assert profiles["b"].successes == {"bench": 1.0, "bench/Physics": 1.0}


def test_a_split_without_the_last_category_has_profiles_of_the_others(tmp_path: Path) -> None:
    traces = TraceSet.load(write(tmp_path))
    rest = "bench/Physics"
    assert traces.categories[-1] == rest
    moved = tuple(
        replace(query, split="val") if query.category == rest else query for query in traces.queries
    )
    profiles = replace(traces, queries=moved).profiles("train")
    assert profiles["b"].trials == {"bench": 2.0}
    assert profiles["b"].successes == {"bench": 1.0}


def test_measured_latency_is_optional(tmp_path: Path) -> None:
    rows = [row("1", "a", "x", 1, latency_s=0.25), row("1", "b", "x", 1, latency_s=None)]
    traces = TraceSet.load(write(tmp_path, QUERIES, rows))
    assert traces.latency_s is not None
    assert traces.latency_s[0, 0] == 0.25
    assert np.isnan(traces.latency_s[0, 1])
    assert np.isnan(traces.latency_s[2]).all()


def changed(index: int, **fields: Any) -> list[Row]:
    return [{**r, **fields} if i == index else r for i, r in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{k: v for k, v in r.items() if k != "correct"} for r in ROWS], "column 'correct'"),
        ([*ROWS, ROWS[3]], r"row 7: query_id '2', backbone 'a', sample 0 .* in row 4"),
        (changed(2, correct=2), "row 3: correct must be 0 or 1, got 2"),
        (changed(1, prompt_tokens=-4), "row 2: prompt_tokens must .* got -4"),
        (
            changed(1, prompt_tokens=2**31),
            "row 2: prompt_tokens .* to 2147483647, got 2147483648",
        ),
        (changed(5, completion_tokens=None), "row 6: completion_tokens .* got None"),
        (changed(0, query_id="99"), "row 1: query_id '99' is not in queries.jsonl.gz"),
        (changed(4, backbone=None), "row 5: backbone is missing"),
        (changed(4, backbone="c"), "catalog.csv: backbone 'c' .* has no price"),
    ],
)
def test_bad_responses_are_named(tmp_path: Path, rows: list[Row], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        TraceSet.load(write(tmp_path, QUERIES, rows))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": None}, "line 2: field 'split' is missing"),
        ({"query_id": "1"}, "line 2: query_id '1' is already in line 1"),
        ({"options": "['a']"}, "line 2: options must be a list"),
        ({"features": "no base64!"}, "line 2: features must be base64"),
        ({"features": "gA=="}, "line 2: features are no sorted ids"),
    ],
)
def test_bad_queries_are_named(tmp_path: Path, fields: Row, message: str) -> None:
    queries = [QUERIES[0], {**QUERIES[1], **fields}, QUERIES[2]]
    with pytest.raises(TraceError, match=message):
        TraceSet.load(write(tmp_path, queries))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    queries = tmp_path / "traces" / "bench" / "queries.jsonl.gz"
    queries.write_bytes(queries.read_bytes()[:-20])
    with pytest.raises(TraceError, match=r"queries\.jsonl\.gz: can't be read"):
        TraceSet.load(tmp_path)
    (tmp_path / "traces" / "bench" / "responses.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(TraceError, match=r"responses\.parquet: can't be read"):
        TraceSet.load(tmp_path)


def test_a_file_of_suites_that_is_no_text_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "suites.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match=r"suites\.yaml: not valid YAML"):
        TraceSet.load(tmp_path, "both")


def test_right_and_wrong_can_be_booleans(tmp_path: Path) -> None:
    whole = TraceSet.load(write(tmp_path))
    rows = [{**each, "correct": bool(each["correct"])} for each in ROWS]
    assert np.array_equal(TraceSet.load(write(tmp_path, QUERIES, rows)).correct, whole.correct)
    rows[3]["correct"] = None
    with pytest.raises(TraceError, match="row 4: correct must be 0 or 1, got None"):
        TraceSet.load(write(tmp_path, QUERIES, rows))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("query_id", ["1"], "column 'query_id' must hold texts, got list"),
        ("backbone", ["a"], "column 'backbone' must hold texts, got list"),
        ("latency_s", "fast", "column 'latency_s' must hold numbers: .*'fast'"),
        ("latency_s", -1.0, "row 1: latency_s must be a finite number .* got -1.0"),
        ("latency_s", float("inf"), "row 1: latency_s must be a finite number .* got inf"),
    ],
)
def test_columns_of_another_kind_are_named(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    rows = [{**each, field: value} for each in ROWS]
    with pytest.raises(TraceError, match=rf"responses\.parquet.*{message}"):
        TraceSet.load(write(tmp_path, QUERIES, rows))


def test_answers_that_are_no_single_value_are_refused(tmp_path: Path) -> None:
    rows = [{**each, "answer": [each["answer"]]} for each in ROWS]
    with pytest.raises(TraceError, match=r"responses.parquet: column 'answer' must hold texts"):
        TraceSet.load(write(tmp_path, QUERIES, rows))


def test_a_suite_needs_candidates_and_counts_each_name_once(tmp_path: Path) -> None:
    write(tmp_path)
    suites = tmp_path / "suites.yaml"
    suites.write_text("s:\n  benchmarks: [bench]\n  candidtes: [a]\n", encoding="utf-8")
    with pytest.raises(TraceError, match=r"suites.yaml: suite 's' needs a list 'candidates'.*tes"):
        TraceSet.load(tmp_path, "s")
    suites.write_text("s:\n  benchmarks: [bench]\n  candidates: [a, b, a]\n", encoding="utf-8")
    traces = TraceSet.load(tmp_path, "s")
    assert traces.candidates == ("a", "b")
    assert list(traces.profiled_candidates()) == ["a", "b"]
    suites.write_text(
        "s:\n  benchmarks: [bench]\n  candidates: [a, b]\n  unseen: [b]\n", encoding="utf-8"
    )
    with pytest.raises(TraceError, match=r"'s' lists \['b'\] as candidates and as unseen"):
        TraceSet.load(tmp_path, "s")


def test_unknown_names_list_what_there_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no suite 'all'; there are both, sums"):
        TraceSet.load(folder, "all")
    with pytest.raises(TraceError, match="no benchmark 'gsm'; there are crux, sums"):
        TraceSet.load(folder, benchmarks=["gsm"])
    with pytest.raises(TraceError, match="not in the suite, which has sums"):
        TraceSet.load(folder, "sums", benchmarks=["crux"])
    with pytest.raises(TraceError, match="no split 'dev'; there are train, val, test; record more"):
        TraceSet.load(folder).split("dev")
    with pytest.raises(TraceError, match="no folder 'traces'"):
        TraceSet.load(tmp_path)
