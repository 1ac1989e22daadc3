"""Put an AutoGen group chat under a budget.

pip install 'agentbalance-plugin[autogen]'
OPENAI_API_KEY=... GEMINI_API_KEY=... python autogen_quickstart.py backbones.yaml "What is 17 * 23?"
"""

from __future__ import annotations

import asyncio
import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat

from agentbalance_plugin import Budget, Catalog, wrap_groupchat
from agentbalance_plugin.adapters.autogen.endpoints import clients_for


async def main(backbones: str, task: str) -> None:
    # Your chat as it is today, all agents on one model client.
    catalog = Catalog.load(backbones)
    client = clients_for(catalog)("mini")
    ask = "Solve the task. End with a line 'Answer: ...'."
    chat = RoundRobinGroupChat(
        [
            AssistantAgent("planner", client, system_message=f"You plan, then solve. {ask}"),
            AssistantAgent("solver", client, system_message=f"You solve step by step. {ask}"),
            AssistantAgent("decider", client, system_message=f"You weigh what was said. {ask}"),
        ],
        max_turns=3,
    )

    team = wrap_groupchat(chat, budget=Budget(cost_usd=0.004, latency_s=12), backbones=backbones)
    result = await team.run(task=task)
    print(result.messages[-1].to_text())
    print(team.report.to_text())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
