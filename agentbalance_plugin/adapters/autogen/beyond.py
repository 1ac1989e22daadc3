"""What agents call that no budget reaches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from autogen_agentchat.base import ChatAgent, Team
from autogen_core.model_context import ChatCompletionContext
from autogen_core.models import ChatCompletionClient

from agentbalance_plugin.adapters.autogen.rebind import Participant, everyone_in
from agentbalance_plugin.adapters.covered import is_of_a_vendor

# Of these others see to the clients inside, or they only count tokens with them.
_SEEN_TO = (ChatAgent, Team, ChatCompletionClient, ChatCompletionContext)


def warn_of_what_is_beyond(participants: Iterable[Participant]) -> None:
    """Say which of their attributes call an LLM that is on no backbone and in no budget."""
    for participant in participants:
        for held in everyone_in(participant):
            for name, kind in _beyond(held):
                warnings.warn(
                    f"agent {held.name!r} keeps {kind} in {name!r}, whose calls are on no backbone "
                    "and in no budget; let the agent itself keep a model client and call that",
                    stacklevel=4,
                )


def _beyond(participant: Participant) -> Iterator[tuple[str, str]]:
    """(attribute, what is in it)."""
    for name, value in vars(participant).items():
        kind = type(value).__name__
        if is_of_a_vendor(value):
            yield name, kind
        elif not isinstance(value, _SEEN_TO) and any(map(_calls, _parts(value))):
            yield name, f"{kind}, which keeps a model client,"


def _parts(value: Any) -> Iterable[Any]:
    return getattr(value, "__dict__", {}).values()


def _calls(value: Any) -> bool:
    return isinstance(value, ChatCompletionClient) or is_of_a_vendor(value)
