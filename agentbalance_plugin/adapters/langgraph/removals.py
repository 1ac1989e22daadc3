"""Removals of messages by agents that run side by side.

In the user's graph an agent that removes messages has seen all there are, and nobody else removes
them meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard, cast

from langchain_core.messages import BaseMessage, RemoveMessage
from langgraph.channels import BinaryOperatorAggregate
from langgraph.graph.message import REMOVE_ALL_MESSAGES

_SEEN = "agentbalance_seen"
"""In a removal of all messages: the ids of those that its agent has seen."""


def is_removal(message: object) -> TypeGuard[RemoveMessage]:
    return isinstance(message, RemoveMessage)


def of_seen(message: BaseMessage, seen: Iterable[str | None]) -> BaseMessage:
    """A message of an agent; one that removes all messages is told which the agent has seen."""
    if not _removes_all(message):
        return message
    return message.model_copy(update={"additional_kwargs": {_SEEN: list(seen)}})


def tolerant(channel: Any) -> Any:
    """A channel of messages like another, where removals are of what is still there, and those of
    all messages that an agent makes leave what it has not seen."""
    made = cast("BinaryOperatorAggregate[Any]", channel.copy())
    merge: Callable[[Any, Any], Any] = made.operator

    def merge_what_is_there(left: list[BaseMessage], right: Any) -> Any:
        return merge(left, _to_merge(left, right))

    made.operator = merge_what_is_there
    return made


def _to_merge(left: Sequence[BaseMessage], right: Any) -> Any:
    given = cast("list[Any]", right if isinstance(right, list) else [right])
    if not any(map(is_removal, given)):
        return given
    if all_of_them := [at for at, each in enumerate(given) if _removes_all(each)]:
        last = all_of_them[-1]
        return _after_all(left, given[last], given[last + 1 :])
    there = {message.id for message in left}
    there |= {each.id for each in given if isinstance(each, BaseMessage) and not is_removal(each)}
    return [each for each in given if not is_removal(each) or each.id in there]


def _after_all(left: Sequence[BaseMessage], removal: RemoveMessage, given: list[Any]) -> list[Any]:
    """A removal of all messages and what follows it, with the messages that stay: they come after
    those that its agent has seen and gives again, and before what it says itself."""
    seen: Sequence[str] | None = removal.additional_kwargs.get(_SEEN)
    if seen is None:
        return [removal, *given]
    again = [getattr(each, "id", None) for each in given]
    stay = [each for each in left if each.id not in seen and each.id not in again]
    at = max((number + 1 for number, name in enumerate(again) if name in seen), default=0)
    return [removal, *given[:at], *stay, *given[at:]]


def _removes_all(message: object) -> bool:
    return is_removal(message) and message.id == REMOVE_ALL_MESSAGES
