"""Stopping a stock AutoGen team from inside one of its model calls.

An exception that leaves an agent ends up in AutoGen's runtime: it is logged as an error, sent to
every other agent as a message they do not know, and turned into a RuntimeError. A denied call
therefore waits instead, until whoever runs the team has seen the denial and lets go of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import NoReturn, TypeVar

from autogen_core import CancellationToken

from agentbalance_plugin.runtime.call import CallDenied

Item = TypeVar("Item")


class RunOver(asyncio.CancelledError):
    """Ends a call that waits in a team whose run is over."""


class Halt:
    """What one stock team's denied calls wait at.

    `token` is for the team's run: teams inside the team do not see when the call of one of their
    agents ends, and would wait for it for ever. `denial` is the first of the denied calls.
    """

    def __init__(self) -> None:
        self.token = CancellationToken()
        self.denial: CallDenied | None = None
        self._denied = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._over = False

    async def hold(self, denial: CallDenied) -> NoReturn:
        """Wait for `release` (raises RunOver then)."""
        self.denial = self.denial or denial
        self._denied.set()
        if self._over:
            raise RunOver(denial.reason)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future
        raise RunOver(denial.reason)

    async def wait(self) -> None:
        """Until a call is denied."""
        await self._denied.wait()

    def release(self) -> None:
        """End every call that waits, and those denied from now on."""
        self._over = True
        for future in self._waiting:
            if not future.done():
                future.set_exception(RunOver("the run is over"))
        self._waiting.clear()
        self.token.cancel()

    def begin(self) -> CancellationToken:
        """Start anew, for another turn of a team that was stopped; returns its token."""
        self.denial = None
        self._denied.clear()
        self._over = False
        self.token = CancellationToken()
        return self.token

    def claim(self) -> None:
        """Tell AutoGen's log that what the current task and its children run is this team."""
        _TEAM.set(self)

    @property
    def over(self) -> bool:
        """Whether it was released."""
        return self._over

    async def guard(self, stream: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The items of a team's stream.

        Raises:
            CallDenied: one of the team's calls was; the team has been stopped.
        """
        self.claim()
        denied = asyncio.ensure_future(self.wait())
        try:
            while True:
                following = asyncio.ensure_future(anext(stream, None))
                try:
                    await asyncio.wait({following, denied}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not following.done():
                        following.cancel()
                        self.release()
                if self.denial is not None:
                    self.release()
                    await asyncio.gather(following, return_exceptions=True)
                    raise self.denial
                item = following.result()
                if item is None:
                    return
                yield item
        finally:
            denied.cancel()
            await stream.aclose()


class _OwnEndings(logging.Filter):
    """Drops what AutoGen's runtime logs as an error when a run of ours is over."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        team = _TEAM.get()
        ended = isinstance(error, asyncio.CancelledError) and team is not None and team.over
        return not (ended or isinstance(error, RunOver))


_TEAM: ContextVar[Halt | None] = ContextVar("agentbalance_team", default=None)

# Added once: a logger ignores a filter object that it has.
_FILTER = _OwnEndings()


def quiet_runtime_log() -> None:
    """Keep AutoGen from logging the end of a run as an error of an agent."""
    logging.getLogger("autogen_core").addFilter(_FILTER)
