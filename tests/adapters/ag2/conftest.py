from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest_asyncio

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.simulator.server import Simulator

if TYPE_CHECKING:
    from ag2_chats import Bench

# AG2 is an extra.
collect_ignore_glob = [] if find_spec("autogen") else ["*.py"]


@pytest_asyncio.fixture
async def bench(replay: Replay) -> AsyncIterator[Bench]:
    """A simulator that answers at once. Its loop is the test's, so that chats run in a thread."""
    from ag2_chats import Bench

    async with Simulator(replay, scale=0) as simulator:
        yield Bench(simulator, replay)
