"""The private names of LangGraph and LangChain that this adapter uses, in one place."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from traceback import walk_tb
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.retry import RunnableRetry
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.prebuilt import ToolNode
from langgraph.runtime import RunControl

_NAMES = {
    "RunnableCallable": "langgraph._internal._runnable",
    "RunnableSeq": "langgraph._internal._runnable",
    "CONFIG_KEY_RUNTIME": "langgraph._internal._constants",
    "CONFIG_KEY_CHECKPOINT_NS": "langgraph._internal._constants",
    "CONFIG_KEY_CHECKPOINTER": "langgraph._internal._constants",
    "CONFIG_KEY_RESUMING": "langgraph._internal._constants",
    "ChannelRead": "langgraph.pregel._read",
    "ChannelWrite": "langgraph.pregel._write",
    "ChannelWriteEntry": "langgraph.pregel._write",
    "PUSH": "langgraph._internal._constants",
    "get_function_nonlocals": "langgraph.pregel._utils",
    "_get_overwrite": "langgraph.channels.binop",
    "_should_retry_on": "langgraph.pregel._retry",
}


def _load(name: str) -> Any:
    try:
        return getattr(importlib.import_module(_NAMES[name]), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"langgraph {version('langgraph')} has no {_NAMES[name]}.{name}, which "
            "agentbalance-plugin needs; install langgraph>=1.2.12,<2 in a version tested with it"
        ) from error


RunnableCallable: Any = _load("RunnableCallable")
RunnableSeq: Any = _load("RunnableSeq")
ChannelRead: Any = _load("ChannelRead")
ChannelWrite: Any = _load("ChannelWrite")
ChannelWriteEntry: Any = _load("ChannelWriteEntry")
get_function_nonlocals: Any = _load("get_function_nonlocals")
get_overwrite: Any = _load("_get_overwrite")
"""(whether a value takes a channel's place instead of being added to it, what then does)."""
is_retried: Any = _load("_should_retry_on")
"""(a RetryPolicy, an error) -> whether the one is for the other."""
_RUNTIME: str = _load("CONFIG_KEY_RUNTIME")
_NAMESPACE: str = _load("CONFIG_KEY_CHECKPOINT_NS")
_SAVER: str = _load("CONFIG_KEY_CHECKPOINTER")
_RESUMING: str = _load("CONFIG_KEY_RESUMING")
_SENT: str = _load("PUSH")


class WriteThen(cast("type[Any]", ChannelWrite)):
    """A node's writes to channels, and then something else.

    As one writer: a node of several is a sequence, which LangGraph tells tracers and streams of
    events of.

    Args:
        writes: ChannelWrites.
        then, athen: (value, config) -> value.
        after: further writers.
    """

    def __init__(
        self, writes: Sequence[Any], then: Any, athen: Any, after: Sequence[Any] = ()
    ) -> None:
        super().__init__([entry for write in writes for entry in write.writes])
        write, awrite = self.func, self.afunc

        def all_of_it(value: Any, config: RunnableConfig) -> Any:
            value = then(write(value, config), config)
            for writer in after:
                value = writer.invoke(value, config)
            return value

        async def aall_of_it(value: Any, config: RunnableConfig) -> Any:
            value = await athen(await awrite(value, config), config)
            for writer in after:
                value = await writer.ainvoke(value, config)
            return value

        self.func, self.afunc = all_of_it, aall_of_it


def control_of(config: RunnableConfig | None) -> RunControl | None:
    """The control of the run that a config belongs to; None outside runs."""
    return getattr(_runtime_of(config), "control", None)


def attempt_of(config: RunnableConfig) -> int:
    """How often the node of a config has been tried, this time included."""
    info = getattr(_runtime_of(config), "execution_info", None)
    return getattr(info, "node_attempt", 1)


def _runtime_of(config: RunnableConfig | None) -> Any:
    configurable = (config or {}).get("configurable") or {}
    return configurable.get(_RUNTIME)


def namespace_of(config: RunnableConfig | None) -> str:
    """Where in a run a config belongs: "node:task|node:task", or "" for the root."""
    configurable = (config or {}).get("configurable") or {}
    return str(configurable.get(_NAMESPACE) or "")


def one_history(config: RunnableConfig) -> RunnableConfig:
    """The config that a subgraph with `checkpointer=True` runs with: it keeps one history a thread,
    under its namespace without the ids of tasks."""
    parts = namespace_of(config).split("|")
    namespace = "|".join(part.partition(":")[0] for part in parts)
    configurable = {**(config.get("configurable") or {}), _NAMESPACE: namespace}
    return cast("RunnableConfig", {**config, "configurable": configurable})


def lent_saver(config: RunnableConfig) -> BaseCheckpointSaver[Any] | None:
    """The checkpointer that a parent graph lends; None for a root graph."""
    saver: Any = (config.get("configurable") or {}).get(_SAVER)
    known = isinstance(saver, BaseCheckpointSaver)
    return cast("BaseCheckpointSaver[Any]", saver) if known else None


def thread_of(config: RunnableConfig) -> RunnableConfig:
    """The thread of a graph, at whatever checkpoint it has reached; of a subgraph the part that is
    its own, with the checkpointer that its parent lends."""
    configurable: dict[str, Any] = config.get("configurable") or {}
    found = {"thread_id": configurable.get("thread_id", ""), _NAMESPACE: namespace_of(config)}
    if _SAVER in configurable:
        found[_SAVER] = configurable[_SAVER]
    return {"configurable": found}


def is_sent(config: RunnableConfig) -> bool:
    """Whether a node runs for a `Send`, perhaps as one of several parts."""
    path = (config.get("metadata") or {}).get("langgraph_path") or ("",)
    return path[0] == _SENT


def is_resuming(config: RunnableConfig) -> bool:
    """Whether a parent graph resumes, so that its subgraphs go on where they were."""
    return bool((config.get("configurable") or {}).get(_RESUMING))


def read_nothing(writer: Any) -> None:
    """Spare a conditional edge, one of a compiled node's writers, the state it does not look at.

    LangGraph copies every channel for it otherwise.
    """
    writer.kwargs["reader"] = None


def path_of(writer: Any) -> Any:
    """What decides a conditional edge; None if a compiled node's writer is none."""
    return getattr(getattr(getattr(writer, "func", None), "__self__", None), "path", None)


def replace_path(writer: Any, path: Any) -> None:
    """Let something else decide a conditional edge, one of a compiled node's writers."""
    branch = writer.func.__self__._replace(path=path)
    writer.func, writer.afunc = branch._route, branch._aroute


def speaks_responses(model: Any, options: Mapping[str, Any]) -> bool:
    """Whether a model of langchain-openai makes a call of OpenAI's Responses API of these options.

    Some models know no other API; versions that have none say nothing.
    """
    decides: Any = getattr(model, "_use_responses_api", None)
    given: Mapping[str, Any] = getattr(model, "model_kwargs", None) or {}
    return callable(decides) and bool(decides({**given, **options}))


def found_no_reply(error: Exception) -> bool:
    """Whether LangChain raised an error because an endpoint's answer is no reply: no choices in it,
    an error in their place, a page, no chunks.

    They are bare ValueErrors and the like, so where they are raised tells them from others.
    """
    *_, (frame, _) = walk_tb(error.__traceback__)
    function = frame.f_code.co_name
    if frame.f_globals.get("__name__") == "langchain_core.language_models.chat_models":
        return function in _ENTRIES and isinstance(error, (IndexError, ValueError))
    return function in _READERS


_ENTRIES = ("invoke", "ainvoke", "stream", "astream")
_READERS = ("_create_chat_result", "_construct_lc_result_from_responses_api")


def describe(model: BaseChatModel) -> None:
    """Work out what LangChain tells tracers and caches of a chat model, which it does once for each
    object: copies made after it share it."""
    getattr(model, _DESCRIPTION, None)


def changed(model: BaseChatModel, fields: Mapping[str, Any]) -> BaseChatModel:
    """A copy of a chat model with other values of some fields, described as what it is."""
    copy = model.model_copy(update=fields)
    vars(copy).pop(_DESCRIPTION, None)
    return copy


_DESCRIPTION = "_serialized"

REPLY, AREPLY, STREAM, ASTREAM = "_generate", "_agenerate", "_stream", "_astream"
"""What the maker of a chat model writes; LangChain puts callbacks and caches around it."""


def set_retrying(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change what every `Runnable.with_retry` of the process tells tenacity.

    Raises:
        ImportError: this langchain-core has no such place.
    """
    known: Any = vars(RunnableRetry).get("_kwargs_retrying")
    if not isinstance(known, property):
        raise ImportError(
            f"langchain-core {version('langchain-core')} has no RunnableRetry._kwargs_retrying, "
            "which agentbalance-plugin needs; install langchain-core>=1.4.7,<2 in a version tested "
            "with it"
        )
    options_of: Any = known.fget
    changed = property(lambda retry: change(options_of(retry)))
    cast("Any", RunnableRetry)._kwargs_retrying = changed


def set_tool_answers(error: type[Exception], answer: Callable[[Any, Any], Any]) -> None:
    """Let every ToolNode of the process answer calls of tools that end in such an error.

    Args:
        answer: (the error, the tool call) -> a ToolMessage.

    Raises:
        ImportError: this langgraph has no such place.
    """
    run_one: Any = getattr(ToolNode, "_run_one", None)
    arun_one: Any = getattr(ToolNode, "_arun_one", None)
    if run_one is None or arun_one is None:
        raise ImportError(
            f"langgraph-prebuilt {version('langgraph-prebuilt')} has no ToolNode._run_one, which "
            "agentbalance-plugin needs; install langgraph>=1.2.12,<2 in a version tested with it"
        )

    @functools.wraps(run_one)
    def run(self: Any, call: Any, *rest: Any, **more: Any) -> Any:
        try:
            return run_one(self, call, *rest, **more)
        except error as found:
            return answer(found, call)

    @functools.wraps(arun_one)
    async def arun(self: Any, call: Any, *rest: Any, **more: Any) -> Any:
        try:
            return await arun_one(self, call, *rest, **more)
        except error as found:
            return answer(found, call)

    cast("Any", ToolNode)._run_one, cast("Any", ToolNode)._arun_one = run, arun


def node_in(namespace: str, within: str) -> str:
    """The node of the graph at namespace `within` that a namespace is in; "" for none.

    A task that runs several subgraphs numbers them ("node:task|1|inner:task").
    """
    inner = namespace.removeprefix(within).split("|")
    return next((part.split(":")[0] for part in inner if part and not part.isdigit()), "")
