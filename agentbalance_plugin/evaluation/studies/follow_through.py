"""Whether what is asked for is what is spent: mean budgets, hard caps, and predictions per task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.budget import NANODOLLARS_PER_USD, Budget
from agentbalance_plugin.core.intervals import COVERAGE
from agentbalance_plugin.core.policy import Knobs
from agentbalance_plugin.evaluation.studies.hard_caps import run_capped
from agentbalance_plugin.evaluation.studies.metered import (
    MeteredRun,
    Task,
    over_cost,
    percent_cut,
    percent_right,
    run_metered,
)
from agentbalance_plugin.evaluation.studies.pictures import new_figure, save_figure
from agentbalance_plugin.evaluation.studies.setting import TEAM, Setting, Ticker
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.pacing import Pacer

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Quantity = Literal["cost_usd", "latency_s"]

BAND = (0.85, 1.0)
_CAP = 4.0
_ORDERS = 3
_BINS = 10
# Offsets towards stronger pools: what spending more than the policy thinks right would bring.
_DEARER = (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Stream:
    """One budget on the test queries.

    Args:
        budget_usd: B.
        spent: mean cost of a run under `Budget.average(cost_usd=B, max_cost_usd=4 B)`, over B;
            one for each order of the queries.
        right: share of right answers, in percent, mean over the orders.
        free: mean cost of a run under the hard cap 4 B alone, over B: what the policy spends where
            it is not asked to save. Below the band, no more is spent as no more is predicted to
            help.
        dearer_on_val: most points that dearer settings within B and the cap add to free choice on
            validation queries; None where free choice reaches the band.
        over_cap: runs that billed more than 4 B.
        hard_right: share of right answers under `Budget(cost_usd=B)`, in percent.
        hard_spent: mean cost over B there.
        hard_most: dearest run over B there.
        hard_over: runs that billed more than B there.
        hard_cut: share of runs there with a call that was denied or cut off, in percent.
    """

    budget_usd: float
    spent: tuple[float, ...]
    right: float
    free: float
    dearer_on_val: float | None
    over_cap: int
    hard_right: float
    hard_spent: float
    hard_most: float
    hard_over: int
    hard_cut: float

    @property
    def binds(self) -> bool:
        """Whether the policy would spend the budget if it were free to."""
        return self.free >= BAND[0]

    @property
    def in_band(self) -> bool:
        return all(BAND[0] <= share <= BAND[1] for share in self.spent)


@dataclass(frozen=True)
class Calibration:
    """Predicted against spent, over the runs of all budgets.

    Args:
        covered: per benchmark and for "all": share of runs inside their intervals.
        predicted, actual: means of groups of runs with about equal prediction, ascending.
        ratio: mean predicted over mean actual.
    """

    quantity: Quantity
    covered: dict[str, float]
    predicted: tuple[float, ...]
    actual: tuple[float, ...]
    ratio: float


@dataclass(frozen=True)
class FollowThrough:
    """What the study found on one suite."""

    suite: str
    queries: int
    streams: tuple[Stream, ...]
    calibration: tuple[Calibration, ...]

    @property
    def name(self) -> str:
        return f"follow-through-{self.suite}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        streams = [
            {**asdict(each), "binds": each.binds, "in_band": each.in_band} for each in self.streams
        ]
        return {
            "study": "follow-through",
            "suite": self.suite,
            "queries": self.queries,
            "streams": streams,
            "calibration": [asdict(each) for each in self.calibration],
            "replayed": True,
        }

    def to_markdown(self) -> str:
        lines = [
            f"### {self.suite}: {self.queries} test queries",
            "",
            "| B, USD | spent / B | right | free / B | hard cap B: spent / B | dearest / B | "
            "over | cut | right |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for each in self.streams:
            shares = " ".join(f"{share:.3f}" for share in each.spent)
            free = f"{each.free:.2f}"
            if each.dearer_on_val is not None:
                free += f" (dearer: {each.dearer_on_val:+.1f} points on val)"
            lines.append(
                f"| {each.budget_usd:.6f} | {shares} | {each.right:.1f} % | {free} | "
                f"{each.hard_spent:.2f} | {each.hard_most:.3f} | {each.hard_over} | "
                f"{each.hard_cut:.1f} % | {each.hard_right:.1f} % |"
            )
        over = sum(each.over_cap for each in self.streams)
        lines += [
            "",
            f"Runs over the cap 4 B of their mean budget: {over}.",
            "",
            f"| predicted | inside the {COVERAGE:.0%} interval | by benchmark | "
            "mean predicted / mean actual |",
            "|---|---|---|---|",
        ]
        for each in self.calibration:
            parts = ", ".join(
                f"{name} {share:.1%}" for name, share in each.covered.items() if name != "all"
            )
            lines.append(
                f"| {each.quantity} | {each.covered['all']:.1%} | {parts} | {each.ratio:.2f} |"
            )
        return "\n".join(lines) + "\n"

    def draw(self, folder: Path) -> list[Path]:
        figure, (spent, right, cost, latency) = new_figure(4)
        budgets = [each.budget_usd for each in self.streams]
        spent.axhspan(*BAND, alpha=0.2, color="tab:green", label="band")
        for each in self.streams:
            spent.scatter(
                [each.budget_usd] * len(each.spent), each.spent, color="tab:blue",
                marker="o" if each.binds else "x",
            )  # fmt: skip
        spent.set(xscale="log", xlabel="mean budget, USD", ylabel="mean cost / budget",
                  title="x: more is not predicted to help")  # fmt: skip
        right.plot(budgets, [each.right for each in self.streams], marker="o", label="average")
        right.plot(budgets, [each.hard_right for each in self.streams], marker="s", label="hard")
        right.set(xscale="log", xlabel="budget, USD", ylabel="right, %", title=self.suite)
        right.legend()
        for axes, each in zip((cost, latency), self.calibration, strict=True):
            ends = [min(each.predicted + each.actual), max(each.predicted + each.actual)]
            axes.plot(ends, ends, color="grey", linewidth=1)
            axes.plot(each.predicted, each.actual, marker="o")
            axes.set(xscale="log", yscale="log", xlabel=f"predicted {each.quantity}",
                     ylabel="mean of the runs",
                     title=f"{each.covered['all']:.1%} in 90 % intervals")  # fmt: skip
        return save_figure(figure, folder, self.name)


def study_follow_through(setting: Setting, ticker: Ticker) -> FollowThrough:
    """Stream the test queries under mean and hard budgets, on the policy's plans.

    Mean budgets go through the pacer, hard ones through the meter, as live runs do.
    """
    t1, t2, t3 = setting.budgets.cost_usd
    budgets = (t1, float(np.sqrt(t1 * t2)), t2, float(np.sqrt(t2 * t3)), t3)
    test = setting.traces.positions("test")
    streams: list[Stream] = []
    paced: list[tuple[int, MeteredRun]] = []
    for budget in budgets:
        tick = ticker(f"B = {budget:.6f}", (_ORDERS + 2) * len(test))
        stream, runs = _stream(setting, test, budget, tick)
        streams.append(stream)
        paced += runs
    tick = ticker("intervals", len(paced))
    return FollowThrough(
        suite=setting.suite,
        queries=len(test),
        streams=tuple(streams),
        calibration=_calibrate(setting, paced, tick),
    )


def _stream(
    setting: Setting, test: IntArray, budget_usd: float, tick: Callable[[], None]
) -> tuple[Stream, list[tuple[int, MeteredRun]]]:
    """One budget, and the runs of its first order."""
    mean = Budget.average(cost_usd=budget_usd, max_cost_usd=_CAP * budget_usd)
    cap = Budget(cost_usd=_CAP * budget_usd)
    orders: list[list[MeteredRun]] = []
    first: list[tuple[int, MeteredRun]] = []
    for seed in range(_ORDERS):
        order = np.random.default_rng(setting.seed + seed).permutation(test).tolist()
        pacer = Pacer(mean, price_usd=setting.policy.price_for(TEAM, mean, setting.catalog))
        orders.append(run_metered(setting.replay, _paced(setting, order, pacer, tick)))
        if seed == 0:
            first = list(zip(order, orders[0], strict=True))
    free_knobs = Knobs(price_usd=0.0)
    free = run_capped(setting, test.tolist(), cap, free_knobs, tick)
    hard = run_capped(setting, test.tolist(), Budget(cost_usd=budget_usd), free_knobs, tick)
    free_share = _mean_usd(free) / budget_usd
    stream = Stream(
        budget_usd=budget_usd,
        spent=tuple(_mean_usd(runs) / budget_usd for runs in orders),
        right=float(np.mean([percent_right(runs) for runs in orders])),
        free=free_share,
        dearer_on_val=None if free_share >= BAND[0] else _dearer(setting, cap, budget_usd),
        over_cap=sum(over_cost(runs) for runs in orders),
        hard_right=percent_right(hard),
        hard_spent=_mean_usd(hard) / budget_usd,
        hard_most=max(run.nanodollars for run in hard) / NANODOLLARS_PER_USD / budget_usd,
        hard_over=over_cost(hard),
        hard_cut=percent_cut(hard),
    )
    return stream, first


def _paced(
    setting: Setting, order: list[int], pacer: Pacer, tick: Callable[[], None]
) -> list[Task]:
    """One after the other: each is planned when those before it have been paid for."""

    def task(position: int) -> Task:
        text = setting.text(position)
        ticket = None

        def start() -> tuple[Plan, Budget]:
            nonlocal ticket
            ticket = pacer.start()
            knobs = Knobs(price_usd=ticket.price_usd)
            plan = setting.policy.plan(text, TEAM, ticket.budget, setting.catalog, knobs)
            return plan, ticket.budget

        def end(nanodollars: int) -> None:
            assert ticket is not None
            pacer.settle(ticket, nanodollars)
            tick()

        return Task(setting.traces.queries[position].key, text, start, end)

    return [task(position) for position in order]


def _dearer(setting: Setting, cap: Budget, budget_usd: float) -> float:
    """Points that dearer settings within the budget add to free choice, on validation queries."""
    rows = setting.traces.positions("val").tolist()
    right: list[float] = []
    for delta in (0.0, *_DEARER):
        knobs = Knobs(price_usd=0.0, delta=delta)
        runs = run_capped(setting, rows, cap, knobs)
        if delta == 0.0 or _mean_usd(runs) <= budget_usd:
            right.append(percent_right(runs))
    return max(right[1:], default=right[0]) - right[0]


def _mean_usd(runs: list[MeteredRun]) -> float:
    return float(np.mean([run.nanodollars for run in runs])) / NANODOLLARS_PER_USD


def _calibrate(
    setting: Setting, runs: list[tuple[int, MeteredRun]], tick: Callable[[], None]
) -> tuple[Calibration, Calibration]:
    cost: list[tuple[float, float]] = []
    latency: list[tuple[float, float]] = []
    for position, run in runs:
        text = setting.text(position)
        found = setting.policy.intervals(text, run.plan, TEAM, setting.catalog)
        cost.append(found.cost_usd)
        latency.append(found.latency_s)
        tick()
    benchmark = np.array([setting.traces.queries[position].benchmark for position, _ in runs])
    expected = [run.plan.expected for _, run in runs]

    def calibration(
        quantity: Quantity, actual: FloatArray, between: list[tuple[float, float]]
    ) -> Calibration:
        predicted = np.array([np.nan if e is None else getattr(e, quantity) for e in expected])
        low, high = np.array(between).T
        inside = (low <= actual) & (actual <= high)
        covered = {"all": float(inside.mean())}
        for name in dict.fromkeys(benchmark.tolist()):
            covered[name] = float(inside[benchmark == name].mean())
        groups = np.array_split(np.argsort(predicted, kind="stable"), _BINS)
        return Calibration(
            quantity=quantity,
            covered=covered,
            predicted=tuple(float(predicted[group].mean()) for group in groups),
            actual=tuple(float(actual[group].mean()) for group in groups),
            ratio=float(predicted.mean() / actual.mean()),
        )

    dollars = np.array([run.nanodollars for _, run in runs]) / NANODOLLARS_PER_USD
    seconds = np.array([run.latency_s for _, run in runs])
    return (
        calibration("cost_usd", dollars, cost),
        calibration("latency_s", seconds, latency),
    )
