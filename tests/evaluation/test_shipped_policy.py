"""The shipped policy is what the documented command makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.core.trainer import TrainerConfig, train
from agentbalance_plugin.evaluation.kept_trials import KeptTrials
from agentbalance_plugin.evaluation.policy_method import PolicyMethod
from agentbalance_plugin.evaluation.study import Study
from agentbalance_plugin.evaluation.trials import AXES

SUITES = ("reasoning", "mmlu_pro", "mmlu")


@pytest.mark.slow
def test_training_anew_scores_as_the_shipped_policy_does(tmp_path: Path) -> None:
    traces = {suite: TraceSet.shipped(suite) for suite in SUITES}
    # As `agentbalance train --seed 2` does, the command in docs/training.md.
    train(list(traces.values()), tmp_path, TrainerConfig(seed=2))
    for suite, loaded in traces.items():
        methods = [PolicyMethod("default"), PolicyMethod(tmp_path, name="anew")]
        found = Study(suite, loaded, loaded, split="val", seeds=1, samples=2).run(
            methods, KeptTrials()
        )
        shipped, anew = (found.method(method.name) for method in methods)
        for axis in AXES:
            assert shipped.axes[axis].auc == pytest.approx(anew.axes[axis].auc, abs=0.3)
