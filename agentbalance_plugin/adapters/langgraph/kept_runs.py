"""The runs of a middleware, between the calls that it is told of."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager

from agentbalance_plugin.adapters.langgraph.run import Run

_KEPT = 256
"""Of those that nothing has been heard of lately."""
# From one call of an agent to the next, or to its end, it takes less by far.
_SILENT_S = 60.0


class KeptRuns:
    """Runs that have not ended, by number. Safe to use from several threads.

    Who is interrupted or fails may never come back, and nobody says so: of those at which nothing
    is at work, and has not been for a minute, the oldest are forgotten beyond a few hundred.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._at_work: Counter[str] = Counter()
        self._heard: dict[str, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._runs)

    def keep(self, run: Run) -> Run:
        """The same run, from now on found by its number."""
        with self._lock:
            return self._keep(run)

    def find(self, number: str, current: Callable[[Run | None], Run]) -> Run:
        """The run of a number, for all who look at once the same.

        Args:
            current: from what is kept to what is found from now on.
        """
        with self._lock:
            run = self._runs.get(number)
            found = current(run)
            return found if found is run else self._keep(found)

    def drop(self, run: Run) -> None:
        """It has ended."""
        with self._lock:
            self._drop(run.number)

    def put_last(self, run: Run) -> None:
        """It has failed: its books are of use if it goes on, but less than those of one that is
        waited for."""
        with self._lock:
            if run.number in self._runs:
                self._runs.move_to_end(run.number, last=False)

    @contextmanager
    def at_work(self, run: Run) -> Generator[None]:
        """While a model or a tool of a run is."""
        with self._lock:
            self._at_work[run.number] += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work[run.number] -= 1
                if not self._at_work[run.number]:
                    del self._at_work[run.number]
                if run.number in self._runs:
                    self._heard[run.number] = time.monotonic()

    def _keep(self, run: Run) -> Run:
        now = time.monotonic()
        self._runs[run.number] = run
        self._heard[run.number] = now
        if len(self._runs) > _KEPT:
            silent = [
                number
                for number in self._runs
                if number not in self._at_work and now - self._heard[number] >= _SILENT_S
            ]
            for number in silent[: max(0, len(silent) - _KEPT)]:
                self._drop(number)
        return run

    def _drop(self, number: str) -> None:
        self._runs.pop(number, None)
        self._heard.pop(number, None)
