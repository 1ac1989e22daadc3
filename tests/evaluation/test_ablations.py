"""Ablated plans differ in the part that is ablated and in nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from agentbalance_plugin.evaluation.ablations import (
    ablations,
    best_at,
    one_backbone,
    random_matching,
    random_topology,
    uniform,
    without_late_gates,
)
from agentbalance_plugin.evaluation.kept_trials import KeptTrials
from agentbalance_plugin.evaluation.policy_method import Occasion
from agentbalance_plugin.evaluation.study import Study
from agentbalance_plugin.evaluation.trials import Known
from agentbalance_plugin.plan import LateGate, Plan
from agentbalance_plugin.team import Agent, Team


@pytest.fixture
def plan(known: Known) -> Plan:
    names = known.traces.candidates
    return Plan(
        assignment={"agent_1": names[0], "agent_2": names[1], "agent_4": names[2]},
        decision="vote",
        late_gates={"agent_4": LateGate(("agent_1", "agent_2"), 0.7)},
        weights={"agent_1": 2.0},
    )


@pytest.fixture
def occasion(known: Known) -> Occasion:
    return Occasion("gsm8k/1", float(known.prices[5]), known)


def test_without_late_gates_everyone_runs(plan: Plan, occasion: Occasion) -> None:
    changed = without_late_gates(plan, occasion)
    assert not changed.late_gates
    assert changed.assignment == plan.assignment


def test_random_topology_keeps_the_backbones_and_everyone_reaches_the_decider(
    plan: Plan, occasion: Occasion
) -> None:
    team = Team(tuple(Agent(f"agent_{n}") for n in range(1, 5)), decider="agent_4")
    seen: set[tuple[tuple[str, str], ...]] = set()
    for number in range(30):
        other = Occasion(f"gsm8k/{number}", occasion.price, occasion.known)
        changed = random_topology(plan, other)
        assert changed == random_topology(plan, other)
        assert changed.assignment == plan.assignment
        changed.validate(team, occasion.known.traces.catalog)
        seen.add(changed.edges)
    assert len(seen) > 5


def test_random_matching_keeps_the_topology(plan: Plan, occasion: Occasion) -> None:
    changed = random_matching(plan, occasion)
    assert changed.late_gates == plan.late_gates
    assert list(changed.assignment) == list(plan.assignment)
    assert len(set(changed.assignment.values())) == 3
    assert set(changed.assignment.values()) <= set(occasion.known.traces.candidates)


def test_one_backbone_is_the_one_worth_most_at_the_price(plan: Plan, known: Known) -> None:
    free, dear = (Occasion("q", float(price), known) for price in known.prices[[0, -1]])
    right = known.singles.right.mean(axis=1)
    cost = known.singles.cost_usd.mean(axis=1)
    assert best_at(known, free.price) == known.traces.candidates[int(right.argmax())]
    assert best_at(known, dear.price) == known.traces.candidates[int(cost.argmin())]
    for change in (one_backbone, uniform):
        assert len(set(change(plan, free).assignment.values())) == 1
    assert one_backbone(plan, free).late_gates == plan.late_gates
    assert len(uniform(plan, free).edges) == 6


def test_each_ablation_is_a_row_of_its_own(known: Known) -> None:
    few = known.traces.take(np.concatenate([known.train[::4], known.val[::3]]))
    found = Study("few", few, few, "val", seeds=1, samples=2).run(ablations(), KeptTrials())
    assert [m.family for m in found.methods] == ["agentbalance"] + ["ablation"] * 14
    assert len({m.name for m in found.methods}) == 15
    areas = {m.name: m.axes["cost"].auc for m in found.methods}
    changed = [name for name, area in areas.items() if area != areas["agentbalance"]]
    # A limit on hops that is above what any plan has changes nothing when it is lifted, nor need
    # another pool where the short list has room for all backbones anyway.
    assert set(areas) - {"agentbalance", "no hop limit", "random pool"} <= set(changed)
    assert found.best_baseline == {"cost": None, "latency": None}
