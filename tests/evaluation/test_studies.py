from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.studies import write_finding
from agentbalance_plugin.core.policy import Knobs
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.studies.catalogs import profiled_in_short, twins
from agentbalance_plugin.evaluation.studies.follow_through import study_follow_through
from agentbalance_plugin.evaluation.studies.metered import Task, run_metered
from agentbalance_plugin.evaluation.studies.profile_sizes import study_profile_sizes
from agentbalance_plugin.evaluation.studies.setting import (
    TEAM,
    Setting,
    policy_curve,
    singles_curve,
    span_of,
)


def no_ticker(title: str, total: int) -> object:
    return lambda: None


@pytest.fixture(scope="module")
def setting() -> Setting:
    """The shipped suite with every twelfth query."""
    whole = Setting.of("reasoning")
    rows = np.arange(0, len(whole.traces.queries), 12)
    traces = whole.traces
    few = replace(
        traces,
        queries=tuple(traces.queries[int(row)] for row in rows),
        samples=traces.samples.take((rows,)),
    )
    return replace(whole, traces=few)


def test_metered_runs_agree_with_the_replay_where_no_cap_binds(setting: Setting) -> None:
    budget = Budget(cost_usd=10.0)
    rows = setting.traces.positions("test")[:20]
    plans = [
        setting.policy.plan(setting.text(row), TEAM, budget, setting.catalog, Knobs(price_usd=20.0))
        for row in rows.tolist()
    ]
    tasks = [
        Task(
            setting.traces.queries[row].key,
            setting.text(row),
            lambda plan=plan: (plan, budget),
            lambda booked: None,
        )
        for row, plan in zip(rows.tolist(), plans, strict=True)
    ]
    runs = run_metered(setting.replay, tasks)
    found = setting.replay.evaluate_pairs(rows, plans)
    assert [run.correct for run in runs] == found.correct.tolist()
    assert [run.nanodollars for run in runs] == found.cost_nanodollars.tolist()
    assert [run.latency_s for run in runs] == pytest.approx(found.latency_s.tolist())


def test_budgets_are_followed_and_no_run_passes_its_cap(setting: Setting, tmp_path: Path) -> None:
    found = study_follow_through(setting, no_ticker)  # type: ignore[arg-type]
    assert found == study_follow_through(setting, no_ticker)  # type: ignore[arg-type]
    for stream in found.streams:
        assert stream.over_cap == stream.hard_over == 0
        assert stream.hard_most <= 1.0
        assert max(stream.spent) <= 1.0
        if stream.free > 1.05:
            assert min(stream.spent) >= 0.85
    assert all(0.7 < each.covered["all"] < 1.0 for each in found.calibration)
    write_finding(found, tmp_path)
    stem = "follow-through-reasoning"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{stem}{end}" for end in (".json", ".md", ".png", ".svg")
    }
    assert json.loads((tmp_path / f"{stem}.json").read_text())["replayed"] is True


def test_a_short_profile_is_of_fifty_training_queries(shipped: TraceSet) -> None:
    profiles = profiled_in_short(shipped)
    trials = {name: sum(profile.trials.values()) for name, profile in profiles.items()}
    assert max(trials.values()) == 50
    assert profiles == profiled_in_short(shipped)
    assert profiles != profiled_in_short(shipped, seed=1)
    with pytest.raises(ValueError, match="train split has"):
        profiled_in_short(shipped, queries=10**6)


def test_twins_are_near_identical_but_not_the_same(shipped: TraceSet) -> None:
    found = twins(shipped, "gpt-4o-2024-08-06", 3)
    original = shipped.correct[:, shipped.backbones.index("gpt-4o-2024-08-06")]
    assert np.array_equal(found.correct[:, 0], original)
    rates = found.correct.mean(axis=0)
    assert rates == pytest.approx(rates[0], abs=0.05)
    assert (found.correct[:, 0] != found.correct[:, 1]).any()
    # Real repeats of equal answers stay equal answers.
    assert (found.answer[:, 0] == found.answer[:, 1]).mean() > 0.5


def test_an_area_is_not_beside_itself(setting: Setting) -> None:
    curve = singles_curve(setting.traces.candidates, setting.replay, "cost")
    span = span_of(curve, setting.budgets.cost_usd[-1])
    assert span.difference(curve, curve, samples=20) == (0.0, 0.0)
    assert 0.0 < span.auc(curve) < 100.0


def test_the_study_of_profiles_profiles_on_what_it_says(setting: Setting, tmp_path: Path) -> None:
    found = study_profile_sizes(setting, no_ticker, (0, 25, 10_000))
    full = len(setting.traces.positions("train"))
    rows = {row.questions: row for row in found.rows if row.axis == "cost"}
    assert list(rows) == [0, 25, full]
    assert [len(row.areas) for row in rows.values()] == [1, 3, 1]
    assert len({*rows[0].areas, *rows[25].areas, *rows[full].areas}) == 5
    singles = singles_curve(setting.traces.candidates, setting.replay, "cost")
    span = span_of(singles, setting.budgets.cost_usd[-1])
    curve = policy_curve(setting.policy, setting.catalog, setting.replay, "cost", lambda: None)
    assert rows[full].areas == (span.auc(curve),)
    assert rows[0].difference == pytest.approx(rows[0].areas[0] - span.auc(curve))
    write_finding(found, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"profiles-reasoning.{end}" for end in ("json", "md", "png", "svg")}
    assert json.loads((tmp_path / "profiles-reasoning.json").read_text())["replayed"] is True
