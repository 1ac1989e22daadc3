"""The example runs as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from graphs import LARGE, MINI, Bench

_EXAMPLE = Path(__file__).parents[3] / "examples" / "langgraph_quickstart.py"


async def test_the_quickstart_runs(
    instant: Bench,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    entry = """
  - backbone: {0}
    model: {0}
    base_url: {1}
    price_in_usd_per_mtok: {2}
    price_out_usd_per_mtok: {3}"""
    url = instant.simulator.base_url
    entries = entry.format(MINI, url, 0.15, 0.6) + entry.format(LARGE, url, 2.5, 10)
    backbones = tmp_path / "backbones.yaml"
    backbones.write_text("backbones:" + entries)
    await runpy.run_path(str(_EXAMPLE))["main"](str(backbones), instant.task())
    printed = capsys.readouterr().out
    assert "planned in full, decider decides" in printed
    assert "total:" in printed
    assert instant.called()
