"""Questions with known answers, and the trace folder that their recorded answers make."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from agentbalance_plugin import Backbone, Catalog
from agentbalance_plugin.core.recording import (
    Question,
    Recorded,
    in_turns,
    read_questions,
    read_recorded,
    write_traces,
)
from agentbalance_plugin.core.traces import TraceError, TraceSet


def backbone(name: str, price: int = 1) -> Backbone:
    return Backbone(
        name,
        price_in_usd_per_mtok=Decimal(price),
        price_out_usd_per_mtok=Decimal(price),
        ttft_s=0.5,
        tokens_per_s=100.0,
        reasoning="yes" if name == "thinker" else "no",
        hidden_tokens={"own": 300} if name == "thinker" else {},
        capabilities=frozenset({"text", "tools"}),
    )


def recorded(question: Question, name: str, answer: str | None, nanodollars: int = 10) -> Recorded:
    right = answer == question.answer
    return Recorded(question.id, name, answer, right, 20, 30, 0, 0.2, 1.5, nanodollars)


def test_questions_are_read_from_json_lines_and_tables(tmp_path: Path) -> None:
    lines = tmp_path / "q.jsonl"
    lines.write_text(
        '{"question": "1 + 1?", "answer": 2, "category": "sums"}\n\n'
        '{"question": "Ü?", "answer": "u"}\n'
    )
    table = tmp_path / "q.csv"
    table.write_text('\ufeffquestion,answer,category\n"1 + 1?",2,sums\nÜ?,u,\n')
    capital = tmp_path / "Q.CSV"
    capital.write_text(table.read_text())
    tabs = tmp_path / "q.tsv"
    tabs.write_text("question\tanswer\tcategory\r\n1 + 1?\t2\tsums\r\nÜ?\tu\t\r\n")
    expected = [Question("1 + 1?", "2", "sums"), Question("Ü?", "u")]
    for path in (lines, table, capital, tabs):
        assert read_questions(path) == expected


def test_labels_may_be_numbers_and_texts_may_hold_any_line_break(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    lines = [
        {"question": "Is it spam?\u2028Buy now!\x85", "answer": 0, "category": 0},
        {"question": "And this?", "answer": 1, "category": 1},
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    expected = [Question(str(q["question"]), str(q["answer"]), str(q["category"])) for q in lines]
    assert read_questions(path) == expected


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("q.jsonl", '{"question": "a"}', r"q\.jsonl, line 1: field 'answer' is missing"),
        ("q.jsonl", '{"question": "a", "answer": "b"}\n{', r"line 2: not valid JSON"),
        ("q.jsonl", "[1]", r"line 1: expected fields"),
        ("q.jsonl", "\n", "holds no questions"),
        ("q.jsonl", '{"question": "a", "answer": 1}\n' * 2, "line 2: this question is .* twice"),
        ("q.csv", "question,category\na,b\n", r"q\.csv, line 2: field 'answer' is missing"),
        ("q.csv", "question,answer\na?,b\nIs it a, b?,b\n", r"line 3: more .* double quotes"),
        (
            "q.csv",
            'question,answer\na?,b\n"c?,d\ne?,f\n',
            r"after line 2: .* close every double quote",
        ),
        ("q.csv", f"question,answer\n{'a' * 131_073},b\n", r"after line 1: .* write .* as \.jsonl"),
        ("q.jsonl", '{"question": "a", "answer": ["b"]}', r"answer must be one .*, got \['b'\]"),
        ("q.jsonl", '{"question": {"a": 1}, "answer": 1}', "question must be one text or number"),
    ],
)
def test_bad_questions_name_their_place(tmp_path: Path, name: str, text: str, match: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TraceError, match=match):
        read_questions(path)


def test_a_first_few_are_of_all_kinds_and_always_the_same() -> None:
    questions = [Question(f"{kind} {n}", "x", kind) for kind in "abc" for n in range(5)]
    ordered = in_turns(questions)
    assert [q.category for q in ordered[:6]] == list("abcabc")
    assert in_turns(questions[::-1]) == ordered
    assert sorted(ordered, key=lambda q: q.text) == questions


def test_a_line_that_was_not_written_whole_is_left_out(tmp_path: Path) -> None:
    first = recorded(Question("a", "1"), "small", None)
    log = tmp_path / "answers.jsonl"
    log.write_text(first.to_json() + "\n" + first.to_json()[:-9])
    assert read_recorded(log) == [first]
    assert read_recorded(tmp_path / "none") == []
    log.write_text('{"question": 1}\n')
    with pytest.raises(TraceError, match=r"answers\.jsonl, line 1: no recorded answer"):
        read_recorded(log)


def test_what_is_written_reads_as_traces(tmp_path: Path) -> None:
    questions = [Question(f"What is {n} + 1?", str(n + 1), f"kind {n % 2}") for n in range(30)]
    given = {"small": "2", "large": None, "thinker": "2"}
    rows = [recorded(q, name, answer) for q in questions for name, answer in given.items()]
    rows = [r for r in rows if r.backbone != "thinker" or r.question != questions[0].id]
    catalog = Catalog([backbone("small"), backbone("large", 9), backbone("thinker")])
    write_traces(tmp_path, "own", questions, rows, catalog)
    traces = TraceSet.load(tmp_path, suite="own")
    assert traces.candidates == traces.backbones == ("small", "large", "thinker")
    assert [query.question for query in traces.queries] == [q.text for q in questions]
    assert set(traces.categories) == {"own/kind 0", "own/kind 1"}
    assert set(traces.splits) == {"train", "val", "test"}
    second = traces.queries.index(next(q for q in traces.queries if "1 + 1" in (q.question or "")))
    assert traces.correct[second].tolist() == [1, 0, 1]
    assert traces.answer[second].tolist() == [0, -1, 0]
    assert traces.correct[0].tolist() == [0, 0, -1]
    assert traces.catalog["large"].picodollars_in == 9_000_000
    assert traces.catalog["thinker"].hidden_tokens == {"own": 300}
    assert traces.catalog["small"].capabilities == {"text", "tools"}
    assert traces.latency_s is not None
    assert traces.latency_s[1].tolist() == [1.5, 1.5, 1.5]


def test_the_reference_is_the_dearest_that_was_asked_nearly_everything(tmp_path: Path) -> None:
    questions = [Question(f"{n}?", "1") for n in range(20)]
    rows = [recorded(q, "small", "1", 5) for q in questions]
    rows += [recorded(q, "large", "1", 50) for q in questions[1:]]
    rows += [recorded(q, "thinker", "1", 500) for q in questions[:10]]
    catalog = Catalog([backbone("small"), backbone("large"), backbone("thinker")])
    write_traces(tmp_path, "own", questions, rows, catalog)
    assert TraceSet.load(tmp_path, suite="own").reference == "large"
