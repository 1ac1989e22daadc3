"""Plans that a person would find wrong at once, for teams and catalogs unlike those trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_policy import limits, shipped_catalog

from agentbalance_plugin import Agent, Backbone, Budget, Catalog, Expected, Plan, Policy, Team

TASK = "A shop sells pens at 3 for 2 dollars. What do 24 pens cost?"
LETTER = "Write an email to a customer whose parcel is late."


@cache
def policy() -> Policy:
    return Policy.load("default")


def team(size: int, *, in_order: bool = False, **last: Any) -> Team:
    agents = [Agent(f"a{n}", "Solve it.") for n in range(size - 1)]
    agents.append(Agent(f"a{size - 1}", "Solve it.", **last))
    names = [agent.name for agent in agents]
    fixed = tuple(combinations(names, 2)) if in_order else None
    return Team(tuple(agents), decider=names[-1], fixed_edges=fixed)


def planned(budget: Budget, catalog: Catalog, who: Team, task: str = TASK) -> Plan:
    plan = policy().plan(task, who, budget, catalog)
    plan.validate(who, catalog)
    return plan


def expected(*arguments: Any) -> Expected:
    found = planned(*arguments).expected
    assert found is not None
    return found


def called_live(folder: Path, profiles: Mapping[str, str]) -> Catalog:
    """gpt-4o and gpt-4o-mini with recorded profiles."""
    prices = {"mini": (0.15, 0.6), "large": (2.5, 10)}
    entries = [
        f"""  - backbone: {name}
    model: {name}
    base_url: http://127.0.0.1:9/v1
    price_in_usd_per_mtok: {price_in}
    price_out_usd_per_mtok: {price_out}
    profile: {profiles[name]}
"""
        for name, (price_in, price_out) in prices.items()
    ]
    path = folder / "backbones.yaml"
    path.write_text("backbones:\n" + "".join(entries))
    return Catalog.load(path)


@pytest.mark.parametrize("task", [TASK, LETTER])
def test_a_profile_on_further_kinds_makes_no_backbone_wordy(tmp_path: Path, task: str) -> None:
    one = {"mini": "gpt-4o-mini-2024-07-18", "large": "gpt-4o-2024-08-06"}
    both = {**one, "large": "[gpt-4o-2024-08-06, openai/gpt-4o-2024-05-13]"}
    alone = Team((Agent("a0", "Solve it."),), "a0")
    for name in ("mini", "large"):
        plain, more = (
            expected(Budget(cost_usd=1.0), called_live(tmp_path, each).subset([name]), alone, task)
            for each in (one, both)
        )
        assert more.success == pytest.approx(plain.success, abs=0.15)
        assert plain.cost_usd / 3 < more.cost_usd < plain.cost_usd * 3


def test_a_team_that_keeps_its_order_is_planned_within_its_deadline() -> None:
    examples = Path(__file__).parents[2] / "examples" / "backbones.yaml"
    catalog, who = Catalog.load(examples), team(4, in_order=True)
    used = {s: set(planned(Budget(latency_s=s), catalog, who).assignment.values()) for s in (3, 60)}
    # Four calls of the larger one take seven seconds.
    assert used == {3: {"flash"}, 60: {"large"}}


def test_a_team_that_keeps_its_order_is_planned_within_its_tokens() -> None:
    catalog = shipped_catalog()
    few, many = (
        expected(Budget(tokens=tokens), catalog, team(4, in_order=True)) for tokens in (600, 40_000)
    )
    assert few.success < 0.1
    assert many.success > 0.8


def test_what_a_cap_leaves_of_a_call_decides_who_is_on_the_short_list() -> None:
    # Two thousand tokens are dear on the second, which has room for five of them.
    few = limits(2, cost_usd=0.005, price_out=np.array([1e-6, 1e-3]), caps=np.full(2, 2_000.0))
    alone = few.alone(np.full((1, 2), 3.0))
    assert alone is not None
    assert alone[0, 0] > 0.99
    assert alone[0, 1] == 0.0
    late = replace(few, latency_s=np.array([1.0])).alone(np.array([[0.1, 30.0]]))
    assert late is not None
    assert late[0, 0] > 0.99
    assert limits(2).alone(np.full((1, 2), 3.0)) is None


@pytest.mark.parametrize("cost_usd", [0.001, 0.01])
def test_more_agents_than_can_take_part_change_nothing(cost_usd: float) -> None:
    plans = [expected(Budget(cost_usd=cost_usd), shipped_catalog(), team(n)) for n in (4, 5, 8, 16)]
    assert {plan.success for plan in plans} == {plans[0].success}
    assert {plan.cost_usd for plan in plans} == {plans[0].cost_usd}


def test_the_place_of_a_pinned_backbone_in_the_team_does_not_matter() -> None:
    catalog = shipped_catalog()
    weakest = min(
        catalog,
        key=lambda name: expected(Budget(cost_usd=1.0), catalog.subset([name]), team(1)).success,
    )
    free = [Agent(f"a{n}", "Solve it.") for n in range(4)]
    bound = [replace(agent, name=f"b{n}", backbone=weakest) for n, agent in enumerate(free[:3])]
    orders = ([*bound, *free], [*free[:3], *bound, free[3]])
    found = [expected(Budget(cost_usd=0.01), catalog, Team(tuple(order), "a3")) for order in orders]
    assert found[0].success == pytest.approx(found[1].success)


def test_success_that_comes_too_late_is_none() -> None:
    catalog = shipped_catalog()
    chances = [expected(Budget(latency_s=s), catalog, team(4)).success for s in (0.3, 1.0, 60.0)]
    assert chances[0] < 0.2
    assert chances == sorted(chances)


def test_a_reply_longer_than_a_backbone_may_write_is_never_right() -> None:
    catalog = shipped_catalog()
    name = next(iter(catalog))
    thinks = replace(
        catalog[name],
        reasoning="yes",
        hidden_tokens=dict.fromkeys(("gsm8k", "math_l5", "crux"), 8_000),
        max_output_tokens=4_096,
    )
    for cost_usd in (0.05, 10.0):
        assert expected(Budget(cost_usd=cost_usd), Catalog([thinks]), team(1)).success < 0.05


@pytest.mark.parametrize("price_out", ["0", "0.2", "20000"])
def test_a_price_beyond_all_trained_on_says_no_more_than_the_last(price_out: str) -> None:
    def local(price: str) -> Expected:
        backbone = Backbone("local", Decimal("0.06"), Decimal(price), tokens_per_s=50.0)
        return expected(Budget(cost_usd=1_000.0), Catalog([backbone]), team(1))

    assert local(price_out).success == pytest.approx(local("0.6").success, abs=0.25)
