"""However a call asks for output tokens, the budget's cap is the one that is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from autogen_core.models import UserMessage
from chats import MINI, Bench

from agentbalance_plugin import Budget, Catalog
from agentbalance_plugin.adapters.autogen.caps import OutputCap
from agentbalance_plugin.adapters.autogen.client import BudgetClient
from agentbalance_plugin.adapters.autogen.endpoints import clients_for
from agentbalance_plugin.backbone import Endpoint
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.runtime.meter import Meter

pytestmark = pytest.mark.virtual_time
CAP = OutputCap("max_tokens")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, None),
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 50}, 50),
        ({"extra_body": {"max_tokens": 50}, "max_tokens": 70}, 50),
        ({"max_tokens": -1}, None),
        ({"max_tokens": -1, "max_completion_tokens": 60}, 60),
    ],
)
def test_what_is_asked_for_counts_under_any_name(asked: dict[str, Any], wanted: int | None) -> None:
    assert CAP.wanted(asked) == wanted
    sent = CAP.set({**asked, "temperature": 0}, 20)
    assert {name: sent[name] for name in sent if name.startswith("max_")} == {"max_tokens": 20}
    assert "max_tokens" not in sent.get("extra_body", {})
    assert sent["temperature"] == 0


async def test_no_call_passes_the_budget_by_what_it_asks_for(bench: Bench) -> None:
    backbone = bench.catalog(MINI)[MINI]
    most = backbone.cost(1000, 30)
    message = UserMessage(content=f"[[agent:a]] {bench.task()}", source="user")
    variants: list[dict[str, Any]] = [
        {"max_tokens": -1},
        {"max_completion_tokens": 4000},
        {"extra_body": {"max_tokens": 4000}},
    ]
    for arguments in variants:
        meter = Meter(Budget(cost_usd=most / 1e9), clock=Clock())
        client = BudgetClient(bench.client(MINI), backbone, meter, "a")
        before = bench.billed()
        await client.create([message], extra_create_args=arguments)
        assert 0 < bench.billed() - before <= most
        assert not meter.calls[0].overrun


@pytest.mark.parametrize(
    ("made_with", "said"),
    [
        ({"extra_body": {"max_completion_tokens": 4000}}, "max_completion_tokens=4000 in extra_b"),
        ({"max_tokens": 50, "max_completion_tokens": 4000}, "max_tokens=50 and max_completion_to"),
    ],
)
async def test_a_client_with_a_cap_that_no_budget_lowers_is_refused(
    bench: Bench, made_with: dict[str, Any], said: str
) -> None:
    backbone, client = bench.catalog(MINI)[MINI], bench.client(MINI, **made_with)
    with pytest.raises(ValueError, match=f"client of '{MINI}' has {said}"):
        clients_for([(backbone, client)])
    component = {"provider": "OpenAIChatCompletionClient", "config": {"model": MINI, **made_with}}
    endpoint = Endpoint(component=component)
    with pytest.raises(ValueError, match=f"client of '{MINI}' has {said}"):
        clients_for(Catalog([replace(backbone, endpoint=endpoint)]))
