"""Bad input gets a clear error before any call is made."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent, SocietyOfMindAgent
from autogen_agentchat.teams import RoundRobinGroupChat, Swarm
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.models.replay import ReplayChatCompletionClient
from chats import CAN_DO_ALL, MINI, WIDE, Bench, FixedPlanner, chain

import agentbalance_plugin
from agentbalance_plugin import (
    Agent,
    Backbone,
    Budget,
    Catalog,
    CatalogError,
    Plan,
    PlanError,
    PolicyError,
    Team,
    wrap_groupchat,
)
from agentbalance_plugin.adapters.autogen.endpoints import clients_for
from agentbalance_plugin.backbone import Endpoint
from agentbalance_plugin.core.checkpoint import SETTINGS, TENSORS

pytestmark = pytest.mark.virtual_time
SHIPPED = Path(agentbalance_plugin.__file__).parent / "data" / "policy"


@pytest.fixture
def policy_folder(tmp_path: Path) -> Path:
    for name in (SETTINGS, TENSORS):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    return tmp_path


async def refused(bench: Bench, match: str, **arguments: Any) -> None:
    chat = arguments.pop("chat", None) or bench.chat()
    arguments.setdefault("budget", WIDE)
    arguments.setdefault("backbones", bench.catalog())
    with pytest.raises(ValueError, match=match):
        wrap_groupchat(chat, **arguments)
    assert bench.simulator.books.entries == []


async def test_what_is_no_group_chat(bench: Bench) -> None:
    await refused(bench, "chat must be an AutoGen group chat .*, got AssistantAgent",
                  chat=bench.assistant("solver"))  # fmt: skip
    await refused(bench, "got str", chat="a chat")
    await refused(bench, "is wrapped already", chat=bench.wrap(bench.chat()))


async def test_what_is_no_budget(bench: Bench) -> None:
    await refused(bench, r"budget must be a Budget, got 0\.004", budget=0.004)
    for wrong in (
        {"cost_usd": 0},
        {"cost_usd": -1},
        {"latency_s": float("nan")},
        {"tokens": 0},
        {},
    ):
        with pytest.raises(ValueError, match="Budget"):
            Budget(**wrong)


async def test_a_budget_that_affords_no_call(bench: Bench) -> None:
    await refused(
        bench, "Budget.cost_usd is 1e-09, but one call of the cheapest backbone",
        budget=Budget(cost_usd=1e-9),
    )  # fmt: skip
    await refused(bench, "Budget.tokens is 20", budget=Budget(tokens=20))


@pytest.mark.parametrize("on_exceeded", ["finish", "raise"])
async def test_a_budget_that_affords_no_call_on_this_very_task(
    bench: Bench, on_exceeded: Any
) -> None:
    team = bench.wrap(bench.chat(), budget=Budget(cost_usd=0.00005, on_exceeded=on_exceeded))
    with pytest.raises(ValueError, match="raise cost_usd, shorten the task or add a cheaper"):
        await team.run(task="x" * 5_000_000)
    assert bench.simulator.books.entries == []
    assert (await team.run(task=bench.task())).messages


async def test_backbones_that_cannot_be_used(bench: Bench, tmp_path: Path) -> None:
    await refused(bench, "the catalog is empty", backbones=Catalog([]))
    await refused(bench, "backbones must be a catalog file", backbones=[1, 2])
    recorded = bench.replay.traces.catalog.subset([MINI])
    await refused(bench, f"'{MINI}' can't be called", backbones=recorded)
    missing = tmp_path / "none.yaml"
    with pytest.raises(CatalogError, match=r"none\.yaml"):
        wrap_groupchat(bench.chat(), budget=WIDE, backbones=missing)
    unpriced = tmp_path / "unpriced.yaml"
    unpriced.write_text("backbones:\n  - {backbone: mini, model: m}\n")
    with pytest.raises(CatalogError, match=r"unpriced\.yaml.*price"):
        wrap_groupchat(bench.chat(), budget=WIDE, backbones=unpriced)


async def test_a_client_that_takes_no_cap(bench: Bench) -> None:
    adapter = type("SKChatCompletionAdapter", (ReplayChatCompletionClient,), {})
    adapter.__module__ = "autogen_ext.models.semantic_kernel._sk_chat_completion_adapter"
    pair = (bench.catalog(MINI)[MINI], adapter(["Answer: 1"]))
    await refused(bench, f"SKChatCompletionAdapter of '{MINI}' takes no cap", backbones=[pair])


async def test_a_client_that_lets_its_vendor_search(bench: Bench) -> None:
    searching: dict[str, Any] = {"web_search_options": {"search_context_size": "low"}}
    client = OpenAIChatCompletionClient(model=MINI, api_key="k", model_info=CAN_DO_ALL, **searching)
    said = f"client of '{MINI}': 'web_search_options' runs at the vendor"
    backbone = bench.catalog(MINI)[MINI]
    await refused(bench, said, backbones=[(backbone, client)])
    component = client.dump_component().model_dump()
    endpoint = Endpoint(component={**component, "config": {**component["config"], **searching}})
    await refused(bench, said, backbones=Catalog([replace(backbone, endpoint=endpoint)]))
    await client.close()


_CLIENT = "autogen_ext.models.openai.OpenAIChatCompletionClient"


def component(provider: object, config: object) -> Catalog:
    backbone = Backbone("mini", Decimal(1), Decimal(1))
    endpoint = Endpoint(component={"provider": provider, "config": config})
    return Catalog([replace(backbone, endpoint=endpoint)])


@pytest.mark.parametrize(
    ("provider", "config", "said"),
    [
        (None, {}, f"component needs a provider, like {_CLIENT}, got None"),
        (_CLIENT, ["model"], "component needs a config, .* got a list"),
        (_CLIENT[:-2] + "tn", {}, "no 'OpenAIChatCompletionClietn'; did you mean OpenAIChatCom"),
        ("autogen_ext.models.opnai.Client", {}, "there is no module 'autogen_ext.models.opnai'"),
        ("no_such_package.Client", {}, "there is no module 'no_such_package'; mend the provider"),
    ],
)
async def test_a_component_that_is_none(
    bench: Bench, provider: object, config: object, said: str
) -> None:
    await refused(bench, f"backbone 'mini': .*{said}", backbones=component(provider, config))


async def test_a_component_whose_library_is_not_installed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = "autogen_ext.models.anthropic.AnthropicChatCompletionClient"
    monkeypatch.setitem(sys.modules, "anthropic", None)
    monkeypatch.delitem(sys.modules, provider.rpartition(".")[0], raising=False)
    with pytest.raises(ImportError, match=r"'mini'.*pip install 'autogen-ext\[anthropic\]'$"):
        bench.wrap(bench.chat(), backbones=component(provider, {"model": "m"}))
    (tmp_path / "clients_of_mine.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"needs 'no_such_library'.*pip install no_such_library$"):
        bench.wrap(bench.chat(), backbones=component("clients_of_mine.Client", {}))
    azure = {"model": "m", "azure_endpoint": "https://x", "api_version": "1", "api_key": "k"}
    clients = clients_for(component("AzureOpenAIChatCompletionClient", azure))
    monkeypatch.setitem(sys.modules, "azure", None)
    monkeypatch.delitem(sys.modules, "autogen_ext.auth.azure", raising=False)
    with pytest.raises(ImportError, match=r"'mini': AzureOpenAI.*pip install 'autogen-ext\[azure"):
        clients("mini")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"modle": "m", "api_key": "secret-key"}, "model: Field required"),
        ({"model": "m", "api_key": "secret-key"}, "model_info is required"),
    ],
)
def test_a_component_with_a_config_of_something_else(config: dict[str, str], said: str) -> None:
    clients = clients_for(component(_CLIENT, config))
    with pytest.raises(ValueError, match=f"'mini'.* can't be made of this config: {said}") as found:
        clients("mini")
    assert "secret-key" not in "".join(format_exception(found.value))


async def test_a_key_that_is_not_set(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    backbone = bench.catalog(MINI)[MINI]
    assert backbone.endpoint is not None
    keyed = replace(backbone, endpoint=replace(backbone.endpoint, api_key_env="SOME_KEY"))
    await refused(bench, "needs the environment variable SOME_KEY", backbones=Catalog([keyed]))
    for unfit in ("secret-key\n", " secret-key", "secret\r\nkey", "secr\u00e9t-key"):
        monkeypatch.setenv("SOME_KEY", unfit)
        with pytest.raises(ValueError, match="variable SOME_KEY holds something") as found:
            clients_for(Catalog([keyed]))
        assert "secr" not in str(found.value)
    elsewhere = replace(backbone.endpoint, base_url="https://llm.example.com/v1", api_key_env=None)
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-everyone")
    await refused(bench, "'.*': api_key_env is missing; .* the key for llm.example.com",
                  backbones=Catalog([replace(backbone, endpoint=elsewhere)]))  # fmt: skip
    monkeypatch.setenv("SOME_KEY", "secret-key")
    team = bench.wrap(bench.chat(), backbones=Catalog([keyed]))
    await team.run(task=bench.task())
    report = json.dumps(team.report.to_dict()) + team.report.to_text()
    assert "secret-key" not in report
    assert "secret-key" not in json.dumps(dict(await team.save_state()))


async def test_a_policy_that_cannot_be_used(bench: Bench, policy_folder: Path) -> None:
    def policy_error(match: str) -> None:
        with pytest.raises(PolicyError, match=match):
            wrap_groupchat(
                bench.chat(), budget=WIDE, backbones=bench.catalog(), policy=policy_folder
            )

    settings = json.loads((policy_folder / SETTINGS).read_text())
    tensors = (policy_folder / TENSORS).read_bytes()
    (policy_folder / TENSORS).write_bytes(tensors[: len(tensors) // 2])
    policy_error("truncated")
    (policy_folder / TENSORS).write_bytes(pickle.dumps({"weights": 1}))
    policy_error("pickle")
    (policy_folder / TENSORS).write_bytes(tensors)
    (policy_folder / SETTINGS).write_text(json.dumps({**settings, "schema": 99}))
    policy_error("schema 99")
    (policy_folder / SETTINGS).write_text(json.dumps(settings)[:100])
    policy_error("truncated or not JSON")
    with pytest.raises(PolicyError, match="no such policy folder"):
        wrap_groupchat(bench.chat(), budget=WIDE, backbones=bench.catalog(), policy="nowhere")
    await refused(bench, "policy must be", policy=object())


async def test_names_that_are_not_in_the_chat(bench: Bench) -> None:
    await refused(bench, "'nobody' is none of the agents", decider="nobody")
    await refused(bench, "pinned: 'nobody' is no agent of the chat", pinned=["nobody"])
    await refused(bench, "pinned: 'critic' is given 'gpt-9'", pinned={"critic": "gpt-9"})
    await refused(bench, "pinned must be a list of names", pinned="critic")
    await refused(bench, "pinned must be a list of names", pinned=3)
    await refused(bench, "mode must be", mode="half")


async def test_arguments_of_the_wrong_kind(bench: Bench) -> None:
    await refused(bench, "answer must be a function, got 'Answer:'", answer="Answer:")
    await refused(bench, "agent_factory must be a function, got 'x'", agent_factory="x")
    await refused(bench, "participants must not be empty", participants=[])
    await refused(bench, "clock must be a Clock, got 3", clock=3)


@pytest.mark.parametrize("name", ["decider", "answer", "agent_factory", "participants"])
async def test_what_only_planned_chats_use_is_refused_elsewhere(bench: Bench, name: str) -> None:
    chat = Swarm([bench.assistant("solver", handoffs=["solver"])])
    given: dict[str, Any] = {
        "decider": "solver",
        "answer": str,
        "agent_factory": bench.assistant,
        "participants": [bench.assistant("solver")],
    }
    await refused(bench, f"{name}=.*: Swarm routes .* leave {name} out", chat=chat,
                  **{name: given[name]})  # fmt: skip


async def test_a_chat_that_is_wrapped_already_inside_another(bench: Bench) -> None:
    inner = bench.wrap(bench.chat(("solver", "decider")))
    society = SocietyOfMindAgent("society", inner, bench.client())
    for holder in (inner, society):
        outer = RoundRobinGroupChat([bench.assistant("judge"), holder], max_turns=2)
        await refused(bench, f"participants: '{holder.name}' is or holds a chat", chat=outer)


@pytest.mark.parametrize("inside", [False, True])
async def test_an_agent_whose_methods_were_replaced_on_the_agent_itself(
    bench: Bench, inside: bool
) -> None:
    def patched(agent: AssistantAgent) -> AssistantAgent:
        stock: Any = agent.on_messages_stream
        agent.on_messages_stream = lambda *given: stock(*given)  # type: ignore[method-assign]
        return agent

    solver = patched(bench.assistant("solver"))
    holder = RoundRobinGroupChat([solver], max_turns=1, name="team") if inside else solver
    said = r"'solver' has other functions in place of its own \['on_messages_stream'\]"
    for chat in (
        RoundRobinGroupChat([holder, bench.assistant("decider")], max_turns=2),
        Swarm([patched(bench.assistant("solver"))]),
    ):
        await refused(bench, said, chat=chat)


async def test_two_agents_of_one_name(bench: Bench) -> None:
    twins = [bench.assistant("solver"), bench.assistant("solver")]
    await refused(bench, "two agents are named 'solver'", participants=twins)
    with pytest.raises(ValueError, match="solver"):
        Team((Agent("solver"), Agent("solver")), decider="solver")


async def test_a_planner_whose_plan_breaks_the_rules(bench: Bench) -> None:
    wrong: list[Plan] = [
        chain({"stranger": MINI}),
        chain({"decider": "gpt-9"}),
        Plan(assignment={"planner": MINI, "decider": MINI}, decider="decider"),
        Plan(
            assignment={"planner": MINI, "decider": MINI},
            edges=(("planner", "decider"), ("decider", "planner")),
            decider="decider",
        ),
    ]
    for plan in wrong:
        team = bench.wrap(bench.chat(), policy=FixedPlanner(plan))
        with pytest.raises(PlanError):
            await team.run(task=bench.task())
    assert bench.simulator.books.entries == []


async def test_there_is_no_report_before_a_run(bench: Bench) -> None:
    team = bench.wrap(RoundRobinGroupChat([bench.assistant("solver")], max_turns=1))
    with pytest.raises(RuntimeError, match="no run has ended yet"):
        _ = team.report


def test_backbones_without_a_price_do_not_exist() -> None:
    from decimal import Decimal

    with pytest.raises(ValueError, match="unpriced"):
        Backbone("free", Decimal(0), Decimal(0))
