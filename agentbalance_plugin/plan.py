"""A plan: who runs, on which backbone, who hears whom, when, and how the team decides."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.team import Team

Decision = Literal["agent", "vote"]


class PlanError(ValueError):
    """A plan that can't be run; the message says which rule it breaks."""


@dataclass(frozen=True, slots=True)
class LateGate:
    """Runs an agent only when the agents it watches agree too little.

    Args:
        watches: the agents whose answers are compared; at least one, all of them kept. Watching
            orders the agents but passes no message: that is what edges are for.
        threshold: the agent runs when the confidence in the leading answer
            (`agentbalance_plugin.agreement.leading_answer`, over those of them that spoke) is
            below this, in (0, 1].
    """

    watches: tuple[str, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What the policy predicts of a plan: means over its late gates.

    Args:
        prompt_tokens: of a call that hears no one; 0 if unknown.
        reply_tokens: agent -> completion tokens of a reply of it that is not cut off, on average;
            only of agents whose backbones do not reason.
    """

    success: float
    cost_usd: float
    latency_s: float
    prompt_tokens: float = 0.0
    reply_tokens: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Plan:
    """One design for one task.

    Args:
        assignment: kept agent -> name of its backbone, in the team's order; None for an agent
            that calls no backbone. Agents that are not here do not run.
        edges: (speaker, listener): the listener reads the speaker's message.
        decision: "agent": the decider's message is the answer. "vote": no call; the message that
            holds the leading answer by weight is emitted as it is.
        decider: the deciding agent; for a vote, the agent whose message is taken when nobody gave
            an answer that can be compared (None: the last that spoke).
        late_gates: agent -> its late gate. A late-gated decider that did not run leaves the
            decision to the vote.
        stop_at: a vote of agents that all start at once ends as soon as the confidence in the
            leading answer reaches this, in (0, 1]; those still at work count as voters whose
            answers all differ. They are not waited for; what they bill is paid. None waits for all.
        weights: agent -> log-odds that its answer is right, for votes and late gates; absent
            means 1.0.
        output_caps: agent -> most output tokens of each of its calls; absent means the backbone's
            own cap.
        hop_limit: the longest path, counted in agents, that the plan may have.
        expected: the policy's prediction; None for a plan written by hand.
        notes: what the policy wants reports to show (difficulty, pool, ...), JSON values only.

    Call `validate(team, catalog)` before running one; `depth`, `parents` and the drawings assume a
    valid plan.
    """

    assignment: Mapping[str, str | None]
    edges: tuple[tuple[str, str], ...] = ()
    decision: Decision = "agent"
    decider: str | None = None
    late_gates: Mapping[str, LateGate] = field(default_factory=dict[str, LateGate])
    stop_at: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    output_caps: Mapping[str, int] = field(default_factory=dict[str, int])
    hop_limit: int = 8
    expected: Expected | None = None
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def parents(self, agent: str) -> tuple[str, ...]:
        """The agents whose messages `agent` reads, in the plan's order."""
        return self._parents.get(agent, ())

    def waits_for(self, agent: str) -> tuple[str, ...]:
        """The agents that must be done before `agent` starts: parents and watched agents."""
        gate = self.late_gates.get(agent)
        if gate is None:
            return self.parents(agent)
        before = {*self.parents(agent), *gate.watches}
        return tuple(name for name in self.assignment if name in before)

    def weight(self, agent: str) -> float:
        return self.weights.get(agent, 1.0)

    @cached_property
    def _parents(self) -> dict[str, tuple[str, ...]]:
        place = {name: index for index, name in enumerate(self.assignment)}
        speakers: dict[str, set[str]] = {}
        for speaker, listener in self.edges:
            if speaker in place:
                speakers.setdefault(listener, set()).add(speaker)
        return {
            listener: tuple(sorted(names, key=place.__getitem__))
            for listener, names in speakers.items()
        }

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The kept agents so that each comes after those it waits for.

        Raises:
            PlanError: the plan has a cycle.
        """
        if not self.edges and not self.late_gates:
            return tuple(self.assignment)
        graph = {name: self.waits_for(name) for name in self.assignment}
        try:
            return tuple(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            raise PlanError(f"the plan is not a DAG: {' -> '.join(error.args[1])}") from error

    @cached_property
    def depth(self) -> int:
        """Agents on the longest path, late-gated ones included."""
        return int(self.longest_path(dict.fromkeys(self.assignment, 1.0)))

    def longest_path(self, lengths: Mapping[str, float]) -> float:
        """The most that agents who wait for each other add up to, late-gated ones included.

        Args:
            lengths: of each kept agent, in whatever unit.

        Raises:
            PlanError: the plan has a cycle.
        """
        done: dict[str, float] = {}
        for name in self.order:
            before = max((done[one] for one in self.waits_for(name)), default=0.0)
            done[name] = lengths[name] + before
        return max(done.values(), default=0.0)

    def validate(self, team: Team, catalog: Catalog) -> None:
        """Check the plan against the team and the catalog.

        Raises:
            PlanError: saying which rule is broken, and by which agent.
        """
        from agentbalance_plugin.plan_rules import check_plan

        check_plan(self, team, catalog)

    def to_mermaid(self) -> str:
        """The plan as a Mermaid flowchart."""
        from agentbalance_plugin.drawing import mermaid

        return mermaid(self)

    def to_tree(self) -> str:
        """The plan as a text tree, the decision at the root."""
        from agentbalance_plugin.drawing import text_tree

        return text_tree(self)

    def draw(self, path: str | Path) -> None:
        """The plan as a picture; see `agentbalance_plugin.picture.draw`."""
        from agentbalance_plugin.picture import draw

        draw(self, path)

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "assignment": dict(self.assignment),
            "edges": [list(edge) for edge in self.edges],
            "decision": self.decision,
            "decider": self.decider,
            "late_gates": {
                name: {"watches": list(gate.watches), "threshold": gate.threshold}
                for name, gate in self.late_gates.items()
            },
            "stop_at": self.stop_at,
            "weights": dict(self.weights),
            "output_caps": dict(self.output_caps),
            "hop_limit": self.hop_limit,
            "expected": None
            if self.expected is None
            else {
                "success": self.expected.success,
                "cost_usd": self.expected.cost_usd,
                "latency_s": self.expected.latency_s,
                "prompt_tokens": self.expected.prompt_tokens,
                "reply_tokens": dict(self.expected.reply_tokens),
            },
            "notes": dict(self.notes),
        }
