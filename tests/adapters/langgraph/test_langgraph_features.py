"""What LangGraph can do, it can still do in a balanced graph."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import operator
from typing import Annotated, Any, Literal

import httpx
import pytest
from graphs import LARGE, LLAMA, MINI, WIDE, Always, Assign, Bench, chain_of, speakers
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeTimeoutError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.pregel.remote import RemoteGraph
from langgraph.runtime import RunControl, Runtime
from langgraph.types import CachePolicy, Command, Send
from langgraph_sdk.client import LangGraphClient
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentbalance_plugin import Budget, Plan
from agentbalance_plugin.adapters.langgraph import explain

THREAD: Any = {"configurable": {"thread_id": "one"}}


class AsModel(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = []
    turns: int = 3


@dataclasses.dataclass
class AsDataclass:
    messages: Annotated[list[AnyMessage], add_messages]
    turns: int = 3


@dataclasses.dataclass
class User:
    name: str
    agentbalance: Any = None


@pytest.mark.parametrize("schema", [AsModel, AsDataclass])
async def test_states_may_be_models_and_dataclasses(instant: Bench, schema: Any) -> None:
    model = instant.model()

    async def node(state: Any) -> Any:
        assert isinstance(state, schema)
        assert state.turns == 3
        return {"messages": [await model.ainvoke(state.messages)]}

    app = instant.balance(chain_of({"a": node, "b": node}, schema)).compile()
    assert len((await app.ainvoke(instant.ask()))["messages"]) == 3
    assert type((await app.ainvoke(instant.ask(), version="v2")).value) is schema
    assert len(instant.called()) == 4


async def test_states_may_be_a_plain_value(instant: Bench) -> None:
    model = instant.model()

    async def node(state: list[Any]) -> Any:
        return [(await model.ainvoke(state[-1])).text]

    app = instant.balance(chain_of({"a": node, "b": node}, Annotated[list, operator.add])).compile()
    result = await app.ainvoke([instant.task()])
    assert len(result) == 3
    assert app.report.spend.nanodollars == instant.billed()


async def test_context_runtime_and_custom_streams_reach_the_nodes(instant: Bench) -> None:
    model = instant.model()

    async def node(state: MessagesState, runtime: Runtime[User]) -> Any:
        runtime.stream_writer({"for": runtime.context.name})
        return {"messages": [await model.ainvoke(state["messages"])]}

    app = instant.balance(chain_of({"a": node}, context_schema=User)).compile()
    stream = app.astream(instant.ask(), context=User("bob"), stream_mode="custom")
    assert [each async for each in stream] == [{"for": "bob"}]
    context = User("bob", {"budget": {"tokens": 10**6}})
    await app.ainvoke(instant.ask(), context=context)
    assert app.report.budget == Budget(tokens=10**6)


async def test_a_cached_node_is_asked_again_on_another_backbone(instant: Bench) -> None:
    builder = StateGraph(MessagesState)
    key = CachePolicy(key_func=lambda state: str([m.content for m in state["messages"]]))
    builder.add_node("a", instant.node("a"), cache_policy=key)
    builder.add_edge(START, "a")
    app = instant.balance(builder).compile(cache=InMemoryCache())
    await app.ainvoke(instant.ask())
    await app.ainvoke(instant.ask())
    assert instant.called() == [("a", MINI)]
    assert app.report.spend.calls == 0
    large = {"configurable": {"agentbalance": {"policy": Assign({"a": LARGE})}}}
    await app.ainvoke(instant.ask(), large)
    assert instant.called() == [("a", MINI), ("a", LARGE)]


async def test_an_agent_that_routing_leads_past_is_said_to_be_that(instant: Bench) -> None:
    builder = StateGraph(MessagesState)
    for name in ("a", "b", "c"):
        builder.add_node(name, instant.node(name))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: "left", {"left": "b", "right": "c"})
    app = instant.balance(builder).compile()
    await app.ainvoke(instant.ask())
    assert [agent.status for agent in app.report.agents] == ["done", "done", "skipped"]
    assert app.report.agents[2].reason.startswith("it did not run: routing led past it")
    assert app.report.complete


async def test_node_timeouts_hold_and_are_refused_where_langgraph_refuses_them(
    instant: Bench,
) -> None:
    model = instant.model()

    async def slow(state: MessagesState) -> Any:
        await asyncio.Event().wait()
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("a", slow, timeout=0.05)
    builder.add_edge(START, "a")
    app = instant.balance(builder).compile()
    with pytest.raises(NodeTimeoutError):
        await app.ainvoke(instant.ask())
    assert app.report.stop_reason.startswith("Failed: NodeTimeoutError")

    blocking = StateGraph(MessagesState)
    blocking.add_node("a", instant.blocking("a"), timeout=0.05)
    blocking.add_edge(START, "a")
    with pytest.raises(ValueError, match="timeout"):
        instant.balance(blocking).compile()


async def test_one_builder_with_a_default_error_handler_compiles_twice(instant: Bench) -> None:
    def handle(state: MessagesState) -> Any:
        return {"messages": [AIMessage("sorry", name="handler")]}

    async def broken(state: MessagesState) -> Any:
        raise RuntimeError("broken")

    builder = instant.chain(("a", "b"), b=broken).set_node_defaults(error_handler=handle)
    balanced = instant.balance(builder, agents=["a", "b"])
    for app in (balanced.compile(), balanced.compile()):
        assert speakers(await app.ainvoke(instant.ask())) == ["human", "a", "handler"]


async def test_conditional_edges_sends_and_commands_keep_their_routing(instant: Bench) -> None:
    class State(MessagesState):
        found: Annotated[list[str], operator.add]

    model = instant.model()

    def start(state: State) -> Any:
        return {}

    async def worker(state: Any) -> Any:
        reply = await model.ainvoke(f"[[agent:worker]] {instant.task()} {state['part']}")
        return {"found": [reply.text]}

    async def judge(state: State) -> Command[Literal["writer"]]:
        reply = await model.ainvoke([("system", "[[agent:judge]]"), *state["messages"]])
        return Command(goto="writer", update={"messages": [AIMessage(reply.content, name="judge")]})

    builder = StateGraph(State)
    builder.add_node("start", start)
    builder.add_node("worker", worker)
    builder.add_node("judge", judge)
    builder.add_node("writer", instant.node("writer"))
    builder.add_edge(START, "start")
    builder.add_conditional_edges(
        "start", lambda state: [Send("worker", {"part": part}) for part in range(3)], ["worker"]
    )
    builder.add_edge("worker", "judge")
    builder.add_edge("writer", END)
    planner = Assign({"worker": LLAMA, "judge": LARGE, "writer": MINI})
    app = instant.balance(builder, policy=planner, mode="auto").compile()
    result = await app.ainvoke({**instant.ask(), "found": []})
    assert len(result["found"]) == 3
    assert speakers(result) == ["human", "judge", "writer"]
    backbones = [backbone for _, backbone in instant.called()]
    assert backbones == [LLAMA, LLAMA, LLAMA, LARGE, MINI]
    assert planner.asked[0][1].fixed_edges == ()


@pytest.mark.parametrize("blocking", [False, True])
async def test_an_agent_that_hands_over_to_another_is_done(instant: Bench, blocking: bool) -> None:
    @tool
    def to_bob() -> Command[Any]:
        "Ask Bob."
        told = [AIMessage("Over to you.", name="ann")]
        return Command(goto="bob", graph=Command.PARENT, update={"messages": told})

    ann = create_agent(instant.model(), [to_bob], name="ann", system_prompt="[[agent:ann]]")
    bob = create_agent(instant.model(), [], name="bob", system_prompt="[[agent:bob]]")
    builder = StateGraph(MessagesState)
    builder.add_node("ann", ann, destinations=("bob",))
    builder.add_node("bob", bob).add_edge(START, "ann")
    app = instant.balance(builder, policy=Assign({"ann": LLAMA, "bob": MINI})).compile()
    ask = {"messages": [("user", f"{instant.task()} [[tool:to_bob {{}}]]")]}
    if blocking:
        result = await asyncio.to_thread(app.invoke, ask)
    else:
        result = await app.ainvoke(ask)
    assert result["messages"][-1].name == "bob"
    assert {line.name: (line.status, line.reason) for line in app.report.agents} == {
        "ann": ("done", ""),
        "bob": ("done", ""),
    }
    assert app.report.complete


async def test_a_loop_of_the_users_own_ends_when_the_budget_does(instant: Bench) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("a", instant.node("a"))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: "a", ["a"])
    app = instant.balance(builder, budget=Budget(cost_usd=0.002)).compile()
    result = await app.ainvoke(instant.ask(), {"recursion_limit": 1000})
    assert app.report.stop_reason.startswith("Budget exhausted: a: a call of")
    assert app.report.within_budget
    assert len(result["messages"]) == 1 + len(instant.called())


async def test_subgraphs_share_the_budget_and_are_still_found(instant: Bench) -> None:
    @tool
    def add(x: int) -> str:
        "Adds one."
        return str(x + 1)

    inner = create_agent(instant.model(), [add], name="inner")
    builder = instant.chain(("planner", "solver", "writer"), solver=inner)
    app = instant.balance(builder, policy=Assign({"solver": LARGE})).compile(
        checkpointer=InMemorySaver()
    )
    task = {"messages": [("user", instant.task() + '[[tool:add {"x": 1}]]')]}
    seen = set()
    stream = app.astream(task, THREAD, stream_mode=["updates", "messages"], subgraphs=True)
    async for namespace, _, _ in stream:
        seen.add(namespace[0].split(":")[0] if namespace else "")
    assert seen == {"", "solver"}
    assert [name for name, _ in app.get_subgraphs()] == ["solver"]
    assert [b for _, b in instant.called()] == [MINI, LARGE, LARGE, MINI]
    assert app.report.spend.nanodollars == instant.billed()
    assert [agent.name for agent in app.report.agents] == ["planner", "solver", "writer"]


async def test_a_balanced_graph_inside_a_balanced_graph_is_part_of_its_run(
    instant: Bench,
) -> None:
    inner = instant.balance(instant.chain(("a", "b")), policy=Assign({"a": LLAMA})).compile()
    builder = instant.chain(("planner", "team"), team=inner)
    app = instant.balance(builder, policy=Assign({"team": LARGE})).compile(
        checkpointer=InMemorySaver()
    )
    await app.ainvoke(instant.ask(), THREAD)
    assert [b for _, b in instant.called()] == [MINI, LARGE, LARGE]
    assert app.report.spend.calls == 3
    with pytest.raises(RuntimeError, match="no run has ended"):
        _ = inner.report


@pytest.mark.parametrize("kind", ["stock", "balanced"])
@pytest.mark.parametrize("known", [True, False])
async def test_a_graph_with_a_thread_of_its_own_is_part_of_the_run_it_is_called_in(
    instant: Bench, kind: str, known: bool
) -> None:
    builder = instant.chain(("a", "b"))
    inner = instant.balance(builder) if kind == "balanced" else builder
    team = inner.compile(checkpointer=InMemorySaver())

    async def call(state: MessagesState) -> Any:
        said = await team.ainvoke(instant.ask(), THREAD)
        return {"messages": said["messages"][-1:]}

    builder = instant.chain(("planner", "team"), team=call)
    agents = None if known else ["planner"]
    app = instant.balance(builder, policy=Assign({"team": LLAMA}), agents=agents).compile(
        checkpointer=InMemorySaver()
    )
    for _ in range(2):
        before = instant.billed()
        await app.ainvoke(instant.ask(), THREAD)
        assert LARGE not in [backbone for _, backbone in instant.called()]
        assert app.report.spend.calls == 3
        assert app.report.spend.nanodollars == instant.billed() - before
        assert app.report.agents[-1].name == ("team" if known else "graph")
        assert app.report.agents[-1].spend.calls == 2


async def test_a_balanced_graph_inside_a_stock_graph_has_its_own_budget(instant: Bench) -> None:
    inner = instant.balance(instant.chain(("a", "b"))).compile(interrupt_before=["b"])
    app = chain_of({"first": instant.node("first"), "team": inner}).compile(
        checkpointer=InMemorySaver()
    )
    await app.ainvoke(instant.ask(), THREAD)
    await app.ainvoke(None, THREAD)
    assert instant.called() == [("first", LARGE), ("a", MINI), ("b", MINI)]
    assert inner.report.spend.calls == 2
    assert [name for name, _ in app.get_subgraphs()] == ["team"]


@pytest.mark.parametrize("planned", ["backbones", "full"])
async def test_streams_have_the_shapes_that_stock_graphs_give(instant: Bench, planned: str) -> None:
    stock = instant.chain(("a", "b")).compile(checkpointer=InMemorySaver())
    as_it_was = Plan({"a": MINI, "b": MINI}, edges=(("a", "b"),), decider="b")
    balanced = instant.balance(instant.chain(("a", "b")), mode=planned, policy=Always(as_it_was))
    app = balanced.compile(checkpointer=InMemorySaver())
    for mode in ("values", "updates", "messages", "tasks", "checkpoints", "debug", "custom"):
        shapes = []
        for graph in (stock, app):
            config = {"configurable": {"thread_id": mode}}
            chunks = [c async for c in graph.astream(instant.ask(), config, stream_mode=mode)]
            shapes.append([_shape(chunk) for chunk in chunks])
        if mode == "messages":
            # Another backbone says it in other pieces.
            shapes = [sorted(set(map(str, shape))) for shape in shapes]
        assert shapes[0] == shapes[1], mode


def _shape(chunk: Any) -> Any:
    if isinstance(chunk, dict):
        return {key: _shape(value) for key, value in chunk.items() if key != "checkpoint_map"}
    if isinstance(chunk, (list, tuple)):
        return [_shape(item) for item in chunk]
    return type(chunk).__name__


async def test_a_remote_graph_is_sent_json_alone(instant: Bench) -> None:
    sent: list[Any] = []

    async def serve(request: Request) -> Response:
        sent.append(await request.json())
        said = json.dumps({"messages": [{"type": "ai", "content": "from afar"}]})
        events = f"event: values\ndata: {said}\n\n"
        return Response(events, media_type="text/event-stream")

    server = Starlette(routes=[Route("/{path:path}", serve, methods=["POST"])])
    http = httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://127.0.0.1")
    remote = RemoteGraph("elsewhere", client=LangGraphClient(http))
    builder = chain_of({"a": instant.node("a"), "remote": remote})
    budget = {"configurable": {"agentbalance": {"budget": {"cost_usd": 1.0}}}}
    app = instant.balance(builder, agents=["a"]).compile()
    result = await app.ainvoke(instant.ask(), budget)
    assert result["messages"][-1].content == "from afar"
    assert app.report.budget == Budget(cost_usd=1.0)
    # A balanced graph at the other end is told the same budget.
    assert sent[0]["config"]["configurable"]["agentbalance"] == {"budget": {"cost_usd": 1.0}}
    await http.aclose()


@pytest.mark.parametrize("mode", ["backbones", "full"])
async def test_events_tell_of_nothing_that_a_stock_graph_has_not(instant: Bench, mode: str) -> None:
    plan = Plan({"a": MINI, "b": MINI}, edges=(("a", "b"),), decider="b")
    builder = instant.chain(("a", "b"))
    told: list[list[tuple[str, str]]] = []
    balanced = instant.balance(builder, policy=Always(plan), mode=mode)
    for app in (builder.compile(), balanced.compile()):
        events = app.astream_events(instant.ask(), version="v2")
        told.append([(event["event"], event["name"]) async for event in events])
    kinds = [{each for each in events if "model" not in each[0]} for events in told]
    assert kinds[0] == kinds[1]


async def test_events_tell_of_every_call(instant: Bench) -> None:
    app = instant.balance(instant.chain(("a", "b"))).compile()
    events = [event async for event in app.astream_events(instant.ask(), version="v2")]
    starts = [event for event in events if event["event"] == "on_chat_model_start"]
    assert [event["metadata"]["langgraph_node"] for event in starts] == ["a", "b"]
    assert any(event["event"] == "on_chat_model_stream" for event in events)
    assert not any("agentbalance" in event["name"] for event in events)


async def test_drawings_and_copies_work(instant: Bench) -> None:
    builder = instant.chain()
    app = instant.balance(builder).compile(name="team")
    assert app.get_graph().draw_mermaid() == builder.compile().get_graph().draw_mermaid()
    tagged = app.with_config(tags=["x"])
    await tagged.ainvoke(instant.ask())
    assert tagged.name == "team"
    assert app.report.spend.calls == 4
    await app.abatch([instant.ask(0), instant.ask(1)])
    assert len(instant.called()) == 12


async def test_a_deep_copy_of_a_builder_is_of_the_same_budget(instant: Bench) -> None:
    budget = Budget.average(cost_usd=0.001, max_cost_usd=0.01)
    builder = instant.balance(instant.chain(("a", "b")), budget=budget)
    for app in (builder.compile(), copy.deepcopy(builder).compile()):
        await app.ainvoke(instant.ask())
        assert app.report.complete
    # The mean is over both.
    assert len(builder._settings.pacers) == 1


@pytest.mark.parametrize("mode", ["backbones", "full"])
async def test_the_builder_of_a_compiled_graph_makes_another_under_the_budget(
    instant: Bench, mode: str
) -> None:
    plan = Plan({"a": MINI, "b": MINI}, edges=[("a", "b")], decider="b")
    app = instant.balance(instant.chain(("a", "b")), mode=mode, policy=Always(plan)).compile()
    again = app.builder.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    await again.ainvoke(instant.ask(), config)
    assert instant.called() == [("a", MINI), ("b", MINI)]
    assert again.report.spend.nanodollars == instant.billed()
    assert speakers(again.get_state(config).values) == ["human", "a", "b"]
    assert explain(app.builder).nodes == explain(instant.chain(("a", "b"))).nodes


async def test_a_drain_requested_from_outside_is_heeded(instant: Bench) -> None:
    control = RunControl()
    speak = instant.node("a")

    async def node(state: Any) -> Any:
        control.request_drain("shutdown")
        return await speak(state)

    app = instant.balance(instant.chain(("a", "b"), a=node)).compile(checkpointer=InMemorySaver())
    with pytest.raises(Exception, match="shutdown"):
        await app.ainvoke(instant.ask(), THREAD, control=control)
    await app.ainvoke(None, THREAD)
    assert [agent for agent, _ in instant.called()] == ["a", "b"]


@pytest.mark.virtual_time
async def test_a_cancelled_run_books_what_was_under_way_in_full(bench: Bench) -> None:
    app = bench.balance(bench.chain()).compile(checkpointer=InMemorySaver())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await app.ainvoke(bench.ask(), THREAD)
    assert not app.report.complete
    assert [call.metered for call in app.report.calls] == [False]
    planner = app.report.agents[0]
    assert (planner.status, planner.reason) == ("skipped", "the run ended in its turn")
    spent = app.report.spend.nanodollars
    assert spent >= bench.billed() > 0
    await app.ainvoke(None, THREAD)
    assert {agent.status for agent in app.report.agents} == {"done"}
    assert app.report.spend.calls == 5
    assert app.report.spend.nanodollars > spent


@pytest.mark.virtual_time
async def test_a_stream_that_is_left_early_closes_its_run(bench: Bench) -> None:
    app = bench.balance(bench.chain()).compile()
    stream = app.astream(bench.ask(), stream_mode="updates")
    assert list(await anext(stream)) == ["planner"]
    await stream.aclose()
    assert app.report.spend.calls == 1
    assert not app.report.complete


async def test_temporary_errors_are_tried_again_each_with_a_reservation(instant: Bench) -> None:
    app = instant.balance(instant.chain(("a", "b"))).compile()
    task = {"messages": [("user", instant.task() + "[[fault:429*1]]")]}
    result = await app.ainvoke(task)
    assert speakers(result) == ["human", "a", "b"]
    assert app.report.spend.calls == 2


async def test_missing_usage_books_the_whole_reservation(instant: Bench) -> None:
    app = instant.balance(instant.chain(("a",)), agents=["a"]).compile()
    task = {"messages": [("user", instant.task() + "[[fault:no_usage]]")]}
    await app.ainvoke(task)
    assert [call.metered for call in app.report.calls] == [False]
    assert app.report.spend.nanodollars > instant.billed()


async def test_the_mean_over_a_stream_is_steered(instant: Bench) -> None:
    budget = Budget.average(cost_usd=0.0002, max_cost_usd=0.001)
    app = instant.balance(instant.chain(), budget=budget).compile()
    spent = []
    for number in range(12):
        await app.ainvoke(instant.ask(number))
        spent.append(app.report.spend.cost_usd)
        assert app.report.within_budget
    assert sum(spent) <= 13 * 0.0002
    assert WIDE.mean_cost_usd is None
