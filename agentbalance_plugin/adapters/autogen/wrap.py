"""`wrap_groupchat`: from a user's chat to the same chat under a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from autogen_agentchat.base import ChatAgent
from autogen_agentchat.base import Team as AutoGenTeam
from autogen_agentchat.messages import MessageFactory, MultiModalMessage
from autogen_agentchat.teams import BaseGroupChat, RoundRobinGroupChat, SelectorGroupChat

from agentbalance_plugin.adapters.autogen.beyond import warn_of_what_is_beyond
from agentbalance_plugin.adapters.autogen.endpoints import Backbones, Clients, clients_for
from agentbalance_plugin.adapters.autogen.planned import AnswerExtractor, PlannedTeam
from agentbalance_plugin.adapters.autogen.rebind import (
    AgentFactory,
    Participant,
    announcer_of,
    describe,
    everyone_in,
    max_turns_of,
    model_client_of,
    participants_of,
    replaced_methods,
    share_a_context,
    termination_of,
)
from agentbalance_plugin.adapters.autogen.routed import RoutedTeam, manager_name
from agentbalance_plugin.adapters.autogen.termination import turns_of
from agentbalance_plugin.adapters.autogen.wrapped import Wiring, WrappedTeam
from agentbalance_plugin.adapters.planning import (
    Pinned,
    Planner,
    check_affordable,
    check_needs,
    pins_of,
    planner_of,
)
from agentbalance_plugin.adapters.stream import Stream, check_terms
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.runtime.answers import extract_answer
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.team import Agent, Team

Mode = Literal["full", "backbones"]


def wrap_groupchat(
    chat: BaseGroupChat,
    *,
    budget: Budget,
    backbones: Backbones = "backbones.yaml",
    policy: str | Path | Planner = "default",
    mode: Mode = "full",
    decider: str | None = None,
    participants: Sequence[Participant] | None = None,
    agent_factory: AgentFactory | None = None,
    answer: AnswerExtractor | None = None,
    pinned: Pinned = None,
    clock: Clock | None = None,
) -> WrappedTeam:
    """Put an AutoGen chat under a budget; the chat itself is left as it is.

    Args:
        chat: RoundRobinGroupChat and SelectorGroupChat are planned in full; Swarm,
            MagenticOneGroupChat, GraphFlow and other chats keep their own routing, and so does a
            RoundRobinGroupChat whose runs have fewer turns than it has agents, or in the mode
            "backbones" more.
        budget: of each run, or an average over runs.
        backbones: a catalog file (by default `backbones.yaml` in the working directory), a Catalog,
            or pairs of a Backbone and the client that calls it.
        policy: "default", a checkpoint folder, or any object with `plan(query, team, budget,
            catalog)`.
        mode: "full", or "backbones" to keep every agent and the chat's order (but for a `decider`,
            which speaks last), as agents that share a model context do anyway.
        decider: whose message is the answer; by default a RoundRobinGroupChat's last participant.
        participants: the chat's participants, if they should not be read off the chat.
        agent_factory: `factory(name, model_client)` makes the agents of each run by public API;
            without it the participants are copied.
        answer: text of a message -> the answer that agreement compares, None if it has none.
            These four are refused where the chat routes by itself.
        pinned: names of agents that every plan keeps, or a mapping from such names to the backbone
            they must have (None: any).
        clock: what deadlines are measured on; real time by default.

    Returns:
        A team that is used like the chat; `team.report` tells of its last run.

    Raises:
        ValueError: an argument that can't work, named with its value and the fix.
        CatalogError, PolicyError: a catalog or policy file that can't be used.
    """
    check_terms(budget, clock)
    if mode not in ("full", "backbones"):
        raise ValueError(f"mode must be 'full' or 'backbones', got {mode!r}")
    for name, function in (("answer", answer), ("agent_factory", agent_factory)):
        if function is not None and not callable(function):
            raise ValueError(f"{name} must be a function, got {function!r}")
    _check_chat(chat)
    clients = clients_for(backbones)
    check_affordable(budget, clients.catalog)
    stream = Stream(clients, budget, planner_of(policy), clock or Clock())
    if isinstance(pinned, Iterator):
        # Other chats of the stream ask for it again.
        pinned = list(pinned)
    options = _Options(mode, decider, agent_factory, answer, pinned)
    team = _wrapped(chat, stream, options, participants)
    warn_of_what_is_beyond(participants_of(chat) if participants is None else participants)
    return team


@dataclass(frozen=True)
class _Options:
    """As for `wrap_groupchat`."""

    mode: Mode
    decider: str | None
    agent_factory: AgentFactory | None
    answer: AnswerExtractor | None
    pinned: Pinned


def _wrapped(
    chat: BaseGroupChat,
    stream: Stream[Clients],
    options: _Options,
    participants: Sequence[Participant] | None = None,
) -> WrappedTeam:
    """The chat as a part of a stream (ValueError: it can't be wrapped)."""
    mode, decider, agent_factory = options.mode, options.decider, options.agent_factory
    found = participants_of(chat) if participants is None else list(participants)
    if not found:
        raise ValueError("participants must not be empty; leave it out to read them off the chat")
    agents = _describe(found, options.pinned, stream.clients)

    def again(other: BaseGroupChat) -> WrappedTeam:
        _check_chat(other)
        return _wrapped(other, stream, options)

    def wiring(team: Team, rounds: float = 1.0) -> Wiring:
        return Wiring(chat.name, chat.description, team, stream, again, rounds)

    max_turns = max_turns_of(chat)
    # With fewer turns than agents each run goes on with those that the run before did not reach.
    in_rounds = isinstance(chat, RoundRobinGroupChat) and (max_turns or len(found)) >= len(found)
    rounds = 1.0
    planned_alone = {
        "decider": decider,
        "answer": options.answer,
        "agent_factory": agent_factory,
        "participants": participants,
    }
    if in_rounds and mode == "backbones":
        condition = termination_of(chat)
        known = turns_of(condition, max_turns)
        turns = known or len(found)
        # What is said ends such a chat after any turn, and the next run goes on from there.
        by_itself = condition is not None and known is None and not any(planned_alone.values())
        in_rounds = turns <= len(found) and not by_itself
        rounds = 1.0 if math.isinf(turns) else max(1.0, turns / len(found))
    if not in_rounds and not (isinstance(chat, SelectorGroupChat) and mode == "full"):
        for name, value in planned_alone.items():
            if value is not None:
                raise ValueError(
                    f"{name}={value!r}: {type(chat).__name__} routes and decides by itself in this "
                    f"mode, on copies of its own agents; leave {name} out"
                )
        _check_can_be_copied([chat])
        manager = manager_name(chat, {agent.name for agent in agents})
        if manager is not None:
            agents = (*agents, Agent(manager, role="Decides who speaks next."))
        team = Team(agents, fixed_edges=())
        return RoutedTeam(wiring(team, rounds), chat=chat, manager=manager)
    if agent_factory is None:
        _check_can_be_copied(found)
    decider = _decider(chat, decider, [agent.name for agent in agents])
    if max_turns is not None and max_turns < len(agents):
        # No more of them can speak in a run of the chat itself.
        others = [agent.name for agent in agents if agent.name != decider]
        speakers = {*others[: max_turns - 1], decider}
        agents = tuple(agent for agent in agents if agent.name in speakers)
        found = [participant for participant in found if participant.name in speakers]
    team = Team(agents, decider=decider)
    # Those that share a context hear each other whatever a plan says, and must not talk at once.
    if mode == "backbones" or (agent_factory is None and share_a_context(found)):
        team = replace(team, fixed_edges=team.in_turn)
    return PlannedTeam(
        wiring(team),
        participants=found,
        agent_factory=agent_factory,
        termination=termination_of(chat),
        max_turns=max_turns,
        extract=options.answer or extract_answer,
        messages=_message_factory(chat),
        announcer=announcer_of(chat),
    )


def _check_chat(chat: object) -> None:
    if isinstance(chat, WrappedTeam):
        raise ValueError(f"chat: {chat.name!r} is wrapped already; wrap the chat inside it")
    if not isinstance(chat, BaseGroupChat):
        raise ValueError(
            f"chat must be an AutoGen group chat (RoundRobinGroupChat, ...), got "
            f"{type(chat).__name__}"
        )


def _describe(
    participants: Sequence[Participant],
    pinned: Pinned,
    clients: Clients,
) -> tuple[Agent, ...]:
    """The agents with their pins, each checked against the chat and the catalog."""
    for participant in participants:
        if not isinstance(participant, (ChatAgent, AutoGenTeam)):
            raise ValueError(f"participants: {participant!r} is neither an agent nor a team")
        if any(isinstance(held, WrappedTeam) for held in everyone_in(participant)):
            raise ValueError(
                f"participants: {participant.name!r} is or holds a chat that is wrapped already, "
                "whose calls another budget pays; wrap the outermost chat alone"
            )
    names = [participant.name for participant in participants]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"participants: two agents are named {name!r}; names must be unique")
    pins = pins_of(pinned, names, clients.catalog)
    agents = [describe(participant) for participant in participants]
    if clients.catalog.offers("vision") and any(map(_shows_pictures, participants)):
        # To others a picture that an agent shows would be nothing.
        agents = [replace(agent, needs=agent.needs | {"vision"}) for agent in agents]
    check_needs((agent for agent in agents if agent.calls_backbone), clients.catalog)
    return tuple(
        replace(agent, keep=agent.name in pins, backbone=pins.get(agent.name)) for agent in agents
    )


def _shows_pictures(participant: Participant) -> bool:
    kinds = participant.produced_message_types if isinstance(participant, ChatAgent) else ()
    return any(issubclass(kind, MultiModalMessage) for kind in kinds)


def _check_can_be_copied(participants: Sequence[Participant]) -> None:
    """Refuse those whose copies would go on calling the originals, past the budget (ValueError)."""
    for participant in participants:
        for held in everyone_in(participant):
            replaced = replaced_methods(held)
            # Who calls no model is not copied.
            if replaced and model_client_of(held) is not None:
                raise ValueError(
                    f"chat: {held.name!r} has other functions in place of its own {replaced}: "
                    "they would call the original, not the copy that runs under the budget; put "
                    "them into a subclass, or pass agent_factory"
                )


def _decider(chat: BaseGroupChat, decider: str | None, names: Sequence[str]) -> str:
    if decider is None:
        if isinstance(chat, RoundRobinGroupChat):
            return names[-1]
        raise ValueError(
            f"decider: a {type(chat).__name__} has no fixed last speaker; name the agent whose "
            f"message is the answer (one of {list(names)}), or use mode='backbones'"
        )
    if decider not in names:
        raise ValueError(f"decider: {decider!r} is none of the agents {list(names)}")
    return decider


def _message_factory(chat: BaseGroupChat) -> MessageFactory:
    """The chat's own factory, which knows the user's message types."""
    factory = getattr(chat, "_message_factory", None)
    return factory if isinstance(factory, MessageFactory) else MessageFactory()
