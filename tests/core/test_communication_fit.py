from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentbalance_plugin.core import communication_fit
from agentbalance_plugin.core.communication import Influence, Voice, after_reading
from agentbalance_plugin.core.communication_fit import (
    CANDIDATES,
    CHOSEN,
    FILES,
    Reading,
    Source,
    Study,
    Table,
    fit,
    held_out,
    intervals,
    main,
    probabilities,
    read_study,
    scores,
    tabulate,
)
from agentbalance_plugin.core.sampling import draw_keys

KNOWN = Influence(own=0.3, source=0.0, new=-0.4, count=0.8, right=0.5)
RATES = {"easy": 0.8, "hard": 0.35}


def synthetic(known: Influence, questions: int = 3000, seed: int = 0) -> Study:
    """Three agents per question that read each other, drawn by the replay's own model.

    Answer 0 is right; a source of a group is right as often as `RATES` says.
    """
    rng = np.random.default_rng(seed)
    groups = rng.choice(list(RATES), questions)
    rate = np.array([RATES[group] for group in groups])
    right = rng.random((3, questions)) < rate
    answers = np.where(right, 0, rng.integers(1, 5, (3, questions)))
    log_odds = np.log(rate / (1 - rate))
    voices = [Voice(a, r, log_odds) for a, r in zip(answers, right, strict=True)]
    alone = [
        (f"q{q}", Source(str(answers[agent, q]), bool(right[agent, q]), groups[q]))
        for q in range(questions)
        for agent in range(3)
    ]
    readings: list[Reading] = []
    for agent in range(3):
        peers = [voices[other] for other in range(3) if other != agent]
        keys = draw_keys(seed, np.arange(questions).astype(np.uint64), agent)
        said, correct, _ = after_reading(voices[agent], peers, keys, known)
        for q in range(questions):
            own, *others = (alone[3 * q + i][1] for i in (agent, (agent + 1) % 3, (agent + 2) % 3))
            answer = Source(str(said[q]), bool(correct[q]), groups[q])
            readings.append(Reading(f"q{q}", own, tuple(others), answer))
    return Study("mmlu", readings, alone)


@pytest.fixture(scope="module")
def table() -> Table:
    return tabulate([synthetic(KNOWN, questions=8000)])


def everything(table: Table) -> np.ndarray:
    return np.ones(len(table.chosen), dtype=np.bool_)


def test_the_fit_recovers_the_constants_of_the_replay(table: Table) -> None:
    found = fit(table, CANDIDATES[CHOSEN], everything(table))
    known = {"own": 0.3, "count": 0.8, "new": -0.4, "right": 0.5}
    assert found == pytest.approx(known, abs=0.12)


def test_the_fit_recovers_the_weight_of_the_log_odds() -> None:
    table = tabulate([synthetic(replace(KNOWN, source=0.4))])
    found = fit(table, CANDIDATES["count, log-odds, right"], everything(table))
    assert found["source"] == pytest.approx(0.4, abs=0.12)
    assert found["count"] == pytest.approx(0.8, abs=0.2)


def test_weights_count_as_copies(table: Table) -> None:
    rows = np.arange(len(table.chosen)) < 600
    weight = np.where(np.arange(len(table.chosen)) < 300, 1.0, 0.0)
    weighted = fit(table, CANDIDATES[CHOSEN], rows, weight)
    assert weighted == pytest.approx(fit(table, CANDIDATES[CHOSEN], weight > 0), abs=1e-6)


def test_held_out_the_true_terms_beat_keep_plurality_and_log_odds(table: Table) -> None:
    rows = everything(table)
    found = {name: scores(table, held_out(table, CANDIDATES[name], rows)) for name in CANDIDATES}
    for worse in ("keep", "plurality", "log-odds", "count"):
        low, _ = intervals(table, found[CHOSEN] - found[worse], rows)
        assert low[0] > 0, worse
    low, high = intervals(table, found[CHOSEN] - found["count, log-odds, right"], rows)
    assert low[0] < 0.002
    assert high[0] > -0.002


def test_what_a_question_says_never_enters_its_own_constants() -> None:
    study = synthetic(KNOWN, questions=200)
    table = tabulate([study])
    rows = everything(table)
    held = table.question == "mmlu q7"
    assert held.any()
    assert len(set(table.fold[held])) == 1
    changed = replace(table, chosen=np.where(held, 1 - table.chosen.clip(max=1), table.chosen))
    before, after = (held_out(t, CANDIDATES[CHOSEN], rows) for t in (table, changed))
    assert np.array_equal(before[held], after[held])
    assert not np.array_equal(before[~held], after[~held])


def test_probabilities_are_shares_of_the_options_on_offer(table: Table) -> None:
    p = probabilities(table, {"own": 1.0, "new": -1.0})
    assert p.sum(axis=1) == pytest.approx(1)
    assert (p[~table.offered] == 0).all()


def test_ties_share_a_hit_and_baselines_have_finite_scores(table: Table) -> None:
    even = scores(table, probabilities(table, {}))
    assert even[:, 1] == pytest.approx(1 / table.offered.sum(axis=1))
    for name in ("keep", "plurality"):
        assert np.isfinite(
            scores(table, held_out(table, CANDIDATES[name], everything(table)))
        ).all()


def test_intervals_resample_questions_and_repeat_themselves(table: Table) -> None:
    rows = everything(table)
    values = np.random.default_rng(5).normal(1.0, 1.0, (len(rows), 1))
    low, high = intervals(table, values, rows)
    assert low[0] < values.mean() < high[0]
    assert np.array_equal(np.array([low, high]), intervals(table, values, rows))
    # Readings of one question that are all alike are as good as one.
    _, code = np.unique(table.question, return_inverse=True)
    alike = np.random.default_rng(5).normal(1.0, 1.0, (int(code.max()) + 1, 1))[code]
    wide = np.subtract(*intervals(table, alike, rows)[::-1])
    assert wide > 1.3 * (high - low)


Row = dict[str, Any]


def write(folder: Path, name: str, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), folder / FILES[name][0])


def cell(question: str, number: int, agent: int, answer: str | None, **more: Any) -> Row:
    return {
        "question_id": question,
        "round": number,
        "agent": agent,
        "answer": answer,
        "correct": int(answer == "A"),
        **more,
    }


def said(sources: tuple[Source, ...]) -> list[str | None]:
    return [source.answer for source in sources]


def test_mmlu_readers_heard_the_round_before(tmp_path: Path) -> None:
    first = {0: "A", 1: "B", 2: None}
    rows = [cell("x", 0, a, s, n_agents=3, category="law") for a, s in first.items()]
    rows += [cell("x", 1, a, "B", n_agents=3, category="law") for a in first]
    rows += [cell("x", 0, a, "C", n_agents=2, category="law") for a in (0, 1)]
    write(tmp_path, "mmlu", rows)
    study = read_study(tmp_path, "mmlu")
    assert [(r.own.answer, said(r.peers), r.said.answer) for r in study.readings] == [
        ("A", ["B", None], "B"),
        ("B", ["A", None], "B"),
        (None, ["A", "B"], "B"),
    ]
    assert len(study.alone) == 5
    table = tabulate([study])
    # The second kept its answer, the others took it.
    assert table.chosen.tolist() == [1, 0, 1]
    assert table.voices.tolist() == [2, 2, 2]
    assert table.state.tolist() == [1, 0, -1]


def test_math_readers_heard_the_latest_reply_of_the_other(tmp_path: Path) -> None:
    answers = {(0, 0): "1", (0, 1): "2", (1, 0): "3", (1, 1): "4", (2, 0): "A", (2, 1): None}
    rows = [cell("x", n, a, s, category="algebra") for (n, a), s in answers.items()]
    rows += [cell("y", n, a, "A", category="algebra") for n in (0, 1) for a in (0, 1, 2)]
    write(tmp_path, "math", rows)
    study = read_study(tmp_path, "math")
    assert [(r.own.answer, said(r.peers), r.said.answer) for r in study.readings] == [
        ("3", ["4"], "A"),
        ("4", ["A"], None),
    ]
    # Something new and no answer at all are one option; it gains where nothing right was at hand.
    table = tabulate([study])
    assert table.chosen.tolist() == [2, 2]
    assert table.terms["right"].tolist() == [[0, 0, 1], [0, 1, 0]]


def test_dropped_agents_of_agentdropout_neither_speak_nor_read(tmp_path: Path) -> None:
    rows = [
        cell("x", 1, 0, "A", role="solver", dropped=0),
        cell("x", 1, 1, "B", role="critic", dropped=0),
        cell("x", 1, 2, None, role="coder", dropped=1),
        cell("x", 2, 0, "A", role="solver", dropped=0),
        cell("x", 2, 1, None, role="critic", dropped=1),
        cell("x", 2, 2, "A", role="coder", dropped=0),
        cell("x", 3, 3, "A", role="decision", dropped=0),
    ]
    write(tmp_path, "agentdropout", rows)
    (reading,) = read_study(tmp_path, "agentdropout").readings
    assert (reading.own.answer, said(reading.peers), reading.own.group) == ("A", ["B"], "solver")


def write_all(folder: Path) -> None:
    rng = np.random.default_rng(2)
    for name in FILES:
        rows: list[Row] = []
        for question in range(60):
            agents = 2 if name == "math" else 3
            for number in (1, 2) if name == "agentdropout" else (0, 1, 2):
                for agent in range(agents):
                    answer = str(rng.choice(["A", "A", "B", "C"]))
                    more = {"n_agents": 3, "category": "c", "role": f"r{agent}", "dropped": 0}
                    rows.append(cell(f"q{question}", number, agent, answer, **more))
        write(folder, name, rows)


def test_two_runs_of_the_command_print_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communication_fit, "_RESAMPLES", 20)
    monkeypatch.setattr(communication_fit, "track", lambda items, _: items)
    write_all(tmp_path)
    main(["--data", str(tmp_path)])
    first = capsys.readouterr().out
    main(["--data", str(tmp_path)])
    assert capsys.readouterr().out == first
    for title in ("Readings", "Held out, both", "Constants of", "Check", "Real / modelled"):
        assert title in first
    assert "nan" not in first


@pytest.mark.slow
@pytest.mark.skipif(
    "AGENTBALANCE_TRACES" not in os.environ,
    reason="AGENTBALANCE_TRACES does not name the folder of the original traces",
)
def test_the_replays_constants_are_those_of_the_recorded_agents() -> None:
    folder = Path(os.environ["AGENTBALANCE_TRACES"])
    table = tabulate([read_study(folder, name) for name in FILES])
    found = fit(table, CANDIDATES[CHOSEN], table.study == "mmlu")
    rounded = {name: round(value, 2) for name, value in found.items()}
    assert Influence(**rounded, source=0.0) == Influence()


@pytest.mark.slow
@pytest.mark.skipif(
    "AGENTBALANCE_TRACES" not in os.environ,
    reason="AGENTBALANCE_TRACES does not name the folder of the original traces",
)
def test_prompt_tokens_show_whom_the_math_agents_heard() -> None:
    import pyarrow.parquet as pq

    path = Path(os.environ["AGENTBALANCE_TRACES"]) / FILES["math"][0]
    runs: dict[str, dict[tuple[int, int], Row]] = {}
    for row in pq.read_table(path).to_pylist():
        runs.setdefault(row["question_id"], {})[row["round"], row["agent"]] = row
    last = [cells for cells in runs.values() if (2, 0) in cells]
    assert len(last) == 1073
    for cells in last:
        message = {
            agent: cells[2, agent]["prompt_tokens_all_messages"]
            - cells[1, agent]["prompt_tokens_all_messages"]
            - cells[1, agent]["completion_tokens"]
            for agent in (0, 1)
        }
        # Beside what was heard, both got the same text.
        around = message[0] - cells[1, 1]["completion_tokens"]
        assert message[1] - cells[2, 0]["completion_tokens"] == pytest.approx(around, abs=8)
