"""Every kind of participant a chat may have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from autogen_agentchat.agents import (
    AssistantAgent,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    SocietyOfMindAgent,
    UserProxyAgent,
)
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import (
    BaseChatMessage,
    ModelClientStreamingChunkEvent,
    MultiModalMessage,
    StructuredMessage,
    TextMessage,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
)
from autogen_agentchat.teams import RoundRobinGroupChat, Swarm
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core import CancellationToken, Image
from autogen_core.model_context import (
    BufferedChatCompletionContext,
    TokenLimitedChatCompletionContext,
    UnboundedChatCompletionContext,
)
from autogen_core.models import ChatCompletionClient, LLMMessage, UserMessage
from autogen_core.tools import FunctionTool, StaticWorkbench
from chats import LARGE, LLAMA, MINI, Bench, Echo, chain, texts
from openai import AsyncOpenAI
from PIL import Image as Pixels
from pydantic import BaseModel

from agentbalance_plugin import Budget, Catalog, Plan
from agentbalance_plugin.adapters.autogen.client import BudgetClient
from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam

pytestmark = pytest.mark.virtual_time


async def test_tools_are_called_and_their_results_paid_for(bench: Bench) -> None:
    calls: list[int] = []

    def double(number: int) -> int:
        """Twice the number."""
        calls.append(number)
        return 2 * number

    agent = bench.assistant("solver", tools=[double], reflect_on_tool_use=True)
    team = bench.wrap(RoundRobinGroupChat([agent], max_turns=1), chain({"solver": MINI}))
    result = await team.run(task=f'[[tool:double {{"number": 21}}]] {bench.task()}')
    assert calls == [21]
    kinds = [type(message) for message in result.messages]
    assert ToolCallRequestEvent in kinds
    assert ToolCallExecutionEvent in kinds
    assert team.report.spend.calls == 2
    assert team.report.spend.nanodollars == bench.billed()


async def test_agents_with_tools_only_get_backbones_that_have_them(bench: Bench) -> None:
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    able = dict(bench.catalog(MINI, LARGE))
    unable = dict(bench.catalog(LLAMA, capabilities=("text",)))
    catalog = Catalog([*able.values(), *unable.values()])
    chat = RoundRobinGroupChat(
        [bench.assistant(n, tools=[double]) for n in ("solver", "decider")], max_turns=2
    )
    team = bench.wrap(chat, backbones=catalog)
    for number in range(3):
        await team.run(task=bench.task(number))
    assert {entry.backbone for entry in bench.simulator.books.entries} <= {MINI, LARGE}
    workbench = StaticWorkbench([FunctionTool(double, "Twice the number.")])
    other = RoundRobinGroupChat([bench.assistant("solver", workbench=workbench)], max_turns=1)
    for needy in (chat, other):
        with pytest.raises(ValueError, match=r"'solver' needs \['text', 'tools'\]"):
            bench.wrap(needy, backbones=bench.catalog(capabilities=("text",)))


async def test_tokens_stream_through_and_are_billed_once(bench: Bench) -> None:
    agent = bench.assistant("solver", model_client_stream=True)
    team = bench.wrap(RoundRobinGroupChat([agent], max_turns=1), chain({"solver": MINI}))
    chunks: list[str] = []
    async for item in team.run_stream(task=bench.task()):
        if isinstance(item, ModelClientStreamingChunkEvent):
            chunks.append(item.content)
        elif isinstance(item, TaskResult):
            result = item
    assert len(chunks) > 1
    assert "".join(chunks) == result.messages[-1].to_text()
    assert not any(isinstance(m, ModelClientStreamingChunkEvent) for m in result.messages)
    assert team.report.calls[0].metered
    assert team.report.spend.nanodollars == bench.billed()


async def test_agents_without_a_model_client_always_run_and_are_never_bound(bench: Bench) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "Answer: 7"

    echo = Echo()
    user = UserProxyAgent("user_proxy", input_func=answer)
    chat = RoundRobinGroupChat([bench.assistant("solver"), echo, user], max_turns=3)
    team = bench.wrap(chat)
    result = await team.run(task=bench.task())
    assert [source for source, _ in texts(result.messages)] == [
        "user",
        "solver",
        "echo",
        "user_proxy",
    ]
    assert len(asked) == 1
    assert echo.heard == [["user", "solver"]]
    plan = team.report.plan
    assert plan is not None
    assert plan.assignment["echo"] is None
    assert plan.assignment["user_proxy"] is None
    assert team.report.spend.calls == 1


async def test_structured_answers_come_through(bench: Bench) -> None:
    class Solution(BaseModel):
        answer: str

    from autogen_agentchat.messages import StructuredMessage as Structured

    agent = AssistantAgent(
        "solver",
        bench.client(),
        system_message="[[agent:solver]]",
        output_content_type=Solution,
    )
    chat = RoundRobinGroupChat(
        [agent, bench.assistant("decider")],
        max_turns=2,
        custom_message_types=[Structured[Solution]],
    )
    with pytest.raises(ValueError, match="structured_output"):
        bench.wrap(chat)
    capable = bench.catalog(capabilities=("text", "json", "structured_output"))
    team = bench.wrap(chat, chain({"solver": MINI, "decider": MINI}), backbones=capable)
    result = await team.run(task=bench.task())
    # The recorded reply is no JSON: that agent fails, the decider still answers. What it billed
    # was lost with the reply, so its whole reservation is booked.
    assert result.messages[-1].source == "decider"
    assert [call.metered for call in team.report.calls] == [False, True]
    assert team.report.spend.nanodollars >= bench.billed()
    assert not any(isinstance(message, StructuredMessage) for message in result.messages)


async def test_filtered_agents_and_teams_inside_agents_are_rebound(bench: Bench) -> None:
    only_user = MessageFilterConfig(per_source=[PerSourceFilter(source="user")])
    filtered = MessageFilterAgent("filtered", bench.assistant("inner"), filter=only_user)
    inner = RoundRobinGroupChat(
        [bench.assistant("first"), bench.assistant("second")],
        termination_condition=MaxMessageTermination(3),
    )
    society = SocietyOfMindAgent("society", inner, bench.client())
    chat = RoundRobinGroupChat([filtered, society], max_turns=2)
    team = bench.wrap(chat, chain({"filtered": MINI, "society": LLAMA}))
    result = await team.run(task=bench.task())
    called = [entry.backbone for entry in bench.simulator.books.entries]
    assert called[0] == MINI
    assert set(called[1:]) == {LLAMA}
    assert len(called) >= 3
    assert result.messages[-1].source == "society"
    assert team.report.spend.nanodollars == bench.billed()


async def test_agents_and_teams_that_are_tools_are_rebound(bench: Bench) -> None:
    helper = bench.assistant("helper", description="Helps.")
    pair = RoundRobinGroupChat(
        [bench.assistant("first"), bench.assistant("second")], max_turns=2, name="pair"
    )
    asked = {"helper": AgentTool(helper), "pair": TeamTool(pair, "pair", "Two solvers.")}
    for name, tool in asked.items():
        bench.simulator.books.clear()
        solver = bench.assistant("solver", tools=[tool], reflect_on_tool_use=True)
        team = bench.wrap(RoundRobinGroupChat([solver], max_turns=1), chain({"solver": MINI}))
        await team.run(task=f'[[tool:{name} {{"task": "Help."}}]] {bench.task()}')
        entries = bench.simulator.books.entries
        assert {entry.backbone for entry in entries} == {MINI}
        assert len(entries) == team.report.spend.calls == (3 if name == "helper" else 4)
        assert team.report.spend.nanodollars == bench.billed()
    # Its own history goes on, as that of an agent that is asked again and again.
    assert len(await helper.model_context.get_messages()) == 2
    unable = bench.catalog(capabilities=("text",))
    outer = AssistantAgent("outer", bench.client(), tools=[AgentTool(bench.assistant("inner"))])
    with pytest.raises(ValueError, match=r"'outer' needs \['text', 'tools'\]"):
        bench.wrap(RoundRobinGroupChat([outer], max_turns=1), backbones=unable)


async def test_an_agent_whose_tool_runs_out_of_budget_is_skipped(bench: Bench) -> None:
    helper = bench.assistant("helper", "Help. " * 1000, description="Helps.")
    solver = bench.assistant("solver", tools=[AgentTool(helper)], reflect_on_tool_use=True)
    chat = RoundRobinGroupChat([solver], max_turns=1)
    team = bench.wrap(chat, chain({"solver": LARGE}), budget=Budget(cost_usd=0.01))
    result = await team.run(task=f'[[tool:helper {{"task": "Help."}}]] {bench.task()}')
    assert [agent.status for agent in team.report.agents] == ["skipped"]
    assert (result.stop_reason or "").startswith("Budget exhausted")
    assert team.report.spend.calls == 1
    assert team.report.spend.nanodollars == bench.billed() <= 10_000_000


async def test_a_client_of_any_name_is_rebound(bench: Bench) -> None:
    class Own(Echo):
        def __init__(self, name: str, llm: ChatCompletionClient) -> None:
            super().__init__(name)
            self.llm = llm
            self.rounds = 0

        async def on_messages(
            self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
        ) -> Response:
            self.rounds += 1
            heard = [message.to_model_message() for message in messages]
            said = await self.llm.create(heard, cancellation_token=cancellation_token)
            return Response(chat_message=TextMessage(content=str(said.content), source=self.name))

        async def on_reset(self, cancellation_token: CancellationToken) -> None:
            self.rounds = 0

    own, client = [Own(name, bench.client()) for name in ("solver", "decider")], bench.client()
    own[0].llm = client
    team = bench.wrap(
        RoundRobinGroupChat(list(own), max_turns=2), chain({"solver": MINI, "decider": LLAMA})
    )
    await team.run(task=bench.task())
    assert [entry.backbone for entry in bench.simulator.books.entries] == [MINI, LLAMA]
    assert team.report.spend.nanodollars == bench.billed()
    assert own[0].llm is client
    assert own[0].rounds == 1


@pytest.mark.parametrize("kind", [list, tuple, dict])
async def test_clients_in_a_list_or_a_mapping_are_rebound(bench: Bench, kind: Any) -> None:
    class Several(Echo):
        def __init__(self, name: str, clients: Any) -> None:
            super().__init__(name)
            self.clients = clients

        async def on_messages(
            self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
        ) -> Response:
            heard = [message.to_model_message() for message in messages]
            two = self.clients.values() if isinstance(self.clients, dict) else self.clients
            said = [await client.create(heard) for client in two if client != "a note"]
            text = str(said[-1].content)
            return Response(chat_message=TextMessage(content=text, source=self.name))

    named = {"draft": bench.client(), "final": bench.client(), "note": "a note"}
    clients = named if kind is dict else kind(named.values())
    team = bench.wrap(
        RoundRobinGroupChat([Several("solver", clients)], max_turns=1), chain({"solver": MINI})
    )
    await team.run(task=bench.task())
    assert [entry.backbone for entry in bench.simulator.books.entries] == [MINI, MINI]
    assert team.report.spend.nanodollars == bench.billed()


async def test_what_no_budget_reaches_is_said(bench: Bench) -> None:
    class Engine:
        def __init__(self, client: Any) -> None:
            self.client = client

    raw, holds, quiet = Echo("raw"), Echo("holds"), Echo("quiet")
    raw.sdk = AsyncOpenAI(api_key="sk-secret")  # type: ignore[attr-defined]
    holds.engine = Engine(bench.client())  # type: ignore[attr-defined]
    quiet.engine = Engine("nothing")  # type: ignore[attr-defined]
    context = TokenLimitedChatCompletionContext(bench.client(), token_limit=9000)
    counts = bench.assistant("counts", model_context=context)
    with pytest.warns(UserWarning, match="in no budget") as said:
        bench.wrap(RoundRobinGroupChat([raw, holds, quiet, counts], max_turns=4))
    texts_said = [str(each.message) for each in said]
    assert [text.partition(", whose")[0] for text in texts_said] == [
        "agent 'raw' keeps AsyncOpenAI in 'sdk'",
        "agent 'holds' keeps Engine, which keeps a model client, in 'engine'",
    ]
    # Where wrap_groupchat was called.
    assert all(each.filename.endswith("chats.py") for each in said)
    assert not any("sk-secret" in text for text in texts_said)


async def test_a_method_that_an_agent_keeps_is_the_copys_own(bench: Bench) -> None:
    class Loud(AssistantAgent):
        def __init__(self, name: str, client: Any) -> None:
            super().__init__(name, client, system_message=f"[[agent:{name}]] Solve.")
            self.on_messages_stream = self.aloud  # type: ignore[method-assign]

        async def aloud(self, messages: Any, token: Any) -> Any:
            async for event in AssistantAgent.on_messages_stream(self, messages, token):
                yield event

    agent = Loud("solver", bench.client(LARGE))
    team = bench.wrap(RoundRobinGroupChat([agent], max_turns=1), chain({"solver": MINI}))
    for _ in range(2):
        await team.run(task=bench.task())
        assert team.report.spend.calls == 1
    assert [entry.backbone for entry in bench.simulator.books.entries] == [MINI, MINI]
    assert agent.on_messages_stream.__self__ is agent


async def test_a_team_may_be_a_participant(bench: Bench) -> None:
    inner = RoundRobinGroupChat(
        [bench.assistant("first"), bench.assistant("second")],
        max_turns=2,
        name="pair",
        description="Two solvers.",
    )
    chat = RoundRobinGroupChat([inner, bench.assistant("decider")], max_turns=2)
    team = bench.wrap(chat, chain({"pair": MINI, "decider": LLAMA}))
    result = await team.run(task=bench.task())
    assert [(e.agent, e.backbone) for e in bench.simulator.books.entries] == [
        ("first", MINI),
        ("second", MINI),
        ("decider", LLAMA),
    ]
    assert result.messages[-1].source == "decider"
    again = await team.run(task=bench.task(1))
    assert again.messages[-1].source == "decider"


async def test_a_team_that_runs_out_of_budget_is_skipped_not_broken(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    inner = RoundRobinGroupChat(
        [bench.assistant("first"), bench.assistant("second")], max_turns=2, name="pair"
    )
    chat = RoundRobinGroupChat([bench.assistant("solver"), inner], max_turns=2)
    plan = Plan(assignment={"solver": MINI, "pair": LARGE}, decision="vote", decider="solver")
    team = bench.wrap(chat, plan, budget=Budget(cost_usd=0.002))
    result = await team.run(task=bench.task())
    statuses = {agent.name: agent.status for agent in team.report.agents}
    assert statuses == {"solver": "done", "pair": "skipped"}
    assert (result.stop_reason or "").startswith("Budget exhausted")
    assert bench.billed() <= 2_000_000
    assert "Error processing" not in caplog.text
    assert (await team.run(task=bench.task(1))).messages


async def test_a_wrapped_chat_may_be_inside_another_chat(bench: Bench) -> None:
    plan = chain({"solver": MINI, "decider": MINI})
    wrapped = bench.wrap(bench.chat(("solver", "decider")), plan)
    outer = RoundRobinGroupChat([wrapped, bench.assistant("reviewer")], max_turns=2)
    result = await outer.run(task=bench.task())
    sources = [source for source, _ in texts(result.messages)]
    assert sources == ["user", "solver", "decider", "reviewer"]
    assert wrapped.report.spend.calls == 2
    backbones = [entry.backbone for entry in bench.simulator.books.entries]
    assert backbones == [MINI, MINI, LARGE]


async def test_a_factory_makes_each_runs_agents_by_public_api(bench: Bench) -> None:
    made: list[str] = []

    def factory(name: str, client: ChatCompletionClient) -> AssistantAgent:
        assert isinstance(client, BudgetClient)
        made.append(name)
        return AssistantAgent(name, client, system_message=f"[[agent:{name}]] Solve.")

    chat = bench.chat(("solver", "decider"))
    plan = chain({"solver": MINI, "decider": MINI})
    participants = [bench.assistant(name) for name in ("solver", "decider")]
    team = bench.wrap(chat, plan, agent_factory=factory, participants=participants)
    first = await team.run(task=bench.task())
    await team.run(task=bench.task(1))
    assert made == ["solver", "decider"] * 2
    copied = await bench.wrap(bench.chat(("solver", "decider")), plan).run(task=bench.task())
    assert texts(first.messages) == texts(copied.messages)
    state = await team.save_state()
    assert len(state["agent_states"]["solver"]["llm_context"]["messages"]) == 5

    def wrong(name: str, client: ChatCompletionClient) -> AssistantAgent:
        return AssistantAgent("other", client)

    team = bench.wrap(chat, plan, agent_factory=wrong)
    with pytest.raises(ValueError, match="made an agent named 'other'"):
        await team.run(task=bench.task())


async def test_images_need_backbones_that_see(bench: Bench) -> None:
    message = _picture(bench.task())
    seeing = bench.catalog(MINI, capabilities=("text", "vision"))
    blind = bench.catalog(LLAMA, capabilities=("text",))
    from agentbalance_plugin import Catalog

    catalog = Catalog([*seeing.values(), *blind.values()])
    team = bench.wrap(bench.chat(("decider",)), backbones=catalog)
    await team.run(task=message)
    assert {entry.backbone for entry in bench.simulator.books.entries} == {MINI}
    team = bench.wrap(bench.chat(("decider",)), backbones=blind)
    with pytest.raises(ValueError, match="fits any of the agents"):
        await team.run(task=message)


async def test_the_answer_that_agreement_compares_can_be_chosen(bench: Bench) -> None:
    seen: list[str] = []

    def first_letter(text: str) -> str | None:
        seen.append(text)
        return text[:1] or None

    team = bench.wrap(bench.chat(("decider",)), chain({"decider": MINI}), answer=first_letter)
    result = await team.run(task=bench.task())
    assert seen == [result.messages[-1].to_text()]
    assert team.report.agents[0].answer == seen[0][0]


def _picture(text: str) -> MultiModalMessage:
    return MultiModalMessage(content=[text, Image(Pixels.new("RGB", (4, 4)))], source="user")


def _seeing_and_blind(bench: Bench) -> Catalog:
    """The weaker one can see."""
    seeing = bench.catalog(MINI, capabilities=("text", "tools", "vision"))
    return Catalog([*seeing.values(), *bench.catalog(LARGE).values()])


def _used(bench: Bench) -> list[str]:
    return [entry.backbone for entry in bench.simulator.books.entries]


@pytest.mark.parametrize("kind", [RoundRobinGroupChat, Swarm])
async def test_what_is_asked_about_an_earlier_picture_needs_one_that_sees(
    bench: Bench, kind: Any
) -> None:
    def team() -> WrappedTeam:
        chat = kind([bench.assistant("decider")], max_turns=1)
        return bench.wrap(chat, budget=Budget(cost_usd=1.0), backbones=_seeing_and_blind(bench))

    first = team()
    await first.run(task=bench.task())
    assert _used(bench) == [LARGE]
    await first.run(task=_picture(bench.task(1)))
    await first.run(task=bench.task(2))
    assert _used(bench)[1:] == [MINI, MINI]
    again = team()
    await again.load_state(json.loads(json.dumps(await first.save_state())))
    await again.run(task=bench.task(3))
    assert _used(bench)[3:] == [MINI]
    await again.reset()
    await again.run(task=bench.task(4))
    assert _used(bench)[4:] == [LARGE]


async def test_pictures_that_an_agent_shows_need_others_that_see(bench: Bench) -> None:
    class Camera(Echo):
        @property
        def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
            return (MultiModalMessage,)

        async def on_messages(
            self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
        ) -> Response:
            shown = _picture("This is what I see.").model_copy(update={"source": self.name})
            return Response(chat_message=shown)

    chat = RoundRobinGroupChat([Camera("camera"), bench.assistant("decider")], max_turns=2)
    team = bench.wrap(chat, budget=Budget(cost_usd=1.0), backbones=_seeing_and_blind(bench))
    await team.run(task=bench.task())
    assert _used(bench) == [MINI]


async def test_plans_know_what_a_picture_may_be_billed_as(bench: Bench) -> None:
    able = ("text", "vision")
    backbones = bench.catalog(MINI, LARGE, capabilities=able)
    # 40,000 tokens are 0.1 USD on the larger one, and 0.006 on the smaller.
    budget = Budget(cost_usd=0.1)
    team = bench.wrap(bench.chat(("decider",)), budget=budget, backbones=backbones)
    for number in range(2):
        await team.run(task=_picture(bench.task(number)))
        assert team.report.complete
    assert _used(bench) == [MINI, MINI]


async def test_a_context_is_still_its_owners_after_a_run(bench: Bench) -> None:
    context = BufferedChatCompletionContext(buffer_size=8)
    agent = bench.assistant("solver", model_context=context)
    team = bench.wrap(RoundRobinGroupChat([agent], max_turns=1), chain({"solver": MINI}))
    await team.run(task=bench.task())
    assert agent.model_context is context
    assert len(await context.get_messages()) == 2
    await context.clear()
    await team.run(task=bench.task(1))
    assert len(await context.get_messages()) == 2


async def test_what_a_context_calls_is_in_the_budget(bench: Bench) -> None:
    class Summing(UnboundedChatCompletionContext):
        """Sums up what was said by a model call."""

        def __init__(self, client: ChatCompletionClient) -> None:
            super().__init__()
            self.client = client

        async def get_messages(self) -> list[LLMMessage]:
            said = await super().get_messages()
            asked = UserMessage(content=f"[[agent:solver]] {bench.task()}", source="user")
            result = await self.client.create([asked])
            return [*said, UserMessage(content=str(result.content), source="summary")]

    own = bench.client()
    context = Summing(own)
    agent = bench.assistant("solver", model_context=context)
    team = bench.wrap(RoundRobinGroupChat([agent], max_turns=1), chain({"solver": MINI}))
    await team.run(task=bench.task())
    assert _used(bench) == [MINI, MINI]
    assert team.report.spend.nanodollars == bench.billed() > 0
    assert context.client is own


async def test_memory_and_context_stay_the_users(bench: Bench) -> None:
    from autogen_core.memory import ListMemory, MemoryContent, MemoryMimeType

    memory = ListMemory()
    await memory.add(MemoryContent(content="Mind the units.", mime_type=MemoryMimeType.TEXT))
    context = BufferedChatCompletionContext(buffer_size=4)
    agent = bench.assistant("solver", memory=[memory], model_context=context)
    team = bench.wrap(RoundRobinGroupChat([agent], max_turns=1), chain({"solver": MINI}))
    await team.run(task=bench.task())
    kept: Sequence[Any] = await agent.model_context.get_messages()
    assert any("Mind the units." in str(message.content) for message in kept)
    assert isinstance(kept[0].content, str)
