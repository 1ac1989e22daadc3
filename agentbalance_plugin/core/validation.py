"""What plans are really worth on validation queries, replayed: by this stages are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import Checkpoint
from agentbalance_plugin.core.decide import Asked, best_within, decide
from agentbalance_plugin.core.design import cascade_plan
from agentbalance_plugin.core.encoder import QueryEncoder
from agentbalance_plugin.core.episodes import Course
from agentbalance_plugin.core.known import FRAMING_BYTES, look_at, make_limits
from agentbalance_plugin.core.prediction import look_ahead
from agentbalance_plugin.core.reference import REFERENCE_AGENTS
from agentbalance_plugin.core.stages.config import PolicyConfig
from agentbalance_plugin.team import Agent, Team

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

REACHES = (100.0, 16.0, 11.0, 8.0, 5.5, 4.0, 2.5)
"""How far below that of the likeliest candidate a log-probability may be, from far to near."""

# So little worth, a tenth of a point, is given up for staying near to what the stages find likely.
_TOLERANCE = 1e-3

# Success that a call of median cost or latency must buy, over the useful range.
_GRID = np.geomspace(2e-3, 0.7, 5)
_NO_CAPS = Budget(cost_usd=1e6)


@dataclass(frozen=True)
class Validation:
    """Realised worth, a mean over queries, prices and suites.

    Args:
        worth: for each of `REACHES`.
    """

    worth: tuple[float, ...]

    @property
    def best(self) -> int:
        """Position of the nearest reach that is worth as much as any, up to a little."""
        enough = np.array(self.worth) >= max(self.worth) - _TOLERANCE
        return int(np.flatnonzero(enough)[-1])


def validate_stages(
    checkpoint: Checkpoint,
    encoder: QueryEncoder,
    courses: Sequence[Course],
    positions: Sequence[IntArray],
) -> Validation:
    """Plan for validation queries over a grid of prices, and replay the plans.

    Args:
        positions: of each course, the validation queries.
    """
    agents = tuple(Agent(name) for name in REFERENCE_AGENTS)
    team = Team(agents, decider=REFERENCE_AGENTS[-1])
    worth = np.zeros(len(REACHES))
    for course, rows in zip(courses, positions, strict=True):
        catalog, replay = course.catalogs[0], course.replays[0]
        known = look_at(team, catalog, checkpoint, encoder, PolicyConfig())
        table = known.roster.table
        outlook = look_ahead(checkpoint, table, course.vectors[rows], course.prompt_bytes[rows])
        bound = course.prompt_bytes[rows] + FRAMING_BYTES
        limits = make_limits(known.roster, outlook, _NO_CAPS, bound, len(agents))
        columns, zero = known.roster.columns, np.zeros(len(rows))
        units = [
            float(np.median(values[:, columns]))
            for values in (outlook.predicted.cost_usd, outlook.predicted.latency_s)
        ]
        for axis, unit in enumerate(units):
            for price in (_GRID / unit).tolist():
                prices = [zero + 1e-4, zero]
                prices[axis] = zero + price
                asked = Asked(prices[0], prices[1], zero, zero, zero)
                decision = decide(
                    checkpoint.stages, REACHES[0], known, PolicyConfig(), outlook, limits, asked
                )
                assert decision is not None, "a team of four has candidates in any catalog"
                total = decision.factors.total
                for number, reach in enumerate(REACHES):
                    best = best_within(decision.favourites.worth, total, reach)
                    plans = [
                        cascade_plan(
                            team,
                            choice,
                            table.names,
                            decision.outlook.predicted.log_odds[row],
                            np.minimum(decision.caps[row], limits.caps[row]),
                            {},
                        )
                        for row, place in enumerate(best.tolist())
                        if (choice := decision.choice(row, place)) is not None
                    ]
                    found = replay.evaluate_pairs(rows, plans)
                    spent = prices[0] * found.cost_usd + prices[1] * found.latency_s
                    worth[number] += float((found.correct - spent).mean())
    return Validation(tuple((worth / (len(_GRID) * 2 * len(courses))).tolist()))
