"""The example runs as it is."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from ag2_chats import Bench

_EXAMPLE = Path(__file__).parents[3] / "examples" / "ag2_quickstart.py"


async def test_the_quickstart_runs(
    bench: Bench,
    catalog_file: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    backbones = catalog_file(bench.simulator.base_url)
    main = runpy.run_path(str(_EXAMPLE))["main"]
    await asyncio.to_thread(main, str(backbones), bench.task())
    printed = capsys.readouterr().out
    assert "decider" in printed
    assert f"total: {bench.billed() / 1e9:.6f} USD" in printed
