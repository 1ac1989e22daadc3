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
    FunctionalTermination,
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
    """One for a single run, that has seen nothing yet: concurrent runs must not count each other's
    messages.

    An ExternalTermination stays the very object that its owner will set.

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
    if isinstance(condition, FunctionalTermination):
        return FunctionalTermination(cast("Any", condition)._func)
    if type(condition).__module__.startswith("autogen_agentchat."):
        known = cast("Any", condition)
        return known._from_config(known._to_config())
    if alone:
        return condition
    try:
        return copy.deepcopy(condition)
    # It may hold what can't be copied (a client, a lock); that it shares.
    except Exception:
        return copy.copy(condition)


def _parts(condition: TerminationCondition) -> list[TerminationCondition]:
    if isinstance(condition, (AndTerminationCondition, OrTerminationCondition)):
        return list(cast("Any", condition)._conditions)
    return []
