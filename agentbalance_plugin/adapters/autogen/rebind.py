"""Per-run copies of agents on another model client.

The copies use a few private names of AutoGen, all of them in this module and guarded: if a version
renames one, the error says so and names the route that needs none of them.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any, cast

import autogen_agentchat
from autogen_agentchat.agents import MessageFilterAgent
from autogen_agentchat.base import ChatAgent, Team, TerminationCondition
from autogen_agentchat.teams import BaseGroupChat
from autogen_core import SingleThreadedAgentRuntime
from autogen_core.models import ChatCompletionClient

from agentbalance_plugin.adapters.autogen.termination import fresh_condition
from agentbalance_plugin.team import Agent

Participant = ChatAgent | Team
AgentFactory = Callable[[str, ChatCompletionClient], ChatAgent]
"""`factory(name, client)` makes a fresh agent on that client."""


def describe(participant: Participant) -> Agent:
    """What the policy needs to know of a participant."""
    return Agent(
        name=participant.name,
        role=_role(participant),
        needs=_needs(participant),
        calls_backbone=model_client_of(participant) is not None,
    )


def model_client_of(participant: Participant) -> ChatCompletionClient | None:
    """The model client that a participant (or the first agent inside it) calls; None if none."""
    own = getattr(participant, "_model_client", None)
    if isinstance(own, ChatCompletionClient):
        return own
    for inner in _inside(participant):
        client = model_client_of(inner)
        if client is not None:
            return client
    return None


def holds_team(participant: Participant) -> bool:
    """Whether a participant's model calls run inside a team's own runtime."""
    return isinstance(participant, BaseGroupChat) or any(map(holds_team, _inside(participant)))


def rebind(participant: Participant, client: ChatCompletionClient | None) -> Participant:
    """A copy for one run, with its own message history, all of its calls on `client`.

    Tools, memory, workbenches and formatters are shared with the original. Agents that call no
    model are returned as they are.

    Args:
        client: None keeps the participant's own client (only right for those that call none).

    Raises:
        RuntimeError: this version of AutoGen keeps its model client under another name.
    """
    if client is None or model_client_of(participant) is None:
        return participant
    if isinstance(participant, BaseGroupChat):
        return copy_chat(
            participant, [rebind(inner, client) for inner in _inside(participant)], client
        )
    twin = copy.copy(participant)
    attributes = vars(twin)
    if isinstance(participant, MessageFilterAgent):
        attributes["_wrapped_agent"] = rebind(_inside(participant)[0], client)
        return twin
    attributes["_model_client"] = client
    context = attributes.get("_model_context")
    if context is not None:
        attributes["_model_context"] = _copy_context(context)
    if "_is_running" in attributes:
        attributes["_is_running"] = False
    inner_team = attributes.get("_team")
    if isinstance(inner_team, Team):
        attributes["_team"] = rebind(inner_team, client)
    if getattr(twin, "_model_client", None) is not client:
        raise RuntimeError(_unknown_version(participant))
    return twin


def adopt_state(original: Participant, twin: Participant) -> None:
    """Make what the copy went through the original's own history; its model client stays."""
    if original is twin:
        return
    if isinstance(original, BaseGroupChat):
        for inner, inner_twin in zip(_inside(original), _inside(twin), strict=True):
            adopt_state(inner, inner_twin)
        return
    if isinstance(original, MessageFilterAgent):
        adopt_state(_inside(original)[0], _inside(twin)[0])
        return
    kept = {"_model_client", "_team"}
    vars(original).update({k: v for k, v in vars(twin).items() if k not in kept})


def copy_chat(
    chat: BaseGroupChat,
    participants: list[Participant],
    manager_client: ChatCompletionClient | None,
) -> BaseGroupChat:
    """A fresh, idle chat like `chat` around other participants, with a runtime of its own.

    Args:
        participants: of the same names, in the same order.
        manager_client: what the chat's own manager calls; None keeps its own.

    Raises:
        RuntimeError: this version of AutoGen keeps its participants under another name.
    """
    twin = copy.copy(chat)
    attributes = vars(twin)
    for name in ("_participants", "_runtime", "_initialized", "_is_running"):
        if name not in attributes:
            raise RuntimeError(_unknown_version(chat))
    attributes["_participants"] = participants
    # Stock runtimes swallow nothing; an error must end the run, not hang it.
    attributes["_runtime"] = SingleThreadedAgentRuntime(ignore_unhandled_exceptions=False)
    attributes["_embedded_runtime"] = True
    attributes["_initialized"] = attributes["_is_running"] = False
    attributes["_output_message_queue"] = asyncio.Queue()
    attributes["_termination_condition"] = fresh_condition(termination_of(chat))
    if manager_client is not None and "_model_client" in attributes:
        attributes["_model_client"] = manager_client
    return twin


def participants_of(chat: BaseGroupChat) -> list[Participant]:
    """The participants in the chat's order."""
    found = getattr(chat, "_participants", None)
    if not isinstance(found, list):
        raise RuntimeError(_unknown_version(chat))
    return list(cast("list[Participant]", found))


def termination_of(chat: BaseGroupChat) -> TerminationCondition | None:
    return cast("TerminationCondition | None", getattr(chat, "_termination_condition", None))


def max_turns_of(chat: BaseGroupChat) -> int | None:
    return cast("int | None", getattr(chat, "_max_turns", None))


def _inside(participant: Participant) -> list[Participant]:
    """The participants that a wrapper or a team holds."""
    if isinstance(participant, BaseGroupChat):
        return participants_of(participant)
    wrapped = getattr(participant, "_wrapped_agent", None)
    if isinstance(wrapped, ChatAgent):
        return [wrapped]
    team = getattr(participant, "_team", None)
    return [team] if isinstance(team, Team) else []


def _role(participant: Participant) -> str:
    for inner in _inside(participant):
        if isinstance(participant, MessageFilterAgent):
            return _role(inner)
    messages: Any = getattr(participant, "_system_messages", None) or ()
    text = "\n".join(str(getattr(message, "content", "")) for message in messages)
    return text or participant.description


def _needs(participant: Participant) -> frozenset[str]:
    needs = {"text"}
    for inner in _inside(participant):
        needs |= _needs(inner)
    held = vars(participant)
    if held.get("_tools") or held.get("_handoff_tools") or _has_outside_tools(held):
        needs.add("tools")
    if held.get("_output_content_type") is not None:
        needs.add("structured_output")
    return frozenset(needs)


def _has_outside_tools(held: dict[str, Any]) -> bool:
    """Whether an agent has a workbench other than the one AssistantAgent makes of its tools."""
    benches: Any = held.get("_workbench") or ()
    if not isinstance(benches, (list, tuple)):
        benches = [benches]
    return any(
        type(bench).__name__ not in ("StaticWorkbench", "StaticStreamWorkbench")
        for bench in cast("list[object]", benches)
    )


def _copy_context(context: Any) -> Any:
    """A model context with a message list of its own.

    A deep copy would also copy the model client that a token-limited context counts with.
    """
    twin = copy.copy(context)
    messages = getattr(context, "_messages", None)
    if isinstance(messages, list):
        vars(twin)["_messages"] = list(cast("list[Any]", messages))
    return twin


def _unknown_version(participant: Participant) -> str:
    return (
        f"{type(participant).__name__} of autogen-agentchat {autogen_agentchat.__version__} keeps "
        "its parts under names this version of agentbalance-plugin does not know; pass "
        "wrap_groupchat(..., agent_factory=lambda name, client: ...), which uses public API alone"
    )
