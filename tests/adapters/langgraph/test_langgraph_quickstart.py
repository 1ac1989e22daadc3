"""The example runs as it is."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from graphs import Bench

_EXAMPLE = Path(__file__).parents[3] / "examples" / "langgraph_quickstart.py"


async def test_the_quickstart_runs(
    instant: Bench,
    catalog_file: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    backbones = catalog_file(instant.simulator.base_url)
    await runpy.run_path(str(_EXAMPLE))["main"](str(backbones), instant.task())
    printed = capsys.readouterr().out
    assert "planned in full, decider decides" in printed
    assert "total:" in printed
    assert instant.called()
