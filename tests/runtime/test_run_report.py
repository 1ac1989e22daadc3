"""What a report says of the caps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentbalance_plugin import Budget, RunReport, Spend


@pytest.mark.parametrize(
    ("seconds", "inside"), [(2.9, True), (3.000000000000001, True), (3.001, False)]
)
def test_a_run_that_ends_at_its_deadline_is_in_time(seconds: float, inside: bool) -> None:
    spend = replace(Spend(), calls=1, latency_s=seconds)
    report = RunReport(
        plan=None,
        budget=Budget(latency_s=3.0),
        spend=spend,
        agents=(),
        calls=(),
        stop_reason="Budget exhausted: cancelled at the deadline",
        complete=False,
    )
    assert report.within_budget is inside
    assert "0 tokens, 1 call, " in report.to_text()
