"""Termination conditions: copies for one run, and what a chat wants that has one."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

from autogen_agentchat.base import (
    AndTerminationCondition,
    OrTerminationCondition,
    TerminationCondition,
)
from autogen_agentchat.conditions import (
    ExternalTermination,
    MaxMessageTermination,
    SourceMatchTermination,
    TextMentionTermination,
    TextMessageTermination,
    TimeoutTermination,
    TokenUsageTermination,
)
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage

_CEILINGS = (
    MaxMessageTermination,
    TokenUsageTermination,
    TimeoutTermination,
    ExternalTermination,
)


def can_still_hold(
    condition: TerminationCondition | None, said: Sequence[BaseAgentEvent | BaseChatMessage]
) -> bool:
    """Whether further passes may meet a condition that says when a chat's job is done.

    With nothing but bounds, one pass of the plan does the job; a condition such as a mention of a
    word asks for passes until it holds. One that waits for agents that a complete pass had no use
    for would ask for ever.

    Args:
        said: in a pass.
    """
    if condition is None or _is_ceiling(condition):
        return False
    # Bounds are met in time.
    parts = [part for part in _parts(condition) if not _is_ceiling(part)]
    if parts:
        both = all if isinstance(condition, AndTerminationCondition) else any
        return both(can_still_hold(part, said) for part in parts)
    sources = _sources(condition)
    return not sources or any(each.source in sources for each in said)


def turns_of(condition: TerminationCondition | None, max_turns: int | None) -> float | None:
    """How many turns a run takes that nothing but bounds ends, infinity where they do not count
    turns; None where something that is said ends it, or nothing does.

    Args:
        condition: of the chat; messages are counted with a task of one message.
    """
    if condition is None:
        return max_turns
    if not _is_ceiling(condition):
        return None
    return min(_most_messages(condition) - 1, math.inf if max_turns is None else max_turns)


def _most_messages(condition: TerminationCondition) -> float:
    if parts := _parts(condition):
        pick = max if isinstance(condition, AndTerminationCondition) else min
        return pick(map(_most_messages, parts))
    counts = isinstance(condition, MaxMessageTermination)
    return cast("Any", condition)._max_messages if counts else math.inf


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


def _is_ceiling(condition: TerminationCondition) -> bool:
    """Whether a condition only bounds a chat, without saying when its job is done."""
    parts = _parts(condition)
    return all(map(_is_ceiling, parts)) if parts else isinstance(condition, _CEILINGS)


def _sources(condition: TerminationCondition) -> list[str]:
    """The agents whose message a condition waits for; none: anybody's."""
    if isinstance(condition, (SourceMatchTermination, TextMentionTermination)):
        return list(cast("Any", condition)._sources or ())
    if isinstance(condition, TextMessageTermination):
        return [source for source in [cast("Any", condition)._source] if source]
    return []


def _parts(condition: TerminationCondition) -> list[TerminationCondition]:
    if isinstance(condition, (AndTerminationCondition, OrTerminationCondition)):
        return list(cast("Any", condition)._conditions)
    return []
