"""The whole page's parts: one that fails, and the policy under hard caps."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentbalance_plugin.cli.document import Failure, Part, parts_of
from agentbalance_plugin.cli.document import _run as run_part  # pyright: ignore[reportPrivateUsage]
from agentbalance_plugin.cli.evaluate import Request
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.studies.hard_caps import under_caps
from agentbalance_plugin.evaluation.studies.setting import Setting

REQUEST = Request(None, "test", None, ["default"], ["mix"], [], 1, None)


def test_a_part_that_fails_is_named_and_raises_nothing() -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no")

    found = run_part(Part("Catalogs", "25", fails), REQUEST)
    assert isinstance(found, Failure)
    assert str(found) == "Catalogs, 25: RuntimeError: no"


def test_every_suite_and_study_is_a_part() -> None:
    parts = parts_of(["reasoning", "mmlu", "humaneval"], REQUEST)
    sections = [part.section for part in parts]
    assert sections.count("main") == sections.count("caps") == 3
    assert sections.count("ablations") == sections.count("A policy that never saw the suite") == 2
    assert sections.count("Questions of another kind") == 3
    assert {"Catalogs", "Nominal figures"} <= set(sections)


def test_no_run_passes_a_hard_cap() -> None:
    traces = TraceSet.shipped("reasoning")
    rows = np.concatenate([traces.positions("train"), traces.positions("val")[::12]])
    some = traces.take(np.sort(rows))
    setting = Setting("reasoning", some, Policy.load("default", RecordedEncoder(some)))
    found = under_caps(setting, "val")
    assert [row.axis for row in found] == ["cost"] * 3 + ["latency"] * 3
    for row in found:
        assert row.over == 0
        assert row.mean <= row.most <= row.cap * (1.0 + 1e-6)
        assert row.right > 40.0


WORKERS = """
from threading import Event

from agentbalance_plugin.cli.document import Part, _results
from agentbalance_plugin.cli.evaluate import Request

def work(request, console):
    print("at work", flush=True)
    Event().wait()

if __name__ == "__main__":
    request = Request(None, "test", None, ["default"], ["mix"], [], 1, None)
    list(_results([Part("Catalogs", "25", work)] * 3, request, 2))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_command(tmp_path: Path, end: signal.Signals) -> None:
    script = tmp_path / "stopped.py"
    script.write_text(WORKERS, encoding="utf-8")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, str(script)], **pipes) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"at work\n"
        assert command.stdout.readline() == b"at work\n"
        command.send_signal(end)
        # The pipe is at its end once nobody holds it any more, the workers neither.
        assert command.communicate(timeout=60)[0] == b""
        assert command.returncode == -end
