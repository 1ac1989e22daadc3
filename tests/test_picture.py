"""Plans and reports as pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentbalance_plugin import Budget, Expected, LateGate, Meter, Plan, RunReport
from agentbalance_plugin.runtime.report import agent_report

PLAN = Plan(
    assignment={"planner": "small", "solver": "middle", "decider": "large"},
    decision="vote",
    decider="decider",
    late_gates={"decider": LateGate(("planner", "solver"), 0.7)},
    expected=Expected(0.8, 0.001, 2.0),
)


def report(plan: Plan | None) -> RunReport:
    meter = Meter(Budget(cost_usd=1.0))
    return RunReport(
        plan=plan,
        budget=meter.budget,
        spend=meter.spend(),
        agents=tuple(
            agent_report(meter, name, "small", status, "", None)
            for name, status in (("planner", "done"), ("solver", "failed"), ("decider", "closed"))
        ),
        calls=(),
        stop_reason="Plan complete",
        complete=True,
    )


def test_a_plan_is_drawn_as_png_or_svg(tmp_path: Path) -> None:
    PLAN.draw(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    PLAN.draw(tmp_path / "plan.svg")
    drawn = (tmp_path / "plan.svg").read_text()
    # Each text is a comment beside its outline.
    for text in ("planner", "large", "agreement &lt; 0.70", "vote", "expected: 80%"):
        assert text in drawn or text.replace("&lt;", "<") in drawn


def test_a_team_that_decides_by_itself_is_drawn(tmp_path: Path) -> None:
    plan = Plan(assignment={"first": "small", "second": "large"}, decider=None)
    report(plan).draw(tmp_path / "run.svg")
    assert "second" in (tmp_path / "run.svg").read_text()
    assert plan.to_tree().splitlines()[0] == "answer"


def test_a_report_shows_each_status_in_its_colour(tmp_path: Path) -> None:
    report(PLAN).draw(str(tmp_path / "run.svg"))
    PLAN.draw(tmp_path / "plan.svg")
    run, plan = (tmp_path / "run.svg").read_text(), (tmp_path / "plan.svg").read_text()
    for colour in ("#cfe8cf", "#f2c4c4", "#eeeeee"):
        assert colour in run
        assert colour not in plan


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: a picture ends in \.png or \.svg"):
        PLAN.draw(tmp_path / "plan.pdf")
    with pytest.raises(ValueError, match="no plan"):
        report(None).draw(tmp_path / "run.png")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from agentbalance_plugin import Plan\n"
        f"Plan(assignment={{'a': 'b'}}, decider='a').draw({str(tmp_path / 'p.png')!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'agentbalance-plugin[report]'" in done.stderr
