"""`wrap_groupchat`: from an AG2 manager to the same manager under a budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import new_class
from typing import cast

from autogen import ConversableAgent, GroupChat, GroupChatManager

from agentbalance_plugin.adapters.ag2.balance import Balance
from agentbalance_plugin.adapters.ag2.endpoints import Backbones, Clients, clients_for
from agentbalance_plugin.adapters.ag2.found import Found, find, warn_of_what_is_beyond
from agentbalance_plugin.adapters.ag2.internals import reply_functions
from agentbalance_plugin.adapters.ag2.manager import (
    WrappedManager,
    a_run_chat,
    put_into,
    run_chat,
)
from agentbalance_plugin.adapters.ag2.settings import check_settings
from agentbalance_plugin.adapters.planning import (
    Pinned,
    Planner,
    check_affordable,
    check_needs,
    pins_of,
    planner_of,
)
from agentbalance_plugin.adapters.stream import Stream, check_terms
from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.runtime.clock import Clock


def wrap_groupchat(
    chat: GroupChatManager,
    *,
    budget: Budget,
    backbones: Backbones = "backbones.yaml",
    policy: str | Path | Planner = "default",
    agents: Iterable[ConversableAgent] = (),
    pinned: Pinned = None,
    clock: Clock | None = None,
) -> WrappedManager:
    """Put an AG2 group chat under a budget: its manager, as it is, becomes a wrapped one.

    Args:
        chat: the manager. Who speaks when stays AG2's affair.
        budget: of each run, or an average over runs.
        backbones: a catalog file (by default `backbones.yaml` in the working directory), a Catalog,
            or pairs of a Backbone and the llm_config that calls it.
        policy: "default", a checkpoint folder, or any object with `plan(query, team, budget,
            catalog)`.
        agents: whose calls the budget pays as well although the chat does not lead to them: those
            that tools keep. Agents of nested chats, and in attributes of others, are found.
        pinned: a mapping from names of agents to the backbone they must have (None: any), or names.
        clock: what deadlines are measured on; real time by default.

    Returns:
        The manager; `manager.report` tells of its last run.

    Raises:
        ValueError: an argument that can't work, named with its value and the fix.
        CatalogError, PolicyError: a catalog or policy file that can't be used.
    """
    check_terms(budget, clock)
    _check_manager(chat)
    others = list(agents)
    for other in others:
        if not isinstance(other, ConversableAgent):
            raise ValueError(f"agents must be agents of AG2, got {other!r}")
    clients = clients_for(backbones)
    check_affordable(budget, clients.catalog)
    stream = Stream(clients, budget, planner_of(policy), clock or Clock())
    # Other chats of the stream ask for it again.
    return _wrapped(chat, stream, others, list(pinned) if isinstance(pinned, Iterator) else pinned)


def _wrapped(
    manager: GroupChatManager,
    stream: Stream[Clients],
    others: list[ConversableAgent],
    pinned: Pinned,
) -> WrappedManager:
    """The manager as a part of a stream (ValueError: it can't be wrapped)."""

    def again(other: GroupChatManager) -> WrappedManager:
        _check_manager(other)
        return _wrapped(other, stream, others, pinned)

    pins = pins_of(pinned, find(manager, others).team.names, stream.clients.catalog)
    balance = Balance(stream, pins, others, again)
    found = balance.found(manager)
    _check_agents(found, stream.clients.catalog)
    warn_of_what_is_beyond(found)
    # What takes long the first time is done before there is a task.
    stream.pacer(found.team)
    stream.takes_long(found.team)
    manager.replace_reply_func(GroupChatManager.run_chat, run_chat)
    manager.replace_reply_func(GroupChatManager.a_run_chat, a_run_chat)
    put_into(manager, balance)
    manager.__class__ = _wrapped_kind(type(manager))
    return cast("WrappedManager", manager)


def _check_manager(chat: object) -> None:
    if isinstance(chat, WrappedManager):
        raise ValueError(f"chat: {chat.name!r} is wrapped already; make another manager")
    if isinstance(chat, GroupChat):
        raise ValueError(
            "chat is a GroupChat, which runs nothing by itself; give its "
            "GroupChatManager(groupchat=chat, llm_config=...)"
        )
    if not isinstance(chat, GroupChatManager):
        raise ValueError(f"chat must be a GroupChatManager, got {type(chat).__name__}")
    if not {GroupChatManager.run_chat, GroupChatManager.a_run_chat} <= set(reply_functions(chat)):
        raise ValueError(
            f"chat: {chat.name!r} does not run its chat by AG2's run_chat and a_run_chat, so that "
            "no budget holds; leave these reply functions registered"
        )


def _check_agents(found: Found, catalog: Catalog) -> None:
    callers = [agent for agent in found.team.agents if agent.calls_backbone]
    if not callers:
        raise ValueError(
            f"chat: none of its agents {list(found.agents)} has an llm_config, so that there is "
            "nothing to budget"
        )
    check_needs(callers, catalog)
    for agent in found.agents.values():
        check_settings(agent)


@lru_cache(maxsize=64)
def _wrapped_kind(kind: type[GroupChatManager]) -> type[WrappedManager]:
    """A wrapped manager that is one of the user's own kind as well."""
    if kind is GroupChatManager:
        return WrappedManager
    made = new_class(f"Wrapped{kind.__name__}", (WrappedManager, kind))
    return cast("type[WrappedManager]", made)
