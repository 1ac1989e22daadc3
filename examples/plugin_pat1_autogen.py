"""AutoGen chats as written and the same chats under a budget, on recorded answers.

pip install 'agentbalance-plugin[autogen,simulator]'
python plugin_pat1_autogen.py                                # reasoning, mmlu, mmlu_pro
python plugin_pat1_autogen.py --traces DIR --suite gpqa_diamond --suite humaneval

Real AutoGen teams and OpenAI clients talk over HTTP to a local server that replays what backbones
answered. Nothing here is live, and nothing needs a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import Team
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_core.models import ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient

from agentbalance_plugin import Budget, wrap_groupchat
from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam
from agentbalance_plugin.cli.framework_runs import Ask
from agentbalance_plugin.cli.plugin_results import Endpoint, main
from agentbalance_plugin.runtime.report import RunReport

TEXT_ALONE = ModelInfo(
    vision=False,
    function_calling=False,
    json_output=False,
    structured_output=False,
    family="unknown",
)


clients: list[OpenAIChatCompletionClient] = []


def agents(endpoint: Endpoint, roles: dict[str, str]) -> list[AssistantAgent]:
    """Everyone on the reference backbone, as a user would start."""
    client = OpenAIChatCompletionClient(
        model=endpoint.reference,
        base_url=endpoint.base_url,
        api_key="local",
        model_info=TEXT_ALONE,
    )
    clients.append(client)
    # The marker tells the server who asks, so that its draws do not depend on the order.
    return [
        AssistantAgent(name, client, system_message=f"[[agent:{name}]] {role}")
        for name, role in roles.items()
    ]


ROUND_ROBIN = {
    "planner": "You break the task down and solve it.",
    "solver": "You solve the task step by step.",
    "critic": "You solve the task again and look for mistakes.",
    "decider": "You weigh what was said and give the final answer.",
}
REVISE = "You solve the task. Read what the others answered, and revise your own answer."
DEBATE = dict.fromkeys(("debater_1", "debater_2", "debater_3"), REVISE)


def round_robin(endpoint: Endpoint) -> RoundRobinGroupChat:
    """Four agents, one turn each; the last decides."""
    return RoundRobinGroupChat(list(agents(endpoint, ROUND_ROBIN)), max_turns=len(ROUND_ROBIN))


def debate(endpoint: Endpoint) -> RoundRobinGroupChat:
    """As in LLM-Debate (arXiv 2305.14325): everyone answers, then revises having read the rest."""
    return RoundRobinGroupChat(list(agents(endpoint, DEBATE)), max_turns=2 * len(DEBATE))


def selector(endpoint: Endpoint) -> SelectorGroupChat:
    """The user's function says who speaks; the calls of a selecting backbone would come on top."""
    order = cycle(ROUND_ROBIN)

    def following(messages: Sequence[BaseAgentEvent | BaseChatMessage]) -> str:
        return next(order)

    members = agents(endpoint, ROUND_ROBIN)
    return SelectorGroupChat(
        list(members),
        model_client=members[0]._model_client,  # pyright: ignore[reportPrivateUsage]
        selector_func=following,
        max_turns=len(ROUND_ROBIN),
    )


class Chat:
    """A chat, as written and wrapped."""

    def __init__(self, make: Callable[[Endpoint], Team], decider: str | None = None) -> None:
        self.make = make
        self.decider = decider
        self.made: list[Team] = []

    def stock(self, endpoint: Endpoint) -> Ask:
        chat = self.make(endpoint)
        self.made.append(chat)
        return ask(chat)

    def balanced(self, endpoint: Endpoint, budget: Budget) -> Ask:
        chat = wrap_groupchat(
            self.make(endpoint),
            budget=budget,
            backbones=endpoint.catalog,
            policy=endpoint.policy,
            decider=self.decider,
        )
        self.made.append(chat)
        return ask(chat)

    async def close(self) -> None:
        for chat in self.made:
            if isinstance(chat, WrappedTeam):
                await chat.close()
        for client in clients:
            await client.close()
        clients.clear()
        self.made.clear()


def ask(team: Team) -> Ask:
    """One task after the other, each from an empty history."""

    async def run(task: str) -> tuple[str, RunReport | None]:
        result = await team.run(task=task)
        report = team.report_of(result) if isinstance(team, WrappedTeam) else None
        await team.reset()
        return result.messages[-1].to_text(), report

    return run


SYSTEMS = {
    "round robin": Chat(round_robin),
    "debate": Chat(debate),
    "selector": Chat(selector, decider="decider"),
}

if __name__ == "__main__":
    main(SYSTEMS, "AutoGen chats as written and under a budget, on recorded answers.")
