"""Graphs, plans and catalogs that the tests of the LangGraph adapter share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import httpx
from langchain_core.messages import AIMessage
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentbalance_plugin import Backbone, Budget, Catalog, Plan, Team
from agentbalance_plugin.adapters.langgraph import balance
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.simulator.server import Simulator

MINI = "gpt-4o-mini-2024-07-18"
LLAMA = "Meta-Llama-3.1-70B-Instruct"
LARGE = "gpt-4o-2024-08-06"
NAMES = ("planner", "solver", "critic", "writer")
WIDE = Budget(cost_usd=10.0, latency_s=10_000)


@dataclass
class Assign:
    """A planner that keeps the team as it is, on backbones of the test's choice."""

    backbones: Mapping[str, str]
    output_caps: Mapping[str, int] = field(default_factory=dict[str, int])
    asked: list[tuple[str, Team]] = field(default_factory=list[tuple[str, Team]])

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        self.asked.append((query, team))
        return Plan(
            {name: self.backbones.get(name, MINI) for name in team.names},
            edges=team.fixed_edges or (),
            decider=team.decider,
            output_caps={n: c for n, c in self.output_caps.items() if n in team.names},
        )


@dataclass
class Always:
    """A planner that always makes the same plan."""

    made: Plan
    queries: list[str] = field(default_factory=list[str])

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        self.queries.append(query)
        return self.made


@dataclass(frozen=True)
class Bench:
    """A simulator, and what tests need to talk to it."""

    simulator: Simulator
    replay: Replay

    def task(self, number: int = 0, benchmark: str = "gsm8k") -> str:
        """A recorded test query as text."""
        return task_text(self.query(number, benchmark), self.replay)

    def key(self, number: int = 0, benchmark: str = "gsm8k") -> str:
        return self.query(number, benchmark).key

    def query(self, number: int, benchmark: str) -> Any:
        found = [
            query
            for query in self.replay.traces.queries
            if query.split == "test" and query.benchmark == benchmark
        ]
        return found[number]

    def model(self, name: str = LARGE, **more: Any) -> ChatOpenAI:
        """What a user's nodes call before they are balanced."""
        return ChatOpenAI(
            model=name,
            base_url=self.simulator.base_url,
            api_key="local",
            stream_usage=True,
            max_retries=0,
            **more,
        )

    def node(self, name: str, **more: Any) -> Callable[..., Any]:
        """An async agent that calls its model once on all messages."""
        model = self.model(**more)

        async def speak(state: Any) -> dict[str, Any]:
            prompt = [("system", f"[[agent:{name}]] Solve."), *state["messages"]]
            reply = await model.ainvoke(prompt)
            return {"messages": [AIMessage(reply.content, name=name)]}

        return speak

    def failing(self, name: str, times: int, error: Exception) -> Callable[..., Any]:
        """As `node`, but the first times it fails after its call."""
        speak, left = self.node(name), [error] * times

        async def fails_first(state: Any) -> dict[str, Any]:
            said = await speak(state)
            if left:
                raise left.pop()
            return said

        return fails_first

    def part(self) -> Callable[..., Any]:
        """An async node for a `Send` of {"part": number}, which adds to "found"."""
        model = self.model()

        async def part(state: Any) -> Any:
            prompt = [("system", f"[[agent:part{state['part']}]]"), ("user", self.task())]
            return {"found": [(await model.ainvoke(prompt)).text]}

        return part

    def blocking(self, name: str, **more: Any) -> Callable[..., Any]:
        """As `node`, but synchronous."""
        model = self.model(**more)

        def speak(state: Any) -> dict[str, Any]:
            prompt = [("system", f"[[agent:{name}]] Solve."), *state["messages"]]
            reply = model.invoke(prompt)
            return {"messages": [AIMessage(reply.content, name=name)]}

        return speak

    def chain(
        self, names: Sequence[str] = NAMES, *, blocking: bool = False, **nodes: Any
    ) -> StateGraph[Any, Any, Any, Any]:
        """Agents one after the other; `nodes` replaces some of them."""
        make = self.blocking if blocking else self.node
        return chain_of({name: nodes.get(name) or make(name) for name in names})

    def catalog(self, *names: str, capabilities: Sequence[str] = ("text", "tools")) -> Catalog:
        """Profiled candidates that are called at the simulator."""
        candidates = self.replay.traces.profiled_candidates()
        found = self.simulator.serving(candidates.subset(names or candidates))
        able = frozenset(capabilities)
        return Catalog(replace(backbone, capabilities=able) for backbone in found.values())

    def policy(self) -> Policy:
        return Policy.load("default", RecordedEncoder(self.replay.traces))

    def balance(self, builder: Any, **more: Any) -> Any:
        """Under a wide budget, every node kept, on the small backbone unless told otherwise."""
        more.setdefault("budget", WIDE)
        more.setdefault("backbones", self.catalog())
        more.setdefault("policy", Assign({}))
        more.setdefault("mode", "backbones")
        return balance(builder, **more)

    def ask(self, number: int = 0) -> dict[str, Any]:
        """An input of the recorded query."""
        return {"messages": [("user", self.task(number))]}

    def called(self) -> list[tuple[str, str]]:
        """(agent, backbone) of every request, in the order of arrival."""
        return [(entry.agent, entry.backbone) for entry in self.simulator.books.entries]

    def billed(self) -> int:
        return self.simulator.books.spend().nanodollars


class OllamaServer:
    """Calls the first tool it is given, and then answers; uses as many tokens as it may.

    Args:
        ends: why it says that its replies end.
    """

    def __init__(self, *, ends: str = "stop") -> None:
        self.ends = ends
        self.asked: list[dict[str, Any]] = []
        routes = [Route("/api/chat", self._chat, methods=["POST"])]
        self._transport = httpx.ASGITransport(Starlette(routes=routes))

    @property
    def backbones(self) -> list[tuple[Backbone, ChatOllama]]:
        backbone = Backbone(
            "llama",
            price_in_usd_per_mtok=Decimal(1),
            price_out_usd_per_mtok=Decimal(10),
            max_output_tokens=500,
            capabilities=frozenset({"text", "tools"}),
        )
        return [(backbone, ollama(async_client_kwargs={"transport": self._transport}))]

    async def _chat(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        self.asked.append(asked)
        message: dict[str, Any] = {"role": "assistant", "content": "Answer: 3"}
        if asked.get("tools") and asked["messages"][-1]["role"] != "tool":
            function = asked["tools"][0]["function"]
            arguments = dict.fromkeys(function["parameters"]["properties"], 2)
            call = {"function": {"name": function["name"], "arguments": arguments}}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
        done = {
            "model": "llama",
            "created_at": "2026-01-01T00:00:00Z",
            "message": message,
            "done": True,
            "done_reason": self.ends,
            "prompt_eval_count": 8,
            "eval_count": asked["options"]["num_predict"],
        }
        return Response(json.dumps(done) + "\n", media_type="application/x-ndjson")


def ollama(**more: Any) -> ChatOllama:
    return ChatOllama(model="llama", base_url="http://127.0.0.1:9", **more)


def calling(model: Any, **options: Any) -> Callable[..., Any]:
    """An async agent that calls a model, or what is bound of one, on all messages."""

    async def node(state: Any) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"], **options)]}

    return node


def chain_of(
    nodes: Mapping[str, Any], schema: type[Any] = MessagesState, **more: Any
) -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(schema, **more)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder


def speakers(result: Mapping[str, Any]) -> list[str]:
    """Who said each message."""
    return [message.name or message.type for message in result["messages"]]
