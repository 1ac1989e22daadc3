"""`explain`: what a graph looks like to the planner, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langgraph.graph import StateGraph

from agentbalance_plugin.adapters.langgraph.discover import (
    AgentsArgument,
    agents_of,
    deciding_node,
    kinds_of,
    reaches_of,
    routed_by_code,
)
from agentbalance_plugin.adapters.langgraph.layout import why_not_full
from agentbalance_plugin.drawing import text_table


@dataclass(frozen=True, slots=True)
class NodeExplanation:
    """One node.

    Args:
        agent: whether it calls a backbone and gets one from the plan.
        models: the chat models it was found to reach, by class.
        beyond: what else it reaches that calls a vendor, on no backbone and in no budget.
        pinned: why plans leave its edges as they are; empty where they may change them.
    """

    name: str
    agent: bool
    models: tuple[str, ...]
    beyond: tuple[str, ...]
    pinned: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was found in a graph.

    Args:
        nodes: in the order in which edges reach them.
        decider: the agent whose message is the answer; None where the graph decides by itself.
        full: None if the agents are planned in full, else what keeps them from it.
    """

    nodes: tuple[NodeExplanation, ...]
    decider: str | None
    full: str | None

    def to_text(self) -> str:
        """A table for terminals."""
        rows = [("node", "agent", "chat models", "edges")]
        for node in self.nodes:
            edges = f"kept: {node.pinned}" if node.pinned else "planned" if node.agent else "kept"
            outside = [f"{kind} (in no budget)" for kind in node.beyond]
            models = ", ".join([*node.models, *outside]) or "-"
            rows.append((node.name, "yes" if node.agent else "no", models, edges))
        planned = (
            f"planned in full, {self.decider} decides"
            if self.full is None
            else f"backbones and budget only: {self.full}"
        )
        return f"{text_table(rows)}\n{planned}"


def explain(builder: StateGraph[Any, Any, Any, Any], agents: AgentsArgument = None) -> Explanation:
    """Print and return what `balance` would find in a graph; nothing is called.

    Args:
        builder: the graph before `compile`.
        agents: as for `balance`.

    Raises:
        ValueError: `agents` names something that is no node.
    """
    reaches = reaches_of(builder)
    found = agents_of(builder, agents, reaches)
    names = [agent.name for agent in found]
    full = why_not_full(builder, names, reaches)
    routed = routed_by_code(builder)
    rest = [name for name in builder.nodes if name not in names]

    def node(name: str) -> NodeExplanation:
        reach = reaches[name]
        agent = name in names
        pinned = routed.get(name) or (full or "") * agent
        return NodeExplanation(name, agent, kinds_of(reach.models), kinds_of(reach.beyond), pinned)

    explanation = Explanation(
        tuple(node(name) for name in [*names, *rest]),
        deciding_node(builder, names) if full is None else None,
        full,
    )
    print(explanation.to_text())
    return explanation
