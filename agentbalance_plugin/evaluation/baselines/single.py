"""Single backbones: every one alone, the mix of two of them, and the best one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.evaluation.trials import (
    Family,
    Fitted,
    Known,
    Trial,
    alone,
    every,
    play,
    singles,
)

IntArray = NDArray[np.int64]


class MixOfSingles:
    """Every candidate alone is a point; as points may be mixed, this is the mix of two."""

    name = "mix of single backbones"
    family: Family = "single"
    grid: Mapping[str, Any] = {}

    def fit(self, known: Known) -> Fitted:
        return singles


class BestSingle:
    """The one backbone with the largest area on val, alone (or mixed with the cheapest)."""

    name = "best single backbone"
    family: Family = "single"
    grid: Mapping[str, Any] = {"backbone": "all candidates"}

    def fit(self, known: Known) -> Fitted:
        alone_on_val = known.singles_val
        scores = [
            known.score(
                Trial(
                    alone_on_val.right[[row]],
                    alone_on_val.cost_usd[[row]],
                    alone_on_val.latency_s[[row]],
                )
            )
            for row in range(len(alone_on_val.right))
        ]
        best = known.traces.candidates[int(np.argmax(scores))]

        def points(replay: Replay, positions: IntArray) -> Trial:
            return play(replay, positions, every([alone(best)], len(positions)))

        return points
