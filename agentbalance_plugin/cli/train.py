"""Training with progress bars, curves, and what each stage is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import TextColumn
from rich.table import Table

from agentbalance_plugin.cli.learning_time import SHARE, LearningTime
from agentbalance_plugin.cli.output import check_writable, plain_console
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.core.trainer import Progress, Report, TrainerConfig, train
from agentbalance_plugin.evaluation.stage_worth import scored_queries, stage_worth
from agentbalance_plugin.extras import require


def run_training(
    traces: Path | None,
    suites: Sequence[str],
    out: Path,
    seed: int,
    resume: bool,
    tensorboard: bool = True,
    config: TrainerConfig | None = None,
) -> None:
    """Train a policy on the suites' train splits and write it into `out`."""
    # Before the traces, whose reader would name the extra of the simulator, which is not enough.
    require("torch", extra="train")
    console = plain_console(stderr=True)
    loaded = [
        TraceSet.shipped(suite) if traces is None else TraceSet.load(traces, suite=suite)
        for suite in suites
    ]
    check_writable(out)
    config = replace(config or TrainerConfig(), seed=seed)
    monitor, close = _curves(out / "tensorboard") if tensorboard else (None, lambda: None)
    loss = TextColumn("val loss {task.fields[loss]}")
    with counting(console, loss, transient=False) as bar:
        of = {
            "embeddings": config.embedding_epochs,
            "categories": config.category_epochs,
            "heads": config.head_epochs,
            "imitation": config.stages.imitation_steps,
            "gradient": config.stages.gradient_steps,
        }
        tasks = {stage: bar.add_task(stage, total=total, loss="-") for stage, total in of.items()}

        learning = LearningTime()

        def show(progress: Progress) -> None:
            learning.note(progress)
            task = tasks[progress.stage]
            bar.update(task, completed=progress.epoch, loss=f"{progress.val_loss:.4f}")

        try:
            train(loaded, out, config, show, resume=resume, monitor=monitor)
        except KeyboardInterrupt:
            console.print("interrupted; the same command with --resume goes on")
            raise
        finally:
            close()
    console.print(f"policy written to {out}")
    if (seconds := learning.seconds) is not None:
        console.print(
            f"plans were worth {SHARE:.0%} of the way from untrained stages to the best on "
            f"validation queries after {seconds:.0f} s"
        )
    without = [suite for suite, each in zip(suites, loaded, strict=True) if each.reference is None]
    if without:
        # Only the budgets of that table are tied to it.
        console.print(
            f"what each stage is worth is left out: {', '.join(without)} in suites.yaml names no "
            "reference backbone"
        )
        return
    with counting(console) as bar:
        task = bar.add_task("what each stage is worth", total=None)
        found = stage_worth(
            out, loaded, lambda done, total: bar.update(task, completed=done, total=total)
        )
    count = sum(len(scored_queries(each)) for each in loaded)
    table = Table(title=f"AUC on {count} validation queries, replayed", title_justify="left")
    for heading in ("stage replaced by random choices", "by cost", "by latency"):
        table.add_column(heading, justify="left" if heading.startswith("stage") else "right")
    whole = found["none"]
    for stage, scores in found.items():
        change = "" if stage == "none" else " ({:+.2f})"
        cells = [f"{s:.2f}" + change.format(s - w) for s, w in zip(scores, whole, strict=True)]
        table.add_row("the shipped policy instead" if stage == "shipped" else stage, *cells)
    plain_console().print(table)
    if traces is not None and sum(found["shipped"]) > sum(whole):
        console.print(
            "the shipped policy does better on these queries: leave policy='default', or record "
            "more questions"
        )


def _curves(folder: Path) -> tuple[Callable[[Report], None], Callable[[], None]]:
    """(what to call after each step, what to call at the end)."""
    writer = require("tensorboardX", extra="train").SummaryWriter(str(folder))

    def write(report: Report) -> None:
        for name, value in report.scalars.items():
            writer.add_scalar(f"{report.phase}/{name}", value, report.step)
        if report.validation is not None:
            worth = report.validation.worth[report.validation.best]
            writer.add_scalar(f"{report.phase}/worth_on_val", worth, report.step)
        if report.step % 50 == 0:
            for name, values in report.histograms.items():
                writer.add_histogram(f"{report.phase}/{name}", np.asarray(values), report.step)

    return write, writer.close
