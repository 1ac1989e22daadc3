"""A small suite for the tests of this room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.trials import Known


@pytest.fixture(scope="session")
def small(shipped: TraceSet) -> TraceSet:
    """300 train, 150 val and 150 test queries of the shipped ones; six candidates."""
    rng = np.random.default_rng(0)
    rows = [
        rng.choice(shipped.positions(split), size, replace=False)
        for split, size in (("train", 300), ("val", 150), ("test", 150))
    ]
    some = shipped.take(np.sort(np.concatenate(rows)))
    return replace(some, candidates=tuple(some.candidates[n] for n in (0, 2, 3, 7, 9, 10)))


@pytest.fixture(scope="session")
def known(small: TraceSet) -> Known:
    learned = small.take(np.concatenate([small.positions("train"), small.positions("val")]))
    return Known(Replay(learned), "cost", 0.0139)
