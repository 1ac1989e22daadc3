"""Agents that have another client for the time of a run."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any, cast

from autogen import ConversableAgent, GroupChat, GroupChatManager, OpenAIWrapper

from agentbalance_plugin.adapters.ag2.internals import Selectors, selectors_replaced

MakeClient = Callable[[ConversableAgent, OpenAIWrapper | None], OpenAIWrapper]
"""An agent and its own client -> the one that it has for a run."""

_SUBSTITUTE = "_agentbalance_client"
_lock = threading.Lock()


def is_dressed(agent: ConversableAgent) -> bool:
    """Whether an agent takes part in a run."""
    return _SUBSTITUTE in vars(agent)


@contextmanager
def dressed(
    agents: Mapping[str, tuple[ConversableAgent, MakeClient]],
    chats: Iterable[tuple[GroupChat, MakeClient]],
) -> Generator[None]:
    """Give agents other clients, and those as well that choose who speaks next in a chat.

    Args:
        agents: by name.

    Raises:
        RuntimeError: one of the agents takes part in another run.
    """
    clothed: list[ConversableAgent] = []
    caches = [(agent, agent.client_cache) for agent, _ in agents.values()]
    with ExitStack() as stack:
        stack.callback(_undo, clothed, caches)
        with _lock:
            for name, (agent, make) in agents.items():
                if is_dressed(agent):
                    raise RuntimeError(
                        f"agent {name!r} takes part in another run, and AG2's agents hold one "
                        "conversation at a time; wait for it to end, or make agents of its own "
                        "for each conversation"
                    )
                _put_on(agent, make)
                clothed.append(agent)
        for chat, make in chats:
            stack.enter_context(selectors_replaced(chat, partial(_selecting, make)))
        yield


def _undo(
    clothed: Iterable[ConversableAgent], caches: Iterable[tuple[ConversableAgent, Any]]
) -> None:
    for agent in clothed:
        _take_off(agent)
    # AG2 gives them back only where its loop comes to its end.
    for agent, cache in caches:
        agent.client_cache = cache


def _selecting(make: MakeClient, selectors: Selectors) -> Selectors:
    def dressed_selectors(*args: Any, **options: Any) -> tuple[ConversableAgent, ConversableAgent]:
        checking, selecting = selectors(*args, **options)
        # It is made for one turn and thrown away.
        _put_on(selecting, make)
        return checking, selecting

    return dressed_selectors


def _put_on(agent: ConversableAgent, make: MakeClient) -> None:
    own: OpenAIWrapper | None = agent.client
    # A manager that calls no model is dressed as well: so its runs know that they are inside.
    idle = own is None and isinstance(agent, GroupChatManager)
    vars(agent)[_SUBSTITUTE] = None if idle else make(agent, own)
    cast("Any", agent).__class__ = _kind_in_a_run(type(agent))


def _take_off(agent: ConversableAgent) -> None:
    agent.__class__ = type(agent).__mro__[1]
    del vars(agent)[_SUBSTITUTE]


@lru_cache(maxsize=256)
def _kind_in_a_run(kind: type[ConversableAgent]) -> type[ConversableAgent]:
    """A class of agents like `kind` that keep the client of the run, whatever AG2 sets meanwhile:
    with every tool that is registered it makes another one."""

    def client(agent: ConversableAgent) -> Any:
        return vars(agent)[_SUBSTITUTE]

    def keep(agent: ConversableAgent, own: Any) -> None:
        vars(agent)["client"] = own

    def fill(body: dict[str, Any]) -> None:
        body.update(client=property(client, keep), __module__=kind.__module__)

    return types.new_class(kind.__name__, (kind,), exec_body=fill)
