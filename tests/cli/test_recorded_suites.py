"""What a folder of recordings holds after several of them; all answers are known, none is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentbalance_plugin import Catalog
from agentbalance_plugin.cli.record import run_recording
from agentbalance_plugin.core.kinds import Kinds
from agentbalance_plugin.core.recording import Question, Recorded, read_questions
from agentbalance_plugin.core.trace_files import TraceError
from agentbalance_plugin.core.traces import TraceSet


def catalog(folder: Path, *names: str) -> Path:
    entries: list[dict[str, Any]] = [
        {
            "backbone": name,
            "model": name,
            "base_url": "http://127.0.0.1:1/v1",
            "price_in_usd_per_mtok": 1,
            "price_out_usd_per_mtok": 1,
            "reasoning": "yes" if name == "thinker" else "no",
        }
        for name in names
    ]
    path = folder / "backbones.yaml"
    path.write_text(yaml.safe_dump({"backbones": entries}))
    return path


def asked(folder: Path, suite: str, count: int = 12) -> Path:
    """A file of questions."""
    path = folder / f"{suite}.jsonl"
    lines = [{"question": f"{suite} {n}?", "answer": n, "category": n % 2} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def answered(out: Path, questions: Path, *names: str) -> None:
    """A log of right answers to them, after hidden tokens of many lengths."""

    def of(question: Question, name: str) -> Recorded:
        hidden = 10 * (1 + int(question.answer)) if name == "thinker" else 0
        right = question.answer
        return Recorded(question.id, name, right, True, 20, 30, hidden, 0.2, 1.5, 10)

    lines = [of(q, name).to_json() for q in read_questions(questions) for name in names]
    out.mkdir(exist_ok=True)
    with (out / "answers.jsonl").open("a") as log:
        log.write("".join(line + "\n" for line in lines))


def record(questions: Path, backbones: Path, out: Path) -> None:
    run_recording(questions, backbones, out, 1.0, None, 4)


def test_suites_and_profiles_of_earlier_recordings_stay(tmp_path: Path) -> None:
    out = tmp_path / "own"
    first, second = asked(tmp_path, "first"), asked(tmp_path, "second")
    answered(out, first, "mini", "large", "thinker")
    record(first, catalog(tmp_path, "mini", "large", "thinker"), out)
    answered(out, second, "mini", "thinker")
    record(second, catalog(tmp_path, "mini", "thinker"), out)

    assert TraceSet.load(out, suite="first").candidates == ("mini", "large", "thinker")
    assert TraceSet.load(out, suite="second").candidates == ("mini", "thinker")
    traces = TraceSet.load(out)
    assert traces.catalog["thinker"].hidden_tokens == {"first": 65, "second": 65}
    found = Catalog.load(out / "backbones.yaml")
    assert list(found) == ["mini", "thinker"]
    kinds = {f"{suite}/{kind}" for suite in ("first", "second") for kind in (0, 1)}
    for backbone in found.values():
        assert backbone.profile is not None
        assert dict(backbone.profile.trials) == dict.fromkeys(kinds, 6)
    assert found["thinker"].hidden_tokens == {"first": 65, "second": 65}
    assert set(found["thinker"].output_spread) == {"first", "second"}
    assert isinstance(found.kinds, Path)
    assert set(Kinds.load(found.kinds).names) == kinds


def test_a_folder_that_cannot_be_added_to_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    out = tmp_path / "own"
    (out / "traces" / "other").mkdir(parents=True)
    (out / "catalog.csv").write_text(
        "backbone,price_in_usd_per_mtok,price_out_usd_per_mtok\nmini,1,1\n"
    )
    questions, backbones = asked(tmp_path, "first"), catalog(tmp_path, "mini")
    with pytest.raises(TraceError, match=r"other/responses\.parquet: no such file"):
        record(questions, backbones, out)
    (out / "suites.yaml").write_text("first")
    with pytest.raises(TraceError, match=r"suites\.yaml: expected suite names"):
        record(questions, backbones, out)
    assert (out / "answers.jsonl").read_text() == ""


def test_replies_that_cannot_be_read_are_told_from_wrong_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, questions = tmp_path / "own", asked(tmp_path, "first", 4)
    answered(out, questions, "mini")
    record(questions, catalog(tmp_path, "mini"), out)
    assert "unread" not in capsys.readouterr().err
    log = out / "answers.jsonl"
    lines = log.read_text().splitlines()
    unread = json.dumps({**json.loads(lines[0]), "answer": None, "said": "It is seven."})
    cut = json.dumps({**json.loads(lines[2]), "answer": None, "visible_tokens": 4096})
    wrong = json.dumps({**json.loads(lines[1]), "answer": "9", "metered": False})
    log.write_text("\n".join([unread, wrong, cut, *lines[3:], ""]))
    record(questions, catalog(tmp_path, "mini"), out)
    shown = capsys.readouterr()
    row = next(line for line in shown.out.splitlines() if "mini" in line)
    assert re.split(r"\s*│\s*", row)[2:5] == ["4", "25 %", "2"]
    said = " ".join(shown.err.split())
    assert "no answer was found (one ends with 'It is seven.'), which count as wrong" in said
    assert "mini: 1 of its unread replies ended at its max_output_tokens of 4096" in said
    assert "replies of mini (1) came without usage: each is booked at the worst" in said


def test_an_example_is_shown_where_no_reply_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, questions = tmp_path / "own", asked(tmp_path, "first")
    answered(out, questions, "mini", "large")
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]

    def said(*, of: str, category: int | None = None) -> str:
        """Where the backbone's replies to the category's questions are words."""
        kinds = {q.id: int(q.category) for q in read_questions(questions)}
        wordy = [
            {**line, "answer": f"it is {line['answer']}"}
            if line["backbone"] in of and category in (None, kinds[line["question"]])
            else line
            for line in lines
        ]
        (out / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in wordy))
        record(questions, catalog(tmp_path, "mini", "large"), out)
        return " ".join(capsys.readouterr().err.split())

    assert "right" not in said(of="")
    one = said(of="mini")
    assert (
        "no reply of mini was right, of 12. To 'first 0?' the answer is '0', and 'it is 0' " in one
    )
    assert one.count("right") == 1
    assert "no reply to a question of category '1' was right, of 12. To" in said(
        of="mini, large", category=1
    )
    everyone = said(of="mini, large")
    assert "no reply was right, of 24. To" in everyone
    assert everyone.count("right") == 1


def test_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, questions = tmp_path / "a:smile:", asked(tmp_path, "[red]first", 4)
    names = "[red]mini", "[/]", "a:smile:b"
    answered(out, questions, *names)
    record(questions, catalog(tmp_path, *names), out)
    shown = capsys.readouterr()
    for name in names:
        assert f"│ {name} " in shown.out
    assert "[red]first)" in shown.err
