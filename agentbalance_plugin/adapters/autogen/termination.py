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


def fresh_condition(condition: TerminationCondition | None) -> TerminationCondition | None:
    """A copy for one run, so that concurrent runs do not count each other's messages.

    An ExternalTermination stays the very object that its owner will set. A copy has seen what the
    original has: `reset` it.
    """
    if condition is None or isinstance(condition, ExternalTermination):
        return condition
    parts = _parts(condition)
    if parts:
        fresh = [fresh_condition(part) for part in parts]
        return cast("Any", type(condition))(*fresh)
    try:
        return copy.deepcopy(condition)
    # A user's own condition may hold what can't be copied (a client, a lock); that it shares.
    except Exception:
        return copy.copy(condition)


def _parts(condition: TerminationCondition) -> list[TerminationCondition]:
    if isinstance(condition, (AndTerminationCondition, OrTerminationCondition)):
        return list(cast("Any", condition)._conditions)
    return []
