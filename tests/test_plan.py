from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal

import pytest

from agentbalance_plugin import Agent, Backbone, Catalog, Expected, LateGate, Plan, PlanError, Team
from agentbalance_plugin.agreement import leading_answer

CATALOG = Catalog(
    [
        Backbone("small", Decimal("0.1"), Decimal("0.2")),
        Backbone("large", Decimal(1), Decimal(2), capabilities=frozenset({"text", "tools"})),
    ]
)
TEAM = Team((Agent("a"), Agent("b"), Agent("c"), Agent("d")), decider="d")
CHAIN = Plan(
    {"a": "small", "b": "small", "d": "large"},
    edges=(("a", "b"), ("b", "d")),
    decider="d",
    hop_limit=3,
)
CASCADE = Plan(
    {"a": "small", "b": "large", "d": "large"},
    decision="vote",
    late_gates={"d": LateGate(("a", "b"), 0.8)},
    weights={"a": 0.5, "b": 1.5, "d": 3.0},
    hop_limit=2,
    expected=Expected(0.9, 0.001, 2.5),
)


def test_valid_plans_pass() -> None:
    CHAIN.validate(TEAM, CATALOG)
    CASCADE.validate(TEAM, CATALOG)
    assert (CHAIN.depth, CASCADE.depth) == (3, 2)
    assert CASCADE.waits_for("d") == ("a", "b")
    assert CASCADE.parents("d") == ()
    assert CHAIN.order.index("a") < CHAIN.order.index("b") < CHAIN.order.index("d")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": (("a", "b"), ("b", "a"), ("b", "d"))}, "not a DAG"),
        ({"hop_limit": 2}, "longest path has 3 agents, hop_limit is 2"),
        ({"hop_limit": 0}, "hop_limit must be at least 1"),
        ({"edges": (("b", "d"),)}, r"\['a'\] can't reach the decider 'd'"),
        ({"decider": None}, "names no decider"),
        ({"decider": "c"}, "decider 'c' is not kept"),
        ({"assignment": {}}, "keeps no agent"),
        ({"assignment": {"x": "small"}}, "'x', which is no agent"),
        ({"assignment": {"d": "huge"}, "edges": ()}, "'huge', which the catalog lacks"),
        ({"assignment": {"d": None}, "edges": ()}, "'d' has no backbone"),
        ({"edges": (("a", "c"),)}, "'c', which the plan does not keep"),
        ({"late_gates": {"d": LateGate((), 0.5)}}, "watches nobody"),
        ({"late_gates": {"d": LateGate(("c",), 0.5)}}, "watches 'c', which is not kept"),
        ({"late_gates": {"d": LateGate(("b",), 0.0)}}, "threshold 0.0"),
        ({"late_gates": {"c": LateGate(("b",), 0.5)}}, "not kept"),
        ({"weights": {"a": math.inf}}, "weight of 'a'"),
        ({"output_caps": {"a": 0}}, "output cap of 'a'"),
        ({"stop_at": 0.5}, "stop_at needs a vote of agents that all start at once"),
        ({"stop_at": 1.5, "decision": "vote"}, r"stop_at must be in \(0, 1\], got 1.5"),
    ],
)
def test_each_broken_rule_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        replace(CHAIN, **change).validate(TEAM, CATALOG)  # type: ignore[arg-type]


def test_what_agents_need_and_pin_is_kept() -> None:
    plan = Plan({"a": "small"}, decider="a")
    tools = Team((Agent("a", needs=frozenset({"text", "tools"})),), decider="a")
    with pytest.raises(PlanError, match=r"needs \['tools'\], which backbone 'small' lacks"):
        plan.validate(tools, CATALOG)
    with pytest.raises(PlanError, match="pinned to 'large', got 'small'"):
        plan.validate(Team((Agent("a", backbone="large"),), decider="a"), CATALOG)
    with pytest.raises(PlanError, match="'b' must be kept"):
        plan.validate(Team((Agent("a"), Agent("b", keep=True)), decider="a"), CATALOG)
    with pytest.raises(PlanError, match="'b' must be kept"):
        plan.validate(Team((Agent("a"), Agent("b", calls_backbone=False)), decider="a"), CATALOG)
    with pytest.raises(PlanError, match="calls no backbone but got"):
        plan.validate(Team((Agent("a", calls_backbone=False),), decider="a"), CATALOG)


def test_a_fixed_team_keeps_agents_and_edges() -> None:
    fixed = Team((Agent("a"), Agent("b")), decider="b", fixed_edges=(("a", "b"),))
    Plan({"a": "small", "b": "large"}, (("a", "b"),), decider="b").validate(fixed, CATALOG)
    with pytest.raises(PlanError, match="'a' must be kept"):
        Plan({"b": "large"}, decider="b").validate(fixed, CATALOG)
    with pytest.raises(PlanError, match="edges can't be changed"):
        Plan({"a": "small", "b": "large"}, decision="vote").validate(fixed, CATALOG)


def test_a_team_that_routes_by_itself_has_no_decider() -> None:
    routed = Team((Agent("a"), Agent("b")), fixed_edges=())
    Plan({"a": "small", "b": "large"}).validate(routed, CATALOG)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agents": ()}, "at least one agent"),
        ({"agents": (Agent("a"), Agent("a")), "decider": "a"}, "two agents are named 'a'"),
        ({"agents": (Agent("a"),), "decider": "z"}, "the decider 'z' is none of"),
        ({"agents": (Agent("a"),)}, "decider must name"),
        ({"agents": (Agent("a"),), "fixed_edges": (("a", "z"),)}, "'z', which is no agent"),
        (
            {
                "agents": (Agent("a"), Agent("b"), Agent("c")),
                "fixed_edges": (("a", "b"), ("b", "c"), ("c", "b")),
            },
            "in a loop: (b -> c -> b|c -> b -> c); .* leave one of them out",
        ),
        ({"agents": (Agent("a"),), "fixed_edges": (("a", "a"),)}, "in a loop: a -> a"),
    ],
)
def test_bad_teams(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Team(**arguments)  # type: ignore[arg-type]


def test_drawings_show_agents_backbones_and_gates() -> None:
    tree = CASCADE.to_tree()
    assert tree.splitlines()[0].startswith("vote   (expected: 90% right, 0.001000 USD, 2.5 s)")
    assert "d on large   only if a and b agree less than 0.80" in tree
    assert tree.count("a on small") == 2  # votes, and is watched by d
    mermaid = CASCADE.to_mermaid()
    assert mermaid.startswith("flowchart LR")
    assert 'n0 -. "agreement < 0.80" .-> n2' in mermaid
    assert "n0 --> n1" in CHAIN.to_mermaid()
    odd = Plan({'a"b': "small"}, decider='a"b').to_mermaid()
    assert 'a"b' not in odd


def test_to_dict_is_json() -> None:
    assert json.loads(json.dumps(CASCADE.to_dict()))["late_gates"]["d"]["watches"] == ["a", "b"]


def test_one_voter_gives_its_own_probability() -> None:
    assert leading_answer(["x"], [math.log(0.8 / 0.2)]) == (0, pytest.approx(0.8))


def test_agreement_adds_up_and_disagreement_divides() -> None:
    weight = math.log(0.8 / 0.2)
    leader, together = leading_answer(["x", "y", "x"], [weight] * 3)
    assert leader == 0
    assert together == pytest.approx(16 / (16 + 4 + 1))
    assert leading_answer(["y", "x", "x"], [weight] * 3)[0] == 1
    assert leading_answer(["y", "x"], [1.0, 2.0])[0] == 1


def test_ties_go_to_the_first_and_missing_answers_to_nobody() -> None:
    assert leading_answer(["y", "x"], [1.0, 1.0])[0] == 0
    assert leading_answer([None, None], [1.0, 1.0]) == (None, 0.0)
    assert leading_answer([None, "x"], [0.0, 0.0]) == (1, pytest.approx(1 / 3))
    assert leading_answer([None, "x"], [9.0, 0.0])[1] < 0.001


def test_extreme_weights_do_not_overflow() -> None:
    assert leading_answer(["x", "y"], [1e4, -1e4]) == (0, pytest.approx(1.0))
    assert leading_answer(["x"], [-1e4]) == (0, pytest.approx(0.0))
