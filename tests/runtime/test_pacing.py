from __future__ import annotations

import random

import pytest

from agentbalance_plugin import Budget
from agentbalance_plugin.runtime.pacing import Pacer, Ticket

TARGET = 1_000_000
BUDGET = Budget.average(cost_usd=0.001, max_cost_usd=0.01)


def cap_of(ticket: Ticket) -> int:
    cap = ticket.budget.nanodollars
    assert cap is not None
    return cap


def test_greedy_tasks_never_pass_the_mean_from_the_hundredth_on() -> None:
    pacer = Pacer(BUDGET, price_usd=100)
    spent = 0
    for number in range(1, 200):
        ticket = pacer.start()
        assert cap_of(ticket) <= 10 * TARGET
        spent += cap_of(ticket)
        pacer.settle(ticket, cap_of(ticket))
        assert spent <= (number + 1) * TARGET if number < 100 else spent <= number * TARGET
    assert spent == number * TARGET


def test_concurrent_tasks_share_one_bucket() -> None:
    pacer = Pacer(BUDGET, price_usd=100)
    rng = random.Random(0)
    running: list[Ticket] = []
    spent = started = 0
    for _ in range(500):
        if running and rng.random() < 0.5:
            ticket = running.pop(rng.randrange(len(running)))
            cost = int(cap_of(ticket) * rng.random())
            spent += cost
            pacer.settle(ticket, cost)
        else:
            running.append(pacer.start())
            started += 1
        assert spent + sum(map(cap_of, running)) <= (started + 1) * TARGET


def test_what_is_not_spent_is_there_for_a_hard_task() -> None:
    pacer = Pacer(BUDGET, price_usd=100)
    for _ in range(30):
        pacer.settle(pacer.start(), TARGET // 10)
    assert cap_of(pacer.start()) == 10 * TARGET


def test_the_price_follows_the_spend() -> None:
    thrifty, spender = Pacer(BUDGET, price_usd=100), Pacer(BUDGET, price_usd=100)
    for _ in range(40):
        thrifty.settle(thrifty.start(), TARGET // 10)
        ticket = spender.start()
        spender.settle(ticket, cap_of(ticket))
    assert thrifty.price_usd < 100 < spender.price_usd


@pytest.mark.parametrize("start", [3.0, 100.0, 3000.0])
def test_a_stream_with_a_demand_curve_meets_its_mean(start: float) -> None:
    """Tasks whose cost falls with the price: cost = worth / price, worth log-normal."""
    rng = random.Random(1)
    pacer = Pacer(BUDGET, price_usd=start)
    costs: list[int] = []
    for _ in range(600):
        ticket = pacer.start()
        cost = min(int(TARGET * rng.lognormvariate(0, 1) * 100 / ticket.price_usd), cap_of(ticket))
        costs.append(cost)
        pacer.settle(ticket, cost)
    assert sum(costs) <= TARGET * len(costs)
    assert sum(costs) >= 0.93 * TARGET * len(costs)


def test_a_pacer_needs_a_mean() -> None:
    with pytest.raises(ValueError, match=r"Budget\.average"):
        Pacer(Budget(cost_usd=1), price_usd=1)
    with pytest.raises(ValueError, match="price_usd"):
        Pacer(BUDGET, price_usd=float("nan"))


def test_a_ticket_is_settled_once() -> None:
    pacer = Pacer(BUDGET, price_usd=1)
    ticket = pacer.start()
    pacer.settle(ticket, 0)
    with pytest.raises(KeyError):
        pacer.settle(ticket, 0)
