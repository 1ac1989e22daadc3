"""LangGraph graphs under a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentbalance_plugin.extras import require

require("langgraph", extra="langgraph")

from agentbalance_plugin.adapters.langgraph.balance import balance  # noqa: E402
from agentbalance_plugin.adapters.langgraph.explain import explain  # noqa: E402
from agentbalance_plugin.adapters.langgraph.hook import balanced, install, uninstall  # noqa: E402
from agentbalance_plugin.adapters.langgraph.models import direct  # noqa: E402
from agentbalance_plugin.adapters.langgraph.stand_in import StandIn  # noqa: E402

if TYPE_CHECKING:
    from agentbalance_plugin.adapters.langgraph.middleware import (
        BudgetMiddleware as BudgetMiddleware,
    )

__all__ = [
    "BudgetMiddleware",
    "StandIn",
    "balance",
    "balanced",
    "direct",
    "explain",
    "install",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    # The middleware needs `langchain`, which graphs do not.
    if name == "BudgetMiddleware":
        try:
            from agentbalance_plugin.adapters.langgraph.middleware import BudgetMiddleware
        except ModuleNotFoundError as error:
            raise ImportError(
                "BudgetMiddleware needs langchain, which comes with no extra: pip install langchain"
            ) from error
        return BudgetMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
