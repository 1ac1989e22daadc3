"""What a budget adds to the time of a LangGraph graph, against the same graph as it was.

Chat models answer at once and in this process, so that nothing but frameworks is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.extras import require
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Team

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph

    Graph = CompiledStateGraph[Any, Any, Any, Any]

AGENTS = ("planner", "solver", "critic", "decider")
BARS = {
    "pass-through": 1.25,
    "planned": 1.8,
    "planned, deadline": 1.8,
    "planned, edges kept": 1.8,
}
_TASK = "A shop sells pens at 3 for 2 dollars. What do 24 pens cost?"
_MONEY = Budget(cost_usd=0.02)
_MONEY_AND_TIME = Budget(cost_usd=0.02, latency_s=60)
_WARM_UP = 20


@dataclass(frozen=True)
class Timing:
    """Of one graph's runs.

    Args:
        wall: milliseconds that passed.
        cpu: milliseconds of processor time, which other work on the machine does not stretch.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.wall))

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.percentile(self.wall, (25, 75))
        return float(low), float(high)

    @property
    def median_cpu(self) -> float:
        return float(np.median(self.cpu))


class _Stopwatch:
    """Collects the timings of something that is done again and again."""

    def __init__(self) -> None:
        self._wall: list[float] = []
        self._cpu: list[float] = []

    @contextmanager
    def __call__(self) -> Generator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._wall.append(1000 * (time.perf_counter() - wall))
        self._cpu.append(1000 * (time.process_time() - cpu))

    def timing(self) -> Timing:
        """What it took, without the first rounds."""
        return Timing(tuple(self._wall[_WARM_UP:]), tuple(self._cpu[_WARM_UP:]))


@dataclass(frozen=True)
class Overhead:
    """Graphs of one kind.

    Args:
        calls: "async" or "sync".
        timings: by graph, the stock one first.
        planning: of the policy alone, inside the planned graph's runs.
    """

    calls: str
    timings: Mapping[str, Timing]
    planning: Timing

    def ratio(self, timing: Timing) -> tuple[float, float]:
        """To the stock graph, by wall and by processor time: medians over the rounds, so that a
        slow moment of the machine hits both sides."""
        stock = self.timings["stock"]
        wall = np.divide(timing.wall, stock.wall)
        cpu = np.divide(timing.cpu, stock.cpu)
        return float(np.median(wall)), float(np.median(cpu))

    @property
    def rows(self) -> Mapping[str, Timing]:
        return {**self.timings, "planning alone": self.planning}


def to_dict(overheads: list[Overhead]) -> dict[str, Any]:
    """JSON values only."""
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for each in overheads:
        for name, timing in each.rows.items():
            key = f"{each.calls} {name}"
            figures[f"{key} ms"], figures[f"{key} CPU ms"] = timing.median, timing.median_cpu
            figures[f"{key} ms, 25 %"], figures[f"{key} ms, 75 %"] = timing.quartiles
            if name != "stock":
                ratios[key], ratios[f"{key} CPU"] = each.ratio(timing)
    return {"name": "langgraph", "figures": figures, "ratios": ratios, "bars": BARS}


def bench_langgraph(*, runs: int, console: Console) -> list[Overhead]:
    """Run a chain of four agents, stock and under a budget, taking turns."""
    require("langgraph", extra="langgraph")
    policy = Policy.load("default")
    with counting(console) as progress:
        bar = progress.add_task("runs", total=2 * (runs + _WARM_UP))

        async def time_async(calls: str) -> Overhead:
            planner = _Timed(policy)
            graphs = _graphs(planner, blocking=calls == "sync")
            watches = {name: _Stopwatch() for name in graphs}
            for _ in range(_WARM_UP + runs):
                for name, graph in graphs.items():
                    with watches[name]():
                        await graph.ainvoke(_ask())
                progress.advance(bar)
            return Overhead(calls, _timings(watches), planner.watch.timing())

        def time_sync(calls: str) -> Overhead:
            planner = _Timed(policy)
            graphs = _graphs(planner, blocking=calls == "sync")
            watches = {name: _Stopwatch() for name in graphs}
            for _ in range(_WARM_UP + runs):
                for name, graph in graphs.items():
                    with watches[name]():
                        graph.invoke(_ask())
                progress.advance(bar)
            return Overhead(calls, _timings(watches), planner.watch.timing())

        return [asyncio.run(time_async("async")), time_sync("sync")]


def _timings(watches: Mapping[str, _Stopwatch]) -> dict[str, Timing]:
    return {name: watch.timing() for name, watch in watches.items()}


def _graphs(policy: _Timed, *, blocking: bool) -> dict[str, Graph]:
    """The same four agents: as they were, with the hook that changes nothing, on one plan for all
    tasks, and with a plan for each."""
    from agentbalance_plugin.adapters.langgraph import balance, balanced

    catalog = TraceSet.shipped("reasoning").profiled_candidates()
    backbones = [(backbone, _model()) for backbone in catalog.values()]
    stock = _chain(blocking).compile()
    with balanced(policy=None):
        passed = _chain(blocking).compile()

    def under(budget: Budget, planner: Any, mode: Any) -> Graph:
        chain = _chain(blocking)
        return balance(
            chain, budget=budget, backbones=backbones, policy=planner, mode=mode
        ).compile()

    return {
        "stock": stock,
        "pass-through": passed,
        "one plan": under(_MONEY, _OnePlan(), "backbones"),
        "one plan, deadline": under(_MONEY_AND_TIME, _OnePlan(), "backbones"),
        "planned": under(_MONEY, policy, "full"),
        "planned, deadline": under(_MONEY_AND_TIME, policy, "full"),
        "planned, edges kept": under(_MONEY, policy, "backbones"),
    }


def _chain(blocking: bool) -> Any:
    from langgraph.graph import END, START, MessagesState, StateGraph

    model = _model()

    def agent(name: str) -> Any:
        system = ("system", f"You are the {name}.")

        def speak(state: MessagesState) -> Any:
            return {"messages": [model.invoke([system, *state["messages"]])]}

        async def aspeak(state: MessagesState) -> Any:
            return {"messages": [await model.ainvoke([system, *state["messages"]])]}

        return speak if blocking else aspeak

    builder = StateGraph(MessagesState)
    before = START
    for name in AGENTS:
        builder.add_node(name, agent(name))
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder


def _model() -> BaseChatModel:
    """Answers at once."""
    from langchain_core.callbacks import CallbackManagerForLLMRun
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    class Instant(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "instant"

        def _generate(
            self,
            messages: list[BaseMessage],
            stop: list[str] | None = None,
            run_manager: CallbackManagerForLLMRun | None = None,
            **kwargs: Any,
        ) -> ChatResult:
            usage: Any = {"input_tokens": 60, "output_tokens": 5, "total_tokens": 65}
            reply = AIMessage("Answer: 16", usage_metadata=usage)
            return ChatResult(generations=[ChatGeneration(message=reply)])

        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            return self._generate(*args, **kwargs)

    return Instant()


def _ask() -> Any:
    return {"messages": [("user", _TASK)]}


class _Timed:
    """A policy that notes how long it takes."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.watch = _Stopwatch()

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        if team.fixed_edges is not None or budget.latency_s is not None:
            return self._policy.plan(query, team, budget, catalog)
        with self.watch():
            return self._policy.plan(query, team, budget, catalog)


class _OnePlan:
    """Every agent on the first able backbone."""

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        assignment: dict[str, str | None] = dict.fromkeys(team.names, next(iter(catalog)))
        return Plan(assignment, edges=team.fixed_edges or (), decider=team.decider)


def print_overheads(overheads: list[Overhead], console: Console) -> None:
    table = Table(title="A run of four agents, milliseconds", title_justify="left")
    for column in ("calls", "graph"):
        table.add_column(column)
    for column in ("median", "25 % - 75 %", "of stock", "CPU", "CPU of stock", "bar"):
        table.add_column(column, justify="right")
    for each in overheads:
        for name, timing in each.rows.items():
            low, high = timing.quartiles
            wall, cpu = each.ratio(timing)
            table.add_row(
                each.calls,
                name,
                f"{timing.median:.2f}",
                f"{low:.2f} - {high:.2f}",
                f"{wall:.2f}",
                f"{timing.median_cpu:.2f}",
                f"{cpu:.2f}",
                f"{BARS[name]:.2f}" if name in BARS else "",
            )
    console.print(table)
