from __future__ import annotations

import math

import pytest

from agentbalance_plugin.evaluation.study import Budgets


@pytest.mark.parametrize("values", [(), (0.0,), (2.0, 1.0), (1.0, 1.0), (math.nan,), (math.inf,)])
def test_budgets_that_nothing_can_be_scored_at_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="budgets: latency_s must be finite, positive and ascend"):
        Budgets(cost_usd=(1.0,), latency_s=values)
