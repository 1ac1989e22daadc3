"""Each baseline does what its paper says it does."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.baselines.agentdropout import kept_agents
from agentbalance_plugin.evaluation.baselines.agentprune import low_rank, prune
from agentbalance_plugin.evaluation.baselines.bamas import (
    choose_topology,
    lexicographic,
    provision,
    topologies,
)
from agentbalance_plugin.evaluation.baselines.frugal import Chain, Replies, Scorer, agreed, leading
from agentbalance_plugin.evaluation.baselines.gdesigner import Designer
from agentbalance_plugin.evaluation.baselines.graphs import TeamGraph, learn_edges
from agentbalance_plugin.evaluation.baselines.homogeneous import (
    ChatAsWritten,
    Homogeneous,
    debate,
    sample_of,
)
from agentbalance_plugin.evaluation.baselines.irls import fit_logistic, probability
from agentbalance_plugin.evaluation.baselines.library import library, pair_then, vote
from agentbalance_plugin.evaluation.baselines.masrouter import MODES, SEATS, Controller, seats_of
from agentbalance_plugin.evaluation.baselines.static_team import eliminate
from agentbalance_plugin.evaluation.registry import baselines
from agentbalance_plugin.evaluation.trials import Known, Method, alone, singles
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Agent, Team

# --- BAMAS


@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 3.0)), min_size=1, max_size=5),
    st.floats(0.01, 6.0),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=200)
def test_bamas_solves_its_integer_program_to_optimality(
    kinds: list[tuple[int, float]], budget: float, size: int
) -> None:
    weights, costs = [w for w, _ in kinds], [c for _, c in kinds]
    best = max(
        sum(w * n for w, n in zip(weights, counts, strict=True))
        for counts in product(range(size + 1), repeat=len(kinds))
        if sum(counts) <= size
        and sum(c * n for c, n in zip(costs, counts, strict=True)) <= budget * (1 - 1e-6)
    )
    team = provision(weights, costs, budget, size)
    assert len(team) <= size
    assert sum(costs[b] for b in team) <= budget * (1 + 1e-6) + 1e-6
    assert sum(weights[b] for b in team) >= best


def test_bamas_prefers_one_of_a_better_tier_to_any_number_of_worse_ones() -> None:
    weights = lexicographic(np.array([0.9, 0.5, 0.7]), 3)
    assert weights[0] > 3 * weights[2]
    assert weights[2] > 3 * weights[1]
    assert provision(weights, [1.0, 0.1, 0.3], 1.0, 3) == (0,)
    assert provision(weights, [1.0, 0.1, 0.3], 0.05, 3) == ()


def test_bamas_learns_a_topology_per_category() -> None:
    rng = np.random.default_rng(0)
    category = np.repeat([0, 1], 200)
    chance = np.where(category[:, None] == 0, [0.9, 0.5, 0.5, 0.5], [0.4, 0.4, 0.4, 0.8])
    policy = choose_topology((rng.random((400, 4)) < chance).astype(np.float64), category, 2, 0.003)
    assert policy.argmax(axis=1)[:2].tolist() == [0, 3]
    assert np.allclose(policy.sum(axis=1), 1.0)


# --- MasRouter


def test_masrouters_log_probability_is_one() -> None:
    """That of every design together is 1, and none is above 0."""
    rng = np.random.default_rng(0)
    controller = Controller.blank(3, np.zeros(2))
    for array in (controller.mode, controller.size, controller.llm):
        array += rng.normal(0.0, 2.0, array.shape)
    x = rng.normal(size=(1, 3))
    designs = np.array(
        [
            (mode, size, *seats)
            for mode in range(len(MODES))
            for size in range(SEATS - 1)
            for seats in product(range(2), repeat=SEATS)
        ]
    )
    # Choices that a design does not make are written as 0, so that each design is there once.
    made = np.arange(SEATS) < seats_of(designs)[:, None]
    once = ((designs[:, 2:] == 0) | made).all(axis=1) & ((designs[:, 0] > 0) | (designs[:, 1] == 0))
    designs = designs[once]
    found = controller.log_probability(np.repeat(x, len(designs), axis=0), designs)
    assert (found <= 0.0).all()
    assert np.exp(found).sum() == pytest.approx(1.0)


def test_masrouters_gradient_is_that_of_the_log_probability() -> None:
    rng = np.random.default_rng(1)
    controller = Controller.blank(2, np.zeros(3))
    controller.llm += rng.normal(size=controller.llm.shape)
    x = np.repeat(rng.normal(size=(1, 2)), 5, axis=0)
    designs = controller.sample(x, rng)
    before = controller.log_probability(x, designs).sum()
    controller.climb(x, designs, np.ones(len(x)), 0.05)
    assert controller.log_probability(x, designs).sum() > before


# --- AgentPrune, AgentDropout, G-Designer


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_agentprune_cuts_the_share_it_is_told_least_edges_first(share: float) -> None:
    logits = np.random.default_rng(0).normal(size=12)
    keep = prune(logits, share)
    assert (~keep).sum() == 12 * share
    if 0 < share < 1:
        assert logits[~keep].max() < logits[keep].min()


def test_agentprunes_regulariser_pushes_towards_a_lower_rank() -> None:
    graph = TeamGraph("any", 3, 2)
    keep = np.random.default_rng(0).uniform(0.2, 0.8, len(graph.edges))

    def norm(keep: np.ndarray) -> float:
        matrix = np.zeros((3, 3))
        for (a, b, temporal), value in zip(graph.edges, keep.tolist(), strict=True):
            if temporal:
                matrix[a, b] = value
        return float(np.linalg.svd(matrix, compute_uv=False).sum())

    assert norm(keep - 10.0 * low_rank(graph, keep)) < norm(keep)


def test_pruned_edges_are_gone_and_the_decider_still_hears_the_last_round() -> None:
    graph = TeamGraph("any", 3, 2)
    full = graph.plan(np.ones(len(graph.edges), dtype=np.bool_))
    none = graph.plan(np.zeros(len(graph.edges), dtype=np.bool_))
    assert len(full.edges) == 2 * 3 + 6 + 3
    assert {listener for _, listener in none.edges} == {graph.decider}
    assert len(none.edges) == 3
    assert len(none.assignment) == len(full.assignment) == 7
    full.order  # noqa: B018 - no cycle


def test_agentdropout_drops_the_agents_of_least_degree_from_each_round() -> None:
    graph = TeamGraph("any", 3, 2)
    weight = np.array([0.1 if 2 in edge[:2] else 0.9 for edge in graph.edges])
    kept = kept_agents(graph, weight, 1)
    assert kept.tolist() == [[True, True, False], [True, True, False]]
    plan = graph.plan(np.ones(len(weight), dtype=np.bool_), kept)
    assert len(plan.assignment) == 5
    assert {name for edge in plan.edges for name in edge} <= set(plan.assignment)


def test_edges_that_help_are_learnt(known: Known) -> None:
    class Helpful(TeamGraph):
        """Only a team that keeps its first edge asks a backbone that is any good."""

        def plan(self, mask: np.ndarray, speaks: np.ndarray | None = None) -> Plan:
            right = known.singles.right.mean(axis=1)
            pick = right.argmax() if mask[0] else right.argmin()
            return alone(known.traces.candidates[int(pick)])

    logits = learn_edges(known, Helpful("any", 3, 1), steps=30, rate=2.0)
    assert logits[0] == logits.max() > 0.5


def test_g_designers_edges_depend_on_the_query() -> None:
    rng = np.random.default_rng(0)
    graph = TeamGraph("any", 3, 2)
    designer = Designer(graph, *(rng.normal(size=(2, 3, 4, 5)) for _ in range(2)))
    x = rng.normal(size=(40, 5))
    masks = designer.logits(x) > 0
    assert masks.shape == (40, len(graph.edges))
    assert len(np.unique(masks, axis=0)) > 1
    # Climbing along the gradient of one edge's logits raises that edge's logits.
    slope = np.zeros(masks.shape)
    slope[:, 3] = 1.0
    before = designer.logits(x)[:, 3].mean()
    designer.climb(x, slope, 0.05)
    assert designer.logits(x)[:, 3].mean() > before


# --- LLM-Debate, chats


def test_debaters_read_the_others_last_answers_and_the_last_round_votes(known: Known) -> None:
    name = known.traces.candidates[1]
    plan = debate(name, 3, 2)
    assert len(plan.assignment) == 6
    for listener in list(plan.assignment)[3:]:
        speakers = plan.parents(listener)
        assert len(speakers) == 2
        assert sample_of(listener) not in {sample_of(speaker) for speaker in speakers}
    samples = {agent: sample_of(agent) for agent in plan.assignment}
    once = known.replay.evaluate(known.val, alone(name))
    team = known.replay.evaluate(known.val, plan, samples=samples)
    assert (team.calls == 6).all()
    assert team.cost_usd.mean() > 6 * once.cost_usd.mean()


def test_homogeneous_methods_use_one_backbone_and_sample_it_again(known: Known) -> None:
    on_reference = Homogeneous(ChatAsWritten(), "reference").fit(known)
    assert known.traces.reference is not None
    plans = ChatAsWritten().plans(known.traces.reference)
    assert set(plans[0].assignment.values()) == {known.traces.reference}
    assert sorted(sample_of(agent) for agent in plans[0].assignment) == [0, 1, 2, 3]
    assert len(on_reference(known.replay, known.val).right) == 1
    best = Homogeneous(ChatAsWritten(), "best").fit(known)
    reached = best(known.replay, known.val).right.mean(axis=1).max()
    assert reached >= on_reference(known.replay, known.val).right.mean()


# --- FrugalGPT, cascades, libraries


def test_a_cascade_takes_the_answer_that_others_share_before_a_trusted_one() -> None:
    answer = np.array([[1, 2, 2], [1, 2, 3], [-1, -1, 3], [-1, -1, -1]])
    trust = np.array([[0.9, 0.4, 0.4]] * 4)
    assert leading(answer, trust, (0, 1, 2)).tolist() == [1, 0, 0, 0]
    # Programs have no answers to compare: nobody agrees.
    assert not agreed(answer, 0, 1)[2:].any()


def test_frugalgpt_asks_on_below_its_thresholds_only(known: Known) -> None:
    names = list(known.traces.candidates[:3])
    replies = Replies.of(known.replay, known.train, names)
    scorer = Scorer.fit(known, replies)
    rows = scorer.rates.rows(known.traces, known.train)
    trust = scorer.alone(replies, rows)
    never, always = -np.inf, np.inf
    first, cost, _ = Chain((1, 2, 0), never, never).run(replies, rows, scorer, trust)
    assert np.array_equal(first, replies.right[:, 1])
    assert np.array_equal(cost, replies.cost_usd[:, 1])
    _, cost, latency = Chain((1, 2, 0), always, always).run(replies, rows, scorer, trust)
    assert np.allclose(cost, replies.cost_usd.sum(axis=1))
    assert np.allclose(latency, replies.latency_s.sum(axis=1))
    some = float(np.median(trust[:, 1]))
    _, cost, _ = Chain((1, 2, 0), some, never).run(replies, rows, scorer, trust)
    assert np.array_equal(cost > replies.cost_usd[:, 1], trust[:, 1] < some)
    # The scorer tells right answers from wrong ones.
    right = replies.right[:, 1] == 1
    assert trust[right, 1].mean() > trust[~right, 1].mean() + 0.05


def test_cascades_go_on_where_answers_differ_and_votes_stop_where_they_agree() -> None:
    weights = {"a": 0.5, "b": 1.0, "c": 2.5, "d": 0.3}
    plan = pair_then(("a", "b", "c", "d"), weights)
    gate = plan.late_gates["agent_3"]
    both = np.exp(1.5) / (1 + np.exp(1.5))
    alone_at_best = np.exp(1.0) / (1 + np.exp(0.5) + np.exp(1.0))
    assert alone_at_best < gate.threshold < both
    team = Team(tuple(Agent(name) for name in plan.assignment), decider="agent_4")
    assert vote(("a", "b", "c"), weights, early=True).stop_at is not None
    assert vote(("a", "b", "c"), weights, early=False).stop_at is None
    assert team.decider in plan.assignment


def test_the_library_has_the_size_asked_for_and_every_plan_runs(known: Known) -> None:
    plans = library(known, 40)
    assert len(plans) == 40
    found = known.replay.evaluate(known.val[:5], plans)
    assert (found.calls >= 1).all()


# --- search, regressions, tables


def test_arm_elimination_keeps_the_best_arm_and_drops_poor_ones(known: Known) -> None:
    arms = [alone(name) for name in known.traces.candidates] * 4
    left = eliminate(known.replay, known.train, arms, "cost", np.array([0.0]), batch=50)
    assert int(known.singles.right.mean(axis=1).argmax()) in left
    assert len(left) < len(arms)


def test_topologies_of_bamas_reach_the_strongest_who_decides() -> None:
    linear, star, feedback, planner = topologies(["weak", "middle", "strong"])
    for plan in (linear, star, feedback, planner):
        assert plan.assignment[str(plan.decider)] == "strong"
        heard = {speaker for speaker, _ in plan.edges}
        assert heard == set(plan.assignment) - {plan.decider}
    assert linear.depth == planner.depth == feedback.depth == 3
    assert star.depth == 2
    assert len({plan.edges for plan in topologies(["only"])}) == 1


def test_logistic_regression_finds_the_coefficients_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(20_000), rng.normal(size=(20_000, 2))])
    true = np.array([0.5, -1.0, 2.0])
    y = (rng.random(20_000) < probability(x, true)).astype(np.float64)
    assert fit_logistic(x, y, 0.1) == pytest.approx(true, abs=0.1)
    assert np.abs(fit_logistic(x, y, 1e6)[1:]).max() < 0.1


@pytest.mark.parametrize("name", ["category", "profile", "plan-table", "votes"])
def test_strong_baselines_beat_the_mix_of_two_on_val(known: Known, name: str) -> None:
    method = baselines([name])[0]
    trial = method.fit(known)(known.replay, known.val)
    assert known.score(trial) > known.score(known.singles_val)


@pytest.mark.parametrize("method", baselines(["all"]), ids=lambda method: method.name)
def test_two_backbones_are_enough(small: TraceSet, method: Method) -> None:
    learned = small.take(np.concatenate([small.positions("train")[:120], small.positions("val")]))
    two = Known(Replay(replace(learned, candidates=learned.candidates[1:3])), "cost", 0.0139)
    trial = method.fit(two)(two.replay, two.val)
    assert trial.right.shape[1] == len(two.val)
    assert np.isfinite(trial.cost_usd).all()


def test_the_oracle_is_above_all(known: Known) -> None:
    trial = baselines(["oracle"])[0].fit(known)(known.replay, known.val)
    assert trial.right.max() == 1.0
    best_possible = singles(known.replay, known.val).right.max(axis=0).mean()
    assert trial.right.mean(axis=1).max() == best_possible


def test_programs_without_answers_can_be_scored() -> None:
    """HumanEval records whether programs pass, no answers: votes never agree, cascades go on."""
    traces = TraceSet.shipped("humaneval")
    replay = Replay(traces)
    positions = traces.positions("test")
    names = traces.candidates[5:8]
    weights = dict(zip(names, (1.0, 2.0, 0.5), strict=True))
    cascade = replay.evaluate(positions, pair_then(names, weights))
    assert (cascade.calls == 3).all()
    # What can't be compared falls to the most reliable.
    assert np.array_equal(cascade.correct, replay.evaluate(positions, alone(names[1])).correct)
