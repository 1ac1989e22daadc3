"""pytest plugin: puts the compile hook in place and notes how every test ended.

Environment:
    UPSTREAM_MODE: one of `compare.MODES`.
    UPSTREAM_OUTCOMES: file that gets one JSON line for each test.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_outcomes: dict[str, list[str]] = {}


def pytest_configure() -> None:
    mode = os.environ["UPSTREAM_MODE"]
    if mode == "stock":
        return
    from agentbalance_plugin import install

    install(policy=None)
    if mode == "beside":
        # What is left in a process that has compiled a balanced graph.
        from agentbalance_plugin.adapters.langgraph.interception import intercept

        intercept()


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        expected = "expected to fail: " if hasattr(report, "wasxfail") else ""
        _outcomes.setdefault(report.nodeid, []).append(f"{expected}{report.when} {report.outcome}")


def pytest_sessionfinish() -> None:
    if not _outcomes:
        return
    lines = (json.dumps([test, outcomes]) + "\n" for test, outcomes in _outcomes.items())
    Path(os.environ["UPSTREAM_OUTCOMES"]).write_text("".join(lines))
