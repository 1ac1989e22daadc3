"""Who takes part in a chat, and whom they call in turn."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from autogen import ConversableAgent, GroupChat, GroupChatManager, OpenAIWrapper

from agentbalance_plugin.adapters.ag2.internals import chats_inside, held_by
from agentbalance_plugin.adapters.ag2.settings import needs_of
from agentbalance_plugin.adapters.covered import is_of_a_vendor
from agentbalance_plugin.team import Agent, Team


@dataclass(frozen=True)
class Found:
    """Those whose calls a run pays for.

    Args:
        agents: by the names that they have in plans and reports. Those of nested chats, and others
            inside agents, come after the chat's own.
        team: of all of these, for the planner.
    """

    agents: Mapping[str, ConversableAgent]
    team: Team

    @property
    def managers(self) -> Iterator[tuple[str, GroupChatManager]]:
        """Those that manage a chat."""
        for name, agent in self.agents.items():
            if isinstance(agent, GroupChatManager):
                yield name, agent

    def pinned(self, pins: Mapping[str, str | None]) -> Found:
        """With those pins whose agents take part."""
        agents = (
            replace(agent, keep=True, backbone=pins[agent.name]) if agent.name in pins else agent
            for agent in self.team.agents
        )
        return replace(self, team=replace(self.team, agents=tuple(agents)))


def find(manager: GroupChatManager, others: Iterable[ConversableAgent] = ()) -> Found:
    """Everyone in a manager's chat, in nested chats, in attributes of these, and the manager.

    Args:
        others: whom none of them leads to: agents that a tool keeps, say.
    """
    agents: dict[str, ConversableAgent] = {}
    seen: set[int] = {id(manager)}
    waiting = deque([*_inside(manager), *others])
    while waiting:
        agent = waiting.popleft()
        if id(agent) not in seen:
            seen.add(id(agent))
            agents[_free(agent.name, agents)] = agent
            waiting.extend(_inside(agent))
    agents[_free(manager.name, agents)] = manager
    described = tuple(_describe(name, agent) for name, agent in agents.items())
    return Found(agents, Team(described, fixed_edges=()))


def warn_of_what_is_beyond(found: Found) -> None:
    """Say which attributes call an LLM that is on no backbone and in no budget."""
    for name, agent in found.agents.items():
        for kind in _beyond(agent):
            warnings.warn(
                f"agent {name!r} keeps {kind}, whose calls are on no backbone and in no budget; "
                "let it reply by its own llm_config alone",
                stacklevel=5,
            )


def _beyond(agent: ConversableAgent) -> Iterator[str]:
    """What calls an LLM by itself: clients, and guardrails and the like that have one."""
    for part in (part for value in held_by(agent) for part in _parts(value)):
        inside: Iterable[Any] = getattr(part, "__dict__", {}).values()
        if part is agent.client or isinstance(part, ConversableAgent):
            continue
        if _calls(part):
            yield type(part).__name__
        elif any(map(_calls, inside)):
            yield f"{type(part).__name__}, which has a client"


def _calls(value: Any) -> bool:
    return isinstance(value, OpenAIWrapper) or is_of_a_vendor(value)


def _inside(agent: ConversableAgent) -> Iterator[ConversableAgent]:
    """Whom an agent may ask for a reply."""
    held = [part for value in held_by(agent) for part in _parts(value)]
    nested = [chat.get(side) for chat in chats_inside(agent) for side in ("recipient", "sender")]
    for part in (*held, *nested):
        if isinstance(part, ConversableAgent):
            yield part
        elif isinstance(part, GroupChat):
            yield from (each for each in part.agents if isinstance(each, ConversableAgent))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[Any, Any]", value).values()
    return cast("Iterable[Any]", value) if isinstance(value, (list, tuple, set)) else (value,)


def _free(name: str, taken: Mapping[str, object]) -> str:
    while name in taken:
        name = f"_{name}"
    return name


def _describe(name: str, agent: ConversableAgent) -> Agent:
    if isinstance(agent, GroupChatManager):
        return Agent(name, role="Decides who speaks next.", calls_backbone=_selects(agent))
    said = dict.fromkeys((agent.description or "", str(agent.system_message)))
    role = "\n".join(text for text in said if text)
    return Agent(name, role, needs_of(agent), calls_backbone=agent.client is not None)


def _selects(manager: GroupChatManager) -> bool:
    """Whether a model chooses who speaks next."""
    chat = manager.groupchat
    # A function may leave it to the model, from one turn to the next.
    by_model = chat.speaker_selection_method == "auto" or callable(chat.speaker_selection_method)
    return by_model and bool(chat.select_speaker_auto_llm_config or manager.llm_config)
