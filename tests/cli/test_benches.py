"""What measurements make of what they measured; how fast things are is not a matter of tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_commands import run

from agentbalance_plugin.cli.benches.commands import performance_table
from agentbalance_plugin.cli.benches.measure import Findings, Ratio, Span, in_turns
from agentbalance_plugin.cli.benches.page import write_table
from agentbalance_plugin.cli.benches.schedule import random_case
from agentbalance_plugin.cli.benches.training import synthetic
from agentbalance_plugin.core.dependence import coincidence_of


def test_a_ratio_is_the_median_over_rounds_and_says_on_which_side_of_its_bar_it_is() -> None:
    found = Findings("x")
    found.compare("a / b", [1.0, 2.0, 9.0], [1.0, 1.0, 3.0], bar=2.0)
    found.compare("rate", [1.0, 1.0], [4.0, 2.0], bar=0.5, better="above")
    found.compare_spans("c / d", [Span(2.0, 1.0)], [Span(1.0, 1.0)])
    as_dict = json.loads(json.dumps(found.to_dict()))
    assert set(as_dict) == {"name", "figures", "ratios"}
    assert as_dict["ratios"]["a / b"]["median"] == 2.0
    assert as_dict["ratios"]["a / b"]["holds"] is True
    assert as_dict["ratios"]["rate"]["holds"] is False
    assert as_dict["ratios"]["c / d"]["median"] == 2.0
    assert as_dict["ratios"]["c / d, processor"]["median"] == 1.0
    assert Ratio([1.0]).holds is None


def test_ways_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def way(name: str) -> int:
        order.append(name)
        return len(order)

    ways = {name: (lambda name=name: way(name)) for name in "abc"}
    found = in_turns(ways, 5, Console(quiet=True), title="")
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys("abc", 5)
    rounds = [order[start : start + 3] for start in range(0, 18, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert min(min(values) for values in found.values()) > 3


def test_the_page_keeps_everything_but_its_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    lines = "<!-- agentbalance bench table: begin -->\nold\n<!-- agentbalance bench table: end -->"
    page.write_text(f"before\n{lines}\nafter\n")
    found = Findings("x", ratios={"a / b": Ratio([3.0], bar=2.0)})
    write_table(page, [found])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| x | a / b | 3 | 3 to 3 | ≤ 2 missed |" in text
    page.write_text("nothing")
    with pytest.raises(ValueError, match=r"page\.md"):
        write_table(page, [found])
    # The command says so before it measures.
    with pytest.raises(ValueError, match=r"page\.md: no lines"):
        performance_table(write=page)


def test_paths_of_random_plans_are_what_they_should_be() -> None:
    rng = np.random.default_rng(4)
    cases = [random_case(rng) for _ in range(60)]
    assert all(case.critical_path <= case.level_makespan + 1e-12 for case in cases)
    assert all(case.critical_path >= max(case.seconds[n] for n in case.running) for case in cases)
    assert any(case.critical_path < case.level_makespan for case in cases)
    assert any(len(case.running) < len(case.plan.assignment) for case in cases)


def test_coincidence_is_the_share_of_equal_among_pairs_of_wrong_answers() -> None:
    traces = synthetic(40, seed=1)
    rows = traces.positions("train")
    pairs = same = 0
    for row in rows:
        wrong = [
            int(a) for a, c in zip(traces.answer[row], traces.correct[row], strict=True) if not c
        ]
        pairs += len(wrong) * (len(wrong) - 1) // 2
        same += sum(wrong[i] == wrong[j] for i in range(len(wrong)) for j in range(i))
    whole = (same + 1.0) / (pairs + 2.0)
    found = coincidence_of(traces, "train")
    # Categories are shrunk to the benchmark's rate, and there are many pairs in each.
    assert np.mean(list(found.values())) == pytest.approx(whole, abs=0.02)


def test_a_measurement_prints_one_json_object() -> None:
    done = run("bench", "import", "--rounds", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"] == "import"
    assert "installed, numpy" in found["figures"]
    assert found["ratios"]["package and policy / numpy"]["bar"] == 2.0


def test_every_measurement_is_listed() -> None:
    shown = run("bench", "--help").stdout
    names = ("planning", "autogen", "langgraph", "replay", "import", "schedule", "train", "table")
    for name in (*names, "deadline"):
        assert name in shown
