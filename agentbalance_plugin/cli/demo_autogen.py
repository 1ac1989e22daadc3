"""The demo's team as an AutoGen chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.demo import ROLES, Runner
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.extras import require
from agentbalance_plugin.runtime.report import RunReport

if TYPE_CHECKING:
    from autogen_agentchat.teams import RoundRobinGroupChat


class Demo:
    """Four agents that take turns; see `agentbalance_plugin.cli.demo.Framework`."""

    team = f"RoundRobinGroupChat of {len(ROLES)} agents"

    def stock(self, backbone: str, base_url: str) -> Runner:
        chat = _chat(backbone, base_url)

        async def run(task: str) -> tuple[str, RunReport | None]:
            result = await chat.run(task=task)
            await chat.reset()
            return result.messages[-1].to_text(), None

        return run

    def wrapped(
        self, backbone: str, base_url: str, budget: Budget, catalog: Catalog, policy: Policy
    ) -> Runner:
        from agentbalance_plugin.adapters.autogen import wrap_groupchat

        chat = _chat(backbone, base_url)
        team = wrap_groupchat(chat, budget=budget, backbones=catalog, policy=policy)

        async def run(task: str) -> tuple[str, RunReport | None]:
            result = await team.run(task=task)
            report = team.report_of(result)
            await team.reset()
            return result.messages[-1].to_text(), report

        return run


def _chat(backbone: str, base_url: str) -> RoundRobinGroupChat:
    agents = require("autogen_agentchat.agents", extra="autogen")
    teams = require("autogen_agentchat.teams", extra="autogen")
    models = require("autogen_ext.models.openai", extra="autogen")
    client = models.OpenAIChatCompletionClient(
        model=backbone,
        base_url=base_url,
        api_key="local",
        model_info={
            "vision": False,
            "function_calling": False,
            "json_output": False,
            "structured_output": False,
            "family": "unknown",
        },
    )
    return teams.RoundRobinGroupChat(
        [
            agents.AssistantAgent(name, client, system_message=f"[[agent:{name}]] {role}")
            for name, role in ROLES.items()
        ],
        max_turns=len(ROLES),
    )
