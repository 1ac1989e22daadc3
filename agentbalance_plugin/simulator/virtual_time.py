"""An event loop whose clock does not wait.

When nothing is left to do but to wait for a timer, the clock jumps to it. Latencies of simulated
backbones are then exactly what they should be, and a minute of them takes milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, cast

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

# Data on the loopback is readable as soon as it is written, except where the kernel defers it; one
# millisecond (epoll's resolution) of looking again before each jump covers that.
_GRACE_S = 0.001


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop for clients and servers that all run in it.

    `time()` starts at 0 and moves only when nothing is ready, no socket has data and no thread of
    an executor is at work: then it jumps to the next timer. Everything in asyncio that takes
    seconds (sleep, timeout, call_later) means seconds of this clock. Sockets to other processes
    work, but their answers take no time on it; threads not started by `run_in_executor` are not
    waited for.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._at_work = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    @property
    def may_jump(self) -> bool:
        """Whether no thread is at work whose result would come too late after a jump."""
        return self._at_work == 0

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Result],
        *args: *Arguments,
    ) -> asyncio.Future[Result]:
        future = super().run_in_executor(executor, func, *args)
        self._at_work += 1
        future.add_done_callback(self._work_done)
        return future

    def _work_done(self, future: asyncio.Future[Any]) -> None:
        self._at_work -= 1


class _JumpingSelector(selectors.BaseSelector):
    """A selector that advances its loop's clock instead of waiting for it."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or not self._loop.may_jump:
            return self._real.select(None)
        ready = self._real.select(_GRACE_S)
        if not ready:
            self._loop.advance(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return cast("Mapping[Any, selectors.SelectorKey]", self._real.get_map())

    def close(self) -> None:
        self._real.close()


def run_virtual(main: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run` on a `VirtualTimeLoop`."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
