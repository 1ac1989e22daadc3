"""The end of an asynchronous run at its deadline."""

from __future__ import annotations

import asyncio
from typing import Any

from agentbalance_plugin.adapters.langgraph.run import OutOfBudget
from agentbalance_plugin.runtime.call import DeadlineReached
from agentbalance_plugin.runtime.meter import Meter


class Deadline:
    """Cancels what a run waits for when its time is up, but never what its consumer does between
    two items.

    One timer for all items of a run: `asyncio.timeout` around each of them would cost a twentieth
    of a small graph's time.
    """

    def __init__(self, meter: Meter) -> None:
        left = meter.seconds_left()
        self._timer = None if left is None else meter.clock.call_later(left, self._come)
        self._waiting: asyncio.Task[Any] | None = None
        self._has_come = False

    async def next(self, items: Any, end: object) -> Any:
        """The next item, `end` after the last (OutOfBudget: the deadline has come)."""
        if self._timer is None:
            return await anext(items, end)
        if self._has_come:
            raise self._late()
        task = self._waiting = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        cancelled = False
        try:
            return await anext(items, end)
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            self._waiting = None
            # As `asyncio.timeout` does: whoever else has cancelled the task is heeded.
            if self._has_come and task.uncancel() <= before and cancelled:
                raise self._late() from None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _come(self) -> None:
        self._has_come = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _late(self) -> OutOfBudget:
        return OutOfBudget(DeadlineReached("cancelled at the deadline"))
