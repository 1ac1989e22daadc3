"""Figures that papers of the baselines give, beside the replay's: near, and why not the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentbalance_plugin.evaluation.report import number, table
from agentbalance_plugin.evaluation.results import SuiteResult

PUBLISHED = """## Published figures

Of the recorded answers themselves: the share of right ones is the published one within 0.01 points
in 147 of 147 files of the source of gsm8k, math_l5 and crux; MMLU-Pro's as recorded are 72.6 (72.6
published) for GPT-4o and 54.7 (54.8) for DeepSeek-V2-Chat, and higher here, 74.3 and 58.4, as
answers were recovered and 45 keys corrected. So single backbones are reproduced; methods are not,
as their agents were live. Below: percent right as published and of the replay at T3. Figures of
MasRouter, AgentPrune and AgentDropout are those that wizwand.com lists from the papers, those of
LLM-Debate as quoted in a review of its tables; none was checked against the papers' own pages."""


@dataclass(frozen=True)
class Figure:
    """One published figure and the row that comes nearest to it."""

    suite: str
    method: str
    paper: str
    published: float
    why: str


_FIGURES = (
    Figure(
        "mmlu", "MasRouter", "2502.11133", 84.25,
        "Other backbones, and live agents with prompts and roles of their own; here a role has no "
        "recorded effect.",
    ),
    Figure(
        "mmlu", "AgentPrune, best backbone", "2410.02506", 85.07,
        "Six live agents on another backbone; here three workers and a decider that gave bare "
        "answers of one token, and what they say after reading others is modelled.",
    ),
    Figure(
        "mmlu", "AgentDropout, best backbone", "2503.18891", 85.62,
        "Live agents on another backbone; here bare answers of one token, and what agents say "
        "after reading others is modelled.",
    ),
    Figure(
        "mmlu", "LLM-Debate, reference backbone", "2305.14325", 71.1,
        "Three agents on gpt-3.5-turbo-0301, 63.9 alone; our reference backbone alone is far "
        "stronger and gains less from a debate.",
    ),
    Figure(
        "humaneval", "MasRouter", "2502.11133", 90.62,
        "Other backbones, and 38 of the 164 programs here; votes cannot compare programs, so "
        "teams gain nothing beyond routing.",
    ),
)  # fmt: skip


def published_table(results: Sequence[SuiteResult]) -> str:
    """Those figures whose suite and method were evaluated."""
    header = ["suite", "method", "arXiv", "published", "here, P@T3", "why they differ"]
    suites = {result.suite: result for result in results}
    rows: list[list[str]] = []
    for figure in _FIGURES:
        methods = suites[figure.suite].methods if figure.suite in suites else ()
        for method in methods:
            if method.name == figure.method:
                ours = method.axes["cost"].performance[-1]
                published = f"{figure.published:g}"
                rows.append([figure.suite, figure.method, figure.paper, published, number(ours),
                             figure.why])  # fmt: skip
    return table(header, rows)
