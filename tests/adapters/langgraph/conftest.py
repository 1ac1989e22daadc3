from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from graphs import Bench

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.simulator.server import Simulator


@pytest_asyncio.fixture
async def bench(replay: Replay) -> AsyncIterator[Bench]:
    """A simulator whose latencies pass on the loop's clock (virtual in most tests)."""
    async with Simulator(replay) as simulator:
        yield Bench(simulator, replay)


@pytest_asyncio.fixture
async def instant(replay: Replay) -> AsyncIterator[Bench]:
    """A simulator that answers at once, for synchronous graphs in a thread of their own."""
    async with Simulator(replay, scale=0) as simulator:
        yield Bench(simulator, replay)
