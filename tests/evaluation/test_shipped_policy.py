"""The shipped policy is what the documented command makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.core.trainer import train
from agentbalance_plugin.evaluation.evaluate import evaluate
from agentbalance_plugin.evaluation.trials import PolicyMethod

SUITES = ("reasoning", "mmlu_pro", "mmlu")


@pytest.mark.slow
def test_training_anew_scores_as_the_shipped_policy_does(tmp_path: Path) -> None:
    traces = {suite: TraceSet.shipped(suite) for suite in SUITES}
    train(list(traces.values()), tmp_path)
    for loaded in traces.values():
        catalog = loaded.profiled_candidates()
        shipped, anew = (
            evaluate(
                Replay(loaded),
                [PolicyMethod(Policy.load(source, RecordedEncoder(loaded)), catalog)],
                split="val",
                samples=2,
            )
            for source in ("default", tmp_path)
        )
        for one, two in zip(shipped, anew, strict=True):
            assert one.auc == pytest.approx(two.auc, abs=0.3)
