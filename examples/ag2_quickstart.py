"""Put an AG2 group chat under a budget.

pip install 'agentbalance-plugin[ag2]'
OPENAI_API_KEY=... GEMINI_API_KEY=... python ag2_quickstart.py backbones.yaml "What is 17 * 23?"
"""

from __future__ import annotations

import sys

from autogen import ConversableAgent, GroupChat, GroupChatManager, LLMConfig, UserProxyAgent

from agentbalance_plugin import Budget, wrap_groupchat


def main(backbones: str, task: str) -> None:
    # Your chat as it is today, all agents on one model.
    llm_config = LLMConfig({"model": "gpt-4o-mini"})
    ask = "Solve the task. End with a line 'Answer: ...'."

    def agent(name: str, system: str) -> ConversableAgent:
        return ConversableAgent(name, system_message=f"{system} {ask}", llm_config=llm_config)

    chat = GroupChat(
        agents=[
            agent("planner", "You plan, then solve."),
            agent("solver", "You solve step by step."),
            agent("decider", "You weigh what was said."),
        ],
        speaker_selection_method="round_robin",
        max_round=4,
    )
    manager = GroupChatManager(groupchat=chat, llm_config=llm_config)

    budget = Budget(cost_usd=0.004, latency_s=12)
    manager = wrap_groupchat(manager, budget=budget, backbones=backbones)
    user = UserProxyAgent("user", human_input_mode="NEVER", code_execution_config=False)
    user.initiate_chat(manager, message=task)
    print(chat.messages[-1]["content"])
    print(manager.report.to_text())


if __name__ == "__main__":
    main(*sys.argv[1:])
