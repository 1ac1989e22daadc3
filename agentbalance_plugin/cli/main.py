"""Commands and their options; each loads what it needs when it runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from agentbalance_plugin.cli.benches.commands import bench
from agentbalance_plugin.cli.options import Json, Seed, Traces
from agentbalance_plugin.cli.studies import study

app = typer.Typer(
    name="agentbalance",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

# What the policy is trained on, and what it is scored on.
SUITES = ("reasoning", "mmlu_pro", "mmlu")
EVALUATED = (*SUITES, "gpqa_diamond", "humaneval")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("agentbalance-plugin"))
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Cost and latency budgets for multi-agent systems."""


@app.command()
def demo(
    framework: Annotated[str, typer.Option(help="autogen or langgraph.")] = "autogen",
    queries: Annotated[
        int | None, typer.Option(min=1, help="Recorded test queries to run; left out: all.")
    ] = None,
    suite: Annotated[str, typer.Option(help="Suite of the traces.")] = "reasoning",
    mean: Annotated[
        float | None,
        typer.Option(help="US dollars a query on average; left out: a tenth of four stock calls."),
    ] = None,
    cap: Annotated[
        float | None,
        typer.Option(
            help="US dollars that no query may pass; left out: the more of four stock calls and 4 "
            "means."
        ),
    ] = None,
    traces: Traces = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a stock AutoGen chat, or LangGraph graph, and the same under a budget, over HTTP, on
    replayed answers."""
    from agentbalance_plugin.cli.demo import print_table, run_demo
    from agentbalance_plugin.cli.output import plain_console

    # Progress goes to stderr, so that --json leaves stdout to the object alone.
    progress = plain_console(stderr=True)
    result = run_demo(
        framework=framework,  # pyright: ignore[reportArgumentType]
        queries=queries,
        suite=suite,
        mean_usd=mean,
        cap_usd=cap,
        traces=traces,
        seed=seed,
        console=progress,
    )
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    else:
        print_table(result, plain_console())


@app.command()
def explain(
    task: Annotated[str, typer.Argument(help="The task's text.")],
    cost_usd: Annotated[
        float | None, typer.Option(help="US dollars that the task may cost, at most.")
    ] = None,
    mean_cost_usd: Annotated[
        float | None,
        typer.Option(help="US dollars that tasks may cost on average; with --cost-usd."),
    ] = None,
    latency_s: Annotated[
        float | None, typer.Option(help="Seconds that the task may take, at most.")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Tokens that the task may take, at most, prompts and replies together."),
    ] = None,
    backbones: Annotated[Path, typer.Option(help="Catalog file of those that may be used.")] = Path(
        "backbones.yaml"
    ),
    agent: Annotated[
        list[str] | None,
        typer.Option(
            help="'name' or 'name: role' of an agent, may be given often; the last one decides. "
            "Left out: planner, solver, critic, decider."
        ),
    ] = None,
    keep_order: Annotated[
        bool,
        typer.Option("--keep-order", help="Let every agent run, and choose backbones alone."),
    ] = False,
    policy: Annotated[str, typer.Option(help="default, or a policy folder.")] = "default",
    draw: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Picture of the plan, .png or .svg.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what would be planned for a task, why, and what other budgets would buy; calls no
    backbone."""
    from agentbalance_plugin.cli.explain import budget_of, run_explain

    budget = budget_of(cost_usd, mean_cost_usd, latency_s, tokens)
    agents = agent or ["planner", "solver", "critic", "decider"]
    run_explain(task, backbones, budget, agents, policy, keep_order, draw, as_json)


@app.command("evaluate")
def evaluate_command(
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Suite of the traces, may be given often; left out: reasoning, for --document all."
        ),
    ] = None,
    traces: Traces = None,
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    fit_on: Annotated[
        Path | None, typer.Option(help="Trace folder to fit the methods on; left out: the same.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="default, none, a policy folder, or folders joined by commas, one for each seed; "
            "may be given often; left out: default."
        ),
    ] = None,
    baselines: Annotated[str, typer.Option(help="all, none, or names joined by commas.")] = "all",
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            help="cost=0.001,0.003,0.01 (US dollars a query) or latency=2,4,8 (seconds), may be "
            "given for both; left out: the suite's."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of replay and methods.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder for results.json, results.md, figures, and what can be resumed.",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--document",
            help="Write all suites, ablations, catalogs and sensitivities as this Markdown page.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes of --document; left out: one per core.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score policies and published alternatives on recorded answers: P@T, P@L, AUC."""
    from agentbalance_plugin.cli.evaluate import Request, print_result, run_suite
    from agentbalance_plugin.cli.output import plain_console

    request = Request(
        traces=traces,
        split=split,
        fit_on=fit_on,
        policies=policy or ["default"],
        baselines=baselines.split(","),
        budgets=budgets or [],
        seeds=seeds,
        out=out,
    )
    progress = plain_console(stderr=True)
    if page is not None:
        from agentbalance_plugin.cli.document import write_document

        jobs = jobs or os.cpu_count() or 1
        write_document(page, suite or EVALUATED, request, progress, jobs)
        return
    results = [run_suite(each, request, progress) for each in suite or ["reasoning"]]
    if as_json:
        content = [result.to_dict() for result in results]
        typer.echo(json.dumps(content[0] if len(content) == 1 else content))
    else:
        for result in results:
            print_result(result, plain_console())


app.add_typer(study, name="study")
app.add_typer(bench, name="bench")


@app.command("serve-backbones")
def serve_backbones(
    suite: Annotated[str, typer.Option(help="Suite of the traces.")] = "reasoning",
    traces: Traces = None,
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
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
def record(
    questions: Annotated[
        Path, typer.Option(help=".jsonl, .csv or .tsv with question, answer and, if any, category.")
    ],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for profiles and recorded answers.")
    ],
    max_cost_usd: Annotated[
        float, typer.Option(help="US dollars that this run may cost, at most.")
    ],
    backbones: Annotated[Path, typer.Option(help="Catalog file of those to ask.")] = Path(
        "backbones.yaml"
    ),
    most: Annotated[
        int | None, typer.Option(min=1, help="Questions to ask, of all kinds; left out: all.")
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Calls of one backbone side by side.")] = 4,
) -> None:
    """Ask backbones questions whose answers you know: profiles for your catalog, and traces."""
    from agentbalance_plugin.cli.record import run_recording

    run_recording(questions, backbones, out, max_cost_usd, most, at_once)


@app.command()
def train(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the policy.")],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Suites to train on, may be given often; left out: reasoning, mmlu_pro, mmlu."
        ),
    ] = None,
    traces: Traces = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed training stopped.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option(help="Write curves for TensorBoard into OUT/tensorboard.")
    ] = True,
) -> None:
    """Train a policy on recorded traces; print what each of its stages is worth."""
    from agentbalance_plugin.cli.train import run_training

    run_training(traces, suite or SUITES, out, seed, resume, tensorboard)


def main() -> None:
    """Entry point: errors a user can mend are one line, not a traceback."""
    try:
        app()
    except (ValueError, ImportError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
