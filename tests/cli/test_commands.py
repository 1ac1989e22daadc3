"""The commands, as a user runs them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from agentbalance_plugin import Policy
from agentbalance_plugin.cli.train import run_training
from agentbalance_plugin.core.network_trainer import TrainerConfig
from agentbalance_plugin.core.reference import reference_budgets
from agentbalance_plugin.core.stage_trainer import StageConfig
from agentbalance_plugin.core.stages.config import STAGES
from agentbalance_plugin.core.traces import SHIPPED, TraceSet


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("agentbalance")), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "120", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
    )


@pytest.fixture(scope="module", params=["autogen", "langgraph"])
def demos(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """With two seeds: on one, accuracy moves by more than a point by chance alone."""

    def demo(seed: str) -> dict[str, Any]:
        done = run("demo", "--framework", request.param, "--seed", seed, "--json")
        assert done.returncode == 0, done.stderr
        return {**json.loads(done.stdout), "asked for": request.param}

    # Each is a process of its own that takes a core for most of a minute.
    with ThreadPoolExecutor() as pool:
        return list(pool.map(demo, ("0", "1")))


def test_the_demo_prints_one_json_object(demos: list[dict[str, Any]]) -> None:
    demo = demos[0]
    figures = {"accuracy", "cost_usd", "latency_s"}
    assert set(demo) == {"framework", "queries", "stock", "wrapped", "replayed", "asked for"}
    assert set(demo["stock"]) == figures
    assert set(demo["wrapped"]) == figures | {"violations"}
    assert demo["framework"] == demo["asked for"]
    assert demo["replayed"] is True
    assert demo["queries"] >= 60


def test_the_demo_meets_its_budget_and_is_as_right_as_the_stock_chat(
    demos: list[dict[str, Any]],
) -> None:
    target, _, _ = reference_budgets(TraceSet.shipped("reasoning")).cost_usd
    for demo in demos:
        assert demo["wrapped"]["violations"] == 0
        assert demo["wrapped"]["cost_usd"] <= 1.02 * target
        assert demo["wrapped"]["cost_usd"] < demo["stock"]["cost_usd"] / 5
    wrapped, stock = (
        sum(demo[chat]["accuracy"] for demo in demos) / len(demos) for chat in ("wrapped", "stock")
    )
    assert wrapped >= stock - 2.0


def test_two_demos_are_equal_and_the_table_says_that_answers_are_replayed() -> None:
    first, second = (run("demo", "--queries", "20", "--seed", "3", "--json") for _ in range(2))
    assert first.stdout == second.stdout
    shown = run("demo", "--queries", "20")
    assert shown.returncode == 0
    assert "Answers are replayed from recorded ones, not live" in shown.stdout
    for word in ("stock", "wrapped", "right", "USD", "simulated s", "wall s", "violations"):
        assert word in shown.stdout
    assert "vote" in shown.stdout or "answer of" in shown.stdout


def test_the_demo_takes_a_budget() -> None:
    asked = ("--queries", "60", "--mean", "0.004", "--cap", "0.02")
    done = run("demo", *asked, "--json")
    wrapped = json.loads(done.stdout)["wrapped"]
    assert wrapped["violations"] == 0
    # More than the default would spend, and no more than asked for.
    assert 0.002 < wrapped["cost_usd"] <= 0.004 * 1.02
    shown = run("demo", "--queries", "2", *asked[2:]).stdout
    assert "Budget: 0.004000 USD a query on average, never more than 0.020000." in shown


CATALOG = str(Path(__file__).parents[2] / "examples" / "backbones.yaml")


def test_a_task_is_explained_without_a_key(tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    asked = ("explain", "What is 17 * 23?", "--backbones", CATALOG, "--cost-usd", "0.004")
    shown = run(*asked, "--draw", str(picture))
    assert shown.returncode == 0, shown.stderr
    assert "kind of task: mmlu/elementary_mathematics" in shown.stdout
    assert "Predicted, not measured" in shown.stdout
    assert "<svg" in picture.read_text(encoding="utf-8")
    fixed = run(*asked, "--agent", "writer: You write.", "--agent", "editor", "--keep-order")
    assert "answer of editor" in fixed.stdout
    found = json.loads(run(*asked, "--mean-cost-usd", "0.001", "--json").stdout)
    assert [each["mean_cost_usd"] for each in found["budgets"]][2] == 0.001
    assert found["plan"] == found["budgets"][2]["plan"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "x", "--backbones", CATALOG), "give --cost-usd, --latency-s or --tokens"),
        (
            ("explain", "x", "--cost-usd", "1", "--mean-cost-usd", "2"),
            "--mean-cost-usd 2 is above --cost-usd 1",
        ),
        (
            ("explain", "x", "--backbones", CATALOG, "--cost-usd", "1e-8"),
            "Budget.cost_usd is 1e-08",
        ),
        (("explain", "x", "--backbones", CATALOG, "--mean-cost-usd", "1"), "--cost-usd as well"),
        (("explain", "x", "--cost-usd", "1", "--agent", ":x"), "--agent ':x' has no name"),
        (("explain", "x", "--cost-usd", "1", "--backbones", "no.yaml"), "no.yaml"),
        (("demo", "--mean", "-1"), "average cost_usd"),
        (("demo", "--mean", "0.01", "--cap", "0.001"), "--mean 0.01 is above --cap 0.001"),
        (("demo", "--suite", "nothing"), "nothing"),
        (("demo", "--framework", "ag2"), "framework: 'ag2'"),
        (("demo", "--queries", "100000"), "queries: 100000"),
        (("demo", "--traces", "/nowhere"), "/nowhere"),
        (("serve-backbones", "--suite", "nothing"), "nothing"),
        (("train", "--out", "/dev/null/policy", "--traces", "/nowhere"), "/nowhere"),
        (("evaluate", "--baselines", "nothing"), "there are all, none, single"),
        (("evaluate", "--policy", "/nowhere"), "/nowhere"),
        (("evaluate", "--policy", "none", "--baselines", "none"), "nothing to evaluate"),
        (("evaluate", "--budgets", "money=1"), "money=1"),
        (("evaluate", "--fit-on", "/nowhere"), "/nowhere"),
        (("evaluate", "--split", "nothing"), "nothing"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("serve-backbones", "--port", "99999"), "--port"),
        (("demo", "--seed", "-1"), "--seed"),
        (("study", "follow-through", "--seed", "-1"), "--seed"),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_option(
    arguments: tuple[str, ...], named: str
) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert f"Invalid value for '{named}'" in done.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve-backbones", "--port", port)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: can't listen on host '127.0.0.1', port {port}: ")
    assert "port 0" in done.stderr


def test_the_version_is_told() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.strip() == version("agentbalance-plugin")
    module = [sys.executable, "-m", "agentbalance_plugin", "--version"]
    assert subprocess.run(module, capture_output=True, text=True).stdout == done.stdout


def test_a_policy_can_be_trained_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = StageConfig(
        imitation_steps=20, gradient_steps=10, check_every=10, val_queries=20,
        imitation_tasks=16, gradient_tasks=8,
    )  # fmt: skip
    config = TrainerConfig(embedding_epochs=3, category_epochs=1, head_epochs=2, stages=steps)
    run_training(None, ["reasoning"], tmp_path / "policy", 0, resume=False, config=config)
    said = capsys.readouterr()
    assert "policy written to" in said.err.replace("\n", " ")
    assert "AUC on 100 validation queries, replayed" in said.out
    for row in ("none", *STAGES, "the shipped policy instead"):
        assert row in said.out
    assert list((tmp_path / "policy" / "tensorboard").glob("events.*"))
    assert Policy.load(tmp_path / "policy")


def test_a_suite_without_a_reference_backbone_can_be_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("traces", "catalog.csv"):
        (tmp_path / name).symlink_to(SHIPPED / name)
    (tmp_path / "suites.yaml").write_text(
        "sums:\n  benchmarks: [gsm8k]\n  candidates: [gpt-4o-mini-2024-07-18, gemini-1.5-pro]\n",
        encoding="utf-8",
    )
    steps = StageConfig(
        imitation_steps=1, gradient_steps=1, val_queries=20, imitation_tasks=4, gradient_tasks=4
    )
    config = TrainerConfig(embedding_epochs=1, category_epochs=1, head_epochs=1, stages=steps)
    out = tmp_path / "policy"
    run_training(tmp_path, ["sums"], out, 0, resume=False, tensorboard=False, config=config)
    said = capsys.readouterr()
    assert "sums in suites.yaml names no reference backbone" in " ".join(said.err.split())
    assert said.out == ""
    assert Policy.load(out)


def test_a_training_that_was_not_worth_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("traces", "catalog.csv"):
        (tmp_path / name).symlink_to(SHIPPED / name)
    names = ["gpt-4o-mini-2024-07-18", "gemini-1.5-flash", "gpt-4o-2024-08-06"]
    suite = {"benchmarks": ["crux", "math_l5"], "candidates": names, "reference": names[-1]}
    (tmp_path / "suites.yaml").write_text(json.dumps({"sums": suite}), encoding="utf-8")
    steps = StageConfig(
        imitation_steps=1, gradient_steps=1, val_queries=20, imitation_tasks=4, gradient_tasks=4
    )
    config = TrainerConfig(embedding_epochs=1, category_epochs=1, head_epochs=1, stages=steps)
    out = tmp_path / "policy"
    run_training(tmp_path, ["sums"], out, 0, resume=False, tensorboard=False, config=config)
    said = " ".join(capsys.readouterr().err.split())
    assert "the shipped policy does better on these queries: leave policy='default'" in said


def test_the_deadline_is_measured() -> None:
    done = run("bench", "deadline", "--runs", "2", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["chat"] for row in rows] == ["RoundRobinGroupChat", "GraphFlow"]
    assert all(set(row) == {"chat", "runs", "mean_ms", "max_ms", "bound_ms"} for row in rows)
    assert done.stderr.strip() == ""


def test_the_overhead_of_graphs_is_measured_against_the_stock_graph() -> None:
    done = run("bench", "langgraph", "--rounds", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"name", "figures", "ratios", "bars"}
    for calls in ("async", "sync"):
        assert found["figures"][f"{calls} stock ms"] > 0
        for graph in found["bars"]:
            assert found["ratios"][f"{calls} {graph}"] > 0


def test_methods_are_scored_and_written(tmp_path: Path) -> None:
    asked = ["evaluate", "--split", "val", "--baselines", "mix,category", "--seeds", "1"]
    done = run(*asked, "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [method["name"] for method in content["methods"]] == [
        "mix of single backbones",
        "category -> single backbone",
        "agentbalance",
    ]
    assert all(50 < method["auc_cost"] < 100 for method in content["methods"])
    folder = tmp_path / "reasoning"
    assert json.loads((folder / "results.json").read_text()) == content
    assert "| **agentbalance** |" in (folder / "results.md").read_text()
    for axis in ("cost", "latency"):
        assert (folder / f"{axis}.png").stat().st_size > 10_000
        assert (folder / f"{axis}.svg").read_text().startswith("<?xml")


def test_help_lists_every_command() -> None:
    shown = run("--help").stdout
    for command in ("demo", "serve-backbones", "train", "evaluate", "bench"):
        assert command in shown
