from __future__ import annotations

import math

import numpy as np
import pytest

from agentbalance_plugin import Budget, Spend


@pytest.mark.parametrize("field", ["cost_usd", "latency_s", "tokens"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "much", True])
def test_a_limit_that_is_no_positive_number_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"Budget\.{field}"):
        Budget(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["cost_usd", "latency_s", "tokens"])
def test_an_integer_that_no_checkpoint_holds_is_refused_by_name(field: str) -> None:
    for value in (2**63, 10**400):
        with pytest.raises(ValueError, match=rf"Budget\.{field} must be at most"):
            Budget(**{field: value})  # type: ignore[arg-type]


def test_limits_that_numpy_worked_out_are_plain_numbers() -> None:
    mean = np.mean([0.001, 0.003])
    budget = Budget.average(cost_usd=mean, max_cost_usd=4 * mean, latency_s=np.float64(3))
    for limit in (budget.mean_cost_usd, budget.cost_usd, budget.latency_s):
        assert type(limit) is float


def test_a_budget_needs_a_limit() -> None:
    with pytest.raises(ValueError, match="at least one limit"):
        Budget()


def test_tokens_are_whole() -> None:
    with pytest.raises(ValueError, match="tokens must be a whole number"):
        Budget(tokens=1.5)  # type: ignore[arg-type]


def test_on_exceeded_is_one_of_two_words() -> None:
    with pytest.raises(ValueError, match="on_exceeded"):
        Budget(cost_usd=1, on_exceeded="stop")  # type: ignore[arg-type]


def test_average_has_a_mean_and_a_hard_cap() -> None:
    budget = Budget.average(cost_usd=0.001, max_cost_usd=0.004, latency_s=3)
    assert (budget.mean_cost_usd, budget.cost_usd, budget.latency_s) == (0.001, 0.004, 3)
    with pytest.raises(ValueError, match="above the hard cap"):
        Budget.average(cost_usd=0.005, max_cost_usd=0.004)
    with pytest.raises(ValueError, match="average cost_usd"):
        Budget.average(cost_usd=-1, max_cost_usd=0.004)
    with pytest.raises(ValueError, match="average cost_usd must be a number, got None"):
        Budget.average(cost_usd=None, max_cost_usd=0.004)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="average max_cost_usd must be a number, got None"):
        Budget.average(cost_usd=0.001, max_cost_usd=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usd", "nano"),
    [(0.1, 100_000_000), (0.004, 4_000_000), (1e-9, 1), (2.9e-9, 2), (5, 5 * 10**9)],
)
def test_caps_are_rounded_down_to_nanodollars(usd: float, nano: int) -> None:
    assert Budget(cost_usd=usd).nanodollars == nano


def test_a_cap_that_can_not_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Budget.cost_usd is too large .* 1e\+300"):
        Budget(cost_usd=1e300)


def test_a_cap_below_a_nanodollar_is_refused() -> None:
    with pytest.raises(ValueError, match="nano-dollar"):
        Budget(cost_usd=1e-10)
    with pytest.raises(ValueError, match="mean_cost_usd is below one nano-dollar: 1e-10"):
        Budget.average(cost_usd=1e-10, max_cost_usd=0.01)


def test_spends_add_up_exactly() -> None:
    tenth = Spend(nanodollars=100_000_000, prompt_tokens=1, completion_tokens=2, calls=1)
    total = Spend()
    for _ in range(10):
        total += tenth
    assert total.cost_usd == 1.0
    assert (total.tokens, total.calls) == (30, 10)
