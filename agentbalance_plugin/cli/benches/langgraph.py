"""What balancing adds to a LangGraph graph of four agents over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

from rich.console import Console

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.benches import made_up
from agentbalance_plugin.cli.benches.concurrency import BUDGET, NAMES, measure_concurrency
from agentbalance_plugin.cli.benches.local_server import local_server, served
from agentbalance_plugin.cli.benches.measure import Findings, Span, in_turns_async, timed_async
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.extras import require
from agentbalance_plugin.team import Agent

_BUDGET = Budget(cost_usd=0.5, latency_s=60.0)
_BACKBONE = "gpt-4o-2024-08-06"
_TASK = "What is 17 * 23?"
_RUNS_IN_A_ROW = 5


def bench_langgraph(*, rounds: int, seed: int, console: Console) -> Findings:
    """A graph of four agents as it is and balanced, one call each."""
    return asyncio.run(_bench(rounds, seed, console))


async def _bench(rounds: int, seed: int, console: Console) -> Findings:
    from agentbalance_plugin.adapters.langgraph import balance

    found = Findings("langgraph")
    async with local_server() as url:
        catalog = served(TraceSet.shipped("reasoning").profiled_candidates(), url)
        models = _models(catalog)
        ready = [(backbone, models[name]) for name, backbone in catalog.items()]
        policy = Policy.load("default")
        builder = _graph(models[_BACKBONE])
        pinned = {name: Agent(name, made_up.ROLE, keep=True) for name in NAMES}
        # With the same calls the same backbone: for some, LangChain's requests take longer to make.
        same = {name: replace(agent, backbone=_BACKBONE) for name, agent in pinned.items()}

        def balanced(**options: Any) -> Any:
            return balance(
                builder, budget=_BUDGET, backbones=ready, policy=policy, **options
            ).compile()

        ways: dict[str, Any] = {
            "stock": builder.compile(),
            "balanced": balanced(agents=pinned),
            "balanced, edges kept": balanced(agents=same, mode="backbones"),
            "balanced, agents left to the policy": balanced(),
        }

        async def runs(app: Any) -> Span:
            task = {"messages": [("user", _TASK)]}
            return await timed_async(lambda: app.ainvoke(task), _RUNS_IN_A_ROW)

        measured = await in_turns_async(
            {name: (lambda app=app: runs(app)) for name, app in ways.items()},
            rounds,
            console,
            title="graphs",
            seed=seed,
        )
    for name, spans in measured.items():
        made = len(NAMES) if name == "stock" else ways[name].report.spend.calls
        found.add_spans(f"a run, {name} ({made} calls)", spans)
        if name != "stock":
            bar = 1.05 if made == len(NAMES) else None
            found.compare_spans(f"{name} / stock", spans, measured["stock"], bar=bar)
    await measure_concurrency(found, _Service, seed, console)
    found.notes.append(
        f"{len(NAMES)} agents in a chain, one call each, through langchain-openai over HTTP to a "
        "local server that answers at once; async. Pinned agents make four calls on both sides."
    )
    return found


def _models(catalog: Catalog) -> dict[str, Any]:
    openai = require("langchain_openai", extra="langgraph")
    return {
        name: openai.ChatOpenAI(
            model=name, base_url=backbone.endpoint.base_url, api_key="local", max_retries=0
        )
        for name, backbone in catalog.items()
        if backbone.endpoint is not None
    }


class _Service:
    """A compiled graph keeps nothing of a run but its report."""

    def __init__(self, catalog: Catalog, policy: Policy) -> None:
        from agentbalance_plugin.adapters.langgraph import balance

        models = _models(catalog)
        ready = [(backbone, models[name]) for name, backbone in catalog.items()]
        builder = _graph(models[next(iter(catalog))])
        pinned = {name: Agent(name, made_up.ROLE, keep=True) for name in NAMES}
        options: Any = {"agents": pinned, "mode": "backbones"}
        self._app = balance(
            builder, budget=BUDGET, backbones=ready, policy=policy, **options
        ).compile()

    async def run(self, task: str) -> object:
        return await self._app.ainvoke({"messages": [("user", task)]})

    async def reset(self) -> None: ...

    async def close(self) -> None:
        """LangChain shares its HTTP clients and keeps them."""


def _graph(model: Any) -> Any:
    graphs: Any = require("langgraph.graph", extra="langgraph")
    messages: Any = require("langchain_core.messages", extra="langgraph")

    def agent(name: str) -> Any:
        async def node(state: Any) -> dict[str, Any]:
            reply = await model.ainvoke([("system", made_up.ROLE), *state["messages"]])
            return {"messages": [messages.AIMessage(reply.content, name=name)]}

        return node

    builder = graphs.StateGraph(graphs.MessagesState)
    for name in NAMES:
        builder.add_node(name, agent(name))
    for before, after in pairwise([graphs.START, *NAMES, graphs.END]):
        builder.add_edge(before, after)
    return builder
