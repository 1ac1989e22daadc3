"""Cost and latency budgets for multi-agent systems: backbone first, then topology.

Public names load when they are first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentbalance_plugin.adapters.groupchat import wrap_groupchat as wrap_groupchat
    from agentbalance_plugin.adapters.langgraph import BudgetMiddleware as BudgetMiddleware
    from agentbalance_plugin.adapters.langgraph import StandIn as StandIn
    from agentbalance_plugin.adapters.langgraph import balance as balance
    from agentbalance_plugin.adapters.langgraph import balanced as balanced
    from agentbalance_plugin.adapters.langgraph import direct as direct
    from agentbalance_plugin.adapters.langgraph import install as install
    from agentbalance_plugin.adapters.langgraph import uninstall as uninstall
    from agentbalance_plugin.backbone import Backbone as Backbone
    from agentbalance_plugin.backbone import Catalog as Catalog
    from agentbalance_plugin.backbone import CatalogError as CatalogError
    from agentbalance_plugin.backbone import Endpoint as Endpoint
    from agentbalance_plugin.backbone import Profile as Profile
    from agentbalance_plugin.budget import Budget as Budget
    from agentbalance_plugin.budget import Spend as Spend
    from agentbalance_plugin.core.policy import Knobs as Knobs
    from agentbalance_plugin.core.policy import Policy as Policy
    from agentbalance_plugin.core.policy import PolicyError as PolicyError
    from agentbalance_plugin.plan import Expected as Expected
    from agentbalance_plugin.plan import LateGate as LateGate
    from agentbalance_plugin.plan import Plan as Plan
    from agentbalance_plugin.plan import PlanError as PlanError
    from agentbalance_plugin.runtime.meter import Meter as Meter
    from agentbalance_plugin.runtime.report import BudgetExceeded as BudgetExceeded
    from agentbalance_plugin.runtime.report import RunReport as RunReport
    from agentbalance_plugin.team import Agent as Agent
    from agentbalance_plugin.team import Team as Team

_HOME = {
    "wrap_groupchat": "adapters.groupchat",
    "BudgetMiddleware": "adapters.langgraph",
    "StandIn": "adapters.langgraph",
    "balance": "adapters.langgraph",
    "balanced": "adapters.langgraph",
    "direct": "adapters.langgraph",
    "install": "adapters.langgraph",
    "uninstall": "adapters.langgraph",
    "Backbone": "backbone",
    "Catalog": "backbone",
    "CatalogError": "backbone",
    "Endpoint": "backbone",
    "Profile": "backbone",
    "Budget": "budget",
    "Spend": "budget",
    "Knobs": "core.policy",
    "Policy": "core.policy",
    "PolicyError": "core.policy",
    "Expected": "plan",
    "LateGate": "plan",
    "Plan": "plan",
    "PlanError": "plan",
    "Meter": "runtime.meter",
    "BudgetExceeded": "runtime.report",
    "RunReport": "runtime.report",
    "Agent": "team",
    "Team": "team",
}

# Any one of these will do.
_NEEDS = {
    "adapters.groupchat": ("autogen_agentchat", "autogen"),
    "adapters.langgraph": ("langgraph",),
}

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "__all__":
        # `import *` imports them all, and must not fail over a framework that is not there.
        return [name for name in sorted(_HOME) if _is_there(name)]
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def _is_there(name: str) -> bool:
    from importlib.util import find_spec

    frameworks = _NEEDS.get(_HOME[name], ())
    there = not frameworks or any(find_spec(framework) for framework in frameworks)
    return there and (name != "BudgetMiddleware" or find_spec("langchain") is not None)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
