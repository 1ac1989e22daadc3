"""Catalogs that the policy was not trained on: unseen, near-identical, small and large ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.core.reference import REFERENCE_AGENTS
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.studies.catalogs import (
    PROFILE_QUERIES,
    profiled_in_short,
    twins,
)
from agentbalance_plugin.evaluation.studies.pictures import new_figure, save_figure
from agentbalance_plugin.evaluation.studies.routers import identity_router, profile_router
from agentbalance_plugin.evaluation.studies.setting import (
    AXES,
    Curve,
    Setting,
    Span,
    Ticker,
    highest,
    plans_curve,
    policy_curve,
    singles_curve,
    span_of,
)
from agentbalance_plugin.evaluation.trials import Axis
from agentbalance_plugin.plan import LateGate, Plan

_TWINS = 6
_DRAWS = 4
# Further backbones count if they were recorded on so many of a benchmark's queries.
_ANSWERED = 0.95


@dataclass(frozen=True)
class Row:
    """One catalog or method on one axis.

    Args:
        auc: in percent.
        beside: what it is compared with.
        difference: AUC less that of `beside`, in points; None for the row that others are beside.
        interval: 95 %, paired over queries.
        planning_ms: of a sweep over all operating points of one query; 0 where nothing is planned.
    """

    name: str
    axis: Axis
    backbones: int
    auc: float
    beside: str = ""
    difference: float | None = None
    interval: tuple[float, float] | None = None
    planning_ms: float = 0.0


@dataclass(frozen=True)
class Unseen:
    """What the study found on one suite: tables of rows by title."""

    suite: str
    tables: dict[str, tuple[Row, ...]]

    @property
    def name(self) -> str:
        return f"unseen-{self.suite}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        tables = {title: [asdict(row) for row in rows] for title, rows in self.tables.items()}
        return {"study": "unseen", "suite": self.suite, "tables": tables, "replayed": True}

    def to_markdown(self) -> str:
        lines = [f"### {self.suite}", ""]
        for title, rows in self.tables.items():
            lines += [
                f"**{title}**",
                "",
                "| | axis | backbones | AUC | difference | to | planning, ms |",
                "|---|---|---|---|---|---|---|",
            ]
            for row in rows:
                difference = ""
                if row.difference is not None and row.interval is not None:
                    low, high = row.interval
                    difference = f"{row.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
                planning = f"{row.planning_ms:.1f}" if row.planning_ms else ""
                lines.append(
                    f"| {row.name} | {row.axis} | {row.backbones} | {row.auc:.1f} | {difference} | "
                    f"{row.beside} | {planning} |"
                )
            lines.append("")
        return "\n".join(lines)

    def draw(self, folder: Path) -> list[Path]:
        titles = [title for title, rows in self.tables.items() if any(r.difference for r in rows)]
        figure, axes = new_figure(len(titles), width=5.2)
        for each, title in zip(axes, titles, strict=True):
            rows = [row for row in self.tables[title] if row.interval is not None]
            for place, row in enumerate(rows):
                assert row.interval is not None
                low, high = row.interval
                colour = "tab:blue" if row.axis == "cost" else "tab:orange"
                each.plot([low, high], [place, place], color=colour)
                each.scatter([row.difference], [place], color=colour)
            each.axvline(0.0, color="grey", linewidth=1)
            each.set_yticks(range(len(rows)), [f"{row.name} ({row.axis})" for row in rows])
            each.tick_params(axis="y", labelsize=6)
            each.set(xlabel="difference of AUC, points", title=title)
        return save_figure(figure, folder, self.name)


def study_unseen(setting: Setting, ticker: Ticker) -> Unseen:
    """Score the policy, without training it again, with catalogs it does not know."""
    if not setting.traces.unseen:
        raise ValueError(f"suite {setting.suite!r} names no unseen backbones")
    # A profile of fifty queries is a draw; how much hangs on it shows in others.
    mixed = [_mixed(setting, setting.seed + draw) for draw in range(_DRAWS)]
    study = _Study(setting, ticker, mixed)
    tables = {
        f"With the unseen backbones, by {PROFILE_QUERIES} queries each": study.added(),
        "Only unseen backbones and one candidate": study.only_one_known(),
        "Routers to one backbone": study.routers(),
        "Near-identical backbones": study.near_identical(),
        "Size of the catalog": study.sizes(),
    }
    return Unseen(setting.suite, tables)


def _mixed(setting: Setting, seed: int) -> Catalog:
    """The candidates, and the unseen by a short profile."""
    traces = setting.traces
    profiles = profiled_in_short(traces, seed=seed)
    unseen = traces.catalog.subset(traces.unseen).with_profiles(profiles)
    return Catalog([*setting.catalog.values(), *unseen.values()], setting.catalog.kinds)


class _Study:
    def __init__(self, setting: Setting, ticker: Ticker, mixed: list[Catalog]) -> None:
        self._setting = setting
        self._ticker = ticker
        self._draws = mixed
        self._mixed = mixed[0]
        candidates = setting.traces.candidates
        self._spans = {
            axis: span_of(
                singles_curve(candidates, setting.replay, axis), highest(setting.traces, axis)
            )
            for axis in AXES
        }
        self._known: dict[Axis, Curve] = {}

    def added(self) -> tuple[Row, ...]:
        rows: list[Row] = []
        for axis in AXES:
            known = self._curve("candidates", self._setting.catalog, axis)
            self._known[axis] = known
            span = self._spans[axis]
            rows.append(_row("candidates", axis, len(self._setting.catalog), span, known))
            for number, catalog in enumerate(self._draws, start=1):
                name = f"candidates + unseen, draw {number}"
                more = self._curve(name, catalog, axis)
                rows.append(_row(name, axis, len(catalog), span, more, ("candidates", known)))
        return tuple(rows)

    def only_one_known(self) -> tuple[Row, ...]:
        """Beside the mix of two of the very same backbones: the best single one and better."""
        setting = self._setting
        rows: list[Row] = []
        for name in setting.traces.candidates:
            names = (name, *setting.traces.unseen)
            for axis in AXES:
                catalog = self._mixed.subset(names)
                singles = singles_curve(names, setting.replay, axis)
                span = span_of(singles, highest(setting.traces, axis))
                best = singles.picked([int(singles.val.right.mean(axis=1).argmax())])
                curve = self._curve(f"unseen + {name}", catalog, axis)
                rows.append(
                    _row(f"unseen + {name}", axis, len(names), span, curve,
                         ("best single backbone", best), samples=200)
                )  # fmt: skip
        return tuple(rows)

    def routers(self) -> tuple[Row, ...]:
        setting, span = self._setting, self._spans["cost"]
        names = list(setting.catalog)
        identity = identity_router(setting, names)
        beside = ("identities, candidates", identity)
        queries = sum(len(setting.traces.positions(split)) for split in ("val", "test"))
        rows = [_row("identities, candidates", "cost", len(names), span, identity)]
        for title, catalog in (("candidates", setting.catalog), ("all", self._mixed)):
            tick = self._ticker(f"router by profiles, {title}", queries)
            curve = profile_router(setting, catalog, tick)
            name = "profiles, candidates" + ("" if title == "candidates" else " + unseen")
            rows.append(_row(name, "cost", len(catalog), span, curve, beside))
        rows.append(
            _row("the policy, candidates", "cost", len(names), span, self._known["cost"], beside)
        )
        return tuple(rows)

    def near_identical(self) -> tuple[Row, ...]:
        """Copies of one backbone, beside the best team that is the same for every query."""
        setting = self._setting
        rows: list[Row] = []
        singles = singles_curve(setting.traces.candidates, setting.replay, "cost")
        middling = np.argsort(singles.val.right.mean(axis=1))[len(setting.catalog) // 2]
        reference = setting.traces.reference
        assert reference is not None
        for name in dict.fromkeys((setting.traces.candidates[int(middling)], reference)):
            traces = twins(setting.traces, name, _TWINS, setting.seed)
            replay = Replay(traces, seed=setting.seed)
            for axis in AXES:
                high = highest(traces, axis)
                span = span_of(singles_curve(traces.candidates, replay, axis), high)
                static = plans_curve(_static_teams(traces.candidates), replay, axis)
                curve = self._curve(
                    f"twins of {name}", traces.profiled_candidates(), axis, replay=replay
                )
                rows.append(
                    _row(f"{_TWINS} twins of {name}", axis, _TWINS, span, curve,
                         ("best static teams", static))
                )  # fmt: skip
        return tuple(rows)

    def sizes(self) -> tuple[Row, ...]:
        """Benchmark by benchmark, over all backbones that were recorded on it."""
        setting = self._setting
        rows: list[Row] = []
        parts = [setting.everyone(name) for name in setting.traces.benchmarks]
        largest = min(len(_grown(part, setting.traces, 10**6, setting.seed)) for part in parts)
        sizes = [len(setting.catalog), *(s for s in (25,) if s < largest), 0]
        for axis in AXES:
            base: Curve | None = None
            for size in sizes:
                curves: list[Curve] = []
                backbones: list[int] = []
                for part in parts:
                    names = _grown(part, setting.traces, size or 10**6, setting.seed)
                    backbones.append(len(names))
                    replay = Replay(part, seed=setting.seed)
                    catalog = part.catalog.subset(names).with_profiles(part.profiles("train"))
                    curves.append(
                        self._curve(f"{len(names)} backbones", catalog, axis, replay=replay)
                    )
                curve = curves[0]
                for other in curves[1:]:
                    curve = curve.beside(other)
                name = f"all {min(backbones)}-{max(backbones)}" if not size else str(size)
                beside = None if base is None else (str(sizes[0]), base)
                rows.append(_row(name, axis, max(backbones), self._spans[axis], curve, beside))
                base = base or curve
        return tuple(rows)

    def _curve(
        self, title: str, catalog: Catalog, axis: Axis, *, replay: Replay | None = None
    ) -> Curve:
        setting = self._setting
        replay = replay or setting.replay
        queries = sum(len(replay.traces.positions(split)) for split in ("val", "test"))
        tick = self._ticker(f"{axis}: {title}", queries)
        return policy_curve(setting.policy, catalog, replay, axis, tick)


def _row(
    name: str,
    axis: Axis,
    backbones: int,
    span: Span,
    curve: Curve,
    beside: tuple[str, Curve] | None = None,
    samples: int = 1000,
) -> Row:
    found = Row(name, axis, backbones, span.auc(curve), planning_ms=curve.planning_ms)
    if beside is None:
        return found
    return replace(
        found,
        beside=beside[0],
        difference=found.auc - span.auc(beside[1]),
        interval=span.difference(curve, beside[1], samples),
    )


def _grown(part: TraceSet, suite: TraceSet, size: int, seed: int) -> tuple[str, ...]:
    """The candidates, then the unseen, then others in a random order; all that answered."""
    answered = (part.correct >= 0).mean(axis=0) > _ANSWERED
    known = [name for name, enough in zip(part.backbones, answered, strict=True) if enough]
    first = [name for name in (*suite.candidates, *suite.unseen) if name in part.backbones]
    rest = [name for name in known if name not in first]
    order: list[int] = np.random.default_rng(seed).permutation(len(rest)).tolist()
    return tuple([*first, *(rest[place] for place in order)][:size])


def _static_teams(names: tuple[str, ...]) -> list[Plan]:
    """Singles, votes and cascades of equal agents.

    Thresholds lie between the confidence of voters of weight one that agree and that of those who
    differ.
    """
    agents = REFERENCE_AGENTS
    plans = [Plan(assignment={agents[0]: name}, decider=agents[0]) for name in names]
    for size in (3, 4):
        taken = agents[:size]
        for team in combinations(names, size):
            seats: dict[str, str | None] = dict(zip(taken, team, strict=True))
            plans.append(Plan(assignment=seats, decision="vote"))
            gates = {taken[2]: LateGate(taken[:2], 0.65)}
            if size == 4:
                gates[taken[3]] = LateGate(taken[:3], 0.48)
            plans.append(
                Plan(assignment=seats, decision="vote", late_gates=gates, hop_limit=size - 1)
            )
            plans.append(Plan(assignment=seats, decision="vote", stop_at=0.5))
    return plans
