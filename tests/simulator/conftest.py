from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from endpoint import Endpoint

from agentbalance_plugin.core.replay import Replay


@pytest_asyncio.fixture
async def endpoint(replay: Replay) -> AsyncIterator[Endpoint]:
    """A running simulator with a client."""
    async with Endpoint(replay) as endpoint:
        yield endpoint
