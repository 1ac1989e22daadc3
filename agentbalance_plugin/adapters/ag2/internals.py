"""The private names of AG2 that this adapter uses, and what is said where a version lacks them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, cast

from autogen import ConversableAgent, GroupChat, GroupChatManager, OpenAIWrapper
from autogen.oai.client import OpenAIClient

_CREATE = "_create_internal_agents"
# Of an agent: whom it answers or has heard, which calls nobody, and the functions looked at apart.
_NOT_HELD = ("_last_speaker", "_oai_messages", "_reply_func_list")

Selectors = Callable[..., tuple[ConversableAgent, ConversableAgent]]
"""Makes the two agents that choose a chat's next speaker; the second one calls an LLM."""


def client_of(entry: Mapping[str, Any]) -> OpenAIClient:
    """AG2's own client of one entry of a config_list."""
    wrapper = OpenAIWrapper(config_list=[dict(entry)])
    clients: Any = getattr(wrapper, "_clients", None)
    if not isinstance(clients, list) or not clients or not isinstance(clients[0], OpenAIClient):
        _refuse("OpenAIWrapper._clients")
    return clients[0]


class WrapperOf(OpenAIWrapper):
    """AG2's wrapper around one model client, for replies of the model `name`."""

    def __init__(self, client: object, name: str) -> None:
        self._only = client
        super().__init__(config_list=[{"model": name}])
        if getattr(self, "_clients", None) != [client]:
            # Anything else in there would call past the budget.
            _refuse("OpenAIWrapper._register_default_client")

    def _register_default_client(
        self, config: dict[str, Any], openai_config: dict[str, Any]
    ) -> None:
        self._clients.append(cast("Any", self._only))


@contextmanager
def selectors_replaced(chat: GroupChat, wrap: Callable[[Selectors], Selectors]) -> Generator[None]:
    """Let `wrap` of it make the agents that choose a chat's next speaker."""
    made: Selectors = getattr(chat, _CREATE, None) or _refuse(f"GroupChat.{_CREATE}")
    # What traces a chat puts its own there.
    before = {name: value for name, value in vars(chat).items() if name == _CREATE}
    vars(chat)[_CREATE] = wrap(made)
    try:
        yield
    finally:
        del vars(chat)[_CREATE]
        vars(chat).update(before)


def reply_functions(agent: ConversableAgent) -> list[Callable[..., Any]]:
    """The functions by which an agent replies."""
    return [each["reply_func"] for each in _replies(agent)]


def chats_run_by(manager: GroupChatManager) -> Iterator[GroupChat]:
    """The chats that its functions run: copies of the one that it was made with, which share its
    messages and agents."""
    configs = (each["config"] for each in _replies(manager))
    return (config for config in configs if isinstance(config, GroupChat))


def _replies(agent: ConversableAgent) -> list[dict[str, Any]]:
    registered: Any = vars(agent).get("_reply_func_list")
    return _refuse("ConversableAgent._reply_func_list") if registered is None else registered


def chats_inside(agent: ConversableAgent) -> Iterator[Mapping[str, Any]]:
    """The nested chats that were registered with an agent, as they were given."""
    for function in reply_functions(agent):
        if inspect.isfunction(function):
            queue: Any = inspect.getclosurevars(function).nonlocals.get("chat_queue") or ()
            yield from queue


def held_by(agent: ConversableAgent) -> Iterator[Any]:
    """What an agent keeps in its attributes and for its functions, but for those it talks to."""
    yield from (value for name, value in vars(agent).items() if name not in _NOT_HELD)
    yield from (each["config"] for each in _replies(agent))


def _refuse(name: str) -> NoReturn:
    from autogen import __version__

    raise ImportError(
        f"AG2 {__version__} has no {name}, which the adapter needs: pip install 'ag2>=0.14,<0.15'"
    )
