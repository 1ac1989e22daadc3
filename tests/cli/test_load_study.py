from __future__ import annotations

import pytest

from agentbalance_plugin.cli.load_study import study_load
from agentbalance_plugin.evaluation.studies.setting import Setting


def test_both_frameworks_are_measured_under_load() -> None:
    found = study_load(
        Setting.of("reasoning"), lambda title, total: lambda: None, queries=6, scale=0.01
    )
    assert [(row.framework, row.concurrent) for row in found.rows] == [
        (framework, count) for framework in ("autogen", "langgraph") for count in (1, 8, 32)
    ]
    for row in found.rows:
        assert row.failed == 0
        assert len(row.predicted) == len(row.measured) == len(row.hops) == 6
        assert min(row.measured) > 0
        assert -1.0 <= row.correlation <= 1.0
    assert "langgraph | 32" in found.to_markdown()


def test_a_scale_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="scale"):
        study_load(Setting.of("reasoning"), lambda title, total: lambda: None, 2, 0.0)
