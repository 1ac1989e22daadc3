from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceError, TraceSet
from agentbalance_plugin.evaluation.evaluate import Score, evaluate
from agentbalance_plugin.evaluation.trials import (
    Axis,
    CategoryTable,
    PolicyMethod,
    SingleBackbones,
    Trial,
)


def policy_method(traces: TraceSet) -> PolicyMethod:
    catalog = traces.profiled_candidates()
    return PolicyMethod(Policy.load("default", RecordedEncoder(traces)), catalog)


@pytest.fixture(scope="module")
def scores(replay: Replay) -> dict[tuple[str, Axis], Score]:
    methods = [SingleBackbones(), CategoryTable(), policy_method(replay.traces)]
    found = evaluate(replay, methods, split="val", samples=20)
    return {(score.method, score.axis): score for score in found}


def test_the_policy_beats_single_backbones_and_the_category_table(
    scores: dict[tuple[str, Axis], Score],
) -> None:
    for axis in ("cost", "latency"):
        ours = scores["agentbalance", axis]
        assert ours.auc > scores["single backbones", axis].auc + 1.0
        assert ours.auc > scores["category -> single backbone", axis].auc
        assert ours.difference[0] < ours.difference[1]
        assert ours.performance == tuple(sorted(ours.performance))


def test_single_backbones_do_not_differ_from_themselves(
    scores: dict[tuple[str, Axis], Score],
) -> None:
    assert scores["single backbones", "cost"].difference == (0.0, 0.0)


def test_scores_are_json_values(scores: dict[tuple[str, Axis], Score]) -> None:
    score = replace(scores["agentbalance", "cost"], performance=(float("nan"), 50.0))
    assert score.to_dict()["performance"] == [None, 50.0]


def test_labels_of_the_test_split_change_no_plan_and_no_operating_point(
    shipped: TraceSet,
) -> None:
    class Spy:
        """Remembers what a method did on the validation queries."""

        name = "spy"

        def __init__(self, method: PolicyMethod) -> None:
            self.method = method
            self.seen: list[Trial] = []

        def trial(self, replay: Replay, split: str, axis: Axis, tick: Callable[[], None]) -> Trial:
            found = self.method.trial(replay, split, axis, tick)
            self.seen.append(found)
            return found

    correct = shipped.samples.correct.copy()
    test = shipped.positions("test")
    # Rows that were not recorded (-1) stay so: their tokens count in means.
    correct[test] = np.where(correct[test] >= 0, 1 - correct[test], correct[test])
    changed = replace(shipped, samples=replace(shipped.samples, correct=correct))
    spies = []
    for traces in (shipped, changed):
        spy = Spy(policy_method(traces))
        spy.trial(Replay(traces), "val", "cost", lambda: None)
        spies.append(spy)
    first, second = (spy.seen[0] for spy in spies)
    assert np.array_equal(first.right, second.right)
    assert np.array_equal(first.cost_usd, second.cost_usd)


def test_traces_without_a_validation_split_are_refused(shipped: TraceSet) -> None:
    only = shipped.split("test")
    with pytest.raises(TraceError, match="train"):
        evaluate(Replay(only), [SingleBackbones()])
