"""How many questions a backbone's profile needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from agentbalance_plugin.evaluation.studies.catalogs import recorded_in_short
from agentbalance_plugin.evaluation.studies.pictures import new_figure, save_figure
from agentbalance_plugin.evaluation.studies.setting import (
    AXES,
    Setting,
    Ticker,
    highest,
    policy_curve,
    singles_curve,
    span_of,
)
from agentbalance_plugin.evaluation.trials import Axis

SIZES = (0, 10, 25, 50, 100, 200)
_DRAWS = 3


@dataclass(frozen=True)
class Row:
    """Profiles of one size on one axis.

    Args:
        questions: that each backbone was profiled on.
        areas: AUC in percent, of each draw of the questions.
        difference: their mean less the AUC of full profiles, in points.
    """

    axis: Axis
    questions: int
    areas: tuple[float, ...]
    difference: float


@dataclass(frozen=True)
class ProfileSizes:
    """What the study found on one suite.

    Args:
        singles: AUC by axis of a mix of two single backbones that was chosen by right answers.
    """

    suite: str
    rows: tuple[Row, ...]
    singles: dict[Axis, float]

    @property
    def name(self) -> str:
        return f"profiles-{self.suite}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "study": "profiles",
            "suite": self.suite,
            "rows": [asdict(row) for row in self.rows],
            "singles": dict(self.singles),
            "replayed": True,
        }

    def to_markdown(self) -> str:
        lines = [
            f"### {self.suite}",
            "",
            "| questions of a profile | AUC by cost | to the full one | AUC by latency | "
            "to the full one |",
            "|---|---|---|---|---|",
        ]
        for questions in dict.fromkeys(row.questions for row in self.rows):
            cells = [str(questions)]
            for axis in AXES:
                row = next(r for r in self.rows if (r.axis, r.questions) == (axis, questions))
                low, high = min(row.areas), max(row.areas)
                spread = f" ({low:.1f} to {high:.1f})" if len(row.areas) > 1 else ""
                cells += [f"{fmean(row.areas):.1f}{spread}", f"{row.difference:+.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
        mixes = ", ".join(f"{self.singles[axis]:.1f} by {axis}" for axis in AXES)
        lines += [
            "",
            f"A mix of two single backbones, chosen by right answers on val: {mixes}.",
            "",
        ]
        return "\n".join(lines)

    def draw(self, folder: Path) -> list[Path]:
        figure, axes = new_figure(len(AXES), width=4.0)
        for each, axis in zip(axes, AXES, strict=True):
            rows = [row for row in self.rows if row.axis == axis]
            places = range(len(rows))
            each.plot(places, [fmean(row.areas) for row in rows], marker="o", label="policy")
            low, high = ([which(row.areas) for row in rows] for which in (min, max))
            each.fill_between(places, low, high, alpha=0.2)
            each.axhline(
                self.singles[axis], color="grey", linestyle="--", label="mix of single backbones"
            )
            each.set_xticks(places, [str(row.questions) for row in rows])
            each.set(xlabel="questions of a profile", ylabel=f"AUC by {axis}, percent")
        axes[0].legend(frameon=False)
        return save_figure(figure, folder, self.name)


def study_profile_sizes(
    setting: Setting, ticker: Ticker, sizes: Sequence[int] = SIZES
) -> ProfileSizes:
    """Score the policy, not trained again, with all candidates profiled on few questions.

    Args:
        sizes: how many; those of the training split come after them.
    """
    traces = setting.traces
    plain = traces.catalog.subset(traces.candidates)
    full = len(traces.positions("train"))
    queries = sum(len(traces.positions(split)) for split in ("val", "test"))
    rows: list[Row] = []
    mixes: dict[Axis, float] = {}
    for axis in AXES:
        singles = singles_curve(traces.candidates, setting.replay, axis)
        span = span_of(singles, highest(traces, axis))
        mixes[axis] = span.auc(singles)
        areas: dict[int, tuple[float, ...]] = {}
        for size in (*(size for size in sizes if size < full), full):
            catalogs = [plain if size == 0 else setting.catalog]
            if 0 < size < full:
                seeds = range(setting.seed, setting.seed + _DRAWS)
                catalogs = [recorded_in_short(traces, size, s) for s in seeds]
            curves = [
                policy_curve(
                    setting.policy,
                    catalog,
                    setting.replay,
                    axis,
                    ticker(f"{axis}: {size} questions", queries),
                )
                for catalog in catalogs
            ]
            areas[size] = tuple(span.auc(curve) for curve in curves)
        rows += [Row(axis, n, found, fmean(found) - areas[full][0]) for n, found in areas.items()]
    return ProfileSizes(setting.suite, tuple(rows), mixes)
