"""A graph under a budget before it is compiled."""

from __future__ import annotations

import copy as copying
from collections import defaultdict
from dataclasses import replace
from typing import Any, cast

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph

from agentbalance_plugin.adapters.langgraph.dress import dress
from agentbalance_plugin.adapters.langgraph.graph import BalancedGraph, Shared
from agentbalance_plugin.adapters.langgraph.interception import intercept
from agentbalance_plugin.adapters.langgraph.layout import Layout
from agentbalance_plugin.adapters.langgraph.options import Settings
from agentbalance_plugin.adapters.langgraph.report import Reports

_AnyGraph = StateGraph[Any, Any, Any, Any]
_AnyCompiled = CompiledStateGraph[Any, Any, Any, Any]

# The function itself: the compile hook replaces the attribute.
stock_compile = cast("Any", StateGraph).compile


class BalancedStateGraph(_AnyGraph):
    """A StateGraph whose `compile` makes a graph under a budget; made by `balance`."""

    _settings: Settings

    @classmethod
    def of(cls, builder: _AnyGraph, settings: Settings) -> BalancedStateGraph:
        """A copy of a builder; what is added to one of them later stays out of the other."""
        made = cls.__new__(cls)
        vars(made).update(_copied(builder))
        made._settings = settings
        return made

    def compile(self, *args: Any, **options: Any) -> BalancedGraph:
        """`StateGraph.compile`, with all its arguments.

        Raises:
            ValueError: as `StateGraph.compile`; or no agent is found, or one needs what no
                backbone has.
        """
        layout = Layout.of(self._users(), self._settings)
        # Done here rather than by the first of several runs at once.
        self._settings.pacer(layout.team)
        _ = layout.plans_beside
        compiled: _AnyCompiled = stock_compile(layout.builder, *args, **options)
        dress(compiled, layout)
        intercept()
        # In place: wrapped in another object it would not be known as a subgraph any more.
        compiled.__class__ = BalancedGraph
        made = cast("BalancedGraph", compiled)
        # As in a stock graph it is what may be compiled once more, with a checkpointer, say.
        made.builder = self
        made.shared = Shared(
            layout, Reports(), lambda: stock_compile(self._users(), *args, **options)
        )
        return made

    def _users(self) -> _AnyGraph:
        """The user's builder again, in a copy."""
        builder = cast("_AnyGraph", StateGraph.__new__(StateGraph))
        vars(builder).update(_copied(self))
        return builder


def _copied(builder: _AnyGraph) -> dict[str, Any]:
    """A builder's attributes, with containers and specs of its own.

    Compiling writes defaults into the specs, which a second compilation would trip over.
    """
    attributes = dict(vars(builder))
    attributes["nodes"] = {name: replace(spec) for name, spec in builder.nodes.items()}
    for name in ("edges", "waiting_edges", "channels", "managed", "schemas"):
        attributes[name] = copying.copy(attributes[name])
    attributes["branches"] = defaultdict(
        dict[str, Any], {source: dict(branches) for source, branches in builder.branches.items()}
    )
    attributes["compiled"] = False
    attributes.pop("_settings", None)
    return attributes
