"""Predicted hops and latency against what frameworks take, in real time and under load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.demo import ROLES
from agentbalance_plugin.cli.framework_runs import Ask, FrameworkRun, pick_queries, run_queries
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.evaluation.studies.pictures import new_figure, save_figure
from agentbalance_plugin.evaluation.studies.setting import Setting, Ticker
from agentbalance_plugin.extras import require
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.runtime.report import RunReport
from agentbalance_plugin.simulator.server import Simulator
from agentbalance_plugin.team import Team

CONCURRENT = (1, 8, 32)

# From single agents to cascades of four, so that hops and latencies differ.
_PRICES = (300.0, 40.0, 10.0, 2.0)


class Varied:
    """A planner that takes one price after the other, by the query's text."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        price = _PRICES[sum(query.encode()) % len(_PRICES)]
        return self._policy.plan(query, team, budget, catalog, Knobs(price_usd=price))


@dataclass(frozen=True)
class LoadRow:
    """One framework with so many runs at a time.

    Args:
        correlation: of predicted and measured latency (Pearson).
        rank_correlation: likewise, of ranks (Spearman).
        hop_correlation: of a plan's hop limit and measured latency (Spearman).
        error: mean absolute error, in percent of the mean measured latency.
        bias: mean predicted less measured, in percent of the mean measured latency.
        predicted, measured: [N] seconds; hops: [N].
        failed: runs that raised, or had no plan.
    """

    framework: str
    concurrent: int
    correlation: float
    rank_correlation: float
    hop_correlation: float
    error: float
    bias: float
    failed: int
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    hops: tuple[int, ...]


@dataclass(frozen=True)
class Load:
    """What the study found; latencies are in simulated seconds, real ones over `scale`."""

    suite: str
    scale: float
    rows: tuple[LoadRow, ...]

    @property
    def name(self) -> str:
        return f"load-{self.suite}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        rows = [asdict(row) for row in self.rows]
        return {"study": "load", "suite": self.suite, "scale": self.scale, "rows": rows}

    def to_markdown(self) -> str:
        lines = [
            f"### {self.suite}: real time, {self.scale:g} real seconds per simulated one",
            "",
            "| framework | runs at a time | mean predicted, s | mean measured, s | r | rank r | "
            "hops, rank r | error | bias | failed |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            lines.append(
                f"| {row.framework} | {row.concurrent} | {np.mean(row.predicted):.2f} | "
                f"{np.mean(row.measured):.2f} | {row.correlation:.2f} | "
                f"{row.rank_correlation:.2f} | {row.hop_correlation:.2f} | {row.error:.0f} % | "
                f"{row.bias:+.0f} % | {row.failed} |"
            )
        return "\n".join(lines) + "\n"

    def draw(self, folder: Path) -> list[Path]:
        figure, axes = new_figure(len(self.rows), width=3.2)
        for each, row in zip(axes, self.rows, strict=True):
            ends = [min(row.predicted + row.measured), max(row.predicted + row.measured)]
            each.plot(ends, ends, color="grey", linewidth=1)
            for hops in sorted(set(row.hops)):
                picked = [n for n, own in enumerate(row.hops) if own == hops]
                each.scatter(
                    [row.predicted[n] for n in picked],
                    [row.measured[n] for n in picked],
                    s=12,
                    label=f"{hops} hops" if hops > 1 else "1 hop",
                )
            each.set(xscale="log", yscale="log", xlabel="predicted, s", ylabel="measured, s",
                     title=f"{row.framework}, {row.concurrent} at a time")  # fmt: skip
            each.legend(fontsize=6)
        return save_figure(figure, folder, self.name)


def study_load(setting: Setting, ticker: Ticker, queries: int, scale: float) -> Load:
    """Wrapped chats and balanced graphs of four agents, over HTTP, in real time.

    Args:
        queries: of the test split, the same in every row.
        scale: real seconds per simulated second; what the frameworks and this machine add counts
            so much more, the smaller it is.

    Raises:
        ImportError: a framework is not installed (extras `autogen`, `langgraph`).
    """
    if scale <= 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    return asyncio.run(_study(setting, ticker, queries, scale))


async def _study(setting: Setting, ticker: Ticker, queries: int, scale: float) -> Load:
    picked = pick_queries(setting.traces, queries, setting.seed)
    clock = Clock(scale=scale)
    rows: list[LoadRow] = []
    async with Simulator(setting.replay, scale=scale) as simulator:
        catalog = simulator.serving(setting.catalog)
        planner = Varied(setting.policy)
        for name, make in (("autogen", _chat), ("langgraph", _graph)):
            ask = make(simulator.base_url, setting, catalog, planner, clock)
            for concurrent in CONCURRENT:
                tick = ticker(f"{name}, {concurrent} at a time", len(picked))
                runs = await run_queries(
                    ask,
                    picked,
                    setting.replay,
                    simulator,
                    concurrent=concurrent,
                    clock=clock,
                    tick=tick,
                )
                rows.append(_row(name, concurrent, runs))
    return Load(setting.suite, scale, tuple(rows))


def _chat(base_url: str, setting: Setting, catalog: Catalog, planner: Varied, clock: Clock) -> Ask:
    agents = require("autogen_agentchat.agents", extra="autogen")
    teams = require("autogen_agentchat.teams", extra="autogen")
    from agentbalance_plugin.adapters.autogen import wrap_groupchat
    from agentbalance_plugin.adapters.autogen.endpoints import clients_for
    from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam

    client = clients_for(catalog)(next(iter(catalog)))

    async def ask(task: str) -> tuple[str, RunReport | None]:
        # A chat for each run: concurrent runs of one would share what was said before.
        members = [
            agents.AssistantAgent(name, client, system_message=f"[[agent:{name}]] {role}")
            for name, role in ROLES.items()
        ]
        chat = wrap_groupchat(
            teams.RoundRobinGroupChat(members, max_turns=len(ROLES)),
            budget=Budget(cost_usd=10.0),
            backbones=catalog,
            policy=planner,
            clock=clock,
        )
        assert isinstance(chat, WrappedTeam)
        result = await chat.run(task=task)
        report = chat.report_of(result)
        await chat.close()
        return result.messages[-1].to_text(), report

    return ask


def _graph(base_url: str, setting: Setting, catalog: Catalog, planner: Varied, clock: Clock) -> Ask:
    graphs = require("langgraph.graph", extra="langgraph")
    openai = require("langchain_openai", extra="langgraph")
    messages = require("langchain_core.messages", extra="langgraph")
    from agentbalance_plugin.adapters.langgraph import balance

    model = openai.ChatOpenAI(model=setting.traces.reference, base_url=base_url, api_key="local")

    def node(name: str, role: str) -> Callable[[Any], Any]:
        async def speak(state: Any) -> dict[str, Any]:
            system = ("system", f"[[agent:{name}]] {role}")
            reply = await model.ainvoke([system, *state["messages"]])
            return {"messages": [messages.AIMessage(reply.content, name=name)]}

        return speak

    async def ask(task: str) -> tuple[str, RunReport | None]:
        builder = graphs.StateGraph(graphs.MessagesState)
        before = graphs.START
        for name, role in ROLES.items():
            builder.add_node(name, node(name, role))
            builder.add_edge(before, name)
            before = name
        builder.add_edge(before, graphs.END)
        # A graph for each run, so that its report is this run's.
        app = balance(
            builder,
            budget=Budget(cost_usd=10.0),
            backbones=catalog,
            policy=planner,
            clock=clock,
        ).compile()
        result = await app.ainvoke({"messages": [("user", task)]})
        return result["messages"][-1].text, app.report

    return ask


def _row(framework: str, concurrent: int, runs: Sequence[FrameworkRun]) -> LoadRow:
    predicted: list[float] = []
    measured: list[float] = []
    hops: list[int] = []
    for run in runs:
        plan = None if run.report is None else run.report.plan
        if plan is not None and plan.expected is not None:
            predicted.append(plan.expected.latency_s)
            measured.append(run.latency_s)
            hops.append(plan.hop_limit)
    if len(predicted) < 2:
        errors = [run.error for run in runs if run.error is not None]
        raise ValueError(f"{framework}: fewer than two runs had a plan; {errors[:1]}")
    mean = float(np.mean(measured))
    gap = np.array(predicted) - np.array(measured)
    return LoadRow(
        framework=framework,
        concurrent=concurrent,
        correlation=_correlation(predicted, measured),
        rank_correlation=_correlation(_ranks(predicted), _ranks(measured)),
        hop_correlation=_correlation(_ranks(hops), _ranks(measured)),
        error=100.0 * float(np.abs(gap).mean()) / mean,
        bias=100.0 * float(gap.mean()) / mean,
        failed=len(runs) - len(predicted),
        predicted=tuple(predicted),
        measured=tuple(measured),
        hops=tuple(hops),
    )


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """0 where one of them does not vary."""
    if min(np.std(a), np.std(b)) == 0.0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; ties share their mean rank."""
    array = np.asarray(values, dtype=np.float64)
    below = (array[:, None] > array[None, :]).sum(axis=1)
    ties = (array[:, None] == array[None, :]).sum(axis=1)
    return (below + (ties + 1) / 2).tolist()
