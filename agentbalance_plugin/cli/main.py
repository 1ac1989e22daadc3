"""Commands and their options; each loads what it needs when it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agentbalance_plugin.cli.studies import study

app = typer.Typer(
    name="agentbalance",
    help="Cost and latency budgets for multi-agent systems.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

SUITES = ("reasoning", "mmlu_pro", "mmlu")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
Traces = Annotated[
    Path | None, typer.Option(help="Folder of recorded traces; left out: the shipped figures.")
]


@app.command()
def demo(
    queries: Annotated[
        int | None, typer.Option(min=1, help="Recorded test queries to run; left out: all.")
    ] = None,
    suite: Annotated[str, typer.Option(help="Suite of the traces.")] = "reasoning",
    traces: Traces = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a stock AutoGen chat and the same chat wrapped, over HTTP, on replayed answers."""
    from rich.console import Console

    from agentbalance_plugin.cli.demo import print_table, run_demo

    # Progress goes to stderr, so that --json leaves stdout to the object alone.
    progress = Console(stderr=True)
    result = run_demo(queries=queries, suite=suite, traces=traces, seed=seed, console=progress)
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    else:
        print_table(result, Console())


@app.command("evaluate")
def evaluate_command(
    suite: Annotated[str, typer.Option(help="Suite of the traces.")] = "reasoning",
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    policy: Annotated[str, typer.Option(help="default, or a policy folder.")] = "default",
    traces: Traces = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score a policy against simple baselines on recorded answers: P@T, P@L, AUC."""
    from rich.console import Console

    from agentbalance_plugin.cli.evaluate import print_scores, run_evaluation

    scores = run_evaluation(
        traces=traces,
        suite=suite,
        policy=policy,
        split=split,
        seed=seed,
        console=Console(stderr=True),
    )
    if as_json:
        typer.echo(json.dumps([score.to_dict() for score in scores]))
    else:
        print_scores(scores, suite, split, Console())


app.add_typer(study, name="study")

bench = typer.Typer(help="Measurements of this package itself.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("deadline")
def bench_deadline(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each kind of chat.")] = 40,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure, in real time, how far past their deadlines runs return."""
    from rich.console import Console

    from agentbalance_plugin.cli import bench as benches

    found = benches.bench_deadline(runs=runs, seed=seed, console=Console(stderr=True))
    if as_json:
        typer.echo(json.dumps([overshoot.to_dict() for overshoot in found]))
    else:
        benches.print_overshoots(found, Console())


@app.command("serve-backbones")
def serve_backbones(
    suite: Annotated[str, typer.Option(help="Suite of the traces.")] = "reasoning",
    traces: Traces = None,
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    scale: Annotated[
        float, typer.Option(min=0, help="Real seconds waited per simulated second.")
    ] = 1.0,
    seed: Seed = 0,
) -> None:
    """Serve recorded backbones as an OpenAI-compatible endpoint."""
    from agentbalance_plugin.core.replay import Replay
    from agentbalance_plugin.core.traces import TraceSet
    from agentbalance_plugin.simulator.server import serve

    loaded = TraceSet.shipped(suite) if traces is None else TraceSet.load(traces, suite=suite)
    serve(Replay(loaded, seed=seed), host=host, port=port, scale=scale, seed=seed)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for the policy.")],
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Suites to train on, may be given often; left out: all."),
    ] = None,
    traces: Traces = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed training stopped.")
    ] = False,
) -> None:
    """Train a policy on recorded traces; the state is kept after each epoch."""
    from agentbalance_plugin.cli.train import run_training

    run_training(traces, suite or SUITES, out, seed, resume)


def main() -> None:
    """Entry point: errors a user can mend are one line, not a traceback."""
    try:
        app()
    except (ValueError, ImportError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
