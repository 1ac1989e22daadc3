"""How long a plan takes: encode, plan, validate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.benches import made_up
from agentbalance_plugin.cli.benches.encoder_pass import encoder_pass
from agentbalance_plugin.cli.benches.measure import Figure, Findings, Ratio, in_turns, seconds
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Team

AGENTS, BACKBONES = 8, 14
_BATCH = 64
# Texts planned in one round: enough for the caches to be warm again after the yardstick ran.
_IN_A_ROW = 20
_MORE_AGENTS = (4, 8, 16, 32, 64)
_MORE_BACKBONES = (14, 50, 200, 1_000)

BUDGETS = {
    "hard cap": Budget(cost_usd=0.004),
    "hard cap and deadline": Budget(cost_usd=0.004, latency_s=12.0),
    "mean": Budget.average(cost_usd=0.001, max_cost_usd=0.01),
}

BatchCall = Callable[[Sequence[str], Team, Budget, Catalog], Sequence[Plan]]


class _Planner:
    """Plans made-up tasks one after the other, never the same text twice in a row."""

    def __init__(self, policy: Policy, team: Team, catalog: Catalog, texts: list[str]) -> None:
        self.policy, self.team, self.catalog = policy, team, catalog
        self._texts = texts
        self._next = 0

    def texts(self, count: int) -> list[str]:
        begin, self._next = self._next, self._next + count
        return [self._texts[k % len(self._texts)] for k in range(begin, begin + count)]

    def plan(self, text: str, budget: Budget) -> None:
        plan = self.policy.plan(text, self.team, budget, self.catalog)
        plan.validate(self.team, self.catalog)


def bench_planning(*, rounds: int, seed: int, console: Console) -> Findings:
    """Planning against one pass of a sentence encoder, a batch against one by one, and growth."""
    policy = Policy.load("default")
    traces = TraceSet.shipped("reasoning")
    texts = made_up.tasks(40 * _BATCH, seed)
    found = Findings("planning")
    catalog = made_up.catalog(traces, BACKBONES, seed)
    planner = _Planner(policy, made_up.team(AGENTS), catalog, texts)
    _against_encoder(found, planner, rounds, seed, console)
    _in_batches(found, planner, max(3, rounds // 5), seed, console)
    _growth(found, policy, traces, texts, seed, console)
    return found


def _against_encoder(
    found: Findings, planner: _Planner, rounds: int, seed: int, console: Console
) -> None:
    encode = encoder_pass(seed)
    each: dict[str, list[float]] = {name: [] for name in BUDGETS}
    work: dict[str, list[float]] = {name: [] for name in BUDGETS}

    def plans(name: str) -> float:
        times: list[float] = []
        for text in planner.texts(_IN_A_ROW):
            began, busy = time.perf_counter(), time.thread_time()
            planner.plan(text, BUDGETS[name])
            work[name].append(time.thread_time() - busy)
            times.append(time.perf_counter() - began)
        each[name].extend(times)
        return float(np.median(times))

    measured = in_turns(
        {
            "encoder": lambda: seconds(encode),
            **{name: (lambda name=name: plans(name)) for name in BUDGETS},
        },
        rounds,
        console,
        title="against an encoder",
        seed=seed,
    )
    encoder = measured.pop("encoder")
    found.figures["encoder pass"] = Figure([1e3 * t for t in encoder], "ms")
    for name, medians in measured.items():
        times, busy = each[name][_IN_A_ROW:], work[name][_IN_A_ROW:]
        found.figures[f"plan, {name}"] = Figure([1e3 * t for t in times], "ms")
        found.figures[f"plan, {name}, processor time"] = Figure([1e3 * t for t in busy], "ms")
        found.compare(f"plan, {name} / encoder pass", medians, encoder, bar=1 / 40)
        tail = float(np.percentile(times, 99) / np.median(times))
        found.ratios[f"plan, {name}: p99 / p50"] = Ratio([tail], bar=4.0)
        tail = float(np.percentile(busy, 99) / np.median(busy))
        found.ratios[f"plan, {name}: p99 / p50 of processor time"] = Ratio([tail])
    found.notes.append(
        f"{AGENTS} agents, {BACKBONES} backbones; a plan is encoded, made and validated, each for "
        "another text. Wall time holds what other processes took; processor time does not."
    )


def _in_batches(
    found: Findings, planner: _Planner, rounds: int, seed: int, console: Console
) -> None:
    plan_batch: BatchCall | None = getattr(planner.policy, "plan_batch", None)
    if plan_batch is None:
        found.notes.append("A policy has no plan_batch yet: batches are not measured.")
        return
    budget = BUDGETS["hard cap and deadline"]

    def batch() -> float:
        texts = planner.texts(_BATCH)
        began = time.perf_counter()
        for plan in plan_batch(texts, planner.team, budget, planner.catalog):
            plan.validate(planner.team, planner.catalog)
        return time.perf_counter() - began

    def singly() -> float:
        texts = planner.texts(_BATCH)
        began = time.perf_counter()
        for text in texts:
            planner.plan(text, budget)
        return time.perf_counter() - began

    measured = in_turns(
        {"batch": batch, "one by one": singly}, rounds, console, title="batches", seed=seed
    )
    for name, times in measured.items():
        found.figures[f"{_BATCH} plans, {name}"] = Figure([1e3 * t for t in times], "ms")
    found.compare(
        f"rate of a batch of {_BATCH} / one by one",
        measured["one by one"],
        measured["batch"],
        bar=8.0,
        better="above",
    )


def _growth(
    found: Findings,
    policy: Policy,
    traces: TraceSet,
    texts: list[str],
    seed: int,
    console: Console,
) -> None:
    sizes = [(agents, BACKBONES) for agents in _MORE_AGENTS]
    sizes += [(AGENTS, backbones) for backbones in _MORE_BACKBONES if backbones != BACKBONES]
    sizes.append((_MORE_AGENTS[-1], _MORE_BACKBONES[-1]))
    budget = BUDGETS["hard cap and deadline"]
    medians: dict[tuple[int, int], float] = {}
    with counting(console) as progress:
        for agents, backbones in progress.track(sizes, description="growth"):
            catalog = made_up.catalog(traces, backbones, seed)
            planner = _Planner(policy, made_up.team(agents), catalog, texts)
            first = seconds(lambda planner=planner: planner.plan(texts[0], budget))
            times = [
                seconds(lambda planner=planner, text=text: planner.plan(text, budget))
                for text in planner.texts(60)
            ]
            medians[agents, backbones] = float(np.median(times))
            label = f"plan, {agents} agents, {backbones:,} backbones"
            found.figures[label] = Figure([1e3 * t for t in times], "ms")
            found.figures[f"{label}, the first of all"] = Figure([1e3 * first], "ms")

    def exponent(small: tuple[int, int], large: tuple[int, int]) -> float:
        sizes = max(large[0] / small[0], large[1] / small[1])
        return math.log(medians[large] / medians[small]) / math.log(sizes)

    usual, few, many = (AGENTS, BACKBONES), _MORE_AGENTS[0], _MORE_AGENTS[-1]
    most = _MORE_BACKBONES[-1]
    found.ratios[f"growth exponent, {few} to {many} agents"] = Ratio(
        [exponent((few, BACKBONES), (many, BACKBONES))], bar=2.0
    )
    found.ratios[f"growth exponent, {BACKBONES} to {most:,} backbones"] = Ratio(
        [exponent(usual, (AGENTS, most))], bar=1.0
    )
    found.ratios[f"{many} agents × {most:,} backbones / {AGENTS} × {BACKBONES}"] = Ratio(
        [medians[many, most] / medians[usual]], bar=25.0
    )
