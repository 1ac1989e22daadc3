"""Training a policy on recorded answers: first the network, then the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.checkpoint import Checkpoint, save_checkpoint
from agentbalance_plugin.core.encoder import HashedEncoder, QueryEncoder
from agentbalance_plugin.core.episodes import Course
from agentbalance_plugin.core.network import Weights
from agentbalance_plugin.core.network_trainer import NetworkTrainer, Progress, TrainerConfig
from agentbalance_plugin.core.novelty import Novelty
from agentbalance_plugin.core.policy_gradient import Duals, initial_weights
from agentbalance_plugin.core.prediction import embed
from agentbalance_plugin.core.profiles import Priors
from agentbalance_plugin.core.stage_trainer import PHASES, Report, StageState, StageTrainer
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.core.training_data import (
    Part,
    check_recorded,
    prepare,
    query_features,
)
from agentbalance_plugin.core.training_fit import with_dependence
from agentbalance_plugin.core.training_state import (
    TrainingState,
    digest,
    drop_state,
    load_state,
    save_state,
)
from agentbalance_plugin.core.validation import REACHES
from agentbalance_plugin.extras import require

__all__ = ["Progress", "Report", "TrainerConfig", "train"]


def train(
    traces: Sequence[TraceSet],
    out: str | Path,
    config: TrainerConfig | None = None,
    progress: Callable[[Progress], None] | None = None,
    encoder: QueryEncoder | None = None,
    *,
    resume: bool = False,
    monitor: Callable[[Report], None] | None = None,
) -> Checkpoint:
    """Train on the `train` splits, stop by the `val` splits, and write a policy.

    Args:
        traces: one TraceSet per suite; only their candidates are used.
        out: folder for the policy.
        config: what can be tuned.
        progress: called after each epoch.
        encoder: of queries; hashed n-grams by default. Others need traces with question texts.
        resume: go on where a training into this folder was killed, to the same result as without
            the kill; from the beginning if there is none. The state is written after each epoch.
        monitor: called before the first step of the stages and after each, with what a chart would
            show.

    Raises:
        TraceError: a split is absent, or a candidate was not recorded.
        ValueError: a query has no text to encode, or `resume` finds a training with other settings
            or traces.
        ImportError: torch is not installed (extra `train`).
    """
    config, out = config or TrainerConfig(), Path(out)
    encoder = encoder or HashedEncoder()
    torch = require("torch", extra="train")
    torch.set_num_threads(config.threads)
    for suite in traces:
        check_recorded(suite)
    suites = [suite.subset(suite.candidates) for suite in traces]
    priors, parts, val = prepare(suites, encoder)
    # It counts n-grams; other encoders have none.
    novelty = Novelty.of_traces(suites) if encoder.name == HashedEncoder.name else None
    made_from = digest({**asdict(config), "encoder": encoder.name}, [*parts, *val])
    resumed = load_state(out, made_from) if resume else None

    def keep(state: TrainingState) -> None:
        save_state(state, out, made_from)

    def tell(each: Progress) -> None:
        if progress is not None:
            progress(each)

    if resumed is not None and resumed.stage in PHASES:
        weights = _network_of(resumed)
    else:
        categories = len(priors.categories)
        network = NetworkTrainer(torch, (parts, val), categories, config, encoder.size, keep, tell)
        weights = network.run(resumed)
        resumed = None
    draft = _draft(weights, priors, parts, val, suites, config, encoder)
    courses = [Course.of(suite, _vectors(suite, weights, encoder), config.seed) for suite in suites]
    trainer = StageTrainer(
        torch,
        draft,
        encoder,
        courses,
        [suite.positions("train") for suite in suites],
        [suite.positions("val") for suite in suites],
        config.stages,
        config.seed,
    )
    worth = float("nan")

    def show(report: Report) -> None:
        nonlocal worth
        if report.validation is not None:
            worth = report.validation.worth[report.validation.best]
        loss = -report.scalars.get("log_probability", float("nan"))
        tell(Progress(report.phase, report.step, report.of, loss, -worth))
        if monitor is not None:
            monitor(report)

    start = trainer.initial() if resumed is None else _stage_state(torch, resumed)
    checkpoint = trainer.run(start, lambda state: keep(_training_state(state, weights)), show)
    save_checkpoint(checkpoint, out)
    if novelty is not None:
        novelty.save(out)
    drop_state(out)
    return checkpoint


def _draft(
    weights: Weights,
    priors: Priors,
    parts: Sequence[Part],
    val: Sequence[Part],
    suites: Sequence[TraceSet],
    config: TrainerConfig,
    encoder: QueryEncoder,
) -> Checkpoint:
    """A policy whose stages are untrained.

    How backbones fail together and spread is fitted beside the network; some queries are picked
    that stand for a stream.
    """
    rng = np.random.default_rng([config.seed, 3])
    anchors: list[NDArray[np.float32]] = []
    categories: list[int] = []
    for part in parts:
        count = min(len(part.features), max(1, config.anchors // len(parts)))
        rows: list[int] = rng.choice(len(part.features), size=count, replace=False).tolist()
        anchors += [embed(weights, part.features[row])[0] for row in rows]
        categories += [int(part.category[row]) for row in rows]
    return Checkpoint(
        weights=weights,
        stages=initial_weights(rng),
        reach=REACHES[0],
        encoder=encoder.name,
        priors=with_dependence(weights, priors, val),
        anchors=np.stack(anchors).astype(np.float32),
        anchor_category=np.array(categories),
        trained_on={
            "benchmarks": [name for suite in suites for name in suite.benchmarks],
            "queries": sum(len(part.features) for part in parts),
            "config": asdict(config),
        },
    )


def _vectors(suite: TraceSet, weights: Weights, encoder: QueryEncoder) -> NDArray[np.float32]:
    return np.concatenate(
        [embed(weights, query_features(query, encoder)) for query in suite.queries]
    )


def _training_state(state: StageState, weights: Weights) -> TrainingState:
    tensors: dict[str, Any] = {
        f"{group}.{name}": value
        for group, values in (("now", state.now), ("best", state.best), ("adam", state.moments))
        for name, value in values.items()
    }
    tensors |= {f"network.{name}": value for name, value in vars(weights).items()}
    tensors |= {"duals.cost": state.duals.cost, "duals.time": state.duals.time}
    return TrainingState(
        stage=state.phase,
        epoch=state.step,
        best_loss=-state.worth,
        stale=state.reach,
        random={},
        # Multipliers need all of their digits to go on as they were.
        tensors={name: np.asarray(value, dtype=_kind(name)) for name, value in tensors.items()},
    )


def _kind(name: str) -> type[np.floating[Any]]:
    return np.float64 if name.startswith("duals.") else np.float32


def _stage_state(torch: Any, state: TrainingState) -> StageState:
    def group(prefix: str) -> dict[str, Any]:
        return {
            name.removeprefix(prefix): torch.from_numpy(array.copy())
            for name, array in state.tensors.items()
            if name.startswith(prefix)
        }

    return StageState(
        phase="gradient" if state.stage == "gradient" else "imitation",
        step=state.epoch,
        worth=-state.best_loss,
        reach=state.stale,
        now=group("now."),
        best=group("best."),
        moments=group("adam."),
        duals=Duals(
            np.array(state.tensors["duals.cost"], dtype=np.float64),
            np.array(state.tensors["duals.time"], dtype=np.float64),
        ),
    )


def _network_of(state: TrainingState) -> Weights:
    prefix = "network."
    return Weights(
        **{
            name.removeprefix(prefix): array
            for name, array in state.tensors.items()
            if name.startswith(prefix)
        }
    )
