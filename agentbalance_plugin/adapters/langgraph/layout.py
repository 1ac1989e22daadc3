"""What is done to a graph, decided before it is compiled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

from langgraph.channels import BinaryOperatorAggregate
from langgraph.graph import END, StateGraph
from langgraph.graph.message import add_messages

from agentbalance_plugin.adapters.langgraph.discover import (
    Reach,
    agent_edges,
    agents_of,
    deciding_node,
    distances,
    kinds_of,
    lead_straight_on,
    reaches_of,
    routed_by_code,
    static_edges,
)
from agentbalance_plugin.adapters.langgraph.options import Settings
from agentbalance_plugin.adapters.langgraph.planned import lay_edges
from agentbalance_plugin.adapters.langgraph.steps import Steps, in_steps
from agentbalance_plugin.adapters.planning import check_needs, takes_long
from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.habits import Habits
from agentbalance_plugin.team import Agent, Team

_AnyGraph = StateGraph[Any, Any, Any, Any]


@dataclass(frozen=True)
class Layout:
    """What is done to a graph.

    Args:
        builder: a copy of the user's.
        settings: the arguments of `balance`.
        team: its agents; fixed where every plan keeps them and their order.
        routed: node -> why its routing is decided while the graph runs. Such a node is not left
            out when its calls are denied; the run ends instead, unless it is a part of a `Send`.
        messages: the state's key of the messages, where agents are planned in full; None where
            they keep the user's edges.
        steps: in which the agents run by the user's edges; None where a plan or code decides.
        edges: between the agents, by the user.
        habits: of its agents.
    """

    builder: _AnyGraph
    settings: Settings
    team: Team
    routed: dict[str, str]
    messages: str | None
    steps: Steps | None = None
    edges: tuple[tuple[str, str], ...] = ()
    habits: Habits = field(default_factory=Habits)

    @classmethod
    def of(cls, builder: _AnyGraph, settings: Settings) -> Layout:
        """Read a builder; where its agents are planned in full, its edges are laid anew.

        Raises:
            ValueError: no agent is found, one needs what no backbone has, or full planning was
                asked for and can't be done.
        """
        reaches = reaches_of(builder)
        agents = agents_of(builder, settings.agents, reaches)
        _warn_of_what_is_beyond(reaches)
        if not agents:
            raise ValueError(
                "agents: no node of the graph was found to reach a chat model; name the nodes that "
                f"do, for example agents=[{next(iter(builder.nodes), 'node')!r}]"
            )
        _check_backbones(agents, settings.models.catalog)
        names = [agent.name for agent in agents]
        routed = routed_by_code(builder)
        if settings.mode != "backbones":
            obstacle = why_not_full(builder, names, reaches, vouched=settings.mode == "full")
            if obstacle is None:
                team = Team(agents, decider=deciding_node(builder, names))
                key = messages_key(builder)
                assert key is not None
                edges = agent_edges(builder, names)
                as_it_was = Plan(dict.fromkeys(names), edges=edges)
                lay_edges(builder, as_it_was, key, settings.extract)
                return cls(builder, settings, team, routed, key, edges=edges)
            if settings.mode == "full":
                raise ValueError(f"mode='full': {obstacle}; use mode='backbones'")
        decider, edges, steps = None, (), None
        if not routed and not builder.branches and not has_cycle(builder, names):
            edges = agent_edges(builder, names)
            decider = deciding_node(builder, names)
            found = distances(builder)
            steps = {name: found[name] for name in names} if found.keys() >= set(names) else None
        team = Team(agents, decider=decider, fixed_edges=edges)
        return cls(builder, settings, team, routed, None, steps, edges)

    @cached_property
    def lead_on(self) -> set[str]:
        """Nodes of which a `Send` may leave one out: the parts that were paid for go on."""
        return lead_straight_on(self.builder)

    @property
    def kept(self) -> Team:
        """The agents of a task that does not pass START: all of them, in the user's order."""
        return replace(self.team, fixed_edges=self.edges)

    @property
    def mode(self) -> str:
        """ "full" or "backbones"."""
        return "backbones" if self.messages is None else "full"

    def in_steps(self, plan: Plan) -> tuple[Plan, Steps | None]:
        """A plan as it runs here, and its steps; None where code decides on them."""
        if self.messages is None and self.steps is None:
            return plan, None
        return in_steps(plan, self.settings.models.catalog, self.steps)

    @cached_property
    def plans_beside(self) -> bool:
        """Whether plans take too long for an event loop to wait for; looks at the team as well."""
        settings = self.settings
        return takes_long(settings.planner, self.team, settings.budget, settings.models.catalog)

    @property
    def certain(self) -> tuple[str, ...]:
        """The agents that run whatever happens: all of a graph without routing of its own."""
        if self.messages is not None:
            return self.team.names
        return () if self.routed or self.builder.branches else self.team.names


def why_not_full(
    builder: _AnyGraph,
    names: Sequence[str],
    reaches: Mapping[str, Reach],
    *,
    vouched: bool = False,
) -> str | None:
    """What keeps a graph's agents from being planned in full; None if nothing does.

    Args:
        vouched: the user says that agents depend on each other through messages alone, and that
            any of them may be left out.
    """
    agents = set(names)
    if routed := routed_by_code(builder):
        node, reason = next(iter(routed.items()))
        return f"node {node!r} {reason}"
    if builder.branches:
        return "the graph's entry is conditional"
    key = messages_key(builder)
    if key is None:
        return "the state has not exactly one list of messages"
    others = [name for name in (*builder.channels, *builder.managed) if name != key]
    if others and not vouched:
        return (
            f"agents may depend on each other through {', '.join(map(repr, others))} of the state; "
            "if they do so through messages alone, say mode='full'"
        )
    if len(agents) < 2:
        return "there is only one agent"
    if any(builder.nodes[name].defer for name in names):
        return "an agent is deferred"
    if has_cycle(builder, names):
        return "the agents are in a loop"
    if deciding_node(builder, names) is None:
        return "several agents are the last, so none has the answer"
    edges = static_edges(builder)
    exits = {end for start, end in edges if start in agents and end not in agents}
    back = agent_edges(builder, [*exits - {END}, *names])
    if any(start in exits and end in agents for start, end in back):
        return "nodes that call no backbone stand between the agents"
    feeders = {start for start, end in edges if end in agents and start not in agents}
    if len(feeders) != 1:
        return f"agents are entered from several nodes: {sorted(feeders)}"
    asking = [name for name in names if reaches[name].asks]
    if asking and not vouched:
        return (
            f"agent {asking[0]!r} may ask a human, which a plan could leave out; if it may, say "
            "mode='full'"
        )
    return None


def messages_key(builder: _AnyGraph) -> str | None:
    """The state's one list of messages; None if there is none, or several."""
    channels = cast("dict[str, Any]", builder.channels)
    found = [key for key, channel in channels.items() if _holds_messages(channel)]
    return found[0] if len(found) == 1 and found != ["__root__"] else None


def has_cycle(builder: _AnyGraph, names: Sequence[str]) -> bool:
    """Whether static edges lead from one of these nodes back to it."""
    edges = set(agent_edges(builder, names))
    own = any((name, name) in static_edges(builder) for name in names)
    return own or any((end, start) in edges for start, end in edges)


def _holds_messages(channel: object) -> bool:
    if not isinstance(channel, BinaryOperatorAggregate):
        return False
    reducer: Any = cast("Any", channel).operator
    # `add_messages` also makes reducers with a format of their own.
    return reducer is add_messages or getattr(reducer, "func", None) is add_messages


def _warn_of_what_is_beyond(reaches: Mapping[str, Reach]) -> None:
    for name, reach in reaches.items():
        for kind in kinds_of(reach.beyond):
            warnings.warn(
                f"node {name!r} reaches {kind}, whose calls are on no backbone and in no budget; "
                "call StandIn().invoke(messages) instead, or a chat model",
                stacklevel=4,
            )


def _check_backbones(agents: Sequence[Agent], catalog: Catalog) -> None:
    for agent in agents:
        if agent.backbone is not None and agent.backbone not in catalog:
            raise ValueError(
                f"agents: {agent.name!r} is given the backbone {agent.backbone!r}, which is not "
                f"among {list(catalog)}"
            )
    check_needs(agents, catalog)
