"""What each part of the policy is good for: the policy with one part changed.

Here plans are changed after the policy made them. A part inside the policy is switched off by
giving `PolicyMethod` another `load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy, PolicyConfig
from agentbalance_plugin.core.reference import REFERENCE_AGENTS, reference_plan
from agentbalance_plugin.core.sampling import string_key
from agentbalance_plugin.evaluation.policy_method import Load, Occasion, PlanChange, PolicyMethod
from agentbalance_plugin.evaluation.trials import Known
from agentbalance_plugin.plan import Plan

# Every agent is a further sample of the one backbone.
_COPIES = {agent: number for number, agent in enumerate(REFERENCE_AGENTS)}


_SWITCHED = {
    "random pools": PolicyConfig(pools="random"),
    "random pool": PolicyConfig(selection="random"),
    "random matching in the pool": PolicyConfig(matching="random"),
    "random representation": PolicyConfig(representation="random"),
    "random gating": PolicyConfig(gating="random"),
    "no gating": PolicyConfig(gating="off"),
    "no hop limit": PolicyConfig(hops="off"),
    "random topology stage": PolicyConfig(topology="random"),
    "no late gates planned": PolicyConfig(late_gates="off"),
}


def ablations(source: str | Path = "default") -> list[PolicyMethod]:
    """The policy, and the policy with changed plans."""
    changes: dict[str, tuple[PlanChange, Mapping[str, int]]] = {
        "no late gates": (without_late_gates, {}),
        "random matching": (random_matching, {}),
        "our backbones + random topology": (random_topology, {}),
        "one backbone + our topology": (one_backbone, _COPIES),
        "uniform": (uniform, _COPIES),
    }
    planned: dict[object, list[list[Plan]]] = {}
    return [
        PolicyMethod(source, name="agentbalance", planned=planned),
        *(
            PolicyMethod(source, name=name, load=_switched(config), family="ablation")
            for name, config in _SWITCHED.items()
        ),
        *(
            PolicyMethod(
                source,
                name=name,
                change=change,
                samples=samples,
                family="ablation",
                planned=planned,
            )
            for name, (change, samples) in changes.items()
        ),
    ]


def _switched(config: PolicyConfig) -> Load:
    def load(source: str | Path, encoder: RecordedEncoder) -> Policy:
        return Policy.load(source, encoder, config)

    return load


def without_late_gates(plan: Plan, _: Occasion) -> Plan:
    """Everyone who might have run does."""
    return replace(plan, late_gates={})


def random_matching(plan: Plan, occasion: Occasion) -> Plan:
    """The same topology over backbones drawn from the candidates, none twice where they suffice."""
    rng = _rng(occasion)
    names = list(occasion.known.traces.candidates)
    drawn = rng.choice(len(names), len(plan.assignment), replace=len(names) < len(plan.assignment))
    chosen = [names[int(number)] for number in list(drawn)]
    return replace(plan, assignment=dict(zip(plan.assignment, chosen, strict=True)))


def random_topology(plan: Plan, occasion: Occasion) -> Plan:
    """The same agents on the same backbones; each pair has an edge or not, the last decides."""
    agents = list(plan.assignment)
    if len(agents) == 1:
        return plan
    rng = _rng(occasion)
    order = [agents[int(number)] for number in list(rng.permutation(len(agents)))]
    edges = [pair for pair in combinations(order, 2) if rng.random() < 0.5]
    heard = {speaker for speaker, _ in edges}
    edges += [(agent, order[-1]) for agent in order[:-1] if agent not in heard]
    return Plan(
        assignment=plan.assignment,
        edges=tuple(edges),
        decider=order[-1],
        output_caps=plan.output_caps,
    )


def one_backbone(plan: Plan, occasion: Occasion) -> Plan:
    """The same topology on the single backbone worth most at the price."""
    name = best_at(occasion.known, occasion.price)
    return replace(plan, assignment=dict.fromkeys(plan.assignment, name), weights={})


def uniform(_: Plan, occasion: Occasion) -> Plan:
    """All agents on the single backbone worth most at the price, everyone hears all before."""
    return reference_plan(best_at(occasion.known, occasion.price))


def best_at(known: Known, price: float) -> str:
    """The candidate worth most at a price on the train queries."""
    worth = known.singles.right - price * known.singles.spend(known.axis)
    return known.traces.candidates[int(worth.mean(axis=1).argmax())]


def _rng(occasion: Occasion) -> np.random.Generator:
    key = string_key(f"{occasion.query} at {occasion.price:.6g}")
    return np.random.default_rng([int(key), occasion.known.seed])
