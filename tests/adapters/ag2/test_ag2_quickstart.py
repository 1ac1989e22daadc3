"""The example runs as it is."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path

import pytest
from ag2_chats import LARGE, MINI, Bench

_EXAMPLE = Path(__file__).parents[3] / "examples" / "ag2_quickstart.py"


async def test_the_quickstart_runs(
    bench: Bench,
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
    url = bench.simulator.base_url
    entries = entry.format(MINI, url, 0.15, 0.6) + entry.format(LARGE, url, 2.5, 10)
    backbones = tmp_path / "backbones.yaml"
    backbones.write_text("backbones:" + entries)
    main = runpy.run_path(str(_EXAMPLE))["main"]
    await asyncio.to_thread(main, str(backbones), bench.task())
    printed = capsys.readouterr().out
    assert "decider" in printed
    assert f"total: {bench.billed() / 1e9:.6f} USD" in printed
