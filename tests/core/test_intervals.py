from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from small_policy import recorded_query, shipped_catalog, shipped_policy, shipped_traces, team_of

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.intervals import Forecast, plan_intervals
from agentbalance_plugin.core.policy import Knobs
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.plan import LateGate, Plan


def forecast(**more: object) -> Forecast:
    """Two cheap backbones and a strong one, replies of about 100 tokens."""
    figures: dict[str, object] = {
        "names": ("cheap", "other", "strong"),
        "log_odds": np.array([0.0, 0.0, 2.0]),
        "prompt_tokens": 100.0,
        "log_tokens": np.full(3, np.log(100.0)),
        "sigma": 0.5,
        "hidden_tokens": np.zeros(3),
        "price_in": np.zeros(3),
        "price_out": np.array([1e-6, 1e-6, 1e-4]),
        "ttft_s": np.zeros(3),
        "tokens_per_s": np.full(3, 100.0),
        "max_output": np.full(3, 1e5),
        "shared": 0.5,
        "coincidence": 0.2,
    }
    return Forecast(**{**figures, **more})  # type: ignore[arg-type]


SINGLE = Plan(assignment={"a": "cheap"}, decider="a")
CASCADE = Plan(
    assignment={"a": "cheap", "b": "other", "c": "strong"},
    decision="vote",
    decider="c",
    late_gates={"c": LateGate(("a", "b"), 0.6)},
)


def test_a_single_call_spreads_as_its_reply_does() -> None:
    low, high = plan_intervals(SINGLE, forecast(), draws=20_000).cost_usd
    z = NormalDist().inv_cdf(0.95) * 0.5 * 1.1
    assert low == pytest.approx(1e-4 * np.exp(-z), rel=0.05)
    assert high == pytest.approx(1e-4 * np.exp(z), rel=0.05)


def test_late_gates_make_the_interval_wide() -> None:
    low, high = plan_intervals(CASCADE, forecast()).cost_usd
    # Below, two cheap calls alone; above, the strong one as well.
    assert low < 3e-4
    assert high > 5e-3


def test_agents_that_are_sure_to_agree_never_pay_for_the_third() -> None:
    sure = forecast(log_odds=np.array([30.0, 30.0, 30.0]), shared=0.0)
    assert plan_intervals(CASCADE, sure).cost_usd[1] < 1e-3


def test_reading_peers_costs_their_tokens() -> None:
    plan = Plan(
        assignment={"a": "cheap", "b": "strong"}, edges=(("a", "b"),), decider="b", hop_limit=2
    )
    prompts_alone = forecast(price_in=np.full(3, 1e-3), price_out=np.zeros(3), sigma=0.01)
    low, high = plan_intervals(plan, prompts_alone).cost_usd
    assert low < 0.3 < high
    assert low > 0.2


def test_two_calls_are_equal_and_an_unknown_backbone_is_an_error() -> None:
    assert plan_intervals(CASCADE, forecast()) == plan_intervals(CASCADE, forecast())
    with pytest.raises(ValueError, match="nobody"):
        plan_intervals(replace(SINGLE, assignment={"a": "nobody"}), forecast())


def test_nine_of_ten_validation_runs_are_inside() -> None:
    traces, policy, catalog, team = (
        shipped_traces(),
        shipped_policy(),
        shipped_catalog(),
        team_of(4),
    )
    rows = traces.positions("val")[::6]
    budget = Budget(cost_usd=1.0)
    texts = [recorded_query(int(row)) for row in rows]
    plans = [policy.plan(text, team, budget, catalog, Knobs(price_usd=15.0)) for text in texts]
    found = Replay(traces).evaluate_pairs(rows, plans)
    inside = [
        low <= seconds <= high
        for (low, high), seconds in zip(
            (
                policy.intervals(text, plan, team, catalog).latency_s
                for text, plan in zip(texts, plans, strict=True)
            ),
            found.latency_s.tolist(),
            strict=True,
        )
    ]
    assert 0.75 < np.mean(inside) < 1.0
