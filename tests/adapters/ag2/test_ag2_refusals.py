"""What can't work is refused before money is spent, by name, value and fix."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from ag2_chats import LARGE, MINI, OWN, Bench, agent, start, user
from autogen import Agent, ConversableAgent, GroupChat, GroupChatManager, LLMConfig, OpenAIWrapper
from autogen.agentchat.group import TerminateTarget
from autogen.agentchat.group.guardrails import LLMGuardrail

from agentbalance_plugin import Backbone, Budget
from agentbalance_plugin.adapters.ag2.endpoints import clients_for
from agentbalance_plugin.adapters.ag2.prompt_bound import prompt_bound
from agentbalance_plugin.adapters.ag2.settings import fit, settings_of


async def test_what_is_no_chat_is_refused(bench: Bench) -> None:
    manager = bench.wrapped()
    with pytest.raises(ValueError, match="wrapped already"):
        bench.wrapped(manager)
    with pytest.raises(ValueError, match=r"give its GroupChatManager\(groupchat=chat"):
        bench.wrapped(manager.groupchat)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="chat must be a GroupChatManager, got ConversableAgent"):
        bench.wrapped(agent("alone"))  # pyright: ignore[reportArgumentType]
    deaf = bench.manager()
    deaf.replace_reply_func(GroupChatManager.run_chat, lambda *_, **__: (True, None))
    with pytest.raises(ValueError, match="'chat_manager' does not run its chat by AG2's run_chat"):
        bench.wrapped(deaf)
    nobody = GroupChat(agents=[user(), agent("mute", llm_config=False)])
    with pytest.raises(ValueError, match=r"none of its agents \['user', 'mute', .* has an llm_con"):
        bench.wrapped(GroupChatManager(nobody))
    with pytest.raises(RuntimeError, match="no run has ended"):
        _ = manager.report


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 0.004}, "budget must be a Budget, got 0.004"),
        ({"clock": 3}, "clock must be a Clock, got 3"),
        ({"policy": 7}, "policy must be 'default'"),
        ({"budget": Budget(cost_usd=1e-9)}, "one call of the cheapest backbone"),
        ({"agents": ["helper"]}, "agents must be agents of AG2, got 'helper'"),
        ({"pinned": "solver"}, "pinned must be a list of names"),
        ({"pinned": ["nobody"]}, "'nobody' is no agent of the chat, which has"),
        ({"pinned": {"solver": "huge"}}, "'solver' is given 'huge'"),
        ({"backbones": []}, "the catalog is empty"),
    ],
)
async def test_arguments_that_can_not_work_are_named(
    bench: Bench, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        bench.wrapped(**options)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"n": 2}, "n=2: every reply is billed"),
        ({"tools": [{"type": "web_search"}]}, "'web_search' runs at the vendor"),
    ],
)
async def test_what_no_reservation_covers_is_refused_with_its_agent(
    bench: Bench, own: dict[str, Any], said: str
) -> None:
    solver = agent("solver", llm_config={**OWN, **own})
    with pytest.raises(ValueError, match=f"llm_config of agent 'solver': {said}"):
        bench.wrapped(bench.manager(solver, agent("critic")))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([{"model": "a"}, {"model": "b"}], "has 2 entries"),
        ([{"model": "a", "api_type": "anthropic"}], "api_type='anthropic', whose calls no budget"),
        ([{"model": "a", "model_client_cls": "Mine"}], "model_client_cls='Mine'"),
        ([{"model": "a", "extra_body": {"max_tokens": 9}}], "max_tokens=9 in extra_body"),
        ([{"model": "a", "n": 3}], "n=3: every reply is billed"),
        (7, "must be an LLMConfig or a dict, got int"),
    ],
)
def test_configs_that_no_budget_could_hold_with_are_refused(config: Any, said: str) -> None:
    given = LLMConfig(*config) if isinstance(config, list) else config
    with pytest.raises(ValueError, match=f"the llm_config of 'large'.* {said}"):
        clients_for([(Backbone("large", Decimal(1), Decimal(2)), given)])


async def test_a_backbone_may_come_with_an_llm_config(bench: Bench) -> None:
    known = bench.replay.catalog[MINI]
    config = LLMConfig({**OWN, "model": MINI, "base_url": bench.simulator.base_url}, max_tokens=40)
    manager = bench.wrapped(backbones=[(known, config)], policy="default")
    await start(manager, bench.task())
    assert manager.report.spend.nanodollars == bench.billed() > 0
    assert all(call.completion_tokens <= 40 for call in manager.report.calls)


async def test_a_backbone_that_ag2_can_not_call_is_refused(bench: Bench) -> None:
    known = replace(bench.replay.catalog[LARGE], endpoint=None)
    with pytest.raises(ValueError, match=f"AG2 can't call '{LARGE}', which has no model and base"):
        clients_for(type(bench.replay.catalog)([known]))


def test_all_that_goes_on_the_wire_is_counted() -> None:
    message = {"role": "user", "content": "x" * 100}
    bare = prompt_bound({"model": "m", "messages": [message], "max_tokens": 5, "stream": True})
    assert 100 < bare < 200
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for more in (
        {"tools": [{"type": "function", "function": {"name": "y" * 300}}]},
        {"functions": [{"name": "y" * 300}]},
        {"response_format": {"type": "object", "title": "y" * 300}},
        {"extra_body": {"guided": "y" * 300}},
        {"messages": [message, {"role": "assistant", "tool_calls": [{"id": "y" * 300}]}]},
        {"messages": [message, {"role": "tool", "content": "é" * 150, "tool_call_id": "1"}]},
        {"messages": [{"role": "user", "content": [picture, {"type": "text", "text": "x"}]}]},
    ):
        assert prompt_bound({"messages": [message], **more}) >= bare + 300
    elsewhere = {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}
    with pytest.raises(ValueError, match="part of type 'file'"):
        prompt_bound({"messages": [elsewhere]})


def test_an_agent_samples_as_it_was_told_where_its_backbone_lets_it() -> None:
    config = {"config_list": [{**OWN, "stream": True}], "temperature": 0, "max_tokens": 7}
    settings = settings_of(agent("solver", llm_config=config))
    assert settings == {"temperature": 0, "stream": True, "max_tokens": 7}
    thinker = Backbone("thinker", Decimal(1), Decimal(1), reasoning="yes")
    assert fit(settings, thinker) == {"stream": True, "max_tokens": 7}


async def test_what_no_budget_reaches_is_said(bench: Bench) -> None:
    solver = agent("solver")
    solver.register_reply(
        [Agent, None], ConversableAgent.generate_oai_reply, config=OpenAIWrapper(**OWN)
    )
    critic = agent("critic")
    critic.register_input_guardrail(
        LLMGuardrail(
            name="polite",
            condition="It is rude.",
            target=TerminateTarget(),
            llm_config=LLMConfig(dict(OWN)),
        )
    )
    with pytest.warns(UserWarning, match="in no budget") as said:
        bench.wrapped(bench.manager(solver, critic))
    first, second = (str(each.message) for each in said)
    assert first.startswith("agent 'solver' keeps OpenAIWrapper, whose calls are on no backbone")
    assert second.startswith("agent 'critic' keeps LLMGuardrail, which has a client, whose calls")
