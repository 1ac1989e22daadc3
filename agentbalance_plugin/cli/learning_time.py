"""How soon most of what a training finds is found."""

from __future__ import annotations

import time

from agentbalance_plugin.core.stage_trainer import PHASES
from agentbalance_plugin.core.trainer import Progress

SHARE = 0.95


class LearningTime:
    """Listens to a training that begins when this is made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._seen: list[tuple[float, float]] = []

    def note(self, progress: Progress) -> None:
        """To be called with all progress of the training."""
        # A training that was resumed later has no start to compare with.
        if progress.stage in PHASES and (self._seen or progress.epoch == 0):
            self._seen.append((time.perf_counter() - self._began, -progress.val_loss))

    @property
    def seconds(self) -> float | None:
        """Until plans were first worth 95 % of the way from the untrained stages' to the best.

        Worth is what the trainer measures on validation queries, replayed: right answers less
        what cost and time are priced at. None where the untrained stages were not seen.
        """
        if not self._seen:
            return None
        start, best = self._seen[0][1], max(worth for _, worth in self._seen)
        return next(at for at, worth in self._seen if worth >= start + SHARE * (best - start))
