"""The comparison itself: what is in the results, and that labels of the scored split stay out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceError, TraceSet
from agentbalance_plugin.evaluation.kept_trials import KeptTrials, modules_of
from agentbalance_plugin.evaluation.policy_method import PolicyMethod
from agentbalance_plugin.evaluation.registry import baselines
from agentbalance_plugin.evaluation.results import SuiteResult
from agentbalance_plugin.evaluation.sources import imported
from agentbalance_plugin.evaluation.study import Budgets, Study
from agentbalance_plugin.evaluation.trials import AXES, Fitted, Known, Method, Trial

CHEAP = ["mix", "category", "plan-table"]


def study(traces: TraceSet, **more: Any) -> Study:
    return Study("small", traces, traces, seeds=2, samples=50, steps=8, **more)


@pytest.fixture(scope="module")
def result(small: TraceSet) -> SuiteResult:
    return study(small).run([*baselines(CHEAP), PolicyMethod()], KeptTrials())


def test_the_policy_beats_the_mix_of_two_single_backbones(shipped: TraceSet) -> None:
    # Every second val query; profiles and tables know the whole train split.
    rows = np.sort(np.concatenate([shipped.positions("train"), shipped.positions("val")[::2]]))
    some = shipped.take(rows)
    comparison = Study("reasoning", some, some, "val", seeds=1, samples=20, steps=12)
    found = comparison.run([*baselines(["mix"]), PolicyMethod()], KeptTrials())
    ours, mix = found.method("agentbalance"), found.method("mix of single backbones")
    for axis in AXES:
        assert ours.axes[axis].auc > mix.axes[axis].auc + 1.0


def test_results_are_those_of_the_schema(result: SuiteResult) -> None:
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["suite"] == "small"
    assert [m["name"] for m in content["methods"]] == [m.name for m in result.methods]
    for method in content["methods"]:
        assert len(method["p_at_t"]) == len(method["p_at_l"]) == 3
        assert method["auc_cost_ci"][0] <= method["auc_cost"] <= method["auc_cost_ci"][1]
        assert method["points"]
        assert all(len(point) == 3 for point in method["points"])
    best = result.method(str(result.best_baseline["cost"]))
    assert best.axes["cost"].diff_to_best_baseline_ci == (0.0, 0.0)
    assert best.axes["cost"].auc_val == max(
        m.axes["cost"].auc_val for m in result.methods if m.family != "agentbalance"
    )


def flipped(traces: TraceSet, split: str) -> TraceSet:
    """Right and wrong exchanged; rows that were not recorded stay so."""
    correct = traces.samples.correct.copy()
    rows = traces.positions(split)
    correct[rows] = np.where(correct[rows] >= 0, 1 - correct[rows], correct[rows])
    return replace(traces, samples=replace(traces.samples, correct=correct))


class Spying:
    """Remembers what a method spent on the scored split, and its trials on val."""

    def __init__(self, method: Method) -> None:
        self.name, self.family, self.grid = method.name, method.family, method.grid
        self.method = method
        self.spent: list[Trial] = []

    def fit(self, known: Known) -> Fitted:
        fitted = self.method.fit(known)

        def points(replay: Replay, positions: np.ndarray[Any, np.dtype[np.int64]]) -> Trial:
            self.spent.append(trial := fitted(replay, positions))
            return trial

        return points


def fitted_methods() -> list[Any]:
    """All but the oracle, which is told; those that take long in the slow tier."""
    long = ("MasRouter", "AgentPrune, best", "AgentDropout, best", "G-Designer, best")
    methods = [m for m in baselines() if m.family != "oracle"] + [PolicyMethod()]
    return [
        pytest.param(m, id=m.name, marks=pytest.mark.slow if m.name.startswith(long) else ())
        for m in methods
    ]


@pytest.mark.parametrize("method", fitted_methods())
def test_labels_of_the_scored_split_change_no_choice(small: TraceSet, method: Method) -> None:
    found: list[tuple[Spying, SuiteResult]] = []
    for traces in (small, flipped(small, "test")):
        spy = Spying(method)
        comparison = replace(study(traces), seeds=1, samples=2)
        found.append((spy, comparison.run([spy], KeptTrials())))
    (first, one), (second, other) = found
    for before, after in zip(first.spent, second.spent, strict=True):
        assert np.array_equal(before.cost_usd, after.cost_usd)
        assert np.array_equal(before.latency_s, after.latency_s)
    for axis in AXES:
        assert one.methods[0].axes[axis].auc_val == other.methods[0].axes[axis].auc_val
        assert [p[:2] for p in one.methods[0].axes[axis].points] == [
            p[:2] for p in other.methods[0].axes[axis].points
        ]


def test_two_runs_are_equal_and_the_order_of_queries_does_not_matter(
    small: TraceSet, result: SuiteResult
) -> None:
    methods = [*baselines(CHEAP), PolicyMethod()]
    again = study(small).run(methods, KeptTrials())
    assert again.to_dict() == result.to_dict()
    order = np.random.default_rng(5).permutation(len(small.queries))
    shuffled = study(small.take(order)).run(methods, KeptTrials())
    for one, other in zip(result.methods, shuffled.methods, strict=True):
        for axis in AXES:
            assert one.axes[axis].auc == pytest.approx(other.axes[axis].auc, abs=1e-9)
            assert one.axes[axis].performance == pytest.approx(other.axes[axis].performance)


def test_failures_and_missing_rows_count_as_wrong(small: TraceSet) -> None:
    test = small.positions("test")
    correct, answer = small.samples.correct.copy(), small.samples.answer.copy()
    correct[test], answer[test] = -1, -1
    missing = replace(small, samples=replace(small.samples, correct=correct, answer=answer))
    found = study(missing).run(baselines(["mix", "plan-table"]), KeptTrials())
    for method in found.methods:
        assert method.axes["cost"].auc == 0.0
        assert method.axes["cost"].performance == (0.0, 0.0, 0.0)


def test_what_was_kept_is_not_made_again(small: TraceSet, tmp_path: Path) -> None:
    class Once:
        name, family, grid = "once", "single", {"n": 1}
        fitted = 0

        def fit(self, known: Known) -> Fitted:
            Once.fitted += 1
            return baselines(["mix"])[0].fit(known)

    first = study(small).run([Once()], KeptTrials(tmp_path))
    assert Once.fitted == 4
    assert study(small).run([Once()], KeptTrials(tmp_path)).to_dict() == first.to_dict()
    assert Once.fitted == 4
    # A file cut short by a kill, and other labels, are made again.
    next(tmp_path.glob("*.npz")).write_bytes(b"PK")
    study(small).run([Once()], KeptTrials(tmp_path))
    assert Once.fitted == 5
    study(flipped(small, "train")).run([Once()], KeptTrials(tmp_path))
    assert Once.fitted == 9


def test_methods_can_be_fitted_on_other_traces(small: TraceSet) -> None:
    scored = small.take(small.positions("test"))
    learned = small.take(np.concatenate([small.positions("train"), small.positions("val")]))
    methods = baselines(["category", "profile"])
    apart = Study("apart", scored, learned, seeds=1, samples=2).run(methods, KeptTrials())
    whole = Study("whole", small, small, seeds=1, samples=2).run(methods, KeptTrials())
    for one, other in zip(apart.methods, whole.methods, strict=True):
        assert one.axes["cost"].auc == pytest.approx(other.axes["cost"].auc, abs=1.0)
    with pytest.raises(TraceError, match="at least two are needed"):
        Study("none", scored, learned.subset(learned.backbones[:1])).run(methods, KeptTrials())


def test_what_can_not_be_scored_is_refused(small: TraceSet) -> None:
    with pytest.raises(TraceError, match="train"):
        study(small.take(small.positions("test"))).run(baselines(["mix"]), KeptTrials())
    with pytest.raises(ValueError, match="no reference backbone"):
        study(replace(small, reference=None)).run(baselines(["mix"]), KeptTrials())
    blank = replace(
        small.samples,
        prompt_tokens=small.samples.prompt_tokens * 0,
        visible_tokens=small.samples.visible_tokens * 0,
    )
    with pytest.raises(TraceError, match=f"backbone '{small.backbones[0]}' has no recorded answer"):
        study(replace(small, samples=blank)).run(baselines(["mix"]), KeptTrials())
    with pytest.raises(ValueError, match="ascending"):
        Budgets((0.2, 0.1), (1.0,))
    with pytest.raises(ValueError, match="no 'nothing'; there are all, none, single"):
        baselines(["nothing"])
    given = Budgets((0.001,), (5.0,))
    found = study(replace(small, reference=None), budgets=given).run(
        baselines(["mix"]), KeptTrials()
    )
    assert len(found.methods[0].axes["cost"].performance) == 1


def test_a_baseline_depends_on_no_module_of_the_policy() -> None:
    found = {m.name: imported(modules_of(m)) for m in [*baselines(), PolicyMethod()]}
    ours = found.pop("agentbalance")
    assert {f"agentbalance_plugin.core.{name}" for name in ("policy", "search")} <= ours
    for name, modules in found.items():
        assert "agentbalance_plugin.core.replay" in modules
        assert "agentbalance_plugin.core.policy" not in modules, name
    pruned = found["AgentPrune, best backbone"]
    assert "agentbalance_plugin.evaluation.baselines.agentprune" in pruned
    assert "agentbalance_plugin.evaluation.baselines.masrouter" not in pruned
