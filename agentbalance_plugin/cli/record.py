"""Recording what backbones answer to labelled questions: profiles, and a trace folder."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from agentbalance_plugin.backbone import Backbone, Catalog, Profile
from agentbalance_plugin.catalog_file import catalog_text
from agentbalance_plugin.cli.answer_log import held, known_answers
from agentbalance_plugin.cli.output import check_writable, plain_console
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.cli.record_remarks import remarks
from agentbalance_plugin.core.kinds import KINDS, Kinds
from agentbalance_plugin.core.recording import (
    Question,
    Recorded,
    in_turns,
    read_questions,
    write_traces,
)
from agentbalance_plugin.core.suites import read_suites
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.core.whole_files import put
from agentbalance_plugin.extras import require

_LOG = "answers.jsonl"
CATALOG = "backbones.yaml"

_ENOUGH_FOR_SPREAD = 10
_HEADINGS = ("backbone", "answered", "right", "unread", "tokens", "USD a call", "seconds", "")


def run_recording(
    questions: Path,
    backbones: Path,
    out: Path,
    max_cost_usd: float,
    most: int | None,
    at_once: int,
) -> None:
    """Ask, go on where an earlier run stopped, and write what is known so far.

    Args:
        questions, backbones: files.
        out: gets `answers.jsonl`, `backbones.yaml` with profiles and a trace folder.
        max_cost_usd: that this run may cost.
        most: questions to ask; None: all.
        at_once: calls of one backbone side by side.
    """
    if not 0.0 < max_cost_usd < math.inf:
        raise ValueError(f"--max-cost-usd must be finite and above zero, got {max_cost_usd:g}")
    catalog = Catalog.load(backbones)
    asked = in_turns(read_questions(questions))[:most]
    # Before money is spent: without it nothing could be written.
    for module in ("pyarrow", "autogen_core"):
        require(module, extra="autogen,simulator")
    if (out / CATALOG).resolve() == backbones.resolve():
        raise ValueError(f"--out {out}: {backbones} itself would be written over; take another one")
    check_writable(out)
    console = plain_console(stderr=True)
    with held(out / _LOG) as log:
        # What can't be read is said before anything is asked.
        earlier = _earlier(out, questions.stem)
        known = known_answers(out / _LOG, asked, catalog)
        stopped, interrupted = _ask(asked, catalog, max_cost_usd, log, known, at_once, console)
        if not known:
            raise ValueError("no answer was recorded: " + _sentence(stopped))
        _write(out, backbones, questions.stem, asked, known, catalog, earlier)
    _print_table(asked, known, catalog, stopped)
    for remark in remarks(asked, known, catalog):
        console.print(remark)
    if silent := [name for name in catalog if name not in {each.backbone for each in known}]:
        console.print(f"without an answer, and so not among the profiles: {', '.join(silent)}")
    console.print(f"profiles: {out / CATALOG}; recorded answers: {out} (suite {questions.stem})")
    if interrupted:
        console.print("interrupted; the same command goes on")
        sys.exit(130)


def _earlier(out: Path, name: str) -> Mapping[str, Backbone]:
    """The backbones of other suites that were recorded into the folder.

    Raises:
        TraceError, CatalogError: the folder holds what the new suite can't be put beside.
    """
    read_suites(out / "suites.yaml")
    if others := [path.name for path in out.glob("traces/*/") if path.name != name]:
        TraceSet.load(out, benchmarks=others)
    return Catalog.load(out / CATALOG) if (out / CATALOG).is_file() else {}


def _ask(
    asked: Sequence[Question],
    catalog: Catalog,
    max_cost_usd: float,
    log: TextIO,
    known: list[Recorded],
    at_once: int,
    console: Console,
) -> tuple[dict[str, str], bool]:
    """(backbone -> why it was not asked everything, whether that was interrupted); what comes is
    added to `known` and to the log."""
    from agentbalance_plugin.adapters.autogen.recording import record_answers

    pairs = {(each.question, each.backbone) for each in known}
    with counting(console) as bar:
        tasks = {name: bar.add_task(name, total=len(asked)) for name in catalog}
        for each in known:
            bar.advance(tasks[each.backbone])

        def keep(each: Recorded) -> None:
            log.write(each.to_json() + "\n")
            log.flush()
            known.append(each)
            bar.advance(tasks[each.backbone])

        work = record_answers(asked, catalog, max_cost_usd, keep, known=pairs, at_once=at_once)
        try:
            return asyncio.run(work), False
        except KeyboardInterrupt:
            return {}, True


def _write(
    out: Path,
    backbones: Path,
    name: str,
    asked: Sequence[Question],
    known: Sequence[Recorded],
    catalog: Catalog,
    earlier: Mapping[str, Backbone],
) -> None:
    of = {backbone: [each for each in known if each.backbone == backbone] for backbone in catalog}
    measured = Catalog(
        _measured(catalog[b], name, rows, earlier.get(b)) for b, rows in of.items() if rows
    )
    answered = {each.question for each in known}
    write_traces(out, name, [q for q in asked if q.id in answered], known, measured)
    # Of all suites that the folder has.
    traces = TraceSet.load(out)
    everything = replace(traces, queries=tuple(replace(q, split="all") for q in traces.queries))
    profiles = everything.profiles("all")
    found = {b: _fields(backbone, profiles[b]) for b, backbone in measured.items()}
    told_apart = len({query.category for query in everything.queries}) > 1
    if told_apart:
        Kinds.of_queries(everything.queries).save(out / KINDS)
    put(out / CATALOG, catalog_text(backbones, found, KINDS if told_apart else None))


def _measured(
    backbone: Backbone, name: str, rows: Sequence[Recorded], earlier: Backbone | None
) -> Backbone:
    """With the speeds and hidden tokens that the catalog does not tell."""
    changed: dict[str, Any] = {}
    streamed = [r for r in rows if r.first_s is not None]
    plain = backbone.reasoning == "no"
    if backbone.ttft_s is None and streamed and plain:
        changed["ttft_s"] = round(median(r.first_s or 0.0 for r in streamed), 3)
    if backbone.tokens_per_s is None:
        # Hidden tokens come before the first one that is seen.
        speeds = [
            (r.visible_tokens + r.hidden_tokens) / seconds
            for r in rows
            if (seconds := r.total_s - (r.first_s or 0.0) * plain) > 0.0
        ]
        if speeds and median(speeds) > 0.0:
            changed["tokens_per_s"] = round(median(speeds), 1)
    if changed:
        changed["speed_source"] = "measured"
    if not plain:
        hidden = {**(earlier.hidden_tokens if earlier else {}), **backbone.hidden_tokens}
        spread = {**(earlier.output_spread if earlier else {}), **backbone.output_spread}
        if name not in backbone.hidden_tokens:
            hidden[name] = round(fmean(r.hidden_tokens for r in rows))
            if len(rows) >= _ENOUGH_FOR_SPREAD:
                logs = [math.log(max(1, r.visible_tokens + r.hidden_tokens)) for r in rows]
                spread[name] = round(stdev(logs), 3)
        changed |= {"hidden_tokens": hidden, "output_spread": spread}
    return replace(backbone, **changed) if changed else backbone


def _fields(backbone: Backbone, profile: Profile) -> dict[str, Any]:
    """What an entry of the catalog says anew."""
    found: dict[str, Any] = {
        "ttft_s": backbone.ttft_s,
        "tokens_per_s": backbone.tokens_per_s,
        "speed_source": backbone.speed_source,
    }
    if backbone.reasoning != "no":
        found |= {f"hidden_reasoning_tokens_{k}": v for k, v in backbone.hidden_tokens.items()}
        found |= {f"output_spread_{k}": v for k, v in backbone.output_spread.items()}
    found["profile"] = {
        "successes": dict(profile.successes),
        "trials": dict(profile.trials),
        "visible_tokens": {k: round(v, 1) for k, v in profile.visible_tokens.items()},
        "prompt_tokens": {k: round(v, 1) for k, v in profile.prompt_tokens.items()},
        "cuts": {k: [list(cut) for cut in cuts] for k, cuts in profile.cuts.items()},
    }
    return {key: value for key, value in found.items() if value is not None}


def _print_table(
    asked: Sequence[Question],
    known: Sequence[Recorded],
    catalog: Catalog,
    stopped: dict[str, str],
) -> None:
    total = sum(each.nanodollars for each in known) / 1e9
    title = f"{len(asked)} questions; answers cost {total:.4f} USD in all"
    table = Table(title=title, title_justify="left")
    for heading in _HEADINGS:
        justify = "left" if heading in ("backbone", "") else "right"
        # Names and errors are long words, which narrow columns would cut off.
        table.add_column(heading, justify=justify, overflow="fold")
    for name in catalog:
        rows = [each for each in known if each.backbone == name]
        cells = ["0", *[""] * 5]
        if rows:
            cells = [
                str(len(rows)),
                f"{100 * fmean(r.correct for r in rows):.0f} %",
                str(sum(r.answer is None for r in rows)),
                f"{fmean(r.visible_tokens + r.hidden_tokens for r in rows):.0f}",
                f"{fmean(r.nanodollars for r in rows) / 1e9:.6f}",
                f"{fmean(r.total_s for r in rows):.1f}",
            ]
        table.add_row(name, *cells, stopped.get(name, ""))
    plain_console().print(table)


def _sentence(stopped: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in stopped.items()) or "interrupted"
