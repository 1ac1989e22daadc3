"""docs/results.md: all suites and studies as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentbalance_plugin.evaluation.framework_tables import plugin_table
from agentbalance_plugin.evaluation.published import PUBLISHED as _PUBLISHED
from agentbalance_plugin.evaluation.published import published_table
from agentbalance_plugin.evaluation.report import SIGN, UNIT, axis_table, number, table
from agentbalance_plugin.evaluation.results import MethodResult, SuiteResult
from agentbalance_plugin.evaluation.studies.hard_caps import CapRow
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

_HARD_CAPS = """## Hard caps

P@T and P@L limit the mean: a hard question may cost more where easy ones cost less. Here no single
run may pass T (`Budget(cost_usd=T)`) or L (`Budget(latency_s=L)`): the shipped policy's plans
through the meter and the scheduler of live runs, seed 0. *Over*: runs that billed more, or came
back later. *Cut*: runs with a call that was denied or cut off. *As a mean*: the policy's P@T or P@L
at the same figure, from the tables above.
"""

_PLUGIN = """## Through AutoGen and LangGraph

The chat or graph as written and the same one under a budget, through the real frameworks over HTTP
on recorded test queries: at most 150 of a suite, all where there are fewer. Written by

    python examples/plugin_pat1_autogen.py --suite SUITE ... --out DIR/plugin/autogen.json
    python examples/plugin_pat1_langgraph.py --suite SUITE ... --out DIR/plugin/langgraph.json

before the command at the top, with its DIR. *Paced at T1*:
`Budget.average(cost_usd=T1, max_cost_usd=T3)`. *Within L3*: `Budget(cost_usd=T3, latency_s=L3)`,
where L3 is twice L1. P@T1 and P@L1 are the right answers where the mean cost is at most T1, the
mean latency at most L1, else —. Brackets are 95 % intervals; a run that fails is wrong. A function
tells the selector chat who speaks, so no calls of a selecting backbone count against it. *Gain*:
right answers of the paced one less those as written, in points, paired. Tests assert that these
runs are the replay of the same plans query by query: answer, tokens and cost.
"""


@dataclass(frozen=True)
class Report:
    """All results.

    Args:
        main: per suite.
        ablations: per suite.
        variants: title of a section -> its introduction, and (row label, result) pairs per suite.
        hard_caps: per suite.
        plugin: framework -> what its example wrote, as JSON.
        missing: parts that failed, and why.
    """

    main: Sequence[SuiteResult]
    ablations: Sequence[SuiteResult]
    variants: Mapping[str, tuple[str, Sequence[tuple[str, SuiteResult]]]]
    hard_caps: Mapping[str, Sequence[CapRow]] = field(default_factory=dict[str, Sequence[CapRow]])
    plugin: Mapping[str, Sequence[Mapping[str, Any]]] = field(
        default_factory=dict[str, Sequence[Mapping[str, Any]]]
    )
    missing: Sequence[str] = ()


def document(report: Report, command: str) -> str:
    """The page as Markdown."""
    first = report.main[0]
    parts = [_HEAD.format(command=command, split=first.split)]
    for result in report.main:
        seeds = result.methods[0].seeds
        parts.append(f"## {result.suite}\n\n{result.queries} queries; {seeds} seeds.")
        parts += [axis_table(result, axis) for axis in AXES]
        parts.append("\n".join(f"- {each}" for each in result.assumptions))
    if report.hard_caps:
        parts += [_HARD_CAPS, caps_table(report.main, report.hard_caps)]
    parts += [_MATCHED, matched_table(report.main)]
    parts += [_PUBLISHED, published_table(report.main)]
    parts.append(_PLUGIN)
    if report.plugin:
        parts.append(plugin_table(report.plugin))
    if report.ablations:
        parts.append("## Ablations\n\n" + _ABLATIONS)
        parts += [axis_table(result, axis) for result in report.ablations for axis in AXES]
    for title, (text, rows) in report.variants.items():
        parts.append(f"## {title}\n\n{text}")
        parts.append(variant_table(rows))
    if report.missing:
        parts.append("## Not made\n\n" + "\n".join(f"- {each}" for each in report.missing))
    parts.append("What else was tried is in [tried.md](tried.md).")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


_ABLATIONS = """The policy with one part changed; plans are changed after the policy made them, so
the policy does not know. *No late gates*: all agents run. *Random matching*: same topology,
backbones drawn at random. *Our backbones + random topology*: each pair of agents has an edge with
even odds, the last decides. *One backbone + our topology*: the single backbone worth most at the
price takes every seat. *Uniform*: that backbone in a chat of four. All rows have half as many
prices as the tables above. "Less the best baseline" is empty as no baselines ran."""


def caps_table(results: Sequence[SuiteResult], caps: Mapping[str, Sequence[CapRow]]) -> str:
    """Each cap beside the mean budget of the same figure."""
    header = ["suite", "cap", "right", "as a mean", "mean spent", "most spent", "over", "cut"]
    rows: list[list[str]] = []
    for result in results:
        ours = policy_of(result)
        for axis in AXES:
            found = [row for row in caps.get(result.suite, ()) if row.axis == axis]
            for place, row in enumerate(found):
                as_mean = None if ours is None else ours.axes[axis].performance
                # Budgets of one's own need not be the suite's three.
                known = as_mean is not None and result.budgets[axis][place : place + 1] == (
                    row.cap,
                )
                rows.append(
                    [
                        result.suite,
                        f"{SIGN[axis]}{place + 1} = {row.cap:.3g} {UNIT[axis]}",
                        number(row.right),
                        number(as_mean[place]) if known and as_mean is not None else "—",
                        f"{row.mean:.3g}",
                        f"{row.most:.3g}",
                        str(row.over),
                        f"{row.cut:.1f} %",
                    ]
                )
    return table(header, rows)


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
