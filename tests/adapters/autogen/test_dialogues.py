"""Chats whose end is part of what their agents say to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken
from autogen_core.models import UserMessage
from chats import LARGE, MINI, Bench, chain, texts

from agentbalance_plugin import Budget

pytestmark = pytest.mark.virtual_time
BUDGET = Budget(cost_usd=0.05)


class Speaker(BaseChatAgent):
    """Asks its backbone, and then says what its lines are after those it has heard."""

    def __init__(self, bench: Bench, name: str, says: Callable[[list[str]], str]) -> None:
        super().__init__(name, "Speaks.")
        self._model_client = bench.client()
        self._says = says
        self._heard: list[str] = []

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        self._heard = [*self._heard, *(message.source for message in messages)]
        prompt = UserMessage(content=f"[[agent:{self.name}]] {messages[-1:]}", source="user")
        await self._model_client.create([prompt])
        return Response(chat_message=TextMessage(content=self._says(self._heard), source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        self._heard = []


def writer(bench: Bench) -> Speaker:
    return Speaker(bench, "writer", lambda heard: f"draft {heard.count('critic') + 1}")


def critic(bench: Bench, drafts: int = 1) -> Speaker:
    def says(heard: list[str]) -> str:
        return "APPROVE" if heard.count("writer") >= drafts else "Nothing that I could approve."

    return Speaker(bench, "critic", says)


def spoken(result: Any) -> list[str]:
    return [source for source, _ in texts(result.messages)]


async def test_a_critic_is_not_asked_again_and_again_without_a_writer(bench: Bench) -> None:
    end = TextMentionTermination("APPROVE")
    chat = RoundRobinGroupChat([writer(bench), critic(bench)], termination_condition=end)
    team = bench.wrap(chat, budget=BUDGET, backbones=bench.catalog(MINI))
    first = await team.run(task=bench.task())
    # One pass did not do: the rest of the run is the chat's own order, everyone hearing all.
    assert spoken(first) == ["user", "critic", "writer", "critic"]
    assert first.stop_reason == "Text 'APPROVE' mentioned"
    assert team.report.plan is not None
    assert list(team.report.plan.assignment) == ["writer", "critic"]
    assert team.report.spend.nanodollars == bench.billed() > 0
    # The next run begins with it.
    await team.reset()
    assert set(team.explain(bench.task(1)).plan.assignment) == {"writer", "critic"}
    second = await team.run(task=bench.task(1))
    assert spoken(second) == ["user", "writer", "critic"]
    assert team.report.complete


async def test_several_rounds_are_heard_by_all(bench: Bench) -> None:
    end = TextMentionTermination("APPROVE") | MaxMessageTermination(12)
    agents = [writer(bench), critic(bench, drafts=3)]
    chat = RoundRobinGroupChat(list(agents), termination_condition=end)
    team = bench.wrap(chat, budget=BUDGET, backbones=bench.catalog(MINI))
    await team.run(task=bench.task())
    await team.reset()
    result = await team.run(task=bench.task())
    assert spoken(result) == ["user", *["writer", "critic"] * 3]
    drafts = [text for source, text in texts(result.messages) if source == "writer"]
    assert drafts == ["draft 1", "draft 2", "draft 3"]


async def test_who_comes_after_the_one_that_ends_a_chat_is_not_asked(bench: Bench) -> None:
    def publishes(heard: list[str]) -> str:
        return "published" if "critic" in heard else "I wait for the critic."

    agents = [writer(bench), critic(bench), Speaker(bench, "publisher", publishes)]
    end = TextMentionTermination("APPROVE")
    chat = RoundRobinGroupChat(list(agents), termination_condition=end)
    team = bench.wrap(chat, budget=BUDGET, backbones=bench.catalog(MINI))
    result = await team.run(task=bench.task())
    assert spoken(result) == ["user", "publisher", "writer", "critic"]
    line = {agent.name: agent for agent in team.report.agents}["publisher"]
    assert (line.status, line.reason) == ("closed", "the chat ended before its turn")
    assert team.report.complete
    assert team.report.chosen == "critic"


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_chat_that_keeps_its_order_ends_where_it_ends_by_itself(
    bench: Bench, wrapped: bool
) -> None:
    agents = [writer(bench), critic(bench), Speaker(bench, "publisher", lambda heard: "published")]
    end = TextMentionTermination("APPROVE") | TextMentionTermination("published")
    chat: Any = RoundRobinGroupChat(list(agents), termination_condition=end)
    if wrapped:
        chat = bench.wrap(chat, mode="backbones", budget=BUDGET, backbones=bench.catalog(MINI))
    assert spoken(await chat.run(task=bench.task())) == ["user", "writer", "critic"]
    # The next run goes on with the next speaker.
    assert spoken(await chat.run(task=bench.task(1))) == ["user", "publisher"]


async def test_a_planner_of_ones_own_says_who_speaks_in_every_pass(bench: Bench) -> None:
    end = TextMentionTermination("APPROVE")
    chat = RoundRobinGroupChat(
        [writer(bench), critic(bench)], termination_condition=end, max_turns=6
    )
    team = bench.wrap(chat, chain({"critic": LARGE}))
    result = await team.run(task=bench.task())
    assert spoken(result) == ["user", "critic", "critic", "critic"]
    assert result.stop_reason == "Maximum number of turns reached after 3 passes."


async def test_a_decider_that_is_not_the_last_of_the_chat_is_the_last_of_its_order(
    bench: Bench,
) -> None:
    end = TextMentionTermination("APPROVE")
    chat = RoundRobinGroupChat([writer(bench), critic(bench)], termination_condition=end)
    more: Any = {"decider": "writer", "budget": BUDGET, "backbones": bench.catalog(MINI)}
    team = bench.wrap(chat, **more)
    assert spoken(await team.run(task=bench.task())) == ["user", "writer", "critic"]
    await team.reset()
    # The first run has taught it that one pass does not do.
    assert spoken(await team.run(task=bench.task(1)))[:3] == ["user", "critic", "writer"]
    kept = bench.wrap(
        bench.chat(("solver", "critic")), mode="backbones", **more | {"decider": "solver"}
    )
    assert spoken(await kept.run(task=bench.task())) == ["user", "critic", "solver"]
