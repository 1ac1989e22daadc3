"""docs/results.md: all suites and studies as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentbalance_plugin.evaluation.report import SIGN, axis_table, number, table
from agentbalance_plugin.evaluation.results import MethodResult, SuiteResult
from agentbalance_plugin.evaluation.trials import AXES, Axis

_HEAD = """# Results on recorded answers

Written by

    {command}

**Replayed**, not live. What an agent says alone was recorded, votes, tokens and prices are exact;
what an agent says after reading others, and a backbone's second answer to one question, are
modelled; latency follows nominal speeds ([replay.md](replay.md)). Policies and baselines were
fitted on the train split and tuned on val; the tables are of the {split} split.

P@T1, P@T2, P@T3: right answers, in percent, at a mean cost of 10 %, 30 % and 100 % of four calls
of the suite's reference backbone. P@L1-3: at 50 %, 75 % and 100 % of two such calls' time. AUC:
the area under right answers against the logarithm of the budget, from the cheapest (fastest)
single backbone to T3 (L3), divided by the width: mean ± standard deviation over seeds,
then the 95 % interval over queries. Every method may mix two of its points and the cheapest
single backbone, with the weight that meets the budget on the scored queries; which points count
is chosen on val. "Less the best baseline": 95 % interval of the AUC less that of the baseline
with the largest AUC on val, paired over queries (1,000 resamples). —: nothing fits.

Baselines are written anew from their papers ([evaluation.md](evaluation.md) has what each does
and its grid). "Reference backbone" is the backbone of the chat as written; "best backbone" takes,
at each budget, the one whose chats are best on val. Methods on one backbone get the benefit of
sampling again. The category tables are told the true category of each question; the policy reads
it off the text.
"""

_MATCHED = """## Gain over the best homogeneous team

The paper (arXiv 2512.11426) reports gains of up to 10 % at matched token cost and up to 22 % at
matched latency over its baselines. Below: percent right of the policy and of the homogeneous
method that is best on val, at the same mean spend.

Comparable: both compare designs at equal mean spend on benchmark questions, and both give the
baselines one backbone. Not comparable: the paper ran live agents with roles and prompts of its
own on other backbones and counts the area under its own budget range; here answers of agents that
read others are modelled, so what debate gains or loses is the model's ([replay.md](replay.md)). The
homogeneous rows may mix with the cheapest single backbone, as all rows do, which makes them
stronger at small budgets.
"""


@dataclass(frozen=True)
class Report:
    """All results.

    Args:
        main: per suite.
        ablations: per suite.
        variants: title of a section -> its introduction, and (row label, result) pairs per suite.
    """

    main: Sequence[SuiteResult]
    ablations: Sequence[SuiteResult]
    variants: Mapping[str, tuple[str, Sequence[tuple[str, SuiteResult]]]]


def document(report: Report, command: str) -> str:
    """The page as Markdown."""
    first = report.main[0]
    parts = [_HEAD.format(command=command, split=first.split)]
    for result in report.main:
        seeds = result.methods[0].seeds
        parts.append(f"## {result.suite}\n\n{result.queries} queries; {seeds} seeds.")
        parts += [axis_table(result, axis) for axis in AXES]
        parts.append("\n".join(f"- {each}" for each in result.assumptions))
    parts += [_MATCHED, matched_table(report.main)]
    if report.ablations:
        parts.append("## Ablations\n\n" + _ABLATIONS)
        parts += [axis_table(result, axis) for result in report.ablations for axis in AXES]
    for title, (text, rows) in report.variants.items():
        parts.append(f"## {title}\n\n{text}")
        parts.append(variant_table(rows))
    parts.append("What else was tried is in [tried.md](tried.md).")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


_ABLATIONS = """The policy with one part changed; plans are changed after the policy made them, so
the policy does not know. *No late gates*: all agents run. *Random matching*: same topology,
backbones drawn at random. *Our backbones + random topology*: each pair of agents has an edge with
even odds, the last decides. *One backbone + our topology*: the single backbone worth most at the
price takes every seat. *Uniform*: that backbone in a chat of four. "Less the best baseline" is
empty as no baselines ran."""


def matched_table(results: Sequence[SuiteResult]) -> str:
    """Policy against the best homogeneous method at each budget."""
    header = ["suite", "axis", "best homogeneous method", "at", "its", "policy", "gain", "relative"]
    rows: list[list[str]] = []
    for result in results:
        for axis in AXES:
            rival, ours = best_homogeneous(result, axis), policy_of(result)
            if rival is None or ours is None:
                continue
            for place in range(len(result.budgets[axis])):
                base = rival.axes[axis].performance[place]
                mine = ours.axes[axis].performance[place]
                gain = mine - base
                rows.append(
                    [
                        result.suite,
                        axis,
                        rival.name,
                        f"{SIGN[axis]}{place + 1}",
                        number(base),
                        number(mine),
                        "—" if gain != gain else f"{gain:+.1f}",
                        "—" if gain != gain or not base else f"{100 * gain / base:+.0f} %",
                    ]
                )
    return table(header, rows)


def best_homogeneous(result: SuiteResult, axis: Axis) -> MethodResult | None:
    """The homogeneous method with the largest area on val."""
    teams = [method for method in result.methods if method.family == "homogeneous"]
    return max(teams, key=lambda method: method.axes[axis].auc_val, default=None)


def policy_of(result: SuiteResult) -> MethodResult | None:
    """The first policy there is."""
    return next((m for m in result.methods if m.family == "agentbalance"), None)


def variant_table(rows: Sequence[tuple[str, SuiteResult]]) -> str:
    """AUC of each method by cost and latency, a line per variant and suite."""
    names = list(dict.fromkeys(method.name for _, result in rows for method in result.methods))
    header = ["suite", "variant", *(f"{name}, cost / latency" for name in names)]
    lines: list[list[str]] = []
    for label, result in rows:
        methods = {method.name: method for method in result.methods}
        cells = [
            f"{methods[name].axes['cost'].auc:.1f} / {methods[name].axes['latency'].auc:.1f}"
            if name in methods
            else "—"
            for name in names
        ]
        lines.append([result.suite, label, *cells])
    return table(header, lines)
