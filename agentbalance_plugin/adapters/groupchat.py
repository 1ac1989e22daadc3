"""`wrap_groupchat` for the chats of AutoGen and of AG2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from agentbalance_plugin.adapters.planning import Pinned, Planner
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.runtime.clock import Clock

if TYPE_CHECKING:
    from autogen import ConversableAgent, GroupChatManager
    from autogen_agentchat.teams import BaseGroupChat

    from agentbalance_plugin.adapters.ag2.endpoints import Backbones as BackbonesOfAg2
    from agentbalance_plugin.adapters.ag2.manager import WrappedManager
    from agentbalance_plugin.adapters.autogen.endpoints import Backbones
    from agentbalance_plugin.adapters.autogen.planned import AnswerExtractor
    from agentbalance_plugin.adapters.autogen.rebind import AgentFactory, Participant
    from agentbalance_plugin.adapters.autogen.wrap import Mode
    from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam


@overload
def wrap_groupchat(
    chat: BaseGroupChat,
    *,
    budget: Budget,
    backbones: Backbones = ...,
    policy: str | Path | Planner = ...,
    mode: Mode = ...,
    decider: str | None = ...,
    participants: Sequence[Participant] | None = ...,
    agent_factory: AgentFactory | None = ...,
    answer: AnswerExtractor | None = ...,
    pinned: Pinned = ...,
    clock: Clock | None = ...,
) -> WrappedTeam: ...
@overload
def wrap_groupchat(
    chat: GroupChatManager,
    *,
    budget: Budget,
    backbones: BackbonesOfAg2 = ...,
    policy: str | Path | Planner = ...,
    agents: Iterable[ConversableAgent] = ...,
    pinned: Pinned = ...,
    clock: Clock | None = ...,
) -> WrappedManager: ...
def wrap_groupchat(chat: Any, **options: Any) -> Any:
    """Put an AutoGen chat, or the manager of an AG2 chat, under a budget.

    Arguments and errors are those of `agentbalance_plugin.adapters.autogen.wrap_groupchat` and
    `agentbalance_plugin.adapters.ag2.wrap_groupchat`; which one is asked the chat decides.

    Raises:
        ImportError: the framework's extra is not installed.
    """
    # Neither is imported for the sake of the other.
    of_ag2 = any(kind.__module__.partition(".")[0] == "autogen" for kind in type(chat).__mro__)
    framework = import_module(f"agentbalance_plugin.adapters.{'ag2' if of_ag2 else 'autogen'}")
    return framework.wrap_groupchat(chat, **options)
