"""Calls from threads that know nothing of the run that they belong to.

Python's threads do not inherit the context of what starts them, so such a call looks like any other
in the process, and moving it to a run's backbone might take somebody else's. The user is told.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from weakref import WeakSet

from langchain_core.runnables import RunnableConfig, ensure_config

from agentbalance_plugin.adapters.langgraph.internals import control_of

_under_way: WeakSet[object] = WeakSet()


def begin(run: object) -> None:
    """From now on calls that no run is known for may be the run's."""
    _under_way.add(run)


def end(run: object) -> None:
    """Undo `begin`, if it has been called."""
    _under_way.discard(run)


@contextmanager
def under_way() -> Generator[None]:
    """Calls that no run is known for may be of the run whose part the block is."""
    part = _Part()
    begin(part)
    try:
        yield
    finally:
        end(part)


class _Part:
    """Of a run; others of it may be under way at once."""


def warn_if_astray(config: RunnableConfig | None) -> None:
    """Tell of a call that no run is known for, where it may belong to one that is under way.

    Stock graphs and event loops that started in the main thread have their contexts. Python shows a
    warning of one place once.
    """
    if not _under_way or threading.current_thread() is threading.main_thread():
        return
    if control_of(ensure_config(config)) is not None:
        return
    warnings.warn(
        "a chat model was called in a thread that knows of no run, while a balanced run is under "
        "way; if the call is that run's, no budget sees it. Start the thread's work by "
        "contextvars.copy_context().run(...), or use asyncio.to_thread instead of "
        "loop.run_in_executor; a model that belongs outside of the budget goes into direct(...)",
        RuntimeWarning,
        stacklevel=2,
    )
