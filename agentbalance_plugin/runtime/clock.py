"""The clock that deadlines are measured on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Clock:
    """Seconds as the running event loop counts them, divided by `scale`.

    The default is real time. A simulator in another process that waits only a fraction of each
    latency goes with `Clock(scale=that fraction)`; under the simulator's virtual-time event loop
    the default clock shows simulated seconds, because the loop's own time does.

    Args:
        scale: loop seconds per clock second, above zero.
    """

    def __init__(self, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"Clock.scale must be above zero, got {scale!r}")
        self.scale = scale

    def now(self) -> float:
        """Clock seconds since an arbitrary start."""
        try:
            loop_time = asyncio.get_running_loop().time()
        except RuntimeError:
            # Synchronous callers have no loop; asyncio's default loops count monotonic time too.
            loop_time = time.monotonic()
        return loop_time / self.scale

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """`asyncio.timeout` in clock seconds; None never fires."""
        return asyncio.timeout(None if seconds is None else max(0.0, seconds) * self.scale)

    def call_later(self, seconds: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        """`then()` in that many clock seconds, in the running event loop."""
        return asyncio.get_running_loop().call_later(max(0.0, seconds) * self.scale, then)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.scale)
