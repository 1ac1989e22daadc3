"""`agentbalance evaluate`: suites, methods, progress, files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agentbalance_plugin.cli.output import check_writable
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.traces import SHIPPED, TraceSet
from agentbalance_plugin.evaluation.assumptions import assumptions
from agentbalance_plugin.evaluation.kept_trials import KeptTrials
from agentbalance_plugin.evaluation.policy_method import PolicyMethod
from agentbalance_plugin.evaluation.registry import baselines
from agentbalance_plugin.evaluation.report import SIGN, UNIT, number, suite_tables
from agentbalance_plugin.evaluation.results import SuiteResult
from agentbalance_plugin.evaluation.study import Budgets, Study, aligned, suite_budgets
from agentbalance_plugin.evaluation.trials import AXES, Method


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Args:
        traces: a trace folder; None: the shipped figures.
        fit_on: another one to fit on; None: the same.
        policies: "default", a folder, or several folders joined by commas (one per seed).
        budgets: "cost=0.001,0.003,0.01" or "latency=2,4,8".
        out: folder for results; None writes nothing and keeps nothing.
    """

    traces: Path | None
    split: str
    fit_on: Path | None
    policies: Sequence[str]
    baselines: Sequence[str]
    budgets: Sequence[str]
    seeds: int
    out: Path | None


def run_suite(suite: str, request: Request, console: Console) -> SuiteResult:
    """Evaluate one suite and write its results.json, results.md and figures.

    Raises:
        ValueError: something of the request can't be used; said before anything runs.
    """
    if request.out is not None:
        check_writable(request.out)
    traces = load(request.traces, suite)
    fit_on = traces if request.fit_on is None else load(request.fit_on, suite)
    # Only what is asked for by name must have its reference backbone.
    known_reference = traces.reference in fit_on.backbones
    methods = [
        method
        for method in methods_of(request)
        if known_reference
        or list(request.baselines) != ["all"]
        or method.grid.get("backbone") != "reference"
    ]
    study = Study(
        suite=suite,
        traces=traces,
        fit_on=fit_on,
        split=request.split,
        budgets=parse_budgets(request.budgets, traces, fit_on),
        seeds=request.seeds,
    )
    for source, split in ((fit_on, "train"), (fit_on, "val"), (traces, request.split)):
        source.positions(split)
    result = run_study(study, methods, request, console)
    notes = assumptions(traces)
    if request.fit_on is not None:
        notes = (*notes, f"methods were fitted on {request.fit_on}")
    result = replace(result, assumptions=notes)
    if request.out is not None:
        write(result, request.out / suite, console)
    return result


def run_study(
    study: Study, methods: Sequence[Method], request: Request, console: Console, label: str = ""
) -> SuiteResult:
    """Run a study with a progress bar; its trials are kept where results go."""
    kept = None if request.out is None else request.out / study.suite / "kept"
    name = f"{study.suite}, {label}" if label else study.suite
    with counting(console) as bar:
        task = bar.add_task(name, total=study.trials(methods))

        def step(method: str) -> None:
            bar.update(task, advance=1, description=f"{name}: {method}")

        return study.run(methods, KeptTrials(kept), step)


def load(path: Path | None, suite: str | None, benchmarks: Sequence[str] | None = None) -> TraceSet:
    """A suite of a trace folder, or of the shipped figures; without one, all backbones."""
    return TraceSet.load(SHIPPED if path is None else path, suite, benchmarks)


def methods_of(request: Request) -> list[Method]:
    """The baselines, then the policies, as asked for."""
    policies = [
        PolicyMethod(source.split(",") if "," in source else source)
        for source in request.policies
        if source != "none"
    ]
    found: list[Method] = [*baselines(request.baselines), *policies]
    if not found:
        raise ValueError("policy and baselines are both 'none': nothing to evaluate")
    names = [method.name for method in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"policy: two methods are named {name!r}; give each its own folder")
    return found


def parse_budgets(given: Sequence[str], traces: TraceSet, fit_on: TraceSet) -> Budgets | None:
    """Budgets from options; an axis that is not given keeps the suite's.

    Raises:
        ValueError: naming the option's value.
    """
    parsed: dict[str, tuple[float, ...]] = {}
    for text in given:
        axis, _, values = text.partition("=")
        try:
            numbers = tuple(float(value) for value in values.split(","))
        except ValueError:
            numbers = ()
        if axis not in AXES or not numbers:
            raise ValueError(
                f"budgets: {text!r} is not like cost=0.001,0.003,0.01 or latency=2,4,8"
            )
        parsed[axis] = numbers
    if not parsed:
        return None
    if len(parsed) == len(AXES):
        return Budgets(parsed["cost"], parsed["latency"])
    usual = suite_budgets(*aligned(traces, fit_on))
    return Budgets(parsed.get("cost", usual.cost_usd), parsed.get("latency", usual.latency_s))


def write(result: SuiteResult, folder: Path, console: Console) -> None:
    """results.json, results.md, and figures where matplotlib is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    notes = "".join(f"- {each}\n" for each in result.assumptions)
    title = f"# {result.suite}, {result.split} ({result.queries} queries)\n\n"
    (folder / "results.md").write_text(
        title + suite_tables(result) + "\n" + notes, encoding="utf-8"
    )
    try:
        from agentbalance_plugin.evaluation.figures import draw_suite

        draw_suite(result, folder)
    except ImportError as error:
        console.print(f"no figures: {error}")


def print_result(result: SuiteResult, console: Console) -> None:
    """One table for each axis."""
    for axis in AXES:
        sign, unit = SIGN[axis], UNIT[axis]
        scored = f"{result.queries} {result.split} queries"
        title = f"{result.suite}, {scored}: right answers by mean {axis}"
        shown = Table(title=title, title_justify="left")
        shown.add_column("method")
        for place, budget in enumerate(result.budgets[axis], start=1):
            shown.add_column(f"P@{sign}{place} {budget:.2g} {unit}", justify="right")
        shown.add_column("AUC", justify="right")
        shown.add_column("- best baseline", justify="right")
        for method in result.methods:
            found = method.axes[axis]
            difference = found.diff_to_best_baseline_ci
            if method.name == result.best_baseline[axis]:
                against = "best on val"
            else:
                against = f"{difference[0]:+.1f} to {difference[1]:+.1f}" if difference else "—"
            shares = [number(share) for share in found.performance]
            shown.add_row(method.name, *shares, f"{found.auc:.1f}", against)
        console.print(shown)
    for note in result.assumptions:
        console.print(f"- {note}", highlight=False)
