"""Plans over many queries at once: who runs, who hears whom, who decides, when it is over.

The rules are those of the live scheduler (`agentbalance_plugin.runtime.scheduler`). Plans with
equally many agents are run together, whatever their edges: an agent is a slot in the order of its
plan's assignment, and each step runs, for every query, the slot that is next in its plan's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.calls import Message, Spoken
from agentbalance_plugin.core.outcomes import Provenance
from agentbalance_plugin.core.sampling import KeyArray, string_key
from agentbalance_plugin.core.votes import SILENT, gates_open, leading_answers
from agentbalance_plugin.plan import Plan

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

_NO_CAP = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Designs:
    """P plans of A agents each.

    Args:
        order: [P, A] slots in the order in which they run.
        column: [P, A] backbone; -1 for an agent that calls none.
        key: [P, A] of the agents' names.
        weight: [P, A] log-odds in votes and late gates.
        cap: [P, A] most output tokens.
        sample: [P, A] which sample of its backbone it gives; -1: by the number of its peers.
        threshold: [P, A] of the late gate; infinite without one.
        stop_at: [P] confidence that ends a vote; infinite where all are waited for.
        watched: [P, A, A] the slots that each late gate compares, in its order; -1 after the last.
        edge: [P, A, A] whether the first hears the second.
        waits: [P, A, A] whether the first starts after the second.
        decider: [P] slot; -1 for none.
        votes: [P] whether the decision is a vote.
    """

    order: IntArray
    column: IntArray
    key: KeyArray
    weight: FloatArray
    cap: IntArray
    sample: IntArray
    threshold: FloatArray
    stop_at: FloatArray
    watched: IntArray
    edge: BoolArray
    waits: BoolArray
    decider: IntArray
    votes: BoolArray

    @classmethod
    def of(
        cls, plans: Sequence[Plan], column: Callable[[str], int], samples: Mapping[str, int]
    ) -> Designs:
        """Plans with equally many agents.

        Args:
            plans: at least one.
            column: position of a backbone.
            samples: agent -> sample, for those with a given one.

        Raises:
            PlanError: a plan has a cycle.
        """
        square = (len(plans), len(plans[0].assignment), len(plans[0].assignment))
        order: list[list[int]] = []
        columns: list[list[int]] = []
        keys: list[list[np.uint64]] = []
        threshold = np.full(square[:2], np.inf)
        watched = np.full(square, -1, dtype=np.int64)
        edge = np.zeros(square, dtype=np.bool_)
        waits = np.zeros(square, dtype=np.bool_)
        for row, plan in enumerate(plans):
            slot = {agent: index for index, agent in enumerate(plan.assignment)}
            order.append([slot[agent] for agent in plan.order])
            columns.append([-1 if b is None else column(b) for b in plan.assignment.values()])
            keys.append([string_key(agent) for agent in slot])
            for speaker, listener in plan.edges:
                edge[row, slot[listener], slot[speaker]] = True
            for agent, gate in plan.late_gates.items():
                threshold[row, slot[agent]] = gate.threshold
                seen = [slot[name] for name in gate.watches]
                watched[row, slot[agent], : len(seen)] = seen
                waits[row, slot[agent], seen] = True
        return cls(
            order=np.array(order, dtype=np.int64),
            column=np.array(columns, dtype=np.int64),
            key=np.array(keys, dtype=np.uint64),
            weight=np.array([[p.weight(a) for a in p.assignment] for p in plans], dtype=np.float64),
            cap=np.array([[p.output_caps.get(a, _NO_CAP) for a in p.assignment] for p in plans]),
            sample=np.array([[samples.get(a, -1) for a in p.assignment] for p in plans]),
            threshold=threshold,
            stop_at=np.array([np.inf if p.stop_at is None else p.stop_at for p in plans]),
            watched=watched,
            edge=edge,
            waits=waits | edge,
            decider=np.array([_slot(plan, plan.decider) for plan in plans], dtype=np.int64),
            votes=np.array([p.decision == "vote" for p in plans], dtype=np.bool_),
        )


def _slot(plan: Plan, agent: str | None) -> int:
    return next((slot for slot, name in enumerate(plan.assignment) if name == agent), -1)


@dataclass(frozen=True)
class Results:
    """Arrays of shape [n]; the fields are those of `Outcomes`."""

    correct: BoolArray
    answer: IntArray
    cost_nanodollars: IntArray
    latency_s: FloatArray
    prompt_tokens: IntArray
    completion_tokens: IntArray
    calls: IntArray
    hops: IntArray

    @classmethod
    def empty(cls, count: int) -> Results:
        """Nothing yet: zeros, and no answers."""
        return cls(
            correct=np.zeros(count, dtype=np.bool_),
            answer=np.full(count, -1, dtype=np.int64),
            cost_nanodollars=np.zeros(count, dtype=np.int64),
            latency_s=np.zeros(count),
            prompt_tokens=np.zeros(count, dtype=np.int64),
            completion_tokens=np.zeros(count, dtype=np.int64),
            calls=np.zeros(count, dtype=np.int64),
            hops=np.zeros(count, dtype=np.int64),
        )

    def store(self, rows: IntArray, part: Results) -> None:
        """Write the results of some rows."""
        self.correct[rows] = part.correct
        self.answer[rows] = part.answer
        self.cost_nanodollars[rows] = part.cost_nanodollars
        self.latency_s[rows] = part.latency_s
        self.prompt_tokens[rows] = part.prompt_tokens
        self.completion_tokens[rows] = part.completion_tokens
        self.calls[rows] = part.calls
        self.hops[rows] = part.hops


class Backbones(Protocol):
    """Whatever replies; see `agentbalance_plugin.core.calls.Calls`."""

    @property
    def no_counts(self) -> Provenance: ...

    def speak(
        self,
        query: IntArray,
        backbone: IntArray,
        agent: KeyArray,
        turn: int,
        peers: Sequence[Message],
        caps: IntArray,
        sample: IntArray,
    ) -> tuple[Spoken, Provenance]: ...


def run_designs(
    calls: Backbones, designs: Designs, plans: IntArray, queries: IntArray
) -> tuple[Results, Provenance]:
    """Plan `plans[i]` of the designs on query `queries[i]`, for n of them."""
    count, agents = len(queries), designs.order.shape[1]
    results = Results.empty(count)
    provenance = calls.no_counts
    column, weights = designs.column[plans], designs.weight[plans]
    answers = np.full((count, agents), -1, dtype=np.int64)
    correct = np.zeros((count, agents), dtype=np.bool_)
    heard = np.zeros((count, agents), dtype=np.bool_)
    visible = np.zeros((count, agents), dtype=np.int64)
    ends = np.zeros((count, agents))
    depths = np.zeros((count, agents), dtype=np.int64)
    every = np.arange(count)
    for step in range(agents):
        slots = designs.order[plans, step]
        waits = designs.waits[plans, slots]
        ends[every, slots] = np.where(waits, ends, 0.0).max(axis=1)
        depths[every, slots] = np.where(waits, depths, 0).max(axis=1)
        runs = _run(designs, plans, slots, np.where(heard, answers, SILENT), weights)
        heard[every, slots] = runs
        depths[every, slots] += runs
        rows = np.flatnonzero(runs & (column[every, slots] >= 0))
        if not len(rows):
            continue
        at = (rows, slots[rows])
        edges = designs.edge[plans[rows], slots[rows]]
        peers = [
            Message(
                heard=edges[:, slot] & heard[rows, slot],
                backbone=column[rows, slot],
                answer=answers[rows, slot],
                correct=correct[rows, slot],
                visible_tokens=visible[rows, slot],
            )
            for slot in np.flatnonzero(edges.any(axis=0))
        ]
        mine = (plans[rows], slots[rows])
        spoken, counts = calls.speak(
            queries[rows],
            column[at],
            designs.key[mine],
            0,
            peers,
            designs.cap[mine],
            designs.sample[mine],
        )
        provenance += counts
        answers[at] = spoken.message.answer
        correct[at] = spoken.message.correct
        visible[at] = spoken.message.visible_tokens
        ends[at] += spoken.latency_s
        results.cost_nanodollars[rows] += spoken.cost_nanodollars
        results.prompt_tokens[rows] += spoken.prompt_tokens
        results.completion_tokens[rows] += spoken.completion_tokens
        results.calls[rows] += 1
    heard, ends = _waited_for(designs.stop_at[plans], answers, weights, heard, ends)
    ends.max(axis=1, out=results.latency_s)
    depths.max(axis=1, out=results.hops)
    chosen = _chosen(designs, plans, answers, weights, heard)
    spoke = np.flatnonzero(chosen >= 0)
    results.answer[spoke] = answers[spoke, chosen[spoke]]
    results.correct[spoke] = correct[spoke, chosen[spoke]]
    return results, provenance


def _waited_for(
    stop_at: FloatArray,
    answers: IntArray,
    weights: FloatArray,
    heard: BoolArray,
    ends: FloatArray,
) -> tuple[BoolArray, FloatArray]:
    """Who spoke, and when, once decided votes do not wait for the others."""
    rows = np.flatnonzero(np.isfinite(stop_at))
    if not len(rows):
        return heard, ends
    heard, ends = heard.copy(), ends.copy()
    at = ends[rows]
    order = np.argsort(at, axis=1, kind="stable")
    open_rows = np.ones(len(rows), dtype=np.bool_)
    for last in range(at.shape[1] - 1):
        when = np.take_along_axis(at, order[:, [last]], axis=1)
        here = at <= when
        _, confidence = leading_answers(np.where(here, answers[rows], -1), weights[rows])
        over = open_rows & (confidence >= stop_at[rows])
        open_rows &= ~over
        heard[rows[over]] &= here[over]
        ends[rows[over]] = np.where(here[over], at[over], 0.0)
    return heard, ends


def _run(
    designs: Designs, plans: IntArray, slots: IntArray, answers: IntArray, weights: FloatArray
) -> BoolArray:
    """[n] whether the agent in each slot runs: it has no late gate, or the gate opens."""
    runs = np.ones(len(plans), dtype=np.bool_)
    threshold = designs.threshold[plans, slots]
    gated = np.flatnonzero(np.isfinite(threshold))
    if len(gated):
        watched = designs.watched[plans[gated], slots[gated]]
        watched = watched[:, (watched >= 0).any(axis=0)]
        voters = np.where(watched >= 0, answers[gated[:, None], watched], SILENT)
        runs[gated] = gates_open(voters, weights[gated[:, None], watched], threshold[gated])
    return runs


def _chosen(
    designs: Designs, plans: IntArray, answers: IntArray, weights: FloatArray, heard: BoolArray
) -> IntArray:
    """[n] slot of the agent whose message is the answer; -1 where nobody spoke."""
    chosen, _ = leading_answers(np.where(heard, answers, SILENT), weights)
    # Nothing to compare: the decider's message, else the most reliable speaker's, the last of
    # equals.
    reliable = np.where(heard, weights, -np.inf)[:, ::-1]
    fallback = answers.shape[1] - 1 - np.argmax(reliable, axis=1)
    fallback = np.where(heard.any(axis=1), fallback, -1)
    decider = designs.decider[plans]
    decider_spoke = (decider >= 0) & heard[np.arange(len(plans)), decider]
    chosen = np.where(decider_spoke & ((chosen < 0) | ~designs.votes[plans]), decider, chosen)
    return np.where(chosen < 0, fallback, chosen)
