"""What a policy is worth on benchmarks it was not trained on, and whether it knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.checkpoint import load_checkpoint
from agentbalance_plugin.core.encoder import Features, RecordedEncoder
from agentbalance_plugin.core.novelty import Novelty
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.reference import reference_budgets
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import Query, TraceSet
from agentbalance_plugin.core.trainer import TrainerConfig, train
from agentbalance_plugin.evaluation.studies.pictures import new_figure, save_figure
from agentbalance_plugin.evaluation.studies.setting import (
    AXES,
    Curve,
    Setting,
    Ticker,
    policy_curve,
    singles_curve,
    span_of,
)
from agentbalance_plugin.evaluation.trials import Axis

FloatArray = NDArray[np.float64]

HELD_OUT: dict[str, tuple[str, ...]] = {"maths": ("gsm8k", "math_l5"), "code": ("crux",)}
"""What is held out together: what is learned on one would tell of the other."""

_OTHERS = ("mmlu_pro", "mmlu")


@dataclass(frozen=True)
class Score:
    """One policy on the benchmarks that were held out.

    Args:
        auc: in percent.
        drop: AUC less that of the policy trained on everything, in points, with its 95 % interval;
            None for that policy itself.
    """

    policy: str
    axis: Axis
    auc: float
    drop: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Transfer:
    """Some benchmarks of a suite held out.

    Args:
        far: per benchmark, share of test queries that are far from the training queries.
        separates: chance that a held-out test query is further away than a known one (the area
            under the ROC curve), per held-out benchmark.
        distances: [deciles] of the distance of test queries, known and held out.
    """

    held_out: str
    benchmarks: tuple[str, ...]
    scores: tuple[Score, ...]
    far: dict[str, float]
    separates: dict[str, float]
    distances: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Transfers:
    """What the study found."""

    suite: str
    transfers: tuple[Transfer, ...]

    @property
    def name(self) -> str:
        return f"transfer-{self.suite}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        transfers = [asdict(each) for each in self.transfers]
        return {"study": "transfer", "suite": self.suite, "transfers": transfers, "replayed": True}

    def to_markdown(self) -> str:
        lines: list[str] = []
        for each in self.transfers:
            lines += [
                f"### Trained without {' and '.join(each.benchmarks)}, scored on it",
                "",
                "| | axis | AUC | less than trained on everything |",
                "|---|---|---|---|",
            ]
            for score in each.scores:
                drop = ""
                if score.drop is not None and score.interval is not None:
                    low, high = score.interval
                    drop = f"{score.drop:+.1f} [{low:+.1f}, {high:+.1f}]"
                lines.append(f"| {score.policy} | {score.axis} | {score.auc:.1f} | {drop} |")
            far = ", ".join(f"{name} {share:.0%}" for name, share in each.far.items())
            area = ", ".join(f"{name} {value:.2f}" for name, value in each.separates.items())
            lines += [
                "",
                f"Test queries far from the training queries: {far}. Chance that a held-out "
                f"query is further away than a known one: {area}.",
                "",
            ]
        return "\n".join(lines)

    def draw(self, folder: Path) -> list[Path]:
        figure, axes = new_figure(2 * len(self.transfers))
        for number, each in enumerate(self.transfers):
            scores, distances = axes[2 * number], axes[2 * number + 1]
            for axis, colour in zip(AXES, ("tab:blue", "tab:orange"), strict=True):
                rows = [score for score in each.scores if score.axis == axis]
                places = np.arange(len(rows)) + (0.2 if axis == "latency" else -0.2)
                scores.barh(places, [row.auc for row in rows], 0.35, color=colour, label=axis)
                scores.set_yticks(range(len(rows)), [row.policy for row in rows])
            scores.set(xlim=(60, 100), xlabel="AUC, %", title=f"held out: {each.held_out}")
            scores.tick_params(axis="y", labelsize=6)
            scores.legend()
            for name, values in each.distances.items():
                distances.plot(values, np.linspace(0.0, 1.0, len(values)), label=name)
            distances.set(xlabel="distance", ylabel="share of test queries nearer")
            distances.legend()
        return save_figure(figure, folder, self.name)


def study_transfer(
    setting: Setting, ticker: Ticker, keep: Path, config: TrainerConfig | None = None
) -> Transfers:
    """Train without some benchmarks and score on them, beside the setting's own policy.

    Args:
        setting: of the suite `reasoning`, with a policy that was trained on everything.
        keep: folder for the trained policies; those that are there are used as they are.
        config: of the trainings; the trainer's own by default.

    Raises:
        ValueError: a suite without the benchmarks that are held out.
        ImportError: torch is not installed (extra `train`).
    """
    missing = [
        name
        for names in HELD_OUT.values()
        for name in names
        if name not in setting.traces.benchmarks
    ]
    if missing:
        raise ValueError(f"suite {setting.suite!r} has no {', '.join(missing)}; take 'reasoning'")
    return Transfers(
        setting.suite,
        tuple(
            _transfer(setting, title, names, keep, config, ticker)
            for title, names in HELD_OUT.items()
        ),
    )


def _transfer(
    setting: Setting,
    title: str,
    held_out: tuple[str, ...],
    keep: Path,
    config: TrainerConfig | None,
    ticker: Ticker,
) -> Transfer:
    known = setting.part([name for name in setting.traces.benchmarks if name not in held_out])
    target = setting.part(held_out)
    suites = [known, *(setting.other_suite(name) for name in _OTHERS)]
    folder = keep / f"without-{title}"
    if not (folder / "policy.json").is_file():
        tick = ticker(f"training without {title}", 2)
        tick()
        train(suites, folder, config)
        tick()
    novelty = Novelty.of_traces(suites)
    encoder = RecordedEncoder(setting.traces)
    checkpoint = load_checkpoint(folder)
    # What is known of a backbone comes from the benchmarks that were not held out.
    profiled = known.profiled_candidates()
    full = target.profiled_candidates()
    rows = (
        ("trained on everything", setting.policy, full),
        ("trained without", Policy(checkpoint, encoder), profiled),
        (
            "trained without, agreement where far",
            Policy(checkpoint, encoder, novelty=novelty),
            profiled,
        ),
    )
    replay = Replay(target, seed=setting.seed)
    queries = sum(len(target.positions(split)) for split in ("val", "test"))
    scores: list[Score] = []
    for axis in AXES:
        singles = singles_curve(target.candidates, replay, axis)
        budgets = reference_budgets(target)
        span = span_of(singles, (budgets.cost_usd if axis == "cost" else budgets.latency_s)[-1])
        whole: Curve | None = None
        curves: list[tuple[str, Curve]] = []
        for name, policy, catalog in rows:
            tick = ticker(f"{axis}: {title}, {name}", queries)
            curves.append((name, policy_curve(policy, catalog, replay, axis, tick)))
        curves.append(("single backbones", singles))
        for name, curve in curves:
            score = Score(name, axis, span.auc(curve))
            if whole is not None:
                score = replace(
                    score,
                    drop=score.auc - span.auc(whole),
                    interval=span.difference(curve, whole),
                )
            whole = whole or curve
            scores.append(score)
    return Transfer(title, held_out, tuple(scores), *_distances(novelty, suites, target))


def _distances(
    novelty: Novelty, known: list[TraceSet], target: TraceSet
) -> tuple[dict[str, float], dict[str, float], dict[str, tuple[float, ...]]]:
    """(far, separates, distances) as in `Transfer`."""
    found: dict[str, FloatArray] = {}
    for traces in (target, *known):
        for benchmark in traces.benchmarks:
            found[benchmark] = np.array(
                [
                    novelty.distance(_bag(query))
                    for query in traces.queries
                    if query.split == "test" and query.benchmark == benchmark
                ]
            )
    far = {name: float((values > novelty.threshold).mean()) for name, values in found.items()}
    of_known = np.concatenate([v for n, v in found.items() if n not in target.benchmarks])
    of_target = np.concatenate([found[name] for name in target.benchmarks])
    shares = np.linspace(0.0, 1.0, 41)
    return (
        far,
        {name: _area(of_known, found[name]) for name in target.benchmarks},
        {
            "known": tuple(np.quantile(of_known, shares).tolist()),
            "held out": tuple(np.quantile(of_target, shares).tolist()),
        },
    )


def _bag(query: Query) -> Features:
    return Features.mean(query.ngrams)


def _area(low: FloatArray, high: FloatArray) -> float:
    """Chance that one of `high` is above one of `low` (Mann-Whitney)."""
    both = np.concatenate([low, high])
    ranks = both.argsort().argsort() + 1.0
    above = ranks[len(low) :].sum() - len(high) * (len(high) + 1) / 2
    return float(above / (len(low) * len(high)))
