"""Fixtures for every room."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.simulator.virtual_time import VirtualTimeLoop


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background ignores interrupts, and what the tests start and interrupt inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "virtual_time: the test's event loop jumps from timer to timer"
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualTimeLoop}
    return {"real": asyncio.SelectorEventLoop}


@pytest.fixture(scope="session")
def shipped() -> TraceSet:
    """The traces that come with the package."""
    return TraceSet.shipped("reasoning")


@pytest.fixture(scope="session")
def replay(shipped: TraceSet) -> Replay:
    return Replay(shipped)


@pytest.fixture
def catalog_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a catalog of two backbones at an address."""
    entry = """
  - backbone: {0}
    model: {0}
    base_url: {1}
    price_in_usd_per_mtok: {2}
    price_out_usd_per_mtok: {3}"""
    backbones = (("gpt-4o-mini-2024-07-18", 0.15, 0.6), ("gpt-4o-2024-08-06", 2.5, 10))

    def write(url: str) -> Path:
        path = tmp_path / "backbones.yaml"
        entries = (entry.format(name, url, *prices) for name, *prices in backbones)
        path.write_text("backbones:" + "".join(entries))
        return path

    return write
