"""`agentbalance bench ...`: options, and how findings are shown."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from agentbalance_plugin.cli.benches import THREADS
from agentbalance_plugin.cli.options import Json, Seed

if TYPE_CHECKING:
    from agentbalance_plugin.cli.benches.measure import Findings

bench = typer.Typer(help="Measurements of this package itself.", no_args_is_help=True)

Rounds = Annotated[int, typer.Option(min=3, help="Paired rounds.")]


@bench.callback()
def one_thread() -> None:
    """Measurements of this package itself, on one thread."""
    # No command has loaded numpy or torch yet.
    for variable in THREADS:
        os.environ.setdefault(variable, "1")


@bench.command()
def deadline(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each kind of chat.")] = 40,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure, in real time, how far past their deadlines runs return."""
    from agentbalance_plugin.cli.benches.deadline import bench_deadline, print_overshoots

    found = bench_deadline(runs=runs, seed=seed, console=Console(stderr=True))
    if as_json:
        typer.echo(json.dumps([overshoot.to_dict() for overshoot in found]))
    else:
        print_overshoots(found, Console())


@bench.command()
def planning(rounds: Rounds = 40, seed: Seed = 0, as_json: Json = False) -> None:
    """Encode, plan and validate, against one pass of a sentence encoder; batches; growth."""
    from agentbalance_plugin.cli.benches.planning import bench_planning

    _show(bench_planning(rounds=rounds, seed=seed, console=Console(stderr=True)), as_json)


@bench.command()
def autogen(rounds: Rounds = 40, seed: Seed = 0, as_json: Json = False) -> None:
    """A chat of four agents as it is and wrapped; what the meter adds to a call."""
    from agentbalance_plugin.cli.benches.autogen import bench_autogen

    _show(bench_autogen(rounds=rounds, seed=seed, console=Console(stderr=True)), as_json)


@bench.command()
def langgraph(
    rounds: Rounds = 100,
    http: Annotated[bool, typer.Option("--http", help="Over HTTP, to a local server.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """A graph of four agents as it is, passed through and balanced, in process or over HTTP."""
    from agentbalance_plugin.cli.benches import langgraph_in_process
    from agentbalance_plugin.cli.benches.langgraph import bench_langgraph

    console = Console(stderr=True)
    if http:
        _show(bench_langgraph(rounds=rounds, seed=seed, console=console), as_json)
        return
    found = langgraph_in_process.bench_langgraph(runs=rounds, console=console)
    if as_json:
        typer.echo(json.dumps(langgraph_in_process.to_dict(found)))
    else:
        langgraph_in_process.print_overheads(found, Console())


@bench.command()
def schedule(
    plans: Annotated[int, typer.Option(min=1, help="Random plans.")] = 200,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """How long random plans run against their critical paths, latencies known."""
    from agentbalance_plugin.cli.benches.schedule import bench_schedule

    _show(bench_schedule(plans=plans, seed=seed, console=Console(stderr=True)), as_json)


@bench.command("import")
def importing(rounds: Rounds = 15, seed: Seed = 0, as_json: Json = False) -> None:
    """Importing the package and building a policy, against numpy alone; megabytes installed."""
    from agentbalance_plugin.cli.benches.importing import bench_import

    _show(bench_import(rounds=rounds, seed=seed, console=Console(stderr=True)), as_json)


@bench.command()
def replay(rounds: Rounds = 10, seed: Seed = 0, as_json: Json = False) -> None:
    """Team outcomes a second against a plain loop; memory with ten times the plans."""
    from agentbalance_plugin.cli.benches.replay import bench_replay

    _show(bench_replay(rounds=rounds, seed=seed, console=Console(stderr=True)), as_json)


@bench.command()
def train(seed: Seed = 0, as_json: Json = False) -> None:
    """Time and peak memory of training, on the shipped traces and on a million responses."""
    from agentbalance_plugin.cli.benches.training import bench_train

    _show(bench_train(seed=seed, console=Console(stderr=True)), as_json)


@bench.command("table")
def performance_table(
    write: Annotated[
        Path | None, typer.Option(help="Page whose table is replaced; left out: print it.")
    ] = None,
    rounds: Rounds = 15,
    seed: Seed = 0,
) -> None:
    """Measure everything, one after the other, for the table in docs/performance.md."""
    from agentbalance_plugin.cli.benches import (
        autogen,
        importing,
        langgraph,
        page,
        planning,
        replay,
        schedule,
        training,
    )

    if write is not None:
        # Before the minutes that measuring takes.
        page.around_table(write)
    console = Console(stderr=True)
    found = [
        planning.bench_planning(rounds=rounds, seed=seed, console=console),
        autogen.bench_autogen(rounds=rounds, seed=seed, console=console),
        langgraph.bench_langgraph(rounds=rounds, seed=seed, console=console),
        replay.bench_replay(rounds=rounds, seed=seed, console=console),
        importing.bench_import(rounds=rounds, seed=seed, console=console),
        schedule.bench_schedule(plans=200, seed=seed, console=console),
        training.bench_train(seed=seed, console=console),
    ]
    if write is None:
        typer.echo(page.table(found))
    else:
        page.write_table(write, found)


def _show(findings: Findings, as_json: bool) -> None:
    from agentbalance_plugin.cli.benches.measure import print_findings

    if as_json:
        typer.echo(json.dumps(findings.to_dict()))
    else:
        print_findings(findings, Console())
