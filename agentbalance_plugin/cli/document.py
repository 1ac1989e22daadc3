"""`agentbalance evaluate --document`: all suites and studies in one run, and docs/results.md."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from rich.console import Console

from agentbalance_plugin.cli.evaluate import Request, load, run_study, run_suite
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.ablations import ablations
from agentbalance_plugin.evaluation.document import Report, document
from agentbalance_plugin.evaluation.kept_trials import digest_of, traces_digest
from agentbalance_plugin.evaluation.policy_method import PolicyMethod, policy_digest
from agentbalance_plugin.evaluation.registry import baselines
from agentbalance_plugin.evaluation.results import SuiteResult
from agentbalance_plugin.evaluation.sources import code_digest
from agentbalance_plugin.evaluation.studies.hard_caps import CapRow, under_caps
from agentbalance_plugin.evaluation.studies.setting import Setting
from agentbalance_plugin.evaluation.study import Study
from agentbalance_plugin.evaluation.trials import Method
from agentbalance_plugin.evaluation.variants import catalogs, sensitivities

# Beside the policy, in studies that are about what the results hang on.
_FEW = ("mix", "category", "plan-table")
# The other suites have too few queries for differences between variants to mean anything.
_LARGE = ("reasoning", "mmlu_pro", "mmlu")
# Half the prices of the main tables: all rows of a study have the same ones.
_STEPS = 12

Run = Callable[[Request, Console], Any]


@dataclass(frozen=True)
class Part:
    """What runs in one go, in a process of its own.

    Args:
        section: where in the page it belongs.
        label: of its row.
        run: module-level, so that another process can be told.
    """

    section: str
    label: str
    run: Run


@dataclass(frozen=True)
class Failure:
    """A part that could not be made: hours of the others are not lost for it."""

    part: str
    error: str

    def __str__(self) -> str:
        return f"{self.part}: {self.error}"


def write_document(
    path: Path, suites: Sequence[str], request: Request, console: Console, jobs: int = 1
) -> None:
    """Evaluate the suites and all studies, and write the page.

    Args:
        path: of the page.
        request: `out` is where everything is kept, so that a stopped run goes on.
        jobs: processes.

    Raises:
        ValueError: no folder to keep results in, or fewer than one job.
    """
    if request.out is None:
        raise ValueError("document: give --out DIR as well, for results, figures and what is kept")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    parts = parts_of(suites, request)
    found = _run_all(parts, request, console, jobs)

    def section(title: str) -> list[tuple[str, Any]]:
        return [
            (part.label, found[n])
            for n, part in enumerate(parts)
            if part.section == title and not isinstance(found[n], Failure)
        ]

    variants = {title: (text, section(title)) for title, text in _VARIANTS.items()}
    report = Report(
        main=[result for _, result in section("main")],
        ablations=[result for _, result in section("ablations")],
        variants={title: rows for title, rows in variants.items() if rows[1]},
        hard_caps=dict(section("caps")),
        plugin=_plugin_results(request.out),
        missing=tuple(str(result) for result in found.values() if isinstance(result, Failure)),
    )
    if not report.main:
        raise ValueError(f"document: no suite could be evaluated: {'; '.join(report.missing)}")
    command = f"agentbalance evaluate --document {path} --out {request.out}"
    path.write_text(document(report, command), encoding="utf-8")
    for each in report.missing:
        console.print(f"not made: {each}", markup=False)
    console.print(f"written: {path}")


def parts_of(suites: Sequence[str], request: Request) -> list[Part]:
    """All parts of the page, in its order."""
    large = [suite for suite in suites if suite in _LARGE]
    parts = [Part("main", suite, partial(run_suite, suite)) for suite in suites]
    parts += [Part("caps", suite, partial(_hard_caps, suite)) for suite in suites]
    parts += [Part("ablations", suite, partial(_ablations, suite)) for suite in large]
    for suite in large:
        for title, variants in (("Catalogs", _wider), ("Nominal figures", _nominal)):
            parts += [
                Part(title, label, partial(_variant, suite, variants, label))
                for label in variants(suite, request)
            ]
        others = [other for other in large if other != suite]
        if others:
            title = "A policy that never saw the suite"
            parts.append(Part(title, "", partial(_unseen_suite, suite, others)))
        benchmarks = load(request.traces, suite).benchmarks
        for benchmark in benchmarks if len(benchmarks) > 1 else ():
            run = partial(_other_kind, suite, others, benchmark)
            parts.append(Part("Questions of another kind", f"{benchmark}, not seen", run))
    return parts


def _run_all(
    parts: Sequence[Part], request: Request, console: Console, jobs: int
) -> dict[int, Any]:
    """What each part gives, by its position."""
    with counting(console) as bar:
        task = bar.add_task("evaluation", total=len(parts))
        found: dict[int, Any] = {}
        for number, result in _results(parts, request, jobs):
            found[number] = result
            part = parts[number]
            bar.update(task, advance=1, description=f"done: {part.section} {part.label}".strip())
    return found


def _results(parts: Sequence[Part], request: Request, jobs: int) -> Iterator[tuple[int, Any]]:
    """(position, result) of each part as it is ready."""
    if jobs == 1:
        for number, part in enumerate(parts):
            yield number, _run(part, request)
        return
    # A fork would copy the threads of numerical libraries in whatever state they are.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_end_with_parent) as pool:
        asked = {pool.submit(_run, part, request): n for n, part in enumerate(parts)}
        try:
            for done in as_completed(asked):
                yield asked[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # Leaving the pool waits for what they are at, for minutes.
            for worker in active_children():
                worker.terminate()
            raise


def _end_with_parent() -> None:
    """A worker of a command that was killed would go on, and then wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _run(part: Part, request: Request) -> Any:
    try:
        return part.run(request, Console(stderr=True, quiet=True))
    # Whatever it is, the page says so, and the next run makes this part alone.
    except Exception as error:
        return Failure(f"{part.section}, {part.label}", f"{type(error).__name__}: {error}")


_VARIANTS = {
    "Catalogs": """Area by cost and by latency with more backbones to choose from: those that the
policy was trained on, with the suite's unseen ones, 25, and every one that was recorded publicly.
All but the first hold backbones that the policy never saw; it knows their prices and what the
train split says of them. Backbones outside the suite lack some answers, which count as wrong. One
seed, half as many prices as above.""",
    "A policy that never saw the suite": """The policy trained on the other large suites alone,
then given this suite's candidates with their profiles from its train split: what someone gets who
profiles backbones but does not train. One seed, half as many prices as above.""",
    "Questions of another kind": """Everything fitted on a suite's other benchmarks and scored on
one that nobody saw: other questions, the same backbones. Categories are unknown to all tables,
which fall back to what they know overall; the policy was trained without the benchmark and its
candidates are profiled without it. One seed, half as many prices as above.""",
    "Nominal figures": """Areas with nominal figures halved and doubled. Everyone knows the changed
figures, and budgets follow the reference backbone's. One seed, half as many prices as above.""",
}


def _policy(request: Request) -> str:
    return next((source for source in request.policies if source != "none"), "default")


def _ablations(suite: str, request: Request, console: Console) -> SuiteResult:
    traces = load(request.traces, suite)
    study = Study(suite, traces, traces, request.split, seeds=request.seeds, steps=_STEPS)
    return run_study(study, ablations(_policy(request)), request, console, "ablations")


def _variant(
    suite: str,
    variants: Callable[[str, Request], dict[str, TraceSet]],
    label: str,
    request: Request,
    console: Console,
) -> SuiteResult:
    traces = variants(suite, request)[label]
    methods = [*baselines(_FEW), PolicyMethod(_policy(request), name="agentbalance")]
    return _one_seed(suite, traces, traces, methods, request, console)


def _one_seed(
    suite: str,
    traces: TraceSet,
    fit_on: TraceSet,
    methods: Sequence[Method],
    request: Request,
    console: Console,
) -> SuiteResult:
    study = Study(suite, traces, fit_on, request.split, seeds=1, steps=_STEPS)
    return run_study(study, methods, request, console)


def _wider(suite: str, request: Request) -> dict[str, TraceSet]:
    traces = load(request.traces, suite)
    return catalogs(traces, load(request.traces, None, traces.benchmarks))


def _nominal(suite: str, request: Request) -> dict[str, TraceSet]:
    traces = load(request.traces, suite)
    return {"as they are": traces, **sensitivities(traces)}


def _other_kind(
    suite: str, others: Sequence[str], benchmark: str, request: Request, console: Console
) -> SuiteResult:
    """With a policy trained on everything but one benchmark."""
    traces = load(request.traces, suite)
    here = np.array([query.benchmark == benchmark for query in traces.queries])
    scored, rest = (traces.take(np.flatnonzero(mask)) for mask in (here, ~here))
    elsewhere = [load(request.traces, other) for other in others]
    folder = _trained([rest, *elsewhere], request, suite, f"policy-without-{benchmark}")
    methods = [*baselines(_FEW), PolicyMethod(folder, name="agentbalance, trained without")]
    return _one_seed(suite, scored, rest, methods, request, console)


def _unseen_suite(
    suite: str, others: Sequence[str], request: Request, console: Console
) -> SuiteResult:
    """With a policy trained on the other suites."""
    folder = _trained(
        [load(request.traces, other) for other in others], request, suite, "policy-without"
    )
    traces = load(request.traces, suite)
    methods = [
        *baselines(_FEW),
        PolicyMethod(_policy(request), name="agentbalance"),
        PolicyMethod(folder, name="agentbalance, trained on the other suites"),
    ]
    return _one_seed(suite, traces, traces, methods, request, console)


def _trained(traces: Sequence[TraceSet], request: Request, suite: str, name: str) -> Path:
    """The folder of a policy trained on these traces by this code, now or in an earlier run."""
    from agentbalance_plugin.core.trainer import train

    made_by = [code_digest((train.__module__,)), *(traces_digest(each) for each in traces)]
    folder = Path(str(request.out)) / suite / f"{name}-{digest_of(made_by)[:12]}"
    if not (folder / "policy.json").is_file():
        train(traces, folder, resume=True)
    return folder


def _hard_caps(suite: str, request: Request, _: Console) -> tuple[CapRow, ...]:
    """Kept like trials are."""
    setting = Setting.of(suite, _policy(request), request.traces)
    made_by = [
        code_digest((under_caps.__module__,)),
        policy_digest(_policy(request)),
        traces_digest(setting.traces),
        request.split,
    ]
    path = Path(str(request.out)) / suite / "kept" / f"caps-{digest_of(made_by)[:24]}.json"
    if path.is_file():
        return tuple(CapRow(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    rows = under_caps(setting, request.split)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.to_dict() for row in rows]) + "\n", encoding="utf-8")
    return rows


def _plugin_results(out: Path) -> dict[str, list[dict[str, Any]]]:
    """What the examples wrote with `--out OUT/plugin/NAME.json`, by that name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((out / "plugin").glob("*.json"))
    }
