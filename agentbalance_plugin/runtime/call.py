"""One call of a backbone, from its reservation to its record."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from agentbalance_plugin.backbone import Backbone

if TYPE_CHECKING:
    from agentbalance_plugin.runtime.meter import Meter


class CallDenied(Exception):
    """The budget has no room for this call. It was not made and cost nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DeadlineReached(CallDenied):
    """No time is left, or the deadline came while the call ran."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One settled call.

    Args:
        metered: False when the endpoint did not report all of its usage, and what was reserved for
            the rest was booked.
        overrun: True when the endpoint billed more than the cap it was given allows.
        cut: True when the reply took all the output tokens that it was given.
        started_s, ended_s: clock seconds since the run began.
    """

    agent: str
    backbone: str
    prompt_tokens: int
    completion_tokens: int
    nanodollars: int
    metered: bool
    overrun: bool
    cut: bool
    started_s: float
    ended_s: float


class Call:
    """A reservation. Use it as a context manager around the call it is for.

    Leaving the block without `settle` or `release` books the whole reservation: what an endpoint
    did not report may have been billed.
    """

    def __init__(
        self,
        meter: Meter,
        agent: str,
        backbone: Backbone,
        prompt_bound: int,
        output_cap: int,
        *,
        lowered: bool,
    ) -> None:
        self.agent = agent
        self.backbone = backbone
        self.prompt_bound = prompt_bound
        self.output_cap = output_cap
        """Send this as the request's cap on output tokens."""
        self.lowered = lowered
        """Whether the budget leaves the reply less than was asked for."""
        self.worked = False
        """Whether something in it is billed already, even if the call itself should be refused."""
        self.started = meter.clock.now()
        self._meter = meter

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._meter.close_call(self, None, billed=True)

    def in_time(self) -> AbstractAsyncContextManager[None]:
        """Ends the block when the agent's time is up.

        Whether it did is known by the timer alone: by the time anyone else looks, a share of time
        that was kept for another agent may be free again.

        Raises:
            DeadlineReached: it did.
        """
        return nullcontext() if self._meter.deadline is None else self._timed()

    @asynccontextmanager
    async def _timed(self) -> AsyncGenerator[None]:
        timer = self._meter.clock.timeout(self._meter.seconds_left(self.agent))
        try:
            async with timer:
                yield
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise self.late() from error

    def late(self) -> DeadlineReached:
        """What a call is ended with when its time is up."""
        return DeadlineReached(f"{self.agent}: the deadline came during the call")

    def cut_short(self) -> CallDenied:
        """What a call is ended with whose reply is of no use without its end."""
        return CallDenied(
            f"{self.agent}: the reply of {self.backbone.name} did not fit into the "
            f"{self.output_cap} tokens that the budget had left"
        )

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Book the reported usage; 0 means not reported and books what was reserved for it.

        Only the first of `settle`, `release` and leaving the block counts.
        """
        self._meter.close_call(self, (prompt_tokens, completion_tokens), billed=True)

    def release(self) -> None:
        """Book nothing: the endpoint was not asked, or refused before doing any work."""
        self._meter.close_call(self, None, billed=False)
