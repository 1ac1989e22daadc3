"""Plans over many queries at once: who runs, who hears whom, who decides, when it is over.

The rules are those of the live scheduler (`agentbalance_plugin.runtime.scheduler`). Plans with
equally many agents are run together, whatever their edges: step s runs, for every query, the agent
that is s-th in its plan's order.
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
    """P plans of A agents each, the agents in the order in which they run.

    Args:
        column: [A, P] backbone; -1 for an agent that calls none.
        key: [A, P] of the agents' names.
        weight: [A, P] log-odds in votes and late gates.
        cap: [A, P] most output tokens.
        sample: [A, P] which sample of its backbone it gives; -1: by the number of its peers.
        threshold: [A, P] of the late gate; infinite without one.
        watched: [A, A, P] the agents that each late gate compares, in its order; -1 after the last.
        edge: [A, A, P] whether the first hears the second.
        waits: [A, A, P] whether the first starts after the second.
        stop_at: [P] confidence that ends a vote; infinite where all are waited for.
        voters: [A, P] the agents in the order of the plan's assignment, in which votes count them.
        decider: [P] position among the voters; -1 for none.
        votes: [P] whether the decision is a vote.
    """

    column: IntArray
    key: KeyArray
    weight: FloatArray
    cap: IntArray
    sample: IntArray
    threshold: FloatArray
    watched: IntArray
    edge: BoolArray
    waits: BoolArray
    stop_at: FloatArray
    voters: IntArray
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
        agents = len(plans[0].assignment)
        flat, cube = (agents, len(plans)), (agents, agents, len(plans))
        columns, caps, chosen, voters = (np.empty(flat, dtype=np.int64) for _ in range(4))
        keys = np.empty(flat, dtype=np.uint64)
        weights, threshold = np.empty(flat), np.full(flat, np.inf)
        watched = np.full(cube, -1, dtype=np.int64)
        edge, waits = np.zeros(cube, dtype=np.bool_), np.zeros(cube, dtype=np.bool_)
        for number, plan in enumerate(plans):
            step = {agent: index for index, agent in enumerate(plan.order)}
            backbones = [plan.assignment[agent] for agent in step]
            columns[:, number] = [-1 if name is None else column(name) for name in backbones]
            keys[:, number] = [string_key(agent) for agent in step]
            weights[:, number] = [plan.weight(agent) for agent in step]
            caps[:, number] = [plan.output_caps.get(agent, _NO_CAP) for agent in step]
            chosen[:, number] = [samples.get(agent, -1) for agent in step]
            voters[:, number] = [step[agent] for agent in plan.assignment]
            for speaker, listener in plan.edges:
                edge[step[listener], step[speaker], number] = True
            for agent, gate in plan.late_gates.items():
                threshold[step[agent], number] = gate.threshold
                seen = [step[name] for name in gate.watches]
                watched[step[agent], : len(seen), number] = seen
                waits[step[agent], seen, number] = True
        return cls(
            column=columns,
            key=keys,
            weight=weights,
            cap=caps,
            sample=chosen,
            threshold=threshold,
            watched=watched,
            edge=edge,
            waits=waits | edge,
            stop_at=np.array([np.inf if p.stop_at is None else p.stop_at for p in plans]),
            voters=voters,
            decider=np.array([_place(plan, plan.decider) for plan in plans], dtype=np.int64),
            votes=np.array([p.decision == "vote" for p in plans], dtype=np.bool_),
        )


def _place(plan: Plan, agent: str | None) -> int:
    return next((place for place, name in enumerate(plan.assignment) if name == agent), -1)


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
    agents, count = len(designs.column), len(queries)
    results = Results.empty(count)
    provenance = calls.no_counts
    column, weights = designs.column[:, plans], designs.weight[:, plans]
    # [A, n]: what one agent did lies side by side.
    answers = np.full((agents, count), -1, dtype=np.int64)
    correct = np.zeros((agents, count), dtype=np.bool_)
    heard = np.zeros((agents, count), dtype=np.bool_)
    visible = np.zeros((agents, count), dtype=np.int64)
    ends = np.zeros((agents, count))
    depths = np.zeros((agents, count), dtype=np.int64)
    for step in range(agents):
        for before in np.flatnonzero(designs.waits[step].any(axis=1)):
            waits = designs.waits[step, before][plans]
            np.maximum(ends[step], ends[before], out=ends[step], where=waits)
            np.maximum(depths[step], depths[before], out=depths[step], where=waits)
        heard[step] = _runs(designs, step, plans, answers, heard, weights)
        depths[step] += heard[step]
        rows = np.flatnonzero(heard[step] & (column[step] >= 0))
        if not len(rows):
            continue
        which = plans[rows]
        peers = [
            Message(
                heard=designs.edge[step, peer][which] & heard[peer, rows],
                backbone=column[peer, rows],
                answer=answers[peer, rows],
                correct=correct[peer, rows],
                visible_tokens=visible[peer, rows],
            )
            for peer in np.flatnonzero(designs.edge[step].any(axis=1))
        ]
        spoken, counts = calls.speak(
            queries[rows],
            column[step, rows],
            designs.key[step, which],
            0,
            peers,
            designs.cap[step, which],
            designs.sample[step, which],
        )
        provenance += counts
        answers[step, rows] = spoken.message.answer
        correct[step, rows] = spoken.message.correct
        visible[step, rows] = spoken.message.visible_tokens
        ends[step, rows] += spoken.latency_s
        results.cost_nanodollars[rows] += spoken.cost_nanodollars
        results.prompt_tokens[rows] += spoken.prompt_tokens
        results.completion_tokens[rows] += spoken.completion_tokens
        results.calls[rows] += 1
    order = designs.voters[:, plans]
    answers, correct, heard, weights, ends = (
        np.take_along_axis(array, order, axis=0)
        for array in (answers, correct, heard, weights, ends)
    )
    _wait(designs.stop_at[plans], answers, weights, heard, ends)
    ends.max(axis=0, out=results.latency_s)
    depths.max(axis=0, out=results.hops)
    chosen = _chosen(designs, plans, answers, weights, heard)
    spoke = np.flatnonzero(chosen >= 0)
    results.answer[spoke] = answers[chosen[spoke], spoke]
    results.correct[spoke] = correct[chosen[spoke], spoke]
    return results, provenance


def _runs(
    designs: Designs,
    step: int,
    plans: IntArray,
    answers: IntArray,
    heard: BoolArray,
    weights: FloatArray,
) -> BoolArray:
    """[n] whether the agents of a step run: they have no late gate, or it opens."""
    runs = np.ones(len(plans), dtype=np.bool_)
    if not np.isfinite(designs.threshold[step]).any():
        return runs
    threshold = designs.threshold[step][plans]
    gated = np.flatnonzero(np.isfinite(threshold))
    if len(gated):
        watched = designs.watched[step][:, plans[gated]]
        watched = watched[(watched >= 0).any(axis=1)]
        spoke = (watched >= 0) & heard[watched, gated]
        voters = np.where(spoke, answers[watched, gated], SILENT)
        runs[gated] = gates_open(voters, weights[watched, gated], threshold[gated])
    return runs


def _wait(
    stop_at: FloatArray,
    answers: IntArray,
    weights: FloatArray,
    heard: BoolArray,
    ends: FloatArray,
) -> None:
    """Take those out of who spoke, and when, whom a decided vote did not wait for."""
    rows = np.flatnonzero(np.isfinite(stop_at))
    moments = np.sort(ends[:, rows], axis=0)
    for last in range(len(ends) - 1):
        if not len(rows):
            return
        here = ends[:, rows] <= moments[last]
        _, confidence = leading_answers(np.where(here, answers[:, rows], -1), weights[:, rows])
        over = confidence >= stop_at[rows]
        heard[:, rows[over]] &= here[:, over]
        ends[:, rows[over]] *= here[:, over]
        rows, moments = rows[~over], moments[:, ~over]


def _chosen(
    designs: Designs, plans: IntArray, answers: IntArray, weights: FloatArray, heard: BoolArray
) -> IntArray:
    """[n] position of the agent whose message is the answer; -1 where nobody spoke."""
    decider, count = designs.decider[plans], len(plans)
    decides = (decider >= 0) & heard[decider, np.arange(count)]
    chosen = np.where(decides, decider, -1)
    # The others vote.
    open_rows = np.flatnonzero(~decides | designs.votes[plans])
    if len(open_rows):
        heard, weights = heard[:, open_rows], weights[:, open_rows]
        leader, _ = leading_answers(np.where(heard, answers[:, open_rows], SILENT), weights)
        # Nothing to compare: the decider's message, else the most reliable speaker's, the last of
        # equals.
        reliable = np.where(heard, weights, -np.inf)[::-1]
        fallback = len(heard) - 1 - np.argmax(reliable, axis=0)
        fallback = np.where(heard.any(axis=0), fallback, -1)
        fallback = np.where(decides[open_rows], decider[open_rows], fallback)
        chosen[open_rows] = np.where(leader >= 0, leader, fallback)
    return chosen
