"""The client of an agent's backbone, with other backbones to answer where its endpoint fails."""

from __future__ import annotations

from autogen_core.models import ChatCompletionClient

from agentbalance_plugin.adapters.autogen.client import BudgetClient
from agentbalance_plugin.adapters.autogen.endpoints import Clients
from agentbalance_plugin.adapters.autogen.halt import Halt
from agentbalance_plugin.adapters.autogen.run import Run
from agentbalance_plugin.adapters.backbones import standbys
from agentbalance_plugin.team import Agent


def client_for(
    agent: Agent,
    backbone: str,
    clients: Clients,
    run: Run,
    output_cap: int | None = None,
    *,
    halt: Halt | None = None,
    asked: ChatCompletionClient | None = None,
) -> BudgetClient:
    """Make it for a run.

    Args:
        agent: nobody stands in for a backbone that its user chose.
        output_cap: of the plan, which knows how much this backbone writes and not others.
        halt, asked: as in `BudgetClient`.
    """
    catalog, outages = clients.catalog, run.meter.outages
    order = (backbone,)
    if agent.backbone is None:
        others = standbys(catalog, backbone, agent.needs, outages.lately)
        order = outages.order(agent.name, (backbone, *others))

    def make(name: str, *behind: str) -> BudgetClient:
        standby = (lambda: make(*behind)) if behind else None
        return BudgetClient(
            clients(name),
            catalog[name],
            run.meter,
            agent.name,
            output_cap if name == backbone else None,
            halt,
            asked,
            standby,
            run.turns,
            run.denials,
        )

    return make(*order)
