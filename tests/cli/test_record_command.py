"""`agentbalance record`: from labelled questions to profiles and traces, over HTTP."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from agentbalance_plugin import Budget, Catalog, Policy, Team
from agentbalance_plugin.core.kinds import Kinds
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.team import Agent

AGENTBALANCE = str(Path(sys.executable).with_name("agentbalance"))
MINI, LARGE = "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06"
KINDS = ("gsm8k", "crux")


@pytest.fixture
def served() -> Iterator[str]:
    """The base URL of recorded backbones, of whose seconds each takes a hundredth."""
    command = [AGENTBALANCE, "serve-backbones", "--port", "0", "--scale", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+/v1$", process.stdout.readline().strip())
        assert found is not None
        yield found[0]
        process.kill()


@pytest.fixture
def folder(served: str, shipped: TraceSet, replay: Replay, tmp_path: Path) -> Path:
    """tickets.jsonl, twenty questions of each of two kinds, and backbones.yaml."""
    lines: list[str] = []
    for kind in KINDS:
        rows = [n for n in shipped.positions("test") if shipped.queries[n].benchmark == kind][:20]
        for row in rows:
            right = shipped.answer[row][shipped.correct[row] == 1]
            question = {
                "question": task_text(shipped.queries[row], replay),
                "answer": str(right[0]) if len(right) else "none",
                "category": kind,
            }
            lines.append(json.dumps(question))
    (tmp_path / "tickets.jsonl").write_text("\n".join(lines))
    entries: list[dict[str, Any]] = [
        {
            "backbone": name,
            "model": model,
            "base_url": served,
            "price_in_usd_per_mtok": price,
            "price_out_usd_per_mtok": 4 * price,
            "capabilities": ["text", "tools"],
            "notes": "as it was",
        }
        for name, model, price in (("mini", MINI, 0.15), ("large", LARGE, 2.5))
    ]
    (tmp_path / "backbones.yaml").write_text(yaml.safe_dump({"backbones": entries}))
    return tmp_path


def command(folder: Path, *more: str, budget: str = "5") -> list[str]:
    named = ("--questions", "tickets.jsonl", "--out", "own", "--max-cost-usd", budget)
    return [AGENTBALANCE, "record", *(str(folder / n) if n in _FILES else n for n in named), *more,
            "--backbones", str(folder / "backbones.yaml")]  # fmt: skip


_FILES = ("tickets.jsonl", "own")


def record(folder: Path, *more: str, budget: str = "5") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *more, budget=budget),
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "120", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
    )


def books(served: str) -> list[dict[str, Any]]:
    return httpx.get(served.removesuffix("/v1") + "/books").json()["entries"]


def test_profiles_and_traces_come_of_labelled_questions(
    folder: Path, served: str, shipped: TraceSet
) -> None:
    done = record(folder)
    assert done.returncode == 0, done.stderr
    assert "40 questions" in done.stdout
    catalog = Catalog.load(folder / "own" / "backbones.yaml")
    column = shipped.backbones.index(MINI)
    for kind in KINDS:
        rows = [n for n in shipped.positions("test") if shipped.queries[n].benchmark == kind][:20]
        profile = catalog["mini"].profile
        assert profile is not None
        assert profile.trials[f"tickets/{kind}"] == 20
        right = float((shipped.correct[rows, column] == 1).sum())
        assert profile.successes[f"tickets/{kind}"] == right
        tokens = shipped.visible_tokens[rows, column].mean()
        assert profile.visible_tokens[f"tickets/{kind}"] == pytest.approx(tokens, abs=0.06)
    assert catalog.kinds == folder / "own" / "kinds.safetensors"
    kinds = Kinds.load(catalog.kinds)
    assert kinds.names == ("tickets/crux", "tickets/gsm8k")
    assert kinds.share.tolist() == [0.5, 0.5]
    raw = yaml.safe_load((folder / "own" / "backbones.yaml").read_text())["backbones"]
    before = yaml.safe_load((folder / "backbones.yaml").read_text())["backbones"]
    assert [entry.items() >= old.items() for entry, old in zip(raw, before, strict=True)]
    assert catalog["mini"].speed_source == "measured"
    assert (catalog["mini"].tokens_per_s or 0) > 0

    traces = TraceSet.load(folder / "own", suite="tickets")
    assert (traces.reference, len(traces.queries)) == ("large", 40)
    assert np.all(traces.correct >= 0)
    plan = Policy.load().plan(
        "What is 1 + 1?", Team((Agent("a"), Agent("b")), "b"), Budget(cost_usd=0.01), catalog
    )
    assert plan.expected is not None


def test_questions_of_one_kind_leave_nothing_to_tell_apart(folder: Path, served: str) -> None:
    lines = (folder / "tickets.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "category"} for line in lines]
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = record(folder, "--most", "6")
    assert done.returncode == 0, done.stderr
    assert Catalog.load(folder / "own" / "backbones.yaml").kinds is None
    assert not (folder / "own" / "kinds.safetensors").exists()


def test_how_much_hidden_tokens_vary_is_measured(folder: Path, served: str) -> None:
    thinker = {
        "backbone": "think",
        "model": "o1-mini-2024-09-12",
        "base_url": served,
        "price_in_usd_per_mtok": 3,
        "price_out_usd_per_mtok": 12,
        "reasoning": "yes",
        "output_cap": "max_completion_tokens",
    }
    (folder / "backbones.yaml").write_text(yaml.safe_dump({"backbones": [thinker]}))
    done = record(folder, "--most", "12")
    assert done.returncode == 0, done.stderr
    found = Catalog.load(folder / "own" / "backbones.yaml")["think"]
    lines = (folder / "own" / "answers.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    logs = [np.log(row["visible_tokens"] + row["hidden_tokens"]) for row in rows]
    assert found.hidden_tokens["tickets"] > 100
    assert found.output_spread["tickets"] == pytest.approx(np.std(logs, ddof=1), abs=1e-3)
    # The maths and the code among them are not thought about equally long.
    assert found.output_spread["tickets"] > 0.1


def test_the_same_command_goes_on_where_it_stopped(folder: Path, served: str) -> None:
    process = subprocess.Popen(
        command(folder, "--at-once", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = folder / "own" / "answers.jsonl"
    while not (log.is_file() and log.read_text().count("\n") >= 6):
        # It must not end by itself before it has been interrupted.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "the same command goes on" in errors
    interrupted = log.read_text().splitlines()
    assert 6 <= len(interrupted) < 80
    assert Catalog.load(folder / "own" / "backbones.yaml")["mini"].profile is not None

    asked = len(books(served))
    log.write_text(log.read_text() + '{"question": "torn')
    done = record(folder)
    assert done.returncode == 0, done.stderr
    # Only those that were under way are asked twice.
    assert len(books(served)) - asked == 80 - len(interrupted)
    pairs = [(line["question"], line["backbone"]) for line in map(json.loads, log.open())]
    assert len(pairs) == len(set(pairs)) == 80

    # What is known is not asked, and is graded by the answers of now.
    lines = map(json.loads, (folder / "tickets.jsonl").read_text().splitlines())
    other = [json.dumps({**line, "answer": "never said"}) for line in lines]
    (folder / "tickets.jsonl").write_text("\n".join(other))
    again = record(folder)
    assert again.returncode == 0
    assert len(books(served)) - asked == 80 - len(interrupted)
    profile = Catalog.load(folder / "own" / "backbones.yaml")["mini"].profile
    assert profile is not None
    assert sum(profile.successes.values()) == 0
    assert sum(profile.trials.values()) == 40


def test_a_budget_that_ends_leaves_what_was_paid_for(folder: Path, served: str) -> None:
    entries = yaml.safe_load((folder / "backbones.yaml").read_text())["backbones"]
    wrong = {**entries[0], "backbone": "wrong", "model": "nothing"}
    (folder / "backbones.yaml").write_text(yaml.safe_dump({"backbones": [*entries, wrong]}))
    done = record(folder, "--most", "10", budget="0.06")
    assert done.returncode == 0, done.stderr
    assert "NotFoundError (status 404)" in re.sub(r"[\s│]+", " ", done.stdout)
    assert "not among the profiles: wrong" in done.stderr
    assert "no room" in re.sub(r"[\s│]+", " ", done.stdout)
    assert sum(entry["nanodollars"] for entry in books(served)) <= 60_000_000
    catalog = Catalog.load(folder / "own" / "backbones.yaml")
    profile = catalog["mini"].profile
    assert profile is not None
    assert "wrong" not in catalog
    assert dict(profile.trials) == {"tickets/gsm8k": 5, "tickets/crux": 5}


@pytest.mark.parametrize(
    ("budget", "more", "said"),
    [
        ("0", (), "--max-cost-usd must be finite and above zero, got 0"),
        ("0.000001", (), "no answer was recorded: mini: the budget has no room"),
        ("1", ("--out", "."), "itself would be written over"),
        ("1", ("--questions", "backbones.yaml"), "line 1: not valid JSON"),
    ],
)
def test_what_a_user_can_mend_is_said_before_anything_is_asked(
    folder: Path, served: str, budget: str, more: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        [*command(folder, budget=budget), *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
    )
    assert done.returncode == 2
    # Where progress was shown, its line is ended first.
    assert done.stderr.lstrip("\n").startswith("error: ")
    assert said in done.stderr
    assert books(served) == []
