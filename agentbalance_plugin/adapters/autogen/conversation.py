"""What each agent has not heard yet, over passes and runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from autogen_agentchat.messages import BaseChatMessage, MessageFactory, MultiModalMessage

from agentbalance_plugin.runtime.byte_bound import json_size

STATE = "agentbalance.PlannedTeam"
"""The type of states that planned chats save."""


class Conversation:
    """Messages that wait for each agent until it runs.

    Within a pass an agent hears its parents alone. What everyone should know, the tasks and the
    answer of each pass, waits here for those that were not there.

    Args:
        agents: names.
    """

    def __init__(self, agents: Iterable[str]) -> None:
        self._waiting: dict[str, list[BaseChatMessage]] = {name: [] for name in agents}

    def copy(self) -> Conversation:
        twin = Conversation(())
        twin._waiting = {name: list(messages) for name, messages in self._waiting.items()}
        return twin

    def tell(self, messages: Sequence[BaseChatMessage], *, except_for: Iterable[str] = ()) -> None:
        """Let messages wait for every agent but those that know them."""
        known = set(except_for)
        for name, waiting in self._waiting.items():
            if name not in known:
                waiting.extend(messages)

    def collect(self, agent: str) -> list[BaseChatMessage]:
        """What waits for an agent that now runs; it does not wait any longer."""
        waiting = self._waiting[agent]
        self._waiting[agent] = []
        return waiting

    def waiting(self, agent: str) -> Sequence[BaseChatMessage]:
        """What waits for an agent, which goes on waiting."""
        return tuple(self._waiting[agent])

    def clear(self) -> None:
        for waiting in self._waiting.values():
            waiting.clear()

    def save(self) -> dict[str, list[Mapping[str, Any]]]:
        """JSON values only."""
        return {
            name: [message.dump() for message in messages]
            for name, messages in self._waiting.items()
        }

    def load(
        self, state: Mapping[str, Sequence[Mapping[str, Any]]], factory: MessageFactory
    ) -> None:
        """Restore what `save` returned (ValueError for a message type the chat does not know)."""
        for name in self._waiting:
            self._waiting[name] = [
                cast("BaseChatMessage", factory.create(message)) for message in state.get(name, ())
            ]


def bytes_in(agents: Mapping[str, Any]) -> int:
    """About how many bytes what was said takes in an agent's prompts, from their saved states."""
    return max((json_size(state) for state in agents.values()), default=0)


def images_in(messages: Iterable[object]) -> int:
    """Pictures in what was said."""
    return sum(
        not isinstance(part, str)
        for message in messages
        if isinstance(message, MultiModalMessage)
        for part in message.content
    )


def images_saved(state: object) -> int:
    """The same of a saved state: AutoGen writes each as its data."""
    if isinstance(state, Mapping):
        held = cast("Mapping[str, Any]", state)
        if set(held) == {"data"} and isinstance(held["data"], str):
            return 1
        return sum(map(images_saved, held.values()))
    if isinstance(state, (list, tuple)):
        return sum(map(images_saved, cast("Sequence[Any]", state)))
    return 0


def read_state(state: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(each agent's state, what each has not heard yet) of a saved state.

    Raises:
        ValueError: it is neither a wrapped chat's nor one of AutoGen's.
    """
    saved = cast("Mapping[str, Any]", state if isinstance(state, Mapping) else {})
    agents = cast("dict[str, dict[str, Any]]", saved.get("agent_states", {}))
    if saved.get("type") == STATE and saved.get("version") == 1 and "unheard" in saved:
        return agents, saved["unheard"]
    if saved.get("type") == "TeamState":
        # AutoGen's own: each agent's beside the messages that it has not heard yet.
        own = {name: agent for name, agent in agents.items() if "agent_state" in agent}
        unheard = {name: agent.get("message_buffer", ()) for name, agent in own.items()}
        return {name: agent["agent_state"] for name, agent in own.items()}, unheard
    raise ValueError(
        "this is not a state that save_state of a wrapped chat, or of one of AutoGen's, returned"
    )
