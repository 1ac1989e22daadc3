"""The page, its figures, and the variants it reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agentbalance_plugin.core.traces import SHIPPED, TraceSet
from agentbalance_plugin.evaluation.document import Report, document
from agentbalance_plugin.evaluation.figures import draw_suite, shown
from agentbalance_plugin.evaluation.kept_trials import KeptTrials
from agentbalance_plugin.evaluation.policy_method import PolicyMethod
from agentbalance_plugin.evaluation.registry import baselines
from agentbalance_plugin.evaluation.results import SuiteResult
from agentbalance_plugin.evaluation.studies.hard_caps import CapRow
from agentbalance_plugin.evaluation.study import Study
from agentbalance_plugin.evaluation.variants import catalogs, sensitivities


@pytest.fixture(scope="module")
def result(small: TraceSet) -> SuiteResult:
    methods = [*baselines(["mix", "category", "chat-best", "oracle"]), PolicyMethod()]
    found = Study("small", small, small, "val", seeds=1, samples=20, steps=8).run(
        methods, KeptTrials()
    )
    return replace(found, assumptions=("answers are replayed",))


def test_the_page_has_every_method_and_says_what_is_replayed(result: SuiteResult) -> None:
    rows = [("as they are", result), ("hidden reasoning tokens x 2", result)]
    cap = CapRow("cost", result.budgets["cost"][0], 71.25, 0.0001, 0.0012, over=0, cut=3.5)
    mean = {"value": 80.0, "low": 75.0, "high": 85.0}
    stream = {"right": mean, "cost_usd": mean, "latency_s": mean, "violations": 0, "failed": 1}
    streams = ("stock", "paced", "hasty")
    chat = {
        "suite": "small", "system": "debate", "queries": 150, "gain": mean,
        "scores": {name: {"p_at_t1": None, "p_at_l1": 80.0} for name in streams},
        **dict.fromkeys(streams, stream),
    }  # fmt: skip
    report = Report(
        [result],
        [result],
        {"Nominal figures": ("Halved and doubled.", rows)},
        hard_caps={"small": [cap]},
        plugin={"autogen": [chat]},
        missing=("Catalogs, 25: ValueError: no",),
    )
    page = document(report, "agentbalance evaluate --document here.md --out there")
    for method in result.methods:
        assert page.count(f"{method.name}") >= 4
    for words in ("**Replayed**", "up to 10 %", "22 %", "## Ablations", "## Nominal figures"):
        assert words in page
    assert "agentbalance evaluate --document here.md --out there" in page
    as_mean = result.method("agentbalance").axes["cost"].performance[0]
    assert f"| small | T1 = {cap.cap:.3g} USD | 71.2 | {as_mean:.1f} |" in page
    assert page.count("| autogen | small | debate | 150 |") == 3
    assert "- Catalogs, 25: ValueError: no" in page
    matched = page[page.index("## Gain over") : page.index("## Published")]
    assert matched.count("chat as written, best backbone") == 6
    widths = {line.count("|") for line in matched.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_figures_are_the_same_in_two_runs(result: SuiteResult, tmp_path: Path) -> None:
    first, second = (draw_suite(result, tmp_path / name) for name in ("one", "two"))
    assert [path.name for path in first] == [
        "cost.png",
        "cost.svg",
        "latency.png",
        "latency.svg",
    ]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert shown(result, "cost")[0].family == "agentbalance"
    assert "chat as written" in (tmp_path / "one" / "cost.svg").read_text()


def test_nominal_figures_are_halved_and_doubled_and_others_kept() -> None:
    traces = TraceSet.shipped("reasoning")
    found = sensitivities(traces)
    assert list(found) == [
        f"{what} x {scale}"
        for what in ("nominal prices", "nominal tokens per second", "hidden reasoning tokens")
        for scale in ("0.5", "2")
    ]
    double = found["nominal prices x 2"].catalog
    for name, backbone in traces.catalog.items():
        factor = 2 if backbone.price_source == "nominal" else 1
        assert double[name].price_out_usd_per_mtok == factor * backbone.price_out_usd_per_mtok
    hidden = found["hidden reasoning tokens x 0.5"].catalog["o1-mini-2024-09-12"].hidden_tokens
    assert hidden["gsm8k"] * 2 == traces.catalog["o1-mini-2024-09-12"].hidden_tokens["gsm8k"]
    # Nobody in mmlu reasons in secret.
    assert not any("hidden" in label for label in sensitivities(TraceSet.shipped("mmlu")))


def test_catalogs_grow_to_all_that_was_recorded() -> None:
    traces = TraceSet.shipped("reasoning")
    public = TraceSet.load(SHIPPED, benchmarks=traces.benchmarks)
    found = catalogs(traces, public)
    sizes = [len(each.candidates) for each in found.values()]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[2], sizes[3]) == (14, 25, len(public.backbones))
    for each in found.values():
        assert each.candidates[:14] == traces.candidates
        assert each.reference == traces.reference
