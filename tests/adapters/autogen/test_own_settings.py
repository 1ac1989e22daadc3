"""An agent's own client says how it samples; that holds on whichever backbone it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from autogen_core.models import ChatCompletionClient, ModelInfo, UserMessage
from autogen_ext.models.ollama import OllamaChatCompletionClient
from autogen_ext.models.openai import OpenAIChatCompletionClient
from chats import CAN_DO_ALL, MINI, Bench, chain

from agentbalance_plugin.adapters.autogen.client import BudgetClient
from agentbalance_plugin.adapters.autogen.rebind import describe
from agentbalance_plugin.adapters.autogen.settings import OwnSettings
from agentbalance_plugin.backbone import Backbone
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.runtime.meter import Meter

pytestmark = pytest.mark.virtual_time

OWN: dict[str, Any] = {"temperature": 0.0, "seed": 7, "stop": ["END"]}


def listening(
    bench: Bench, **more: Any
) -> tuple[tuple[Backbone, OpenAIChatCompletionClient], list[dict[str, Any]]]:
    """A backbone, and the bodies of the requests that it was sent."""
    asked: list[dict[str, Any]] = []

    async def listen(request: httpx.Request) -> None:
        asked.append(json.loads(request.content))

    http = httpx.AsyncClient(event_hooks={"request": [listen]})
    client = bench.client(MINI, http_client=http, **more)
    return (bench.catalog(MINI, capabilities=("text", "json"))[MINI], client), asked


def ollama(**options: Any) -> OllamaChatCompletionClient:
    info = ModelInfo(**CAN_DO_ALL)
    return OllamaChatCompletionClient(model="llama3", model_info=info, options=options)


@pytest.mark.parametrize("routed", [False, True])
async def test_an_agents_settings_hold_on_its_backbone(bench: Bench, routed: bool) -> None:
    pair, asked = listening(bench)
    agent = bench.assistant("solver")
    agent._model_client = bench.client(**OWN)  # pyright: ignore[reportPrivateUsage]
    chat = type(bench.chat())([agent], max_turns=1)
    mode: Any = "backbones" if routed else "full"
    team = bench.wrap(chat, chain({"solver": MINI}), backbones=[pair], mode=mode)
    await team.run(task=bench.task())
    assert {name: asked[0].get(name) for name in OWN} == OWN
    assert asked[0]["model"] == MINI


async def test_what_the_backbones_maker_or_the_call_says_goes_first(bench: Bench) -> None:
    (backbone, client), asked = listening(bench, temperature=0.3)
    own = bench.client(**OWN)
    budgeted = BudgetClient(client, backbone, Meter(Budget(cost_usd=1.0)), "solver", asked=own)
    task = [UserMessage(content=bench.task(), source="user")]
    await budgeted.create(task, extra_create_args={"seed": 8})
    assert (asked[0]["temperature"], asked[0]["seed"]) == (0.3, 8)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (ollama(temperature=0.1, top_k=5), {"temperature": 0.1}),
        (ollama(), {}),
        (None, {}),
    ],
)
async def test_settings_cross_to_openai(
    bench: Bench, asked: ChatCompletionClient | None, expected: dict[str, Any]
) -> None:
    backbone = bench.catalog(MINI)[MINI]
    assert OwnSettings.of(asked, bench.client(), backbone).arguments == expected


async def test_settings_cross_to_ollama(bench: Bench) -> None:
    backbone = bench.catalog(MINI)[MINI]
    asked = bench.client(temperature=0.0, stop="END", logprobs=True)
    found = OwnSettings.of(asked, ollama(seed=1), backbone)
    assert found.arguments == {"options": {"temperature": 0.0, "stop": ["END"]}}


async def test_a_backbone_that_always_reasons_is_not_told_how_to_sample(bench: Bench) -> None:
    backbone = replace(bench.catalog(MINI)[MINI], reasoning="yes")
    assert OwnSettings.of(bench.client(**OWN), bench.client(), backbone) == OwnSettings()


async def test_json_that_a_client_was_made_for_is_asked_of_the_backbone(bench: Bench) -> None:
    (backbone, client), asked = listening(bench)
    own = bench.client(response_format={"type": "json_object"})
    agent = bench.assistant("solver")
    agent._model_client = own  # pyright: ignore[reportPrivateUsage]
    assert describe(agent).needs == {"text", "json"}
    budgeted = BudgetClient(client, backbone, Meter(Budget(cost_usd=1.0)), "solver", asked=own)
    await budgeted.create([UserMessage(content=bench.task(), source="user")])
    assert asked[0]["response_format"] == {"type": "json_object"}
