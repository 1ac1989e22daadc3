"""A plan as the kind of graph that LangChain draws."""

from __future__ import annotations

from langchain_core.runnables.graph import Graph, Node
from langgraph.graph import END, START

from agentbalance_plugin.plan import Plan

VOTE = "vote"
"""The node where a plan's votes come together."""


def plan_graph(plan: Plan) -> Graph:
    """Who hears whom, on which backbone; what depends on a late gate is conditional (dashed)."""
    graph = Graph()
    graph.nodes[START] = Node(START, START, None, None)
    for agent, backbone in plan.assignment.items():
        graph.nodes[agent] = Node(agent, agent, None, {"backbone": backbone or "none"})
    votes = plan.decision == "vote"
    if votes:
        graph.nodes[VOTE] = Node(VOTE, VOTE, None, None)
    graph.nodes[END] = Node(END, END, None, None)
    for agent in plan.assignment:
        gated = agent in plan.late_gates
        start = graph.nodes[agent]
        for before in plan.waits_for(agent):
            graph.add_edge(graph.nodes[before], start, conditional=gated)
        if not plan.waits_for(agent):
            graph.add_edge(graph.nodes[START], start)
        if votes:
            graph.add_edge(start, graph.nodes[VOTE], conditional=gated)
        elif agent == plan.decider or (plan.decider is None and _leads_nowhere(plan, agent)):
            graph.add_edge(start, graph.nodes[END], conditional=gated)
    if votes:
        graph.add_edge(graph.nodes[VOTE], graph.nodes[END])
    return graph


def _leads_nowhere(plan: Plan, agent: str) -> bool:
    return not any(agent in plan.waits_for(name) for name in plan.assignment)
