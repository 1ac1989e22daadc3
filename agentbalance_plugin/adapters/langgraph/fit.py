"""A call that was meant for one chat model, as another takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from agentbalance_plugin.adapters.covered import without_price
from agentbalance_plugin.adapters.langgraph.arguments import SAMPLING, SETTINGS, SHAPES
from agentbalance_plugin.adapters.langgraph.caps import OUTPUT_CAPS, is_openai
from agentbalance_plugin.adapters.langgraph.internals import changed

# Of `SHAPES`: text like any other, and JSON without a schema.
_PLAIN: tuple[Any, ...] = ("text/plain", {"type": "text"})
_FREE: tuple[Any, ...] = ("json", "application/json", {"type": "json_object"})
_TEXT = frozenset({"text"})
_CACHE_MARK = "cache_control"

PARSED = frozenset({"json", "structured_output"})
"""Capabilities whose replies are of no use without their end."""
# Of what a chat model was made with.
_OWN = frozenset((*SAMPLING, "stop", "stop_sequences", *SHAPES))


def needs_of(options: Mapping[str, Any]) -> frozenset[str]:
    """The capabilities that a call with these keyword arguments needs of a backbone."""
    if not options:
        return _TEXT
    needs = {"text"}
    if options.get("tools"):
        needs.add("tools")
    shapes = [options[name] for name in SHAPES if options.get(name)]
    if shapes and any(shape not in _PLAIN for shape in shapes):
        free = all(shape in _FREE for shape in shapes)
        needs.add("json" if free else "structured_output")
    return frozenset(needs)


def own_options(model: BaseChatModel) -> dict[str, Any]:
    """How the maker of a chat model wants all of its replies, as keyword arguments of a call:
    sampling, stop words, the shape of structured output."""
    given, nested = model.model_fields_set & _OWN, getattr(model, "model_kwargs", None)
    if not given and not nested:
        return {}
    found = {name: getattr(model, name) for name in given}
    if isinstance(nested, Mapping):
        more = cast("Mapping[str, Any]", nested)
        found |= {name: more[name] for name in _OWN if name in more}
    if stop := found.pop("stop_sequences", None):
        found["stop"] = stop
    return {name: value for name, value in found.items() if value is not None}


def fit(
    options: Mapping[str, Any], asked: BaseChatModel, model: BaseChatModel, *, reasons: bool = False
) -> tuple[BaseChatModel, dict[str, Any]]:
    """The model and keyword arguments of a call of it, from those of a call of `asked`.

    Between models of one provider everything goes along. To another's go tools, the choice among
    them, stop words, those settings that it knows, and to OpenAI's a schema in its words; what else
    was bound is of the first one's endpoint, and the other's SDK would fail over it. What the maker
    of `asked` gave it holds where the maker of `model` gave nothing.

    Args:
        reasons: whether the backbone always reasons: such endpoints refuse to be told how to
            sample.

    Raises:
        ValueError: the call asks for structured output by a way that no other provider has.
    """
    own = own_options(asked)
    if not own and not options:
        return model, {}
    theirs = own_options(model)
    own = {name: value for name, value in own.items() if name not in theirs}
    if reasons:
        own.pop("stop", None)
    # Caps go along by themselves.
    apart = (*OUTPUT_CAPS, *SAMPLING) if reasons else OUTPUT_CAPS
    given = without_price({**own, **options})
    given = {name: value for name, value in given.items() if name not in apart}
    if is_openai(model) and is_openai(asked):
        taken = given
    elif type(asked) is type(model):
        # What was bound goes as it is; integrations differ in what else they take with a call.
        taken = {n: v for n, v in given.items() if n in options or n not in SETTINGS}
    else:
        taken = _common(given)
        if (shape := next((name for name in SHAPES if given.get(name)), None)) is not None:
            if not (is_openai(model) and _is_openais(shape, given[shape])):
                raise ValueError(
                    f"structured output by {shape} is {type(asked).__name__}'s own and "
                    f"{type(model).__name__} does not know it; use with_structured_output(..., "
                    "method='function_calling'), or ToolStrategy(...) as an agent's response_format"
                )
            taken[shape] = given[shape]
    if type(asked) is not type(model):
        _bind_tools(taken, given, model)
    known = {name: given[name] for name in SETTINGS if name in given and name not in taken}
    known = {name: value for name, value in known.items() if name in type(model).model_fields}
    return changed(model, known) if known else model, taken


def _bind_tools(taken: dict[str, Any], given: Mapping[str, Any], model: BaseChatModel) -> None:
    """Tools and the choice among them, in the words of another provider's model."""
    tools = taken.pop("tools", None)
    choice = taken.pop("tool_choice", None)
    if choice is None and given.get("ls_structured_output_format"):
        # Ollama can't be told to call the tool that is the structure; others must be.
        choice = "any"
    if tools:
        chosen: dict[str, Any] = {} if choice is None else {"tool_choice": _choice(choice)}
        if "response_format" in taken:
            # OpenAI's SDK takes only strict tools beside it, and LangChain makes them of bare ones.
            chosen["strict"] = True
            tools = [tool.get("function", tool) for tool in tools]
        bound: Any = model.bind_tools(tools, **chosen)
        taken.update(bound.kwargs)


def fit_prompt(
    messages: list[BaseMessage], asked: BaseChatModel, model: BaseChatModel
) -> list[BaseMessage]:
    """The messages of a call that was meant for `asked`, as `model` takes them: OpenAI's endpoints
    refuse the marks by which Anthropic's are told what to cache."""
    if is_openai(asked) or not is_openai(model):
        return messages
    return [_without_cache_marks(message) for message in messages]


def _without_cache_marks(message: BaseMessage) -> BaseMessage:
    if isinstance(message.content, str):
        return message
    parts = [
        {name: value for name, value in part.items() if name != _CACHE_MARK}
        if isinstance(part, dict)
        else part
        for part in message.content
    ]
    return message if parts == message.content else message.model_copy(update={"content": parts})


def marks(asked: BaseChatModel, model: BaseChatModel) -> RunnableConfig:
    """Tags, metadata and callbacks of the model `asked`; streams and traces are told apart by
    them."""
    found = RunnableConfig()
    if asked.tags:
        found["tags"] = asked.tags
    if asked.callbacks:
        found["callbacks"] = asked.callbacks
    # Every model has its libraries' versions there, which are the same.
    known = (model.metadata or {}).items()
    if own := {k: v for k, v in (asked.metadata or {}).items() if (k, v) not in known}:
        found["metadata"] = own
    return found


def _is_openais(shape: str, value: Any) -> bool:
    """Whether a shape is said in the words of OpenAI's endpoints, as agents of `create_agent` say
    it to every model."""
    if shape != "response_format" or not isinstance(value, Mapping):
        return False
    return cast("Mapping[str, Any]", value).get("type") in ("json_schema", "json_object")


def _common(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in ("stop", "tools", "tool_choice") if name in given}


def _choice(choice: Any) -> Any:
    """Which tool has to be called, in LangChain's own words: a tool's name, "any", "auto" or
    "none"."""
    if isinstance(choice, Mapping):
        parts = cast("Mapping[str, Any]", choice)
        function: Mapping[str, Any] = parts.get("function") or parts
        choice = function.get("name") or parts.get("type")
    return "any" if choice in ("required", True) else choice
