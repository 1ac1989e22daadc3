"""Termination conditions: copies for one run, and what a chat wants that has one."""

from __future__ import annotations

import copy
from typing import Any, cast

from autogen_agentchat.base import (
    AndTerminationCondition,
    OrTerminationCondition,
    TerminationCondition,
)
from autogen_agentchat.conditions import (
    ExternalTermination,
    MaxMessageTermination,
    TimeoutTermination,
    TokenUsageTermination,
)

_CEILINGS = (
    MaxMessageTermination,
    TokenUsageTermination,
    TimeoutTermination,
    ExternalTermination,
)


def is_ceiling(condition: TerminationCondition | None) -> bool:
    """Whether a condition only bounds a chat, without saying when its job is done.

    With nothing but bounds one pass of the plan does the job; a condition such as a mention of a
    word asks for passes until it holds.
    """
    if condition is None or isinstance(condition, _CEILINGS):
        return True
    parts = _parts(condition)
    return bool(parts) and all(is_ceiling(part) for part in parts)


def fresh_condition(
    condition: TerminationCondition | None, *, alone: bool
) -> TerminationCondition | None:
    """One for a single run, so that concurrent runs do not count each other's messages.

    An ExternalTermination stays the very object that its owner will set. A copy has seen what the
    original has: `reset_copies`.

    Args:
        alone: whether no other run is under way, so that a condition of the user's own may stay the
            very object as well: who knows what its owner tells it during a run.
    """
    if condition is None or isinstance(condition, ExternalTermination):
        return condition
    parts = _parts(condition)
    if parts:
        fresh = [fresh_condition(part, alone=alone) for part in parts]
        return cast("Any", type(condition))(*fresh)
    if type(condition).__module__.startswith("autogen_agentchat."):
        # What they count are plain numbers; a function in one is asked, not copied.
        return copy.copy(condition)
    if alone:
        return condition
    try:
        return copy.deepcopy(condition)
    # It may hold what can't be copied (a client, a lock); that it shares.
    except Exception:
        return copy.copy(condition)


async def reset_copies(
    fresh: TerminationCondition | None, original: TerminationCondition | None
) -> None:
    """Let what `fresh_condition` copied start anew; what it shares may have been told to stop."""
    if fresh is None or original is None or fresh is original:
        return
    parts = _parts(fresh)
    for part, own in zip(parts, _parts(original), strict=True):
        await reset_copies(part, own)
    if not parts:
        await fresh.reset()


def _parts(condition: TerminationCondition) -> list[TerminationCondition]:
    if isinstance(condition, (AndTerminationCondition, OrTerminationCondition)):
        return list(cast("Any", condition)._conditions)
    return []
