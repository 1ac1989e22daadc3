"""Blocking work that is given up when its time is over."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

_Job = tuple[contextvars.Context, Callable[[], Any], "Future[Any]"]

_MOST_IDLE = 64
_idle: deque[SimpleQueue[_Job]] = deque()


def start(work: Callable[[], Result]) -> Future[Result]:
    """Begin `work()` in another thread, in the context of this one.

    Python can't interrupt a blocking call: one that is not waited for any more stays in its thread
    until it returns, and its result is dropped. Threads that are done are used again; being
    daemons, those that never are do not keep the process alive.
    """
    outcome: Future[Result] = Future()
    job = (contextvars.copy_context(), work, outcome)
    try:
        jobs = _idle.pop()
    except IndexError:
        jobs = SimpleQueue[_Job]()
        threading.Thread(target=_serve, args=(jobs,), name="agentbalance-call", daemon=True).start()
    jobs.put(job)
    return outcome


def result_of(
    outcome: Future[Result], seconds: float | None, late: Callable[[], Exception]
) -> Result:
    """The result of what was started; after so many seconds it is given up.

    Args:
        seconds: None: for as long as it takes.
        late: makes what is raised then.

    Raises:
        CancelledError: another thread gave it up.
    """
    # A thread waits no longer than some centuries.
    timeout = None if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX)
    try:
        return outcome.result(timeout)
    except TimeoutError:
        if outcome.cancel():
            raise late() from None
        # It is done: it raised that itself, or came at the last moment.
        return outcome.result()
    finally:
        outcome.cancel()


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while True:
        context, work, outcome = jobs.get()
        try:
            result = context.run(work)
        # Whatever it is belongs to the thread that waits.
        except BaseException as error:
            _finish(outcome, error=error)
        else:
            _finish(outcome, result=result)
            del result
        # A finished job must not keep what it worked on alive.
        del context, work, outcome
        if len(_idle) >= _MOST_IDLE:
            return
        _idle.append(jobs)


def _finish(
    outcome: Future[Any], *, result: Any = None, error: BaseException | None = None
) -> None:
    """Unless it has been given up, which the other thread does by cancelling."""
    if outcome.set_running_or_notify_cancel():
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)
