from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_policy import (
    NAMES,
    TOOL_CATALOG,
    TOOLS,
    backbone,
    recorded_query,
    shipped_catalog,
    shipped_policy,
    shipped_traces,
    team_of,
    teams,
)

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.knobs import Past
from agentbalance_plugin.core.policy import Knobs
from agentbalance_plugin.evaluation.studies.catalogs import profiled_in_short
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Agent, Team

POLICY = shipped_policy()
AMPLE = Budget(cost_usd=0.5)
TINY = Budget(cost_usd=1e-8)
VISION = frozenset({"vision"})
UNPINNED = Team((Agent("a"), Agent("b"), Agent("c")), decider="c")


def planned(team: Team, budget: Budget = AMPLE, catalog: Catalog = TOOL_CATALOG) -> Plan:
    """A plan that was checked against its team and catalog."""
    plan = POLICY.plan(recorded_query(7), team, budget, catalog)
    plan.validate(team, catalog)
    return plan


BUDGETS = [
    AMPLE,
    Budget(tokens=100_000),
    Budget(latency_s=20.0),
    Budget(cost_usd=0.5, latency_s=3.0),
    Budget.average(cost_usd=3e-4, max_cost_usd=0.5),
]


@given(teams(), st.sampled_from(BUDGETS), st.integers(0, 2000), st.sampled_from([-0.1, 0.0, 0.1]))
@settings(max_examples=60, deadline=None)
def test_plans_fit_their_team_and_catalog(
    team: Team, budget: Budget, query: int, delta: float
) -> None:
    plan = POLICY.plan(recorded_query(query), team, budget, TOOL_CATALOG, Knobs(delta=delta))
    plan.validate(team, TOOL_CATALOG)
    for agent in team.agents:
        if agent.keep or not agent.calls_backbone:
            assert agent.name in plan.assignment
        chosen = plan.assignment.get(agent.name)
        if not agent.calls_backbone:
            assert chosen is None
        elif chosen is not None:
            assert agent.backbone in (None, chosen)
            assert agent.needs <= TOOL_CATALOG[chosen].capabilities
    if team.fixed_edges is not None:
        assert tuple(plan.assignment) == team.names
        assert set(plan.edges) == set(team.fixed_edges)
    assert plan.expected is not None
    assert 0.0 < plan.expected.success <= 1.0
    assert plan.expected.cost_usd > 0.0


def test_agents_without_a_backbone_are_kept() -> None:
    executor = Agent("executor", calls_backbone=False)
    plan = planned(Team((Agent("a"), executor, Agent("b")), decider="b"))
    assert tuple(plan.assignment) == ("a", "executor", "b")
    assert plan.assignment["executor"] is None
    assert plan.edges


def test_what_prompts_hold_beside_the_task_is_paid_for() -> None:
    agent = Team((Agent("solver"),), decider="solver")
    long_role = Team((Agent("solver", role="x" * 42_000),), decider="solver")
    query, budget = recorded_query(7), Budget(cost_usd=0.02)
    short = POLICY.plan(query, agent, AMPLE, TOOL_CATALOG)
    for team, beside in ((agent, 42_000), (long_role, 0)):
        alone = POLICY.explain(query, team, AMPLE, TOOL_CATALOG, past=Past(beside))["backbones"]
        usual = POLICY.explain(query, agent, AMPLE, TOOL_CATALOG)["backbones"]
        for name, priced in TOOL_CATALOG.items():
            more = alone[name]["cost_usd"] - usual[name]["cost_usd"]
            assert more == pytest.approx(10_000 * float(priced.price_in_usd_per_mtok) / 1e6)
        # By bytes, which bounds are counted in, most of them are not affordable.
        plan = POLICY.plan(query, team, budget, TOOL_CATALOG, past=Past(beside))
        [name] = plan.assignment.values()
        assert name is not None
        assert TOOL_CATALOG[name].cost(42_000, 16) <= budget.nanodollars
    [name] = short.assignment.values()
    assert name is not None
    assert TOOL_CATALOG[name].cost(42_000, 16) > budget.nanodollars


def test_turns_that_earlier_runs_showed_are_paid_for() -> None:
    team, query = Team((Agent("solver"),), decider="solver"), recorded_query(7)
    usual = POLICY.explain(query, team, AMPLE, TOOL_CATALOG)
    past = Past(length=3.0, calls=4.0, replies=2.0)
    turns = POLICY.explain(query, team, AMPLE, TOOL_CATALOG, past=past)
    prompt = usual["plan"]["expected"]["prompt_tokens"]
    for name, priced in TOOL_CATALOG.items():
        before, after = usual["backbones"][name], turns["backbones"][name]
        assert after["success"] == before["success"]
        if priced.reasoning != "no":
            continue
        read = prompt * float(priced.price_in_usd_per_mtok) / 1e6
        written = before["cost_usd"] - read
        assert after["cost_usd"] == pytest.approx(4 * read + 2 * 3 * written, rel=0.01)
        seconds = (before["latency_s"] - priced.ttft_s) * 2 * 3 + 4 * priced.ttft_s
        assert after["latency_s"] == pytest.approx(seconds, rel=0.01)
    assert turns["plan"]["notes"]["past"] == {"lengths": {}, "calls": 4.0}
    plain = [name for name, priced in TOOL_CATALOG.items() if priced.reasoning == "no"]
    mini, *others = plain
    past = Past(lengths={mini: 2.0}, length=0.5)
    written = POLICY.explain(query, team, AMPLE, TOOL_CATALOG, past=past)
    ratio = {
        name: written["backbones"][name]["latency_s"] / usual["backbones"][name]["latency_s"]
        for name in plain
    }
    assert ratio[mini] > 1.4
    assert all(ratio[name] < 1.0 for name in others)
    assert written["plan"]["notes"]["past"]["lengths"] == {mini: 2.0}
    assert "past" not in usual["plan"]["notes"]


@pytest.mark.parametrize(
    ("past", "least"),
    [
        (Past(length=12.0), 12.0),
        (Past(calls=12.0, replies=12.0), 12.0),
        (Past(longest_bytes=8000), 1.0),
    ],
)
def test_backbones_whose_turns_a_cap_has_no_room_for_are_left_alone(
    past: Past, least: float
) -> None:
    team, query = Team((Agent("solver"),), decider="solver"), recorded_query(7)
    # Room for one usual call of a strong backbone.
    budget = Budget(cost_usd=0.004)

    def chosen(past: Past) -> Backbone:
        [name] = POLICY.plan(query, team, budget, TOOL_CATALOG, past=past).assignment.values()
        assert name is not None
        return TOOL_CATALOG[name]

    prompt, reply = past.longest_bytes + 500, 100 * least
    fits = (prompt * chosen(past).price_in_usd_per_mtok) + (
        Decimal(reply) * chosen(past).price_out_usd_per_mtok
    )
    assert fits / 10**6 <= Decimal("0.004")
    usual = chosen(Past())
    assert usual.price_out_usd_per_mtok > 2 * chosen(past).price_out_usd_per_mtok


@pytest.mark.parametrize("money", [0.0005, 0.004, 1.0])
def test_one_agent_answers_where_answers_can_not_be_compared(money: float) -> None:
    budget, past = Budget(cost_usd=money), Past(comparable=False)
    more = 0
    for number in range(0, 1500, 250):
        query = recorded_query(number)
        more += len(POLICY.plan(query, UNPINNED, budget, TOOL_CATALOG).assignment) > 1
        plan = POLICY.plan(query, UNPINNED, budget, TOOL_CATALOG, past=past)
        assert len(plan.assignment) == 1
        assert plan.decision == "agent"
        # Who is pinned is kept all the same.
        pinned = Team((Agent("a", keep=True), Agent("b"), Agent("c")), decider="c")
        kept = POLICY.plan(query, pinned, budget, TOOL_CATALOG, past=past).assignment
        assert set(kept) >= {"a", "c"}
    assert more > 0


def keeping(*others: Agent, decider: Agent | None = None) -> Team:
    decider = decider or Agent("d")
    return Team((*others, decider), decider=decider.name)


KEPT = Agent("a", keep=True)
THREE = [Agent(name, keep=True) for name in "abc"]
ONE_BACKBONE = [Agent(name, keep=name == "a", backbone=NAMES[0]) for name in "ad"]


@pytest.mark.parametrize(
    ("team", "budget", "backbones"),
    [
        (keeping(KEPT), AMPLE, NAMES),
        (keeping(Agent("b"), KEPT), AMPLE, NAMES),
        (keeping(*THREE, decider=Agent("d", keep=True)), TINY, NAMES),
        (keeping(KEPT), TINY, NAMES),
        (keeping(*THREE), AMPLE, NAMES),
        (keeping(KEPT), AMPLE, NAMES[:1]),
        (keeping(ONE_BACKBONE[0], decider=ONE_BACKBONE[1]), AMPLE, NAMES),
    ],
)
def test_pinned_agents_are_kept(team: Team, budget: Budget, backbones: list[str]) -> None:
    plan = planned(team, budget, TOOL_CATALOG.subset(backbones))
    assert {agent.name for agent in team.agents if agent.keep} <= plan.assignment.keys()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("others", [(), (backbone("mid"), backbone("big", "15"))])
def test_a_call_that_costs_nothing_can_be_planned(others: tuple[Backbone, ...]) -> None:
    """An empty prompt, and output that is free."""
    free = Backbone("free", Decimal("0.1"), Decimal(0))
    catalog = Catalog([free, *others])
    for budget in (AMPLE, Budget.average(cost_usd=1e-4, max_cost_usd=0.5)):
        plan = POLICY.plan("", UNPINNED, budget, catalog)
        plan.validate(UNPINNED, catalog)
        explained = POLICY.explain("", UNPINNED, budget, catalog)
        json.dumps(explained, allow_nan=False)


@pytest.mark.parametrize(
    ("team", "message"),
    [
        (
            Team((Agent("d", backbone="gone"),), "d"),
            r"'d' needs \['text'\] and is pinned to 'gone'",
        ),
        (Team((Agent("d", needs=VISION),), "d"), r"'d' needs \['vision'\]"),
        (Team((Agent("d", calls_backbone=False),), "d"), "'d' calls none"),
        (
            Team((Agent("a", keep=True, backbone="gone"), Agent("d")), "d"),
            r"agent 'a' needs \['text'\] and is pinned to 'gone', no backbone",
        ),
    ],
)
def test_whom_no_backbone_fits_is_told_with_what_it_asks_for(team: Team, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned(team, TINY)


# gemini-1.5-pro is beaten in everything by another one.
BEATEN = Catalog(
    replace(each, capabilities=TOOLS if name == "gemini-1.5-pro" else frozenset({"text"}))
    for name, each in shipped_catalog().items()
)


def test_a_need_that_only_a_beaten_backbone_meets_is_met_with_a_real_prediction() -> None:
    plan = planned(keeping(Agent("a"), decider=Agent("d", needs=TOOLS)), catalog=BEATEN)
    assert plan.assignment["d"] == "gemini-1.5-pro"
    assert plan.expected is not None
    assert plan.expected.success > 0.5


def test_a_pinned_agent_is_kept_on_the_only_beaten_backbone_that_fits() -> None:
    plan = planned(keeping(Agent("a", keep=True, needs=TOOLS)), catalog=BEATEN)
    assert plan.assignment["a"] == "gemini-1.5-pro"


def test_a_mean_budget_works_where_only_a_beaten_backbone_fits() -> None:
    mean = Budget.average(cost_usd=1e-3, max_cost_usd=0.5)
    planned(keeping(Agent("a"), decider=Agent("d", needs=TOOLS)), mean, catalog=BEATEN)


def test_a_team_whose_needs_no_backbone_meets_is_refused() -> None:
    with pytest.raises(ValueError, match="no backbone"):
        POLICY.plan("Hi", team_of(1, needs=VISION), AMPLE, TOOL_CATALOG)
    with pytest.raises(ValueError, match="no backbone"):
        POLICY.plan("Hi", team_of(2), AMPLE, Catalog([]))
    fixed = Team((Agent("a", needs=VISION), Agent("b")), decider="b", fixed_edges=(("a", "b"),))
    with pytest.raises(ValueError, match=r"'a'.*vision"):
        POLICY.plan("Hi", fixed, AMPLE, TOOL_CATALOG)


@pytest.mark.parametrize(
    "decider",
    [
        Agent("d", needs=VISION),
        Agent("d", backbone="not in the catalog"),
        Agent("d", needs=VISION, backbone=NAMES[0]),
    ],
)
def test_a_decider_that_no_backbone_fits_is_refused(decider: Agent) -> None:
    with pytest.raises(ValueError, match="no backbone"):
        POLICY.plan("Hi", keeping(Agent("a"), decider=decider), AMPLE, TOOL_CATALOG)


def test_two_loads_make_the_same_plans() -> None:
    one, other = shipped_policy(), shipped_policy()
    mean = Budget.average(cost_usd=3e-4, max_cost_usd=0.5)
    for number in range(0, 2000, 200):
        for budget in (AMPLE, mean):
            first = one.plan(recorded_query(number), team_of(4), budget, TOOL_CATALOG)
            assert other.plan(recorded_query(number), team_of(4), budget, TOOL_CATALOG) == first


def test_plans_do_not_depend_on_what_was_planned_before() -> None:
    beaten = keeping(Agent("a"), decider=Agent("d", backbone="gemini-1.5-pro"))
    used = shipped_policy()
    used.plan("Hi", team_of(2), AMPLE, TOOL_CATALOG)
    plan = used.plan("Hi", beaten, AMPLE, TOOL_CATALOG)
    assert plan == shipped_policy().plan("Hi", beaten, AMPLE, TOOL_CATALOG)


@pytest.mark.parametrize("budget", BUDGETS)
def test_new_names_of_backbones_change_nothing_else(budget: Budget) -> None:
    new = {name: f"backbone {number * 37 % 41}" for number, name in enumerate(TOOL_CATALOG)}
    renamed = Catalog(replace(each, name=new[name]) for name, each in TOOL_CATALOG.items())
    for number in range(0, 2000, 400):
        for team in (team_of(4), Team((Agent("a"), Agent("b")), "b", (("a", "b"),))):
            plan = POLICY.plan(recorded_query(number), team, budget, TOOL_CATALOG)
            other = POLICY.plan(recorded_query(number), team, budget, renamed)
            assert other == replace(
                plan, assignment={k: v and new[v] for k, v in plan.assignment.items()}
            )


def test_the_order_of_the_catalog_changes_at_most_who_of_two_speaks_first() -> None:
    turned = TOOL_CATALOG.subset(reversed(NAMES))
    for number in range(0, 2000, 250):
        plan = POLICY.plan(recorded_query(number), team_of(4), AMPLE, TOOL_CATALOG)
        other = POLICY.plan(recorded_query(number), team_of(4), AMPLE, turned)
        assert plan.expected is not None
        assert other.expected is not None
        assert other.expected.success == pytest.approx(plan.expected.success, abs=1e-12)
        assert other.late_gates.keys() == plan.late_gates.keys()
        at_once = [name for name in plan.assignment if name not in plan.late_gates]
        one, two = ({each.assignment[name] for name in at_once} for each in (plan, other))
        assert one == two


def test_backbones_that_were_never_seen_can_be_chosen() -> None:
    traces = shipped_traces()
    unseen = traces.catalog.subset(traces.unseen)
    assert all(each.profile is None for each in unseen.values())
    assert set(planned(team_of(3), catalog=unseen).assignment.values()) <= set(traces.unseen)
    bargain = Catalog([*TOOL_CATALOG.values(), backbone("bargain", "0.001", tokens_per_s=500.0)])
    cheap = POLICY.plan("Hi", team_of(2), AMPLE, bargain, Knobs(price_usd=1e6))
    assert list(cheap.assignment.values()) == ["bargain"]
    alone = Catalog([backbone("alone", "2")])
    assert planned(team_of(3), catalog=alone).assignment == {"a2": "alone"}


@pytest.mark.parametrize(
    ("newcomer", "draw"), [("Meta-Llama-3-8B-Instruct", 1), ("Qwen2-7B-Instruct", 2)]
)
@pytest.mark.parametrize("price", [30.0, 300.0])
def test_a_newcomer_that_few_answers_speak_for_changes_hardly_a_plan_without_it(
    newcomer: str, draw: int, price: float
) -> None:
    traces = shipped_traces()
    own = traces.profiled_candidates()
    # Fifty queries that flatter it, so that it is not beaten by the others.
    few = profiled_in_short(traces, seed=draw)[newcomer]
    more = Catalog([*own.values(), replace(traces.catalog[newcomer], profile=few)])
    queries = [recorded_query(number) for number in range(0, 2000, 50)]
    assert newcomer in POLICY.explain(queries[0], team_of(4), AMPLE, more)["pools"]["0"]
    before, after = (
        POLICY.plan_batch(queries, team_of(4), AMPLE, each, Knobs(price_usd=price))
        for each in (own, more)
    )
    changed = [
        new.assignment
        for new, old in zip(after, before, strict=True)
        if new.assignment != old.assignment
    ]
    # All it can do is take the last place of the short list from another.
    assert len(changed) <= 1
    assert not any(newcomer in assignment.values() for assignment in changed)


@pytest.mark.parametrize("budget", [TINY, Budget(tokens=20), Budget(cost_usd=1e-8, tokens=1)])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_tiny_hard_cap_gives_a_plan_of_one_call(size: int, budget: Budget) -> None:
    plan = planned(team_of(size), budget)
    assert tuple(plan.assignment) == (f"a{size - 1}",)
    assert plan.decision == "agent"
    assert not plan.late_gates


def test_a_budget_of_tokens_alone_is_kept_to_in_prediction() -> None:
    sizes = [len(planned(team_of(4), Budget(tokens=tokens)).assignment) for tokens in (600, 10**6)]
    assert sizes[0] < sizes[1]


def test_what_knobs_ask_for_shows_in_the_plan() -> None:
    def plan(**knobs: float) -> Plan:
        return POLICY.plan(recorded_query(7), team_of(4), AMPLE, TOOL_CATALOG, Knobs(**knobs))

    free, dear = plan(), plan(price_usd=1e4)
    assert free.notes["price_usd"] == 0.0
    assert dear.notes["price_usd"] == 1e4
    assert free.expected is not None
    assert dear.expected is not None
    assert dear.expected.cost_usd < free.expected.cost_usd / 10
    assert free.depth > 1
    assert plan(lambda_len=1.0).depth == 1
    pools = POLICY.explain(recorded_query(7), team_of(4), AMPLE, TOOL_CATALOG)["pools"]
    for delta, pool in ((-1.0, "0"), (1.0, "2")):
        assert set(plan(delta=delta).assignment.values()) <= set(pools[pool])


def test_in_a_pipeline_replies_count_for_the_chance_that_they_end() -> None:
    names = [f"a{number}" for number in range(4)]
    team = Team(team_of(4).agents, "a3", fixed_edges=tuple(pairwise(names)))
    cheapest = min(TOOL_CATALOG, key=lambda name: TOOL_CATALOG[name].cost(300, 4096))

    def used(budget: Budget, number: int) -> set[str | None]:
        plan = POLICY.plan(recorded_query(number), team, budget, TOOL_CATALOG)
        return set(plan.assignment.values())

    # Four of the longest replies of the next cheapest backbone would cost more than the cap, four
    # of its usual ones a small part of it.
    budget = Budget.average(cost_usd=0.0005, max_cost_usd=0.002)
    assert sum(used(budget, number) != {cheapest} for number in range(20)) > 10
    # What could not answer at all is left alone.
    assert used(Budget(cost_usd=0.00002), 0) == {cheapest}


def test_in_a_pipeline_the_decider_gets_the_stronger_backbone() -> None:
    names = [f"a{number}" for number in range(4)]
    team = Team(team_of(4).agents, "a3", fixed_edges=tuple(pairwise(names)))
    costs: list[float] = []
    split = 0
    for price in (0.0, 10.0, 30.0, 100.0, 300.0, 1e6):
        knobs = Knobs(price_usd=price)
        explained = POLICY.explain(recorded_query(1500), team, AMPLE, TOOL_CATALOG, knobs)
        alone, assignment = explained["backbones"], explained["plan"]["assignment"]
        assert len({assignment[name] for name in names[:3]}) == 1
        decider, other = alone[assignment["a3"]], alone[assignment["a0"]]
        assert decider["success"] >= other["success"]
        split += decider["success"] > other["success"]
        costs.append(explained["plan"]["expected"]["cost_usd"])
    assert split
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0] / 10


def test_where_no_agent_that_calls_decides_all_get_the_backbone_that_was_worked_out() -> None:
    person = Agent("person", calls_backbone=False)
    for callers in (team_of(1).agents, team_of(3).agents):
        names = [agent.name for agent in callers]
        for team in (
            Team(callers, fixed_edges=()),
            Team((*callers, person), "person"),
            Team((*callers, person), fixed_edges=()),
        ):
            chosen: set[str] = set()
            for price in (0.0, 30.0, 300.0, 1e6):
                knobs = Knobs(price_usd=price)
                explained = POLICY.explain(recorded_query(1500), team, AMPLE, TOOL_CATALOG, knobs)
                plan = explained["plan"]
                (backbone,) = {plan["assignment"][name] for name in names}
                alone = explained["backbones"][backbone]
                assert plan["expected"]["success"] == pytest.approx(alone["success"], abs=1e-3)
                chosen.add(backbone)
            # Free, the best; dear, the cheapest.
            assert len(chosen) > 1


def test_agents_with_nothing_in_common_are_planned_though_a_person_decides() -> None:
    able = [frozenset({"vision"})] * 2 + [TOOLS] * 2
    catalog = Catalog(
        replace(TOOL_CATALOG[name], capabilities=can)
        for name, can in zip(NAMES[:4], able, strict=True)
    )
    agents = (Agent("a", needs=able[0]), Agent("b", needs=TOOLS))
    team = Team((*agents, Agent("person", calls_backbone=False)), "person")
    plan = planned(team, catalog=catalog)
    assert plan.assignment["a"] in NAMES[:2]
    assert plan.assignment["b"] in NAMES[2:4]


def test_fixed_agents_side_by_side_take_the_time_of_the_longest_path() -> None:
    names = [f"a{number}" for number in range(4)]
    chain, fan_in = tuple(pairwise(names)), tuple((name, "a3") for name in names[:3])

    def expected(edges: tuple[tuple[str, str], ...]) -> tuple[float, float]:
        team = Team(team_of(4).agents, "a3", fixed_edges=edges)
        plan = POLICY.plan(recorded_query(7), team, AMPLE, TOOL_CATALOG)
        assert len(set(plan.assignment.values())) == 1
        assert plan.expected is not None
        return plan.expected.latency_s, plan.expected.cost_usd

    (in_turn, dear), (beside, as_dear) = expected(chain), expected(fan_in)
    assert beside == pytest.approx(in_turn / 2)
    assert as_dear == pytest.approx(dear)
    # Without edges nobody knows who runs beside whom.
    assert expected(()) == (in_turn, dear)


def test_explanations_are_json_and_tell_of_every_stage() -> None:
    explained = POLICY.explain(recorded_query(7), team_of(4), AMPLE, TOOL_CATALOG)
    assert json.loads(json.dumps(explained, allow_nan=False)) == explained
    stages = {"difficulty", "categories", "pools", "backbones", "plan"}
    assert set(explained) == stages | {
        "considered", "worth", "factors", "runners_up", "pool_probabilities", "strongest_pool",
        "match", "solo", "gates", "hop_limits", "hop_limit", "edges", "cut_edges", "late", "race",
    }  # fmt: skip
    assert sum(explained["pool_probabilities"].values()) == pytest.approx(1.0)
    assert sum(explained["hop_limits"].values()) == pytest.approx(1.0)
    assert explained["plan"]["hop_limit"] <= explained["hop_limit"]
    assert all(factor <= 0 for factor in explained["factors"].values())
    for share in (explained["gates"], explained["edges"], explained["late"]):
        assert all(0 <= p <= 1 for p in share.values())
    for matches in explained["match"].values():
        assert list(matches.values()) == sorted(matches.values(), reverse=True)
    assert 0 < explained["difficulty"] < 1
    assert list(explained["backbones"]) == NAMES
    plan = POLICY.plan(recorded_query(7), team_of(4), AMPLE, TOOL_CATALOG)
    assert explained["plan"] == plan.to_dict()
    offered = {name for pool in explained["pools"].values() for name in pool}
    assert set(plan.assignment.values()) <= offered <= set(NAMES)
    assert all("log_probability" in other for other in explained["runners_up"])
    fixed = Team((Agent("a"), Agent("b")), "b", (("a", "b"),))
    pipeline = POLICY.explain(recorded_query(7), fixed, AMPLE, TOOL_CATALOG)
    assert set(pipeline) == stages
    assert json.loads(json.dumps(pipeline, allow_nan=False)) == pipeline


def test_a_larger_mean_has_a_lower_price() -> None:
    means = (5e-5, 1e-4, 3e-4, 1e-3, 5e-2)
    budgets = [Budget.average(cost_usd=mean, max_cost_usd=0.5) for mean in means]
    prices = [POLICY.price_for(team_of(3), budget, TOOL_CATALOG) for budget in budgets]
    assert all(low < high for low, high in zip(prices[1:], prices, strict=False))
    assert prices[-1] == 0.0
    assert POLICY.price_for(team_of(3), AMPLE, TOOL_CATALOG) == 0.0


def test_a_mean_below_the_cheapest_plans_is_told_of() -> None:
    only = TOOL_CATALOG.subset(["gpt-4o-2024-08-06"])
    with pytest.warns(UserWarning, match=r"a mean of 0\.0001 USD is less than the 0\.00\d+ that"):
        POLICY.price_for(team_of(3), Budget.average(cost_usd=1e-4, max_cost_usd=0.5), only)


@pytest.mark.parametrize(
    ("size", "mean"),
    [(1, 1e-4), (1, 1e-3), (3, 1e-4), (3, 1e-3), (4, 1e-4), (4, 1e-3)],
)
def test_plans_of_a_stream_cost_about_the_mean_of_the_budget(size: int, mean: float) -> None:
    budget = Budget.average(cost_usd=mean, max_cost_usd=0.5)
    traces = shipped_traces()
    costs: list[float] = []
    for number in traces.positions("train")[::9].tolist():
        # As long as the question was: a marker alone would be a very cheap prompt.
        text = recorded_query(number).ljust(int(4.2 * traces.prompt_tokens[number].max()))
        plan = POLICY.plan(text, team_of(size), budget, TOOL_CATALOG)
        assert plan.expected is not None
        costs.append(plan.expected.cost_usd)
    assert 0.8 * mean < np.mean(costs) < 1.2 * mean


def test_a_price_depends_on_the_deadline() -> None:
    hasty = Budget.average(cost_usd=3e-4, max_cost_usd=0.5, latency_s=1.5)
    patient = Budget.average(cost_usd=3e-4, max_cost_usd=0.5)
    fresh = shipped_policy().price_for(team_of(3), hasty, TOOL_CATALOG)
    assert fresh != shipped_policy().price_for(team_of(3), patient, TOOL_CATALOG)
    used = shipped_policy()
    used.price_for(team_of(3), patient, TOOL_CATALOG)
    assert used.price_for(team_of(3), hasty, TOOL_CATALOG) == fresh


def test_a_catalog_does_not_inherit_the_price_of_one_that_is_gone() -> None:
    policy, mean = shipped_policy(), Budget.average(cost_usd=3e-4, max_cost_usd=0.5)
    gone = Catalog(TOOL_CATALOG.values())
    assert policy.price_for(team_of(3), mean, gone) > 0
    place = id(gone)
    for _ in range(9):
        policy.plan("Hi", team_of(3), AMPLE, Catalog(TOOL_CATALOG.values()))
    del gone
    kept: list[Catalog] = []
    while len(kept) < 1000 and (not kept or id(kept[-1]) != place):
        kept.append(TOOL_CATALOG.subset(["Meta-Llama-3.1-8B-Instruct"]))
    if id(kept[-1]) != place:
        pytest.skip("the place in memory was not used again")
    assert policy.price_for(team_of(3), mean, kept[-1]) == 0.0


def test_a_price_that_is_given_is_not_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(*arguments: object) -> float:
        raise AssertionError("solved a price that was given")

    monkeypatch.setattr("agentbalance_plugin.core.policy.solve_price", solve)
    mean = Budget.average(cost_usd=1e-3, max_cost_usd=0.01)
    policy, team, catalog = shipped_policy(), team_of(4), shipped_catalog()
    given = Knobs(price_usd=20.0)
    assert policy.plan(recorded_query(0), team, mean, catalog, given).assignment
    assert len(policy.sweep(recorded_query(0), team, mean, catalog, [given, given])) == 2
    with pytest.raises(AssertionError, match="solved a price"):
        policy.plan(recorded_query(0), team, mean, catalog)
