"""What would be planned is told before anything is paid for, in figures and in text."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest

from agentbalance_plugin import Agent, Backbone, Budget, Catalog, Plan, Policy, Team
from agentbalance_plugin.adapters.explaining import TaskExplanation, explain_task
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.runtime.byte_bound import text_bound

TASK = "A pen costs 3 dollars and a book four times as much. What do both cost?"
TEAM = Team(tuple(Agent(name) for name in ("planner", "solver", "critic", "judge")), "judge")
FIXED = Team(
    (Agent("writer"), Agent("editor")), decider="editor", fixed_edges=(("writer", "editor"),)
)
POLICY = Policy.load()


@pytest.fixture(scope="module")
def catalog(shipped: TraceSet) -> Catalog:
    return shipped.profiled_candidates()


def explained(team: Team, budget: Budget, catalog: Catalog) -> TaskExplanation:
    return explain_task(POLICY, TASK, team, budget, catalog)


@pytest.mark.parametrize("team", [TEAM, FIXED])
def test_it_is_the_policys_plan_with_the_numbers_of_its_stages(
    team: Team, catalog: Catalog
) -> None:
    budget = Budget(cost_usd=0.004, latency_s=12)
    found = explained(team, budget, catalog)
    assert found.plan == POLICY.plan(TASK, team, budget, catalog)
    everything = found.to_dict()
    assert json.loads(json.dumps(everything, allow_nan=False)) == everything
    of_policy = POLICY.explain(TASK, team, budget, catalog)
    assert {key: everything[key] for key in of_policy} == of_policy


@pytest.mark.parametrize(
    ("budget", "limit", "said"),
    [
        (Budget(cost_usd=0.004, latency_s=12), "cost_usd", "0.004 USD"),
        (
            Budget.average(cost_usd=0.001, max_cost_usd=0.004),
            "mean_cost_usd",
            "0.001 USD on average, at most 0.004",
        ),
        (Budget(latency_s=12), "latency_s", "12 s"),
        (Budget(tokens=4000), "tokens", "4000 tokens"),
    ],
)
def test_other_budgets_are_planned_beside_it(
    budget: Budget, limit: str, said: str, catalog: Catalog
) -> None:
    found = explained(TEAM, budget, catalog)
    own = getattr(budget, limit)
    assert [getattr(other, limit) / own for other, _ in found.budgets] == [0.25, 0.5, 1, 2, 4]
    assert found.budgets[2] == (budget, found.plan)
    expected = [plan.expected for _, plan in found.budgets if isinstance(plan, Plan)]
    # The least and the most of it buy different plans.
    assert expected[0] is not None
    assert expected[-1] is not None
    assert expected[0].success < expected[-1].success
    assert f"\n{said}  " in found.to_text()


def test_budgets_that_afford_no_call_say_why(catalog: Catalog) -> None:
    found = explained(TEAM, Budget(tokens=text_bound(TASK) + 20), catalog)
    plans = [plan for _, plan in found.budgets]
    assert [isinstance(plan, str) for plan in plans] == [True, True, False, False, False]
    less = found.budgets[1][0].tokens
    said = f"Budget.tokens is {less}, but one call on this task may take {text_bound(TASK) + 16}"
    assert plans[1] == said
    assert re.search(rf"^{less} tokens +affords nothing: {said}$", found.to_text(), re.MULTILINE)
    row = found.to_dict()["budgets"][1]
    assert (row["plan"], row["refused"]) == (None, said)
    with pytest.raises(ValueError, match=r"Budget.tokens is 9"):
        explained(TEAM, Budget(tokens=9), catalog)


def test_plans_beyond_their_budget_are_marked(catalog: Catalog) -> None:
    rows = explained(TEAM, Budget(latency_s=0.4), catalog).to_text().splitlines()
    [tight] = [row.split() for row in rows if row.startswith("0.1 s")]
    [wide] = [row.split() for row in rows if row.startswith("1.6 s")]
    assert tight[4].endswith("!")
    assert not wide[4].endswith("!")
    assert any(row.startswith("! more than the budget allows") for row in rows)
    assert "!" not in explained(TEAM, Budget(latency_s=60), catalog).to_text()


def test_the_text_names_who_runs_on_what_and_why(catalog: Catalog) -> None:
    found = explained(TEAM, Budget(cost_usd=0.004), catalog)
    text = found.to_text()
    assert found.plan.to_tree() in text
    assert "kind of task: gsm8k" in text
    for agent in TEAM.names:
        [row] = [line for line in text.splitlines() if line.startswith(f"{agent} ")]
        assert row.endswith(found.plan.assignment.get(agent) or "does not run")
    assert f"designs considered: {found.stages['considered']}" in text
    assert text.count("\n  next: ") == len(found.stages["runners_up"]) > 0
    assert text.endswith("Predicted, not measured: no backbone was called.")
    # Of a team that keeps its order only backbones are chosen.
    fixed = explained(FIXED, Budget(cost_usd=0.004), catalog).to_text()
    assert "designs considered" not in fixed
    assert "answer of editor" in fixed


def test_a_large_catalog_is_shown_in_part(catalog: Catalog) -> None:
    # Without profiles the dearer is taken to be the stronger, so that nobody is beaten.
    many = Catalog(Backbone(f"b{n}", Decimal(n), Decimal(n)) for n in range(1, 41))
    text = explained(TEAM, Budget(cost_usd=0.1), many).to_text()
    table, _, rest = text.partition("\nand 20 more\n")
    assert sum(line.startswith(("0 ", "1 ", "2 ")) for line in table.splitlines()) == 20
    assert "beaten by others" not in rest
    assert "\n4 beaten by others" in explained(TEAM, Budget(cost_usd=0.1), catalog).to_text()


def test_a_planner_of_the_users_own_is_asked_once(catalog: Catalog) -> None:
    class Own:
        asked = 0

        def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
            self.asked += 1
            return Plan({"judge": "gemini-1.5-flash"}, decider="judge")

    own = Own()
    found = explain_task(own, TASK, TEAM, Budget(cost_usd=0.004), catalog)
    assert own.asked == 1
    assert found.stages == {}
    assert found.budgets == ()
    assert found.to_text().startswith("answer of judge\n└─ judge on gemini-1.5-flash\n\nPredicted")
