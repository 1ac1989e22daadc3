from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from chats import Bench

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.simulator.server import Simulator


@pytest_asyncio.fixture
async def instant(replay: Replay) -> AsyncIterator[Bench]:
    """One that answers at once, for tests in real time."""
    async with Simulator(replay, scale=0) as simulator:
        bench = Bench(simulator, replay)
        yield bench
        await bench.close()


@pytest_asyncio.fixture
async def bench(replay: Replay) -> AsyncIterator[Bench]:
    """A simulator, and what tests need to talk to it."""
    async with Simulator(replay) as simulator:
        bench = Bench(simulator, replay)
        yield bench
        await bench.close()
