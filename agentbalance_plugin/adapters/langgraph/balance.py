"""`balance`: from a user's StateGraph to the same graph under a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langgraph.graph import StateGraph

from agentbalance_plugin.adapters.langgraph.builder import BalancedStateGraph
from agentbalance_plugin.adapters.langgraph.discover import AgentsArgument
from agentbalance_plugin.adapters.langgraph.models import Backbones
from agentbalance_plugin.adapters.langgraph.options import AnswerExtractor, Mode, Settings
from agentbalance_plugin.adapters.langgraph.planning import QueryReader
from agentbalance_plugin.adapters.planning import Planner
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.runtime.clock import Clock


def balance(
    builder: StateGraph[Any, Any, Any, Any],
    *,
    budget: Budget,
    backbones: Backbones = "backbones.yaml",
    policy: str | Path | Planner = "default",
    agents: AgentsArgument = None,
    mode: Mode = "auto",
    query: QueryReader | None = None,
    answer: AnswerExtractor | None = None,
    clock: Clock | None = None,
) -> BalancedStateGraph:
    """Put a LangGraph graph under a budget; the builder itself is left as it is.

    Args:
        builder: the graph before `compile`.
        budget: of each run, or an average over runs.
        backbones: a catalog file (by default `backbones.yaml` in the working directory), a Catalog,
            or pairs of a Backbone and the chat model that calls it.
        policy: "default", a checkpoint folder, or any object with `plan(query, team, budget,
            catalog)`.
        agents: nodes that call a backbone, as names or as a mapping from names to an Agent or a
            role; by default they are found.
        mode: "full" plans who runs and who hears whom, "backbones" keeps every node and edge,
            "auto" is "full" where the graph allows it (see `explain`).
        query: from the state at the start to the task's text; by default the last user message.
        answer: text of a message -> the answer that agreement compares, None if it has none.
        clock: what deadlines are measured on; real time by default.

    Returns:
        A StateGraph; what its `compile` returns is used like the graph, and its `report` tells of
        the last run.

    Raises:
        ValueError: an argument that can't work, named with its value and the fix.
        CatalogError, PolicyError: a catalog or policy file that can't be used.
    """
    if not isinstance(builder, StateGraph):
        raise ValueError(
            f"builder must be a StateGraph before compile(), got {type(builder).__name__}"
        )
    if isinstance(builder, BalancedStateGraph):
        raise ValueError("builder: this graph is balanced already")
    settings = Settings.of(
        budget=budget,
        backbones=backbones,
        policy=policy,
        mode=mode,
        agents=agents,
        query=query,
        answer=answer,
        clock=clock,
    )
    return BalancedStateGraph.of(builder, settings)
