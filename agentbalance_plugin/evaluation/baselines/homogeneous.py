"""Teams of one backbone: what the methods that know no other have in common.

Each is run on the suite's reference backbone and on the best one, with the benefit of sampling:
every agent is a further sample of the backbone (modelled, or recorded where the traces have it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.reference import reference_plan
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.trials import (
    Family,
    Fitted,
    Known,
    Trial,
    every,
    integers,
    play,
    together,
)
from agentbalance_plugin.plan import Plan

IntArray = NDArray[np.int64]

Where = Literal["reference", "best"]

# In a vote that only the last round counts in, earlier messages break ties alone.
_HARDLY = 1e-3


class TeamMethod(Protocol):
    """A method on teams of one backbone."""

    @property
    def name(self) -> str: ...

    @property
    def grid(self) -> Mapping[str, Any]: ...

    def fit_on(self, known: Known, backbone: str) -> Fitted:
        """As `Method.fit`, on a given backbone."""
        ...


class Homogeneous:
    """A team method on the reference backbone, or at each budget on the one best for chats.

    Args:
        method: which.
        where: "best" are the backbones that the hull on val takes of all candidates' chats as
            written.
    """

    family: Family = "homogeneous"

    def __init__(self, method: TeamMethod, where: Where) -> None:
        self.method = method
        self.where: Where = where
        self.name = f"{method.name}, {where} backbone"
        self.grid: Mapping[str, Any] = {**method.grid, "backbone": where}

    def fit(self, known: Known) -> Fitted:
        """
        Raises:
            ValueError: the suite has no reference backbone.
        """
        if self.where == "best":
            fitted = [self.method.fit_on(known, name) for name in best_backbones(known)]
        elif known.traces.reference is None:
            raise ValueError(f"{self.name}: the suite names no reference backbone")
        else:
            fitted = [self.method.fit_on(known, known.traces.reference)]

        def points(replay: Replay, positions: IntArray) -> Trial:
            return together([each(replay, positions) for each in fitted])

        return points


def best_backbones(known: Known) -> list[str]:
    """The candidates whose chats as written may be mixed, judged on val."""
    names = known.traces.candidates
    chats = [reference_plan(name) for name in names]
    found = play(known.replay, known.val, every(chats, len(known.val)))
    return [names[number] for number in integers(found.points(known.axis).hull())]


class StaticTeams:
    """Methods that learn nothing: each setting is one plan for all queries."""

    name = ""
    grid: Mapping[str, Any] = {}

    def plans(self, backbone: str) -> list[Plan]:
        """One per setting."""
        raise NotImplementedError

    def fit_on(self, known: Known, backbone: str) -> Fitted:
        plans = self.plans(backbone)
        samples = {name: sample_of(name) for plan in plans for name in plan.assignment}

        def points(replay: Replay, positions: IntArray) -> Trial:
            return play(replay, positions, every(plans, len(positions), samples))

        return points


class ChatAsWritten(StaticTeams):
    """The reference chat: four agents in turn, each reads all earlier ones, the last decides."""

    name = "chat as written"
    grid: Mapping[str, Any] = {"agents": [4]}

    def plans(self, backbone: str) -> list[Plan]:
        return [reference_plan(backbone, [agent_name(n) for n in range(4)])]


class SelfConsistency(StaticTeams):
    """Wang et al., "Self-consistency improves chain of thought reasoning" (arXiv 2203.11171): the
    plurality of several samples."""

    name = "self-consistency"
    grid: Mapping[str, Any] = {"samples": [3, 5]}

    def plans(self, backbone: str) -> list[Plan]:
        return [
            Plan(
                assignment={agent_name(n): backbone for n in range(size)},
                decision="vote",
            )
            for size in self.grid["samples"]
        ]


class LlmDebate(StaticTeams):
    """Du et al., "Improving factuality and reasoning in language models through multiagent debate"
    (arXiv 2305.14325): everyone answers, reads the others' last answers and answers again; the
    plurality of the last round. An agent's own last message is in its mind but not in its bill."""

    name = "LLM-Debate"
    grid: Mapping[str, Any] = {"agents": [2, 3], "rounds": [2, 3]}

    def plans(self, backbone: str) -> list[Plan]:
        return [
            debate(backbone, agents, rounds)
            for agents in self.grid["agents"]
            for rounds in self.grid["rounds"]
        ]


def debate(backbone: str, agents: int, rounds: int) -> Plan:
    """Everyone reads all others' answers of the round before; the last round votes."""
    names = [[agent_name(n, turn) for n in range(agents)] for turn in range(rounds)]
    edges: list[tuple[str, str]] = []
    for turn in range(1, rounds):
        for n in range(agents):
            edges += [(names[turn - 1][o], names[turn][n]) for o in range(agents) if o != n]
            # In the first round its own answer is what it would say alone; later it is a message.
            if turn > 1:
                edges.append((names[turn - 1][n], names[turn][n]))
    every_name = [name for turn in names for name in turn]
    return Plan(
        assignment=dict.fromkeys(every_name, backbone),
        edges=tuple(edges),
        decision="vote",
        weights={name: 1.0 if name in names[-1] else _HARDLY for name in every_name},
    )


def agent_name(number: int, turn: int = 0) -> str:
    """A name that says which sample of the backbone it gives."""
    return f"agent_{number}_turn_{turn}"


def sample_of(name: str) -> int:
    """The sample in a name from `agent_name`; the decider's own is one more than any agent's."""
    return int(name.split("_")[1])
