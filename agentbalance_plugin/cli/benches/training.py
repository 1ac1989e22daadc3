"""Training: time, peak memory, how soon most of it is learned, and a set of a million responses.

Each training runs in a process of its own, whose peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.cli.benches.measure import Figure, Findings, Ratio
from agentbalance_plugin.cli.learning_time import LearningTime
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.stage_trainer import StageConfig
from agentbalance_plugin.core.traces import Answers, Query, TraceSet
from agentbalance_plugin.core.trainer import TrainerConfig, train
from agentbalance_plugin.extras import require

_SUITES = ("reasoning", "mmlu_pro", "mmlu")
_BACKBONES = 200
# Responses of the synthetic sets: a hundred thousand and a million.
_QUERIES = (500, 5_000)
_CATEGORIES = 20
_FEATURES = 180
_MINUTES, _MEGABYTES = 10.0, 2_000.0


def bench_train(*, seed: int, console: Console) -> Findings:
    """The default policy from the shipped traces, then synthetic sets of two sizes."""
    # Before a process of its own fails on it.
    require("torch", extra="train")
    found = Findings("train")
    with counting(console) as progress:
        bar = progress.add_task("trainings", total=1 + len(_QUERIES))
        shipped = _in_a_process(0, seed)
        progress.advance(bar)
        made: list[dict[str, Any]] = []
        for queries in _QUERIES:
            made.append(_in_a_process(queries, seed))
            progress.advance(bar)
    found.figures["shipped traces"] = Figure([shipped["seconds"]], "s")
    found.figures["shipped traces, peak memory"] = Figure([shipped["peak_mb"]], "MB")
    found.figures["shipped traces, until 95 % of the final worth on validation queries"] = Figure(
        [shipped["learned"]], "s"
    )
    found.ratios[f"shipped traces: time / {_MINUTES:.0f} minutes"] = Ratio(
        [shipped["seconds"] / 60.0 / _MINUTES], bar=1.0
    )
    found.ratios[f"shipped traces: memory / {_MEGABYTES:,.0f} MB"] = Ratio(
        [shipped["peak_mb"] / _MEGABYTES], bar=1.0
    )
    for queries, each in zip(_QUERIES, made, strict=True):
        label = f"{queries * _BACKBONES:,} responses, {_BACKBONES} backbones"
        found.figures[f"{label}, one epoch of each kind"] = Figure([each["seconds"]], "s")
        found.figures[f"{label}, traces in memory"] = Figure([each["loaded_mb"]], "MB")
        found.figures[f"{label}, peak memory"] = Figure([each["peak_mb"]], "MB")
    small, large = made
    found.ratios["peak memory, a million responses / a hundred thousand"] = Ratio(
        [large["peak_mb"] / small["peak_mb"]], bar=1.1
    )
    found.notes.append(
        "Worth is what plans for validation queries are worth, replayed, as the trainer measures "
        "it: right answers less what cost and time are priced at. 95 % of the final one means 95 % "
        "of the way there from untrained stages; time counts from the start of training."
    )
    return found


def _in_a_process(queries: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, str(queries), str(seed)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def synthetic(queries: int, seed: int) -> TraceSet:
    """Made-up answers of 200 backbones: strength, kind of task and luck decide who is right."""
    rng = np.random.default_rng(seed)
    names = tuple(f"backbone {number}" for number in range(_BACKBONES))
    strength = np.sort(rng.normal(0.5, 1.0, _BACKBONES))
    category = rng.integers(_CATEGORIES, size=queries)
    words = rng.integers(2**15, size=(_CATEGORIES, 400))
    split = np.where(np.arange(queries) % 10 < 7, "train", "val")
    hard = rng.normal(0.0, 1.0, queries) + rng.normal(0.0, 0.7, _CATEGORIES)[category]
    chance = 1.0 / (1.0 + np.exp(hard[:, None] - strength))
    right = rng.random((queries, _BACKBONES)) < chance
    wrong = rng.integers(1, 6, size=right.shape)
    return TraceSet(
        queries=tuple(
            Query(
                key=f"made_up/{number}",
                benchmark="made_up",
                category=f"made_up/{kind}",
                split=str(split[number]),
                features=np.unique(rng.choice(words[kind], _FEATURES)).astype(np.int32),
            )
            for number, kind in enumerate(category.tolist())
        ),
        backbones=names,
        catalog=Catalog(
            Backbone(name, price, price, ttft_s=0.5, tokens_per_s=60.0)
            for name, power in zip(names, strength.tolist(), strict=True)
            for price in [round(Decimal(float(np.exp(power))), 4)]
        ),
        samples=Answers(
            correct=right.astype(np.int8)[:, :, None],
            answer=np.where(right, 0, wrong).astype(np.int32)[:, :, None],
            prompt_tokens=np.full((*right.shape, 1), 120, dtype=np.int32),
            visible_tokens=rng.integers(20, 600, size=(*right.shape, 1)).astype(np.int32),
        ),
        candidates=names,
    )


def _peak_mb() -> float:
    # getrusage would show the peak of the process that started this one, where that is larger.
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) / 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def _train(queries: int, seed: int) -> dict[str, Any]:
    config = TrainerConfig(seed=seed)
    if queries:
        # Memory is the same in every epoch and step.
        stages = StageConfig(imitation_steps=20, gradient_steps=20, check_every=20)
        config = TrainerConfig(
            seed=seed, embedding_epochs=1, category_epochs=1, head_epochs=1, stages=stages
        )
        traces = [synthetic(queries, seed)]
    else:
        traces = [TraceSet.shipped(suite) for suite in _SUITES]
    loaded = _peak_mb()
    began = time.perf_counter()
    learning = LearningTime()
    with tempfile.TemporaryDirectory() as folder:
        train(traces, folder, config, learning.note)
    took = time.perf_counter() - began
    return {
        "seconds": took,
        "peak_mb": _peak_mb(),
        "loaded_mb": loaded,
        "learned": learning.seconds,
    }


if __name__ == "__main__":
    print(json.dumps(_train(int(sys.argv[1]), int(sys.argv[2]))))
