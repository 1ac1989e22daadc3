"""What is found in a graph is told before anything runs; what can't work is refused by name."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

import langgraph.types
import pytest
from graphs import LARGE, MINI, NAMES, WIDE, Always, Assign, Bench, chain_of
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import FakeListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AnyMessage
from langchain_openai import OpenAIEmbeddings
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from openai import AsyncOpenAI
from pydantic import BaseModel, SecretStr

from agentbalance_plugin import Agent, Backbone, Budget, Catalog, Endpoint, Plan
from agentbalance_plugin.adapters.langgraph import balance, direct, explain
from agentbalance_plugin.adapters.langgraph.models import Models, models_for


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


async def test_a_static_graph_is_planned_in_full(
    instant: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    found = explain(instant.chain())
    assert [node.name for node in found.nodes if node.agent] == list(NAMES)
    assert (found.full, found.decider) == (None, "writer")
    printed = capsys.readouterr().out
    assert "planner  yes    ChatOpenAI   planned" in printed
    assert "planned in full, writer decides" in printed
    assert instant.called() == []


async def test_what_is_pinned_is_told_with_its_reason(
    instant: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = instant.chain(("a", "b"))
    builder.add_node("c", lambda state: {})
    builder.add_conditional_edges("a", lambda state: "c", ["c"])
    found = explain(builder)
    pinned = {node.name: node.pinned for node in found.nodes}
    assert pinned["a"] == "has a conditional edge"
    assert pinned["c"] == "is the end of a conditional edge of 'a'"
    assert "backbones and budget only: node 'a' has a conditional edge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "capability"),
    [("json_schema", "structured_output"), ("json_mode", "json"), ("function_calling", "tools")],
)
async def test_structured_output_needs_a_backbone_that_has_it(
    instant: Bench, method: Any, capability: str
) -> None:
    class Answer(BaseModel):
        number: int

    model = instant.model().with_structured_output(Answer, method=method)

    async def node(state: MessagesState) -> Any:
        return {"messages": [str(await model.ainvoke(state["messages"]))]}

    builder, planner = chain_of({"a": node}), Assign({})
    with pytest.raises(ValueError, match=rf"'a' needs \[.*{capability!r}"):
        instant.balance(builder, backbones=instant.catalog(capabilities=("text",))).compile()
    able = instant.catalog(capabilities=("text", capability))
    app = instant.balance(builder, backbones=able, policy=planner).compile()
    with suppress(ValueError):
        # The simulator's reply has no such structure.
        await app.ainvoke(instant.ask())
    assert planner.asked[0][1].agents[0].needs == {"text", capability}


async def test_what_no_budget_reaches_is_told(
    instant: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    sdk = AsyncOpenAI(api_key="local", base_url="http://127.0.0.1:9")
    completion = FakeListLLM(responses=["Answer: 1"])
    embeddings = OpenAIEmbeddings(api_key=SecretStr("local"), base_url="http://127.0.0.1:9")
    outside = direct(instant.model())

    async def raw(state: MessagesState) -> Any:
        return {"messages": [str(await sdk.models.list())]}

    async def old(state: MessagesState) -> Any:
        return {"messages": [await completion.ainvoke(state["messages"])]}

    async def search(state: MessagesState) -> Any:
        return {"messages": [str(await embeddings.aembed_query("x")), str(outside)]}

    speak = instant.node("a")
    builder = chain_of({"a": speak, "raw": raw, "old": old, "search": search})
    found = {node.name: node for node in explain(builder).nodes}
    assert {name: node.beyond for name, node in found.items()} == {
        "a": (),
        "raw": ("AsyncOpenAI",),
        "old": ("FakeListLLM",),
        "search": (),
    }
    assert [name for name, node in found.items() if node.agent] == ["a"]
    assert "AsyncOpenAI (in no budget)" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="in no budget") as warned:
        instant.balance(builder).compile()
    # Connections that earlier tests left open may be found by the garbage collector meanwhile.
    told = [str(each.message)[:24] for each in warned if each.category is UserWarning]
    assert told == [
        "node 'raw' reaches Async",
        "node 'old' reaches FakeL",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        instant.balance(chain_of({"a": speak, "search": search})).compile()


@pytest.mark.parametrize("mode", ["full", "backbones"])
async def test_explaining_a_task_tells_the_next_run_and_calls_nobody(
    instant: Bench, mode: Any
) -> None:
    budget = Budget(cost_usd=0.02, latency_s=1000)
    app = instant.balance(
        instant.chain(), mode=mode, budget=budget, policy=instant.policy()
    ).compile()
    explained = app.explain(instant.task())
    assert instant.called() == []
    await app.ainvoke(instant.ask())
    assert explained.plan == app.report.plan
    assert explained.budgets[2] == (budget, explained.plan)
    assert explained.plan.to_tree() in explained.to_text()
    with pytest.raises(ValueError, match=r"task must be the text of a task, got \{'messages'"):
        app.explain(instant.ask())


async def test_obstacles_to_full_planning_are_named(instant: Bench) -> None:
    class Two(MessagesState):
        drafts: Annotated[list[AnyMessage], add_messages]

    wide = chain_of({"a": instant.node("a"), "b": instant.node("b")}, Two)
    two = StateGraph(MessagesState)
    loop = StateGraph(MessagesState)
    between = chain_of({"a": instant.node("a"), "x": lambda state: {}, "b": instant.node("b")})
    for name in ("a", "b"):
        two.add_node(name, instant.node(name))
        two.add_edge(START, name)
        loop.add_node(name, instant.node(name))
    loop.add_edge(START, "a")
    loop.add_edge("a", "b")
    loop.add_edge("b", "a")
    obstacles = {
        "not exactly one list of messages": wide,
        "only one agent": instant.chain(("a",)),
        "several agents are the last": two,
        "in a loop": loop,
        "stand between the agents": between,
    }
    for reason, builder in obstacles.items():
        with pytest.raises(ValueError, match=reason):
            instant.balance(builder, mode="full").compile()
        instant.balance(builder, mode="auto").compile()


async def test_other_keys_of_the_state_are_planned_past_only_where_the_user_says_so(
    instant: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    class More(MessagesState):
        draft: str

    builder = chain_of({"a": instant.node("a"), "b": instant.node("b")}, More)
    assert explain(builder).full is not None
    assert "'draft' of the state; if they do so" in capsys.readouterr().out
    plan = Plan({"b": MINI}, decider="b")
    asked = {**instant.ask(), "draft": "kept"}
    app = instant.balance(builder, mode="auto").compile()
    assert len((await app.ainvoke(asked))["messages"]) == 3
    app = instant.balance(builder, policy=Always(plan), mode="full").compile()
    result = await app.ainvoke(asked)
    assert len(result["messages"]) == 2
    assert result["draft"] == "kept"


async def test_agents_that_ask_a_human_are_left_out_only_where_the_user_says_so(
    instant: Bench,
) -> None:
    speak, model = instant.node("a"), instant.model()

    async def by_name(state: Any) -> Any:
        return [interrupt("approve?"), await speak(state)][1]

    async def by_module(state: Any) -> Any:
        return [langgraph.types.interrupt("approve?"), await speak(state)][1]

    async def through_another(state: Any) -> Any:
        return await by_name(state)

    approval = HumanInTheLoopMiddleware(interrupt_on={"add": True})
    asking = [
        by_name,
        by_module,
        through_another,
        create_agent(model, [add], middleware=[approval]),
        instant.chain(("x",)).compile(interrupt_before=["x"]),
    ]
    for node in asking:
        builder = chain_of({"a": node, "b": instant.node("b")})
        assert explain(builder).full == (
            "agent 'a' may ask a human, which a plan could leave out; if it may, say mode='full'"
        )
        assert instant.balance(builder, mode="auto").compile().shared.layout.mode == "backbones"
        assert instant.balance(builder, mode="full").compile().shared.layout.mode == "full"
    silent = chain_of({"a": create_agent(model, [add]), "b": instant.node("b")})
    assert explain(silent).full is None


async def test_agents_may_be_named(instant: Bench) -> None:
    planner = Assign({})
    given = {"a": Agent("a", role="Counts.", needs=frozenset({"text"})), "b": "Checks."}
    app = instant.balance(instant.chain(("a", "b")), agents=given, policy=planner).compile()
    await app.ainvoke(instant.ask())
    team = planner.asked[0][1]
    assert [(agent.name, agent.role) for agent in team.agents] == [
        ("a", "Counts."),
        ("b", "Checks."),
    ]
    assert team.decider == "b"
    assert team.fixed_edges == (("a", "b"),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 3}, "budget must be a Budget, got 3"),
        ({"budget": Budget(cost_usd=1e-8)}, "Budget.cost_usd is 1e-08"),
        ({"mode": "all"}, "mode must be 'auto', 'full' or 'backbones', got 'all'"),
        ({"policy": 3}, "policy must be 'default'"),
        ({"backbones": 3}, "backbones must be a catalog file"),
        ({"backbones": Catalog([])}, "the catalog is empty"),
        ({"query": "messages"}, "query must be a function or None, got 'messages'"),
        ({"answer": 3}, "answer must be a function or None, got 3"),
        ({"clock": 3}, "clock must be a Clock or None, got 3"),
        ({"agents": "a"}, "agents must be a list"),
        ({"agents": 3}, "agents must be a list of node names or a mapping, got 3"),
        ({"agents": {"a": 3}}, "'a' must be given an Agent or a role, got 3"),
        ({"agents": ["z"]}, "'z' is no node of the graph"),
        ({"agents": {"a": Agent("b")}}, "node 'a' is given an Agent named 'b'"),
        ({"agents": {"a": Agent("a", backbone="x")}}, "'a' is given the backbone 'x'"),
        ({"agents": {"a": Agent("a", needs=frozenset({"vision"}))}}, "needs \\['vision'\\]"),
    ],
)
async def test_bad_arguments_are_refused_by_name(
    instant: Bench, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        instant.balance(instant.chain(("a", "b")), **arguments).compile()


async def test_only_builders_that_are_not_balanced_yet_are_taken(instant: Bench) -> None:
    builder = instant.chain(("a",))
    with pytest.raises(ValueError, match="before compile\\(\\), got CompiledStateGraph"):
        instant.balance(builder.compile())
    with pytest.raises(ValueError, match="balanced already"):
        instant.balance(instant.balance(builder))
    with pytest.raises(ValueError, match="no node of the graph was found"):
        instant.balance(chain_of({"a": lambda state: {}})).compile()


async def test_backbones_that_can_not_be_called_are_refused(
    instant: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = instant.catalog(MINI)[MINI]
    with pytest.raises(ValueError, match="can't be called"):
        models_for(Catalog([replace(backbone, endpoint=None)]))
    component = Endpoint(component={"provider": "x", "config": {}})
    with pytest.raises(ValueError, match="AutoGen component"):
        models_for(Catalog([replace(backbone, endpoint=component)]))
    monkeypatch.delenv("SOME_KEY", raising=False)
    keyed = Endpoint(model="m", api_key_env="SOME_KEY")
    with pytest.raises(ValueError, match="SOME_KEY"):
        models_for(Catalog([replace(backbone, endpoint=keyed)]))


async def test_the_users_own_chat_models_lose_their_sdks_retries(instant: Bench) -> None:
    backbone: Backbone = instant.catalog(MINI)[MINI]
    own = instant.model(MINI)
    own.root_client.max_retries = own.root_async_client.max_retries = 2
    models = Models(Catalog([backbone]), {MINI: own})
    quiet: Any = models(MINI)
    assert quiet.root_client.max_retries == quiet.root_async_client.max_retries == 0
    assert own.root_client.max_retries == 2

    class Retrying(FakeListChatModel):
        max_retries: int = 2

    with pytest.raises(ValueError, match="retries by itself"):
        Models(Catalog([backbone]), {MINI: Retrying(responses=["x"])})


async def test_chat_models_that_make_several_replies_a_call_are_refused(instant: Bench) -> None:
    backbone = instant.catalog(MINI)[MINI]
    with pytest.raises(ValueError, match="n=2: every reply is billed"):
        Models(Catalog([backbone]), {MINI: instant.model(MINI, n=2)})


async def test_pairs_of_backbone_and_chat_model_are_called(instant: Bench) -> None:
    catalog = instant.catalog(MINI, LARGE)
    pairs = [(replace(b, endpoint=None), instant.model(n)) for n, b in catalog.items()]
    planner = Assign({"a": LARGE})
    app = balance(
        instant.chain(("a", "b")), budget=WIDE, backbones=pairs, policy=planner, mode="backbones"
    ).compile()
    await app.ainvoke(instant.ask())
    assert instant.called() == [("a", LARGE), ("b", MINI)]
    assert all(call.metered and not call.overrun for call in app.report.calls)
