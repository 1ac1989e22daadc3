"""Live use is the same code: a catalog file, keys from the environment, nothing else changed."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from chats import MINI, WIDE, Bench

from agentbalance_plugin import Budget, Catalog, CatalogError, wrap_groupchat
from agentbalance_plugin.adapters.autogen import clients_for

pytestmark = pytest.mark.virtual_time

EXAMPLES = Path(__file__).parents[3] / "examples"
RECORDED = {"mini": MINI, "flash": "gemini-1.5-flash", "large": "gpt-4o-2024-08-06"}


@pytest.fixture
def backbones(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's catalog with its endpoints pointing at the simulator."""
    content = yaml.safe_load((EXAMPLES / "backbones.yaml").read_text())
    for entry in content["backbones"]:
        entry["base_url"] = bench.simulator.base_url
        entry["model"] = RECORDED[entry["backbone"]]
        monkeypatch.setenv(entry["api_key_env"], "a-secret")
    path = tmp_path / "backbones.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


async def test_a_catalog_file_is_all_that_a_wrapped_chat_needs(
    bench: Bench, backbones: Path
) -> None:
    team = wrap_groupchat(
        bench.chat(), budget=Budget(cost_usd=0.004, latency_s=12), backbones=str(backbones)
    )
    for number in range(3):
        bench.simulator.books.clear()
        result = await team.run(task=bench.task(number))
        assert result.messages[-1].source == team.report.chosen
        assert {e.backbone for e in bench.simulator.books.entries} <= set(RECORDED.values())
        assert bench.billed() <= 4_000_000
        assert "a-secret" not in json.dumps(team.report.to_dict())
    await team.close()
    # A closed team can be used again.
    await team.run(task=bench.task())
    await team.close()


async def test_a_catalog_in_the_working_directory_is_found(
    bench: Bench, backbones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(backbones.parent)
    team = wrap_groupchat(bench.chat(), budget=Budget(cost_usd=0.004, latency_s=12))
    await team.run(task=bench.task())
    assert team.report.spend.nanodollars == bench.billed() > 0
    await team.close()
    monkeypatch.chdir("/")
    with pytest.raises(CatalogError, match=r"backbones\.yaml"):
        wrap_groupchat(bench.chat(), budget=Budget(cost_usd=0.004))


async def test_the_example_runs(
    bench: Bench,
    backbones: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = runpy.run_path(str(EXAMPLES / "autogen_quickstart.py"))
    monkeypatch.setattr(sys, "argv", ["autogen_quickstart.py", str(backbones), bench.task()])
    await example["main"](str(backbones), bench.task())
    printed = capsys.readouterr().out
    assert "Answer:" in printed
    assert "total:" in printed
    assert bench.billed() <= 4_000_000


async def test_any_autogen_client_component_will_do(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPONENT_KEY", "a-secret")
    component = {
        "provider": "autogen_ext.models.openai.OpenAIChatCompletionClient",
        "config": {
            "model": MINI,
            "base_url": bench.simulator.base_url,
            "api_key": "${COMPONENT_KEY}",
            "model_info": dict(bench.client().model_info),
        },
    }
    entry = {
        "backbone": "mini",
        "component": component,
        "price_in_usd_per_mtok": 0.15,
        "price_out_usd_per_mtok": 0.6,
    }
    path = tmp_path / "backbones.yaml"
    path.write_text(yaml.safe_dump({"backbones": [entry]}))
    team = wrap_groupchat(bench.chat(("solver",)), budget=WIDE, backbones=path)
    await team.run(task=bench.task())
    assert team.report.spend.nanodollars == bench.billed() > 0
    await team.close()
    monkeypatch.delenv("COMPONENT_KEY")
    with pytest.raises(ValueError, match="COMPONENT_KEY"):
        wrap_groupchat(bench.chat(("solver",)), budget=WIDE, backbones=path)


async def test_pairs_of_backbone_and_client_will_do(bench: Bench) -> None:
    entry = bench.replay.catalog[MINI]
    own = bench.client(MINI)
    team = wrap_groupchat(bench.chat(("solver",)), budget=WIDE, backbones=[(entry, own)])
    await team.run(task=bench.task())
    assert team.report.spend.nanodollars == bench.billed() > 0
    # Closing the team leaves the user's client open.
    await team.close()
    await team.run(task=bench.task(1))


async def test_the_clients_of_a_catalog_serve_an_unwrapped_chat_too(
    bench: Bench, backbones: Path
) -> None:
    clients = clients_for(Catalog.load(backbones))
    assert clients("mini") is clients("mini")
    with pytest.raises(KeyError):
        clients("nothing")
    agent = AssistantAgent("solver", clients("mini"), system_message="[[agent:solver]]")
    await RoundRobinGroupChat([agent], max_turns=1).run(task=bench.task())
    assert [entry.backbone for entry in bench.simulator.books.entries] == [MINI]
    await clients.close()
