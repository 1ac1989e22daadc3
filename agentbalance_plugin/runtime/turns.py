"""Calls that wait for what others hold."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar

from agentbalance_plugin.runtime.call import Call, CallDenied, DeadlineReached

Place = asyncio.AbstractEventLoop | None
"""Where a call is awaited: an event loop, or None for a thread that waits for it."""

_around: ContextVar[tuple[Call, ...]] = ContextVar("agentbalance_around", default=())
"""The calls inside which the code runs: that of a callback, say."""


class Turns:
    """The calls of one run that are under way. Safe to use from several threads and tasks.

    Until it ends a call holds its worst case, which is many times what most calls take. So several
    at once may find nothing free although the budget pays for all of them, one after the other.
    Such a call waits, but only for those that end whatever it does: never for a stream, whose
    reader may be the one that waits, nor for a call of an event loop that its thread may hold up.
    A call that is made inside another one waits for none: that one, or one that waits for that one,
    would have to wait for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Call] = set()
        self._under_way: Counter[Place] = Counter()
        self._waiting: list[Future[None]] = []

    def take(
        self, reserve: Callable[[], Call], place: Place, *, streamed: bool
    ) -> Call | Future[None]:
        """A reservation, or what is done when it is worth another try.

        Args:
            reserve: makes it.
            streamed: whether the call goes on only as its reader does.

        Raises:
            CallDenied: there is no room, and there will be none.
        """
        with self._lock:
            try:
                call = reserve()
            except DeadlineReached:
                raise
            except CallDenied:
                nested = not self._open.isdisjoint(_around.get())
                if nested or not any(self._under_way[each] for each in {place, None}):
                    raise
                later: Future[None] = Future()
                self._waiting.append(later)
                return later
            self._open.add(call)
            self._under_way[place] += not streamed
            return call

    @contextmanager
    def under_way(self, call: Call, place: Place, *, streamed: bool) -> Generator[None]:
        """A call that was taken, until it is booked."""
        try:
            # What reads a stream is not inside it, and nobody waits for one.
            with call, nullcontext() if streamed else _inside(call):
                yield
        finally:
            self.leave(call, place, streamed=streamed)

    def leave(self, call: Call, place: Place, *, streamed: bool) -> None:
        """The call is booked, and what it did not need is free."""
        with self._lock:
            self._open.remove(call)
            self._under_way[place] -= not streamed
            waiting, self._waiting = self._waiting, []
        for later in waiting:
            if later.set_running_or_notify_cancel():
                later.set_result(None)

    @asynccontextmanager
    async def reserved(
        self, reserve: Callable[[], Call], *, streamed: bool = False
    ) -> AsyncGenerator[Call]:
        """A call's whole turn, from its reservation, which it may have to wait for, to its end.

        Args:
            reserve, streamed: as in `take`.

        Raises:
            CallDenied: there is no room, and there will be none.
        """
        loop = asyncio.get_running_loop()
        while isinstance(call := self.take(reserve, loop, streamed=streamed), Future):
            await asyncio.wrap_future(call)
        with self.under_way(call, loop, streamed=streamed):
            yield call

    def next_end(self) -> Future[None] | None:
        """What is done when a call ends, for who reads no stream; None where none is under way."""
        with self._lock:
            if not self._open:
                return None
            later: Future[None] = Future()
            self._waiting.append(later)
            return later


@contextmanager
def _inside(call: Call) -> Generator[None]:
    token = _around.set((*_around.get(), call))
    try:
        yield
    finally:
        _around.reset(token)
