"""What a report says of the caps."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from agentbalance_plugin import Backbone, Budget, RunReport, Spend
from agentbalance_plugin.runtime.meter import Meter


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


@pytest.mark.parametrize(("used", "told"), [(100, False), (101, True)])
def test_the_text_says_who_billed_more_than_allowed(used: int, told: bool) -> None:
    meter = Meter(Budget(cost_usd=1))
    with meter.reserve("solver", Backbone("mini", Decimal(1), Decimal(4)), 10, 100) as call:
        call.settle(10, used)
    report = RunReport(
        plan=None,
        budget=meter.budget,
        spend=meter.spend(),
        agents=(),
        calls=meter.calls,
        stop_reason="Plan complete",
        complete=True,
    )
    said = "billed more than a call was allowed to take: mini"
    assert (said in report.to_text().splitlines()) is told
