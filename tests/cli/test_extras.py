"""What commands say before they start: of extras that are absent, of folders that are none."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agentbalance_plugin.adapters import langgraph
from agentbalance_plugin.cli.benches.training import bench_train
from agentbalance_plugin.cli.demo import FrameworkName, run_demo
from agentbalance_plugin.cli.main import app
from agentbalance_plugin.cli.train import run_training
from agentbalance_plugin.evaluation.studies import unseen


def test_training_without_extras_names_the_one_that_has_all_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"'agentbalance-plugin\[train\]'"):
        run_training(None, ["reasoning"], tmp_path / "policy", seed=0, resume=False)
    assert not list(tmp_path.iterdir())


def test_a_study_that_trains_last_asks_for_torch_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("the study began")

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(unseen, "study_unseen", too_late)
    result = CliRunner().invoke(app, ["study", "unseen"])
    assert isinstance(result.exception, ImportError)
    assert "'agentbalance-plugin[train]'" in str(result.exception)


def test_measuring_training_without_torch_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"'agentbalance-plugin\[train\]'"):
        bench_train(seed=0, console=Console(quiet=True))


@pytest.mark.parametrize("framework", ["autogen", "langgraph"])
def test_the_demo_without_extras_names_both_that_it_needs(
    framework: FrameworkName, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("starlette", "autogen_agentchat", "langchain_openai"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"'agentbalance-plugin\[{framework},simulator\]'"):
        run_demo(
            framework=framework,
            queries=1,
            suite="reasoning",
            mean_usd=None,
            cap_usd=None,
            traces=None,
            seed=0,
            console=Console(quiet=True),
        )


def test_the_middleware_without_langchain_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    middleware = "agentbalance_plugin.adapters.langgraph.middleware"
    monkeypatch.delitem(sys.modules, middleware, raising=False)
    for module in [name for name in sys.modules if name.split(".")[0] == "langchain"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "langchain.agents", None)
    with pytest.raises(ImportError, match=r"pip install langchain$"):
        _ = langgraph.BudgetMiddleware


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["evaluate"],
        ["study", "load"],
        ["record", "--questions", "q.jsonl", "--max-cost-usd", "1"],
    ],
)
def test_a_file_is_no_folder_for_results(tmp_path: Path, command: list[str]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    result = CliRunner().invoke(app, [*command, "--out", str(taken)])
    assert result.exit_code == 2
    assert "'--out'" in result.output
    assert taken.read_text() == "mine"


@dataclass(frozen=True)
class Found:
    """What a study found that can't be drawn."""

    name: str = "found"

    def to_dict(self) -> dict[str, Any]:
        return {"found": 1}

    def to_markdown(self) -> str:
        return "found 1"

    def draw(self, folder: Path) -> list[Path]:
        raise ImportError("no matplotlib")


def test_what_a_study_found_is_shown_whatever_becomes_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "study_unseen", lambda setting, ticker: Found())
    out = tmp_path / "[red]a:b"
    result = CliRunner().invoke(app, ["study", "unseen", "--out", str(out)])
    assert (result.exit_code, result.stdout) == (0, "found 1")
    assert "no plots: no matplotlib" in result.stderr
    assert (out / "found.md").read_text() == "found 1"

    def blocking(setting: object, ticker: object) -> Found:
        (out / "found.json").unlink()
        (out / "found.json").mkdir()
        return Found()

    monkeypatch.setattr(unseen, "study_unseen", blocking)
    result = CliRunner().invoke(app, ["study", "unseen", "--out", str(out), "--json"])
    assert isinstance(result.exception, IsADirectoryError)
    assert json.loads(result.stdout) == {"found": 1}


@pytest.mark.parametrize("command", [["study", "unseen"], ["evaluate"]])
def test_a_folder_that_cannot_be_written_into_is_named_before_the_work(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--out", "/dev/null/results"])
    assert isinstance(result.exception, ValueError)
    assert "--out /dev/null/results: can't be written into" in str(result.exception)
