"""Per-run copies of agents on another model client.

The copies use a few private names of AutoGen, all of them in this module and guarded: if a version
renames one, the error says so and names the route that needs none of them.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import isfunction
from types import MethodType
from typing import Any, TypeGuard, cast

import autogen_agentchat
from autogen_agentchat.agents import MessageFilterAgent
from autogen_agentchat.base import ChatAgent, Team, TerminationCondition
from autogen_agentchat.teams import BaseGroupChat
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core import FunctionCall, SingleThreadedAgentRuntime
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
)
from autogen_core.tools import StaticWorkbench

from agentbalance_plugin.adapters.autogen.settings import needs_of
from agentbalance_plugin.adapters.autogen.termination import fresh_condition
from agentbalance_plugin.team import Agent

Participant = ChatAgent | Team
AgentFactory = Callable[[str, ChatCompletionClient], ChatAgent]
"""`factory(name, client)` makes a fresh agent on that client."""

_RUNNERS = (AgentTool, TeamTool)


def describe(participant: Participant) -> Agent:
    """What the policy needs to know of a participant."""
    return Agent(
        name=participant.name,
        role=_role(participant),
        needs=_needs(participant),
        calls_backbone=model_client_of(participant) is not None,
    )


def model_client_of(participant: Participant) -> ChatCompletionClient | None:
    """The model client that a participant (or the first one inside it) calls; None if none."""
    for held in everyone_in(participant):
        for clients in _clients(held).values():
            return clients[0]
    return None


def everyone_in(participant: Participant) -> Iterator[Participant]:
    """A participant, and all agents and teams that it holds or calls as tools."""
    yield participant
    for inner in _inside(participant):
        yield from everyone_in(inner)


def hides_errors(participant: Participant) -> bool:
    """Whether a model call's error may end inside a participant: in a team's own runtime, or as
    the result of a tool."""
    return any(
        isinstance(held, BaseGroupChat) or _runners(held) for held in everyone_in(participant)
    )


def replaced_methods(participant: Participant) -> list[str]:
    """The methods that were replaced on a participant itself, by functions that would go on calling
    the original from a copy of it."""
    kind = type(participant)
    return [
        name
        for name, value in vars(participant).items()
        if callable(value)
        and not _is_own(value, participant)
        and isfunction(getattr(kind, name, None))
    ]


def at_work(team: Team) -> bool:
    """Whether a team may be told to pause: AutoGen's own refuse to before their first run, and
    never answer while they are idle."""
    held = vars(team)
    return bool(held.get("_initialized", True) and held.get("_is_running", True))


def share_a_context(participants: Sequence[Participant]) -> bool:
    """Whether what one of them hears and says is in the model context of another."""
    contexts = [
        {id(context) for held in everyone_in(each) if (context := _context(held)) is not None}
        for each in participants
    ]
    return len(set[int]().union(*contexts)) < sum(map(len, contexts))


def rebind(
    participant: Participant, client: ChatCompletionClient | None, contexts: dict[int, Any]
) -> Participant:
    """A copy for one run, with its own message history, all of its calls on `client`.

    Tools, memory, workbenches and formatters are shared with the original, but for tools that run
    an agent or a team: they run a copy as well. Agents that call no model are returned as they are;
    a team of such agents is copied, since one that is stopped while it runs never runs again.

    Args:
        client: None for participants that call none.
        contexts: copies of model contexts by the ids of their originals; added to. Agents that
            share a context share its copy, where they are copied with the same ones.
    """
    if isinstance(participant, BaseGroupChat):
        inner = [rebind(inner, client, contexts) for inner in _inside(participant)]
        return copy_chat(participant, inner, client, alone=False)
    if client is None or model_client_of(participant) is None:
        return participant
    twin = copy.copy(participant)
    attributes = vars(twin)
    for name in _clients(participant):
        attributes[name] = _on(attributes[name], client)
    for name, value in vars(participant).items():
        if _is_own(value, participant):
            attributes[name] = MethodType(value.__func__, twin)
    context = _context(participant)
    if context is not None:
        if id(context) not in contexts:
            contexts[id(context)] = _copy_context(context, client)
        attributes["_model_context"] = contexts[id(context)]
    if "_is_running" in attributes:
        attributes["_is_running"] = False
    for name in ("_wrapped_agent", "_team"):
        inner = attributes.get(name)
        if isinstance(inner, (ChatAgent, Team)):
            attributes[name] = rebind(inner, client, contexts)
    if _runners(participant):
        benches = _benches(participant)
        attributes["_workbench"] = [_rebind_tools(bench, client, contexts) for bench in benches]
    return twin


def adopt_state(original: Participant, twin: Participant) -> None:
    """Make what the copy went through the original's own history; its model client stays."""
    if original is twin:
        return
    for inner, inner_twin in zip(_inside(original), _inside(twin), strict=False):
        adopt_state(inner, inner_twin)
    if isinstance(original, BaseGroupChat):
        return
    kept = {"_wrapped_agent", "_team", "_workbench", *_clients(original)}
    changed = {k: v for k, v in vars(twin).items() if k not in kept and not _is_own(v, twin)}
    own, new = _context(original), changed.get("_model_context")
    if new is not None:
        _answer_calls(new)
    if own is not None and type(own) is type(new):
        # Whoever made it may hold it still, and clear it.
        counting = _clients(own)
        vars(own).update({k: v for k, v in vars(new).items() if k not in counting})
        changed["_model_context"] = own
    vars(original).update(changed)


class _Runtime(SingleThreadedAgentRuntime):
    """A copy's own, which nobody else uses."""


def copy_chat(
    chat: BaseGroupChat,
    participants: list[Participant],
    manager_client: ChatCompletionClient | None,
    *,
    alone: bool,
) -> BaseGroupChat:
    """A fresh, idle chat like `chat` around other participants, with a runtime of its own.

    Args:
        participants: of the same names, in the same order.
        manager_client: what the chat's own manager calls; None keeps its own.
        alone: whether no other copy of it runs at the same time.

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
    attributes["_runtime"] = _Runtime(ignore_unhandled_exceptions=False)
    attributes["_embedded_runtime"] = True
    attributes["_initialized"] = attributes["_is_running"] = False
    attributes["_output_message_queue"] = asyncio.Queue()
    attributes["_termination_condition"] = fresh_condition(termination_of(chat), alone=alone)
    if manager_client is not None and "_model_client" in attributes:
        attributes["_model_client"] = manager_client
    return twin


def stop_runtimes(participant: Participant) -> None:
    """End what the runtimes of a copy's teams still do, once its run is over.

    An AssistantAgent whose tool is cancelled waits for it for ever, and its team with it.
    """
    for held in everyone_in(participant):
        runtime = vars(held).get("_runtime")
        if isinstance(runtime, _Runtime):
            for task in tuple(getattr(runtime, "_background_tasks", ())):
                task.cancel()


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


def announcer_of(chat: BaseGroupChat) -> str | None:
    """In whose name a chat says who speaks next; None where it does not."""
    says = bool(getattr(chat, "_emit_team_events", False))
    return cast("str | None", getattr(chat, "_group_chat_manager_name", None)) if says else None


def _context(participant: Participant) -> Any:
    """The model context of an agent; None if it has none."""
    return vars(participant).get("_model_context")


def _is_own(value: Any, participant: Participant) -> TypeGuard[MethodType]:
    """Whether it is a method of this very participant."""
    return isinstance(value, MethodType) and value.__self__ is participant


def _clients(participant: Participant) -> dict[str, list[ChatCompletionClient]]:
    """The attributes in which a participant itself keeps model clients, whatever their names, alone
    or in a list, tuple or dict."""
    found = {name: _clients_in(value) for name, value in vars(participant).items()}
    return {name: clients for name, clients in found.items() if clients}


def _clients_in(value: Any) -> list[ChatCompletionClient]:
    if isinstance(value, ChatCompletionClient):
        return [value]
    parts: Iterable[Any] = ()
    if type(value) is dict:
        parts = cast("dict[Any, Any]", value).values()
    elif type(value) in (list, tuple):
        parts = value
    return [part for part in parts if isinstance(part, ChatCompletionClient)]


def _on(value: Any, client: ChatCompletionClient) -> Any:
    """What an attribute holds, with a client in place of those in it."""

    def replaced(part: Any) -> Any:
        return client if isinstance(part, ChatCompletionClient) else part

    if type(value) is dict:
        return {key: replaced(part) for key, part in cast("dict[Any, Any]", value).items()}
    if type(value) in (list, tuple):
        return type(value)(map(replaced, value))
    return client


def _inside(participant: Participant) -> list[Participant]:
    """The participants that a wrapper or a team holds, and those that an agent calls as tools."""
    if isinstance(participant, BaseGroupChat):
        return participants_of(participant)
    held = vars(participant)
    inner = [held.get("_wrapped_agent"), held.get("_team")]
    return [each for each in inner if isinstance(each, (ChatAgent, Team))] + _runners(participant)


def _benches(participant: Participant) -> list[Any]:
    """The workbenches of an agent."""
    benches: Any = vars(participant).get("_workbench") or ()
    return list(cast("Any", benches)) if isinstance(benches, (list, tuple)) else [benches]


def _tools_in(bench: Any) -> list[Any]:
    """The tools of a workbench that holds them itself; others answer over a connection."""
    return list(cast("Any", bench)._tools) if isinstance(bench, StaticWorkbench) else []


def _runners(participant: Participant) -> list[Participant]:
    """The agents and teams that an agent calls as tools (AgentTool, TeamTool)."""
    tools = [tool for bench in _benches(participant) for tool in _tools_in(bench)]
    return [_runner(tool) for tool in tools if isinstance(tool, _RUNNERS)]


def _runner(tool: AgentTool | TeamTool) -> Participant:
    return cast("Participant", cast("Any", tool)._task_runner)


def _rebind_tools(bench: Any, client: ChatCompletionClient, contexts: dict[int, Any]) -> Any:
    """A workbench whose agents and teams are copies; any other one itself."""
    tools = _tools_in(bench)
    if not any(isinstance(tool, _RUNNERS) for tool in tools):
        return bench
    twin = copy.copy(bench)
    twin._tools = [_rebind_tool(tool, client, contexts) for tool in tools]
    return twin


def _rebind_tool(tool: Any, client: ChatCompletionClient, contexts: dict[int, Any]) -> Any:
    if not isinstance(tool, _RUNNERS):
        return tool
    twin = copy.copy(tool)
    vars(twin)["_task_runner"] = rebind(_runner(tool), client, contexts)
    return twin


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
    for clients in _clients(participant).values():
        needs = needs.union(*map(needs_of, clients))
    if (
        held.get("_tools")
        or held.get("_handoff_tools")
        or any(map(_has_tools, _benches(participant)))
    ):
        needs.add("tools")
    if held.get("_output_content_type") is not None:
        needs.add("structured_output")
    return frozenset(needs)


def _has_tools(bench: Any) -> bool:
    """Whether a workbench has tools: AssistantAgent makes an empty one where it is given none."""
    return bool(_tools_in(bench)) if isinstance(bench, StaticWorkbench) else True


def _copy_context(context: Any, client: ChatCompletionClient) -> Any:
    """A model context with a message list of its own, its calls on `client`.

    A deep copy would also copy the model client that one counts or sums up with.
    """
    twin = copy.copy(context)
    messages = getattr(context, "_messages", None)
    if isinstance(messages, list):
        vars(twin)["_messages"] = list(cast("list[Any]", messages))
        _answer_calls(twin)
    for name in _clients(context):
        vars(twin)[name] = _on(vars(twin)[name], client)
    return twin


def _answer_calls(context: Any) -> None:
    """Answer the tools that an agent called last, where it was stopped before they had ended.

    Endpoints refuse a history that has a call without an answer.
    """
    messages: list[Any] = getattr(context, "_messages", None) or []
    calls: Any = getattr(messages[-1], "content", None) if messages else None
    if not isinstance(calls, list) or not isinstance(messages[-1], AssistantMessage):
        return
    results = [
        FunctionExecutionResult(
            content="Stopped: the run ended before this tool did.",
            name=call.name,
            call_id=call.id,
            is_error=True,
        )
        for call in cast("list[FunctionCall]", calls)
    ]
    messages.append(FunctionExecutionResultMessage(content=results))


def _unknown_version(participant: Participant) -> str:
    return (
        f"{type(participant).__name__} of autogen-agentchat {autogen_agentchat.__version__} keeps "
        "its parts under names this version of agentbalance-plugin does not know; pass "
        "wrap_groupchat(..., agent_factory=lambda name, client: ...), which uses public API alone"
    )
