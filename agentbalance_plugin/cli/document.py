"""`agentbalance evaluate --document`: all suites and studies in one run, and docs/results.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from agentbalance_plugin.cli.evaluate import Request, load, run_study, run_suite
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.ablations import ablations
from agentbalance_plugin.evaluation.document import Report, document
from agentbalance_plugin.evaluation.policy_method import PolicyMethod
from agentbalance_plugin.evaluation.registry import baselines
from agentbalance_plugin.evaluation.results import SuiteResult
from agentbalance_plugin.evaluation.study import Study
from agentbalance_plugin.evaluation.trials import Method, rows_of
from agentbalance_plugin.evaluation.variants import catalogs, sensitivities

# Beside the policy, in studies that are about what the results hang on.
_FEW = ("mix", "category", "plan-table")
# The other suites have too few queries for differences between variants to mean anything.
_LARGE = ("reasoning", "mmlu_pro", "mmlu")

Rows = list[tuple[str, SuiteResult]]


def write_document(path: Path, suites: Sequence[str], request: Request, console: Console) -> None:
    """Evaluate the suites and all studies, and write the page.

    Args:
        path: of the page.
        request: `out` is where everything is kept, so that a stopped run goes on.

    Raises:
        ValueError: no folder to keep results in.
    """
    if request.out is None:
        raise ValueError("document: give --out DIR as well, for results, figures and what is kept")
    main = [run_suite(suite, request, console) for suite in suites]
    large = [suite for suite in suites if suite in _LARGE]
    variants = {
        "Catalogs": (_CATALOGS, _catalogs(large, request, console)),
        "A policy that never saw the suite": (_UNSEEN_SUITE, _unseen(large, request, console)),
        "Questions of another kind": (_OTHER_KIND, _other_kind(large, request, console)),
        "Nominal figures": (_NOMINAL, _nominal(large, request, console)),
    }
    report = Report(
        main=main,
        ablations=[_ablations(suite, request, console) for suite in large],
        variants={title: rows for title, rows in variants.items() if rows[1]},
    )
    command = f"agentbalance evaluate --document {path} --out {request.out}"
    path.write_text(document(report, command), encoding="utf-8")
    console.print(f"written: {path}")


_CATALOGS = """Area by cost and by latency with more backbones to choose from: those that the
policy was trained on, with the suite's unseen ones, 25, and every one that was recorded publicly.
All but the first hold backbones that the policy never saw; it knows their prices and what the
train split says of them. Backbones outside the suite lack some answers, which count as wrong. One
seed."""

_UNSEEN_SUITE = """The policy trained on the other large suites alone, then given this suite's
candidates with their profiles from its train split: what someone gets who profiles backbones but
does not train. One seed."""

_OTHER_KIND = """Everything fitted on a suite's other benchmarks and scored on one that nobody saw:
other questions, the same backbones. Categories are unknown to all tables, which fall back to what
they know overall; the policy was trained without the benchmark and its candidates are profiled
without it. One seed."""

_NOMINAL = """Areas with nominal figures halved and doubled. Everyone knows the changed figures,
and budgets follow the reference backbone's. One seed."""


def _policy(request: Request) -> str:
    return next((source for source in request.policies if source != "none"), "default")


def _few(request: Request) -> list[Method]:
    return [*baselines(_FEW), PolicyMethod(_policy(request), name="agentbalance")]


def _ablations(suite: str, request: Request, console: Console) -> SuiteResult:
    traces = load(request.traces, suite)
    study = Study(suite, traces, traces, request.split, seeds=request.seeds)
    return run_study(study, ablations(_policy(request)), request, console, "ablations")


def _variant(
    suite: str, label: str, traces: TraceSet, request: Request, console: Console
) -> tuple[str, SuiteResult]:
    study = Study(suite, traces, traces, request.split, seeds=1)
    return label, run_study(study, _few(request), request, console, label)


def _catalogs(suites: Sequence[str], request: Request, console: Console) -> Rows:
    rows: Rows = []
    for suite in suites:
        traces = load(request.traces, suite)
        public = load(request.traces, None, traces.benchmarks)
        for label, wider in catalogs(traces, public).items():
            rows.append(_variant(suite, label, wider, request, console))
    return rows


def _nominal(suites: Sequence[str], request: Request, console: Console) -> Rows:
    rows: Rows = []
    for suite in suites:
        traces = load(request.traces, suite)
        for label, changed in {"as they are": traces, **sensitivities(traces)}.items():
            rows.append(_variant(suite, label, changed, request, console))
    return rows


def _other_kind(suites: Sequence[str], request: Request, console: Console) -> Rows:
    """Trains a policy for each benchmark of a suite with several on everything else, once."""
    rows: Rows = []
    for suite in suites:
        traces = load(request.traces, suite)
        if len(traces.benchmarks) < 2:
            continue
        elsewhere = [load(request.traces, other) for other in suites if other != suite]
        for benchmark in traces.benchmarks:
            here = np.array([query.benchmark == benchmark for query in traces.queries])
            scored, rest = (rows_of(traces, np.flatnonzero(mask)) for mask in (here, ~here))
            folder = _trained([rest, *elsewhere], request, suite, f"policy-without-{benchmark}")
            methods = [*baselines(_FEW), PolicyMethod(folder, name="agentbalance, trained without")]
            study = Study(suite, scored, rest, request.split, seeds=1)
            found = run_study(study, methods, request, console, f"without {benchmark}")
            rows.append((f"{benchmark}, not seen", found))
    return rows


def _unseen(suites: Sequence[str], request: Request, console: Console) -> Rows:
    """Trains a policy for each suite on the others, once."""
    rows: Rows = []
    for suite in suites:
        others = [load(request.traces, other) for other in suites if other != suite]
        if not others:
            continue
        folder = _trained(others, request, suite, "policy-without")
        traces = load(request.traces, suite)
        methods = [
            *baselines(_FEW),
            PolicyMethod(_policy(request), name="agentbalance"),
            PolicyMethod(folder, name="agentbalance, trained on the other suites"),
        ]
        study = Study(suite, traces, traces, request.split, seeds=1)
        rows.append(("", run_study(study, methods, request, console, "unseen suite")))
    return rows


def _trained(traces: Sequence[TraceSet], request: Request, suite: str, name: str) -> Path:
    """The folder of a policy trained on these traces, now or in the run that is gone on with."""
    from agentbalance_plugin.core.trainer import train

    folder = Path(str(request.out)) / suite / name
    if not (folder / "policy.json").is_file():
        train(traces, folder)
    return folder
