"""Training with a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import TextColumn

from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.core.trainer import Progress, TrainerConfig, train


def run_training(
    traces: Path | None, suites: Sequence[str], out: Path, seed: int, resume: bool
) -> None:
    """Train a policy on the suites' train splits and write it into `out`."""
    console = Console(stderr=True)
    loaded = [
        TraceSet.shipped(suite) if traces is None else TraceSet.load(traces, suite=suite)
        for suite in suites
    ]
    loss = TextColumn("val loss {task.fields[loss]}")
    with counting(console, loss, transient=False) as bar:
        config = TrainerConfig(seed=seed)
        tasks = {
            "categories": bar.add_task("categories", total=config.category_epochs, loss="-"),
            "heads": bar.add_task("heads", total=config.head_epochs, loss="-"),
        }

        def show(progress: Progress) -> None:
            task = tasks[progress.stage]
            bar.update(task, completed=progress.epoch, loss=f"{progress.val_loss:.4f}")

        train(loaded, out, config, show, resume=resume)
    console.print(f"policy written to {out}")
