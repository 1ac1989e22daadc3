"""`agentbalance study`: one command for each study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentbalance_plugin.cli.options import Json, Seed, Traces
from agentbalance_plugin.extras import require

if TYPE_CHECKING:
    from agentbalance_plugin.evaluation.studies.setting import Finding, Setting, Ticker

    Study = Callable[[Setting, Ticker], Finding]

study = typer.Typer(help="Studies of one question each, on recorded answers.", no_args_is_help=True)

Suite = Annotated[str, typer.Option(help="Suite of the traces.")]
PolicyName = Annotated[str, typer.Option(help="default, or a policy folder.")]
Out = Annotated[
    Path | None,
    typer.Option(file_okay=False, help="Folder for the results: JSON, markdown, PNG and SVG."),
]


def _of_a_suite(name: str) -> Callable[[Callable[[], Study]], None]:
    """Make a command of what loads a study of one suite, whose docstring is its help."""

    def register(load: Callable[[], Study]) -> None:
        @study.command(name, help=load.__doc__)
        def command(  # pyright: ignore[reportUnusedFunction]
            suite: Suite = "reasoning",
            policy: PolicyName = "default",
            traces: Traces = None,
            out: Out = None,
            seed: Seed = 0,
            as_json: Json = False,
        ) -> None:
            _run(suite, policy, traces, out, seed, as_json, load())

    return register


@_of_a_suite("follow-through")
def follow_through() -> Study:
    """Measure whether budgets are met, and how well each task's spend is predicted."""
    from agentbalance_plugin.evaluation.studies.follow_through import study_follow_through

    return study_follow_through


@_of_a_suite("unseen")
def unseen() -> Study:
    """Score a policy, not trained again, with backbones and catalogs it does not know."""
    # Routers are trained last, after minutes of work that would be lost.
    require("torch", extra="train")
    from agentbalance_plugin.evaluation.studies.unseen import study_unseen

    return study_unseen


@_of_a_suite("profiles")
def profiles() -> Study:
    """Score a policy, not trained again, with backbones profiled on few questions or none."""
    from agentbalance_plugin.evaluation.studies.profile_sizes import study_profile_sizes

    return study_profile_sizes


@study.command("transfer")
def transfer(
    policy: PolicyName = "default",
    traces: Traces = None,
    out: Out = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train without some benchmarks and score on them; trained policies are kept in OUT."""
    import tempfile

    from agentbalance_plugin.evaluation.studies.transfer import study_transfer

    with tempfile.TemporaryDirectory() as scratch:
        keep = Path(scratch) if out is None else out / "policies"

        def held_out(setting: Setting, ticker: Ticker) -> Finding:
            return study_transfer(setting, ticker, keep)

        _run("reasoning", policy, traces, out, seed, as_json, held_out)


@study.command("load")
def load(
    suite: Suite = "reasoning",
    policy: PolicyName = "default",
    traces: Traces = None,
    queries: Annotated[int, typer.Option(min=2, help="Test queries, the same in every row.")] = 48,
    scale: Annotated[float, typer.Option(help="Real seconds per simulated second.")] = 0.2,
    out: Out = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare predicted hops and latency with what AutoGen and LangGraph take, under load."""
    from agentbalance_plugin.cli.load_study import study_load

    def under_load(setting: Setting, ticker: Ticker) -> Finding:
        return study_load(setting, ticker, queries, scale)

    _run(suite, policy, traces, out, seed, as_json, under_load)


def _run(
    suite: str,
    policy: str,
    traces: Path | None,
    out: Path | None,
    seed: int,
    as_json: bool,
    study: Study,
) -> None:
    """Run one study with a progress bar; print and write what it found."""
    from agentbalance_plugin.cli.output import check_writable, plain_console
    from agentbalance_plugin.cli.progress import counting
    from agentbalance_plugin.evaluation.studies.setting import Setting

    if out is not None:
        check_writable(out)
    setting = Setting.of(suite, policy, traces, seed)
    console = plain_console(stderr=True)
    with counting(console) as bar:

        def ticker(title: str, total: int) -> Callable[[], None]:
            task = bar.add_task(title, total=total)
            return lambda: bar.advance(task)

        finding = study(setting, ticker)
    try:
        if out is not None:
            write_finding(finding, out)
    except ImportError as error:
        console.print(f"no plots: {error}")
    finally:
        # Whatever became of the files.
        shown = json.dumps(finding.to_dict()) if as_json else finding.to_markdown()
        typer.echo(shown, nl=as_json)


def write_finding(finding: Finding, out: Path) -> None:
    """NAME.json, NAME.md and the plots into a folder (ImportError: all but the plots)."""
    found = json.dumps(finding.to_dict(), indent=1) + "\n"
    (out / f"{finding.name}.json").write_text(found, encoding="utf-8")
    (out / f"{finding.name}.md").write_text(finding.to_markdown(), encoding="utf-8")
    finding.draw(out)
