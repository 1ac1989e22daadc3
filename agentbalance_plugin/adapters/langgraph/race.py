"""A vote that does not wait for those who can't change it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from langgraph.errors import GraphBubbleUp

from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.plan import Plan

Result = TypeVar("Result")


class Decided(GraphBubbleUp):
    """The vote is decided, so this agent is not waited for."""


class Race:
    """The agents of one vote. Safe to use from several threads and tasks.

    Args:
        plan: one with `stop_at`.
    """

    def __init__(self, plan: Plan) -> None:
        assert plan.stop_at is not None
        self._plan = plan
        self._stop_at = plan.stop_at
        self._answers: dict[str, str | None] = {}
        self._voters = set(plan.assignment)
        self._waiting: dict[object, Callable[[], object]] = {}
        self._lock = threading.Lock()
        self.decided = False

    def answered(self, agent: str, answer: str | None) -> None:
        """An agent has spoken; answer: None if there is none in its message."""
        with self._lock:
            self._answers[agent] = answer
        self._count()

    def left_out(self, agent: str) -> None:
        """An agent has no vote: the budget did not reach for it."""
        with self._lock:
            self._voters.discard(agent)
        self._count()

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Generator[None]:
        """Calls `stop` (from any thread) if the vote is decided within the block.

        Raises:
            Decided: it is decided already.
        """
        key = object()
        with self._lock:
            if self.decided:
                raise Decided
            self._waiting[key] = stop
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(key, None)

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The work's result; once the vote is decided it is cancelled, and not waited for.

        Raises:
            Decided: before it was done.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        decided: asyncio.Future[None] = loop.create_future()

        def stop() -> None:
            if not decided.done():
                decided.set_result(None)

        try:
            with self.stopping(lambda: loop.call_soon_threadsafe(stop)):
                await asyncio.wait({task, decided}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Decided
            return task.result()
        finally:
            if not task.done():
                task.add_done_callback(_forget)
                task.cancel()

    def _count(self) -> None:
        """Those that have not answered count as voters whose answers all differ."""
        with self._lock:
            voters = [name for name in self._plan.assignment if name in self._voters]
            answers = [self._answers.get(name) for name in voters]
            _, confidence = leading_answer(answers, [self._plan.weight(name) for name in voters])
            if self.decided or confidence < self._stop_at:
                return
            self.decided = True
            stops = list(self._waiting.values())
        for stop in stops:
            stop()


def _forget(task: asyncio.Task[Any]) -> None:
    """What a task that nobody waits for raises is nobody's."""
    if not task.cancelled():
        task.exception()
