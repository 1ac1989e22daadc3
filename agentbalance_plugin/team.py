"""A framework-neutral picture of the user's agents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from itertools import combinations


@dataclass(frozen=True, slots=True)
class Agent:
    """One participant.

    Args:
        name: unique in the team.
        role: what the agent is for, as text (system message or description).
        needs: capabilities its backbone must have (`agentbalance_plugin.backbone.CAPABILITIES`).
        calls_backbone: False for agents without an LLM (a user proxy, a code executor): they are
            kept and never get a backbone.
        keep: True pins the agent: gating may not drop it.
        backbone: the name of a backbone pins it to the agent; None leaves the choice to the policy.
    """

    name: str
    role: str = ""
    needs: frozenset[str] = field(default_factory=lambda: frozenset({"text"}))
    calls_backbone: bool = True
    keep: bool = False
    backbone: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("Agent.name must not be empty")
        if self.backbone is not None and not self.calls_backbone:
            raise ValueError(
                f"Agent {self.name!r} calls no backbone, so {self.backbone!r} can't be pinned to it"
            )


@dataclass(frozen=True, slots=True)
class Team:
    """The agents in the user's order, and who decides.

    Args:
        agents: in the order in which the user's chat would let them speak; names are unique.
        decider: name of the agent whose message is the team's answer. None where the framework
            decides by itself (only with `fixed_edges`).
        fixed_edges: (speaker, listener) pairs that the plan must keep, together with every agent:
            set for pipelines whose steps depend on each other and for teams that route by
            themselves. None leaves gating and topology to the policy.

    Raises:
        ValueError: no agents, two of one name, an unknown decider, or fixed edges that name
            unknown agents or lead in a loop.
    """

    agents: tuple[Agent, ...]
    decider: str | None = None
    fixed_edges: tuple[tuple[str, str], ...] | None = None

    def __post_init__(self) -> None:
        if not self.agents:
            raise ValueError("a Team needs at least one agent")
        seen: set[str] = set()
        for agent in self.agents:
            if agent.name in seen:
                raise ValueError(f"two agents are named {agent.name!r}; names must be unique")
            seen.add(agent.name)
        if self.decider is None and self.fixed_edges is None:
            raise ValueError("Team.decider must name the agent whose message is the answer")
        if self.decider is not None and self.decider not in seen:
            raise ValueError(f"the decider {self.decider!r} is none of the agents {sorted(seen)}")
        for edge in self.fixed_edges or ():
            for name in edge:
                if name not in seen:
                    raise ValueError(f"fixed edge {edge} names {name!r}, which is no agent")
        _check_order(self.fixed_edges or ())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(agent.name for agent in self.agents)

    @property
    def in_turn(self) -> tuple[tuple[str, str], ...]:
        """Edges for speaking one after the other, each hearing all before it: in the team's order,
        but for the decider, which speaks last."""
        order = [name for name in self.names if name != self.decider]
        return tuple(combinations([*order, self.decider] if self.decider else order, 2))

    def needing(self, capability: str) -> Team:
        """The team for a task that needs a capability of every backbone that is called."""
        agents = (
            replace(agent, needs=agent.needs | {capability}) if agent.calls_backbone else agent
            for agent in self.agents
        )
        return replace(self, agents=tuple(agents))

    def agent(self, name: str) -> Agent:
        """The agent of that name (KeyError if there is none)."""
        for agent in self.agents:
            if agent.name == name:
                return agent
        raise KeyError(name)


def _check_order(edges: Iterable[tuple[str, str]]) -> None:
    listeners = TopologicalSorter[str]()
    for speaker, listener in edges:
        listeners.add(listener, speaker)
    try:
        listeners.prepare()
    except CycleError as error:
        raise ValueError(
            f"fixed edges lead in a loop: {' -> '.join(error.args[1])}; a plan runs every agent "
            "once, so leave one of them out"
        ) from None
