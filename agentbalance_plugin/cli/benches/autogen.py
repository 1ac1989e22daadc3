"""What wrapping adds to an AutoGen chat: plan, copies on other clients, meter, report."""

from __future__ import annotations

import asyncio
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.benches import made_up
from agentbalance_plugin.cli.benches.concurrency import BUDGET, NAMES, measure_concurrency
from agentbalance_plugin.cli.benches.local_server import local_server, served
from agentbalance_plugin.cli.benches.measure import (
    Figure,
    Findings,
    Ratio,
    Span,
    in_turns_async,
    timed_async,
)
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.extras import require
from agentbalance_plugin.runtime.meter import Meter

if TYPE_CHECKING:
    from autogen_agentchat.teams import BaseGroupChat

_BUDGET = Budget(cost_usd=0.5, latency_s=60.0)
_TASK = "What is 17 * 23?"
_RUNS_IN_A_ROW = 5
_CALLS_IN_A_ROW = 50


def bench_autogen(*, rounds: int, seed: int, console: Console) -> Findings:
    """A chat of four agents as it is and wrapped, and one model call bare and under the meter."""
    return asyncio.run(_bench(rounds, seed, console))


async def _bench(rounds: int, seed: int, console: Console) -> Findings:
    found = Findings("autogen")
    async with local_server() as url:
        await _chats(found, url, rounds, seed, console)
    await _calls(found, rounds, seed, console)
    await measure_concurrency(found, _Service, seed, console)
    found.notes.append(
        f"{len(NAMES)} agents, one turn each, over HTTP to a local server that answers at once. "
        "All agents are pinned, so that both sides make four calls."
    )
    return found


async def _chats(found: Findings, url: str, rounds: int, seed: int, console: Console) -> None:
    from agentbalance_plugin.adapters.autogen import clients_for, wrap_groupchat

    catalog = served(TraceSet.shipped("reasoning").profiled_candidates(), url)
    clients = clients_for(catalog)
    ready = [(backbone, clients(name)) for name, backbone in catalog.items()]
    policy = Policy.load("default")

    def wrapped(**options: Any) -> Any:
        chat = _chat(ready[0][1])
        return wrap_groupchat(chat, budget=_BUDGET, backbones=ready, policy=policy, **options)

    ways: dict[str, Any] = {
        "stock": _chat(ready[0][1]),
        "wrapped": wrapped(pinned=NAMES),
        "wrapped, order kept": wrapped(pinned=NAMES, mode="backbones"),
        "wrapped, agents left to the policy": wrapped(),
    }

    async def runs(team: Any) -> Span:
        spans: list[Span] = []
        for _ in range(_RUNS_IN_A_ROW):
            # A run that followed another would send a longer prompt.
            await team.reset()
            spans.append(await timed_async(lambda: team.run(task=_TASK)))
        return Span(fmean(s.wall for s in spans), fmean(s.busy for s in spans))

    measured = await in_turns_async(
        {name: (lambda team=team: runs(team)) for name, team in ways.items()},
        rounds,
        console,
        title="chats",
        seed=seed,
    )
    await clients.close()
    for name, spans in measured.items():
        made = len(NAMES) if name == "stock" else ways[name].report.spend.calls
        found.add_spans(f"a run, {name} ({made} calls)", spans)
        if name != "stock":
            bar = 1.05 if made == len(NAMES) else None
            found.compare_spans(f"{name} / stock", spans, measured["stock"], bar=bar)


def _chat(client: Any) -> BaseGroupChat:
    agents = require("autogen_agentchat.agents", extra="autogen")
    teams = require("autogen_agentchat.teams", extra="autogen")
    return teams.RoundRobinGroupChat(
        [agents.AssistantAgent(name, client, system_message=made_up.ROLE) for name in NAMES],
        max_turns=len(NAMES),
    )


class _Service:
    """Each run has copies of the chat's agents."""

    def __init__(self, catalog: Catalog, policy: Policy) -> None:
        from agentbalance_plugin.adapters.autogen import clients_for, wrap_groupchat

        self._clients = clients_for(catalog)
        ready = [(backbone, self._clients(name)) for name, backbone in catalog.items()]
        self._team = wrap_groupchat(
            _chat(ready[0][1]),
            budget=BUDGET,
            backbones=ready,
            policy=policy,
            pinned=NAMES,
            mode="backbones",
        )

    async def run(self, task: str) -> object:
        return await self._team.run(task=task)

    async def reset(self) -> None:
        await self._team.reset()

    async def close(self) -> None:
        await self._clients.close()


async def _calls(found: Findings, rounds: int, seed: int, console: Console) -> None:
    """The budget client around a client that does nothing."""
    from agentbalance_plugin.adapters.autogen.client import BudgetClient

    models: Any = require("autogen_core.models", extra="autogen")
    replays: Any = require("autogen_ext.models.replay", extra="autogen")
    catalog: Catalog = TraceSet.shipped("reasoning").profiled_candidates()
    backbone = next(iter(catalog.values()))
    messages = [
        models.SystemMessage(content=made_up.ROLE),
        *(models.UserMessage(content="x" * 600, source=name) for name in NAMES),
    ]
    reply = models.CreateResult(
        finish_reason="stop",
        content="Answer: 391",
        usage=models.RequestUsage(prompt_tokens=500, completion_tokens=16),
        cached=False,
    )

    class Immediate(replays.ReplayChatCompletionClient):
        async def create(self, *args: Any, **options: Any) -> Any:
            return reply

    inner: Any = Immediate([])

    async def bare() -> Span:
        return await timed_async(lambda: inner.create(messages), _CALLS_IN_A_ROW)

    async def metered() -> Span:
        meter = Meter(_BUDGET)
        meter.protect(NAMES[-1], nanodollars=1000, seconds=1.0)
        client = BudgetClient(inner, backbone, meter, NAMES[0], 1024)
        return await timed_async(lambda: client.create(messages), _CALLS_IN_A_ROW)

    measured = await in_turns_async(
        {"bare": bare, "metered": metered}, rounds, console, title="calls", seed=seed
    )
    pairs = zip(measured["metered"], measured["bare"], strict=True)
    added = [1e6 * (with_meter.wall - without.wall) for with_meter, without in pairs]
    found.figures["the budget client adds to a call"] = Figure(added, "µs")
    found.ratios["the budget client's addition / 50 µs"] = Ratio([a / 50.0 for a in added], bar=1.0)
