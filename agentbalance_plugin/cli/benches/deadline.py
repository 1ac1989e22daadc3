"""How far past their deadlines runs return, in real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.extras import require
from agentbalance_plugin.simulator.server import Simulator

if TYPE_CHECKING:
    from autogen_agentchat.teams import BaseGroupChat

BOUND_MS = 50.0


@dataclass(frozen=True)
class Overshoot:
    """Milliseconds between the deadline and the moment a run returned; 0 for runs in time."""

    chat: str
    milliseconds: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "chat": self.chat,
            "runs": len(self.milliseconds),
            "mean_ms": float(np.mean(self.milliseconds)),
            "max_ms": max(self.milliseconds),
            "bound_ms": BOUND_MS,
        }


def bench_deadline(*, runs: int, seed: int, console: Console) -> list[Overshoot]:
    """Run chats whose backbones take longer than their deadlines allow."""
    return asyncio.run(_run(runs, seed, console))


async def _run(runs: int, seed: int, console: Console) -> list[Overshoot]:
    from agentbalance_plugin.adapters.autogen import clients_for, wrap_groupchat

    traces = TraceSet.shipped("reasoning")
    replay = Replay(traces, seed=seed)
    rng = np.random.default_rng(seed)
    picked: list[int] = rng.choice(traces.positions("test"), size=runs).tolist()
    tasks = [task_text(traces.queries[position], replay) for position in picked]
    # Recorded replies take seconds: all of these deadlines come while calls are under way.
    deadlines: list[float] = rng.uniform(0.1, 0.6, size=runs).tolist()
    found: list[Overshoot] = []
    async with Simulator(replay) as simulator:
        policy = Policy.load("default", RecordedEncoder(traces))
        catalog = simulator.serving(traces.catalog.subset(traces.candidates))
        clients = clients_for(catalog)
        ready = [(backbone, clients(name)) for name, backbone in catalog.items()]
        with counting(console) as progress:
            for name, make in _CHATS.items():
                bar = progress.add_task(name, total=runs)
                chats = [make(ready[0][1]) for _ in range(runs)]
                # Wrapping is work that users do before their first task.
                teams = [
                    wrap_groupchat(
                        chat, budget=Budget(latency_s=deadline), backbones=ready, policy=policy
                    )
                    for chat, deadline in zip(chats, deadlines, strict=True)
                ]
                late: list[float] = []
                for team, task, deadline in zip(teams, tasks, deadlines, strict=True):
                    began = time.perf_counter()
                    await team.run(task=task)
                    late.append(1000 * max(0.0, time.perf_counter() - began - deadline))
                    progress.advance(bar)
                found.append(Overshoot(name, tuple(late)))
        await clients.close()
    return found


def _agents(client: Any) -> list[Any]:
    agents = require("autogen_agentchat.agents", extra="autogen")
    return [
        agents.AssistantAgent(name, client, system_message=f"[[agent:{name}]] Solve the task.")
        for name in ("planner", "solver", "decider")
    ]


def _round_robin(client: Any) -> BaseGroupChat:
    teams = require("autogen_agentchat.teams", extra="autogen")
    return teams.RoundRobinGroupChat(_agents(client), max_turns=3)


def _graph_flow(client: Any) -> BaseGroupChat:
    teams = require("autogen_agentchat.teams", extra="autogen")
    agents = _agents(client)
    builder = teams.DiGraphBuilder()
    for agent in agents:
        builder.add_node(agent)
    for before, after in pairwise(agents):
        builder.add_edge(before, after)
    return teams.GraphFlow(agents, graph=builder.build())


_CHATS: dict[str, Callable[[Any], BaseGroupChat]] = {
    "RoundRobinGroupChat": _round_robin,
    "GraphFlow": _graph_flow,
}


def print_overshoots(overshoots: list[Overshoot], console: Console) -> None:
    table = Table(title="Wall time past the deadline, milliseconds", title_justify="left")
    table.add_column("chat")
    for column in ("runs", "mean", "max", "bound"):
        table.add_column(column, justify="right")
    for overshoot in overshoots:
        row = overshoot.to_dict()
        table.add_row(
            overshoot.chat,
            str(row["runs"]),
            f"{row['mean_ms']:.1f}",
            f"{row['max_ms']:.1f}",
            f"{BOUND_MS:.0f}",
        )
    console.print(table)
