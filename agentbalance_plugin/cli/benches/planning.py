"""How long a plan takes: encode, plan, validate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from rich.console import Console

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.benches import made_up
from agentbalance_plugin.cli.benches.encoder_pass import encoder_pass
from agentbalance_plugin.cli.benches.measure import Figure, Findings, Ratio, Span, in_turns, timed
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Team

AGENTS, BACKBONES = 8, 14
_BATCH = 64
# Texts planned in one round: enough for the caches to be warm again after the yardstick ran.
_IN_A_ROW = 20
# Plans of each size.
_SIZED = 60
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
    each: dict[str, list[Span]] = {name: [] for name in BUDGETS}

    def plans(name: str) -> Span:
        spans = [
            timed(lambda text=text: planner.plan(text, BUDGETS[name]))
            for text in planner.texts(_IN_A_ROW)
        ]
        each[name].extend(spans)
        return Span(median(s.wall for s in spans), median(s.busy for s in spans))

    measured = in_turns(
        {
            "encoder": lambda: timed(encode),
            **{name: (lambda name=name: plans(name)) for name in BUDGETS},
        },
        rounds,
        console,
        title="against an encoder",
        seed=seed,
    )
    encoder = measured.pop("encoder")
    found.add_spans("encoder pass", encoder)
    for name, medians in measured.items():
        spans = each[name][_IN_A_ROW:]
        found.add_spans(f"plan, {name}", spans)
        found.compare_spans(f"plan, {name} / encoder pass", medians, encoder, bar=1 / 40)
        for label, times in (
            (f"plan, {name}: p99 / p50", [s.wall for s in spans]),
            (f"plan, {name}: p99 / p50, processor", [s.busy for s in spans]),
        ):
            found.ratios[label] = Ratio([float(np.percentile(times, 99) / median(times))], bar=4.0)
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

    def batch() -> None:
        for plan in plan_batch(planner.texts(_BATCH), planner.team, budget, planner.catalog):
            plan.validate(planner.team, planner.catalog)

    def singly() -> None:
        for text in planner.texts(_BATCH):
            planner.plan(text, budget)

    measured = in_turns(
        {"batch": lambda: timed(batch), "one by one": lambda: timed(singly)},
        rounds,
        console,
        title="batches",
        seed=seed,
    )
    for name, spans in measured.items():
        found.add_spans(f"{_BATCH} plans, {name}", spans)
    found.compare(
        f"rate of a batch of {_BATCH} / one by one",
        [span.wall for span in measured["one by one"]],
        [span.wall for span in measured["batch"]],
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
            first = timed(lambda planner=planner: planner.plan(texts[0], budget))
            times = [
                timed(lambda planner=planner, text=text: planner.plan(text, budget)).busy
                for text in planner.texts(_SIZED)
            ]
            medians[agents, backbones] = median(times)
            label = f"plan, {agents} agents, {backbones:,} backbones"
            found.figures[f"{label}, processor"] = Figure([1e3 * t for t in times], "ms")
            found.figures[f"{label}, the first of all"] = Figure([1e3 * first.wall], "ms")

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
