"""How each kind of chat model is told the most output tokens it may make."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel

from agentbalance_plugin.adapters.covered import NESTED, levels
from agentbalance_plugin.adapters.langgraph.internals import changed, speaks_responses
from agentbalance_plugin.backbone import Endpoint

# Most integrations take `max_tokens` with a call. These have a field of another name, and with a
# call they overlook `max_tokens` (Gemini) or fail over it (Ollama).
_FIELDS = ("max_output_tokens", "num_predict", "max_new_tokens")

OUTPUT_CAPS = ("max_tokens", "max_completion_tokens", *_FIELDS)
"""Names under which callers ask for a cap."""
_CAPS = frozenset(OUTPUT_CAPS)


def wanted(asked: BaseChatModel, options: Mapping[str, Any]) -> list[int]:
    """The caps that a call of the model `asked`, with these keyword arguments, asks for."""
    sources = (*levels(vars(asked)), *levels(options))
    found = [
        int(source[name]) for source in sources for name in source.keys() & _CAPS if source[name]
    ]
    # Below zero it means as many as there are.
    return [cap for cap in found if cap > 0]


def capped(
    model: BaseChatModel, endpoint: Endpoint | None, options: Mapping[str, Any], cap: int
) -> tuple[BaseChatModel, dict[str, Any]]:
    """The model and the keyword arguments of a call that makes at most `cap` output tokens.

    Args:
        endpoint: of the backbone; None where the user made the model.
    """
    free = _without_caps(options)
    nested = [name for name in NESTED if free.get(name)]
    for name in nested:
        free[name] = _without_caps(free[name])
    if is_openai(model):
        if endpoint is None or endpoint.component is not None or speaks_responses(model, free):
            return model, {**free, "max_tokens": cap}
        # ChatOpenAI renames max_tokens to the newer field, which older servers ignore.
        body: Mapping[str, Any] = free.get("extra_body") or {}
        # Its own would be sent beside it, under the other name.
        if getattr(model, "max_tokens", None) is not None:
            model = changed(model, {"max_tokens": None})
        return model, {**free, "extra_body": {**body, endpoint.output_cap: cap}}
    field = _field_of(type(model))
    if field is None:
        return model, {**free, "max_tokens": cap}
    for name in nested:
        free[name] = {**free[name], field: cap}
    return changed(model, {field: cap}), free


def is_openai(model: BaseChatModel) -> bool:
    """Whether it is one of langchain-openai's, or built on them."""
    return _is_openai(type(model))


@lru_cache(maxsize=256)
def _is_openai(kind: type[BaseChatModel]) -> bool:
    return any(cls.__name__ == "BaseChatOpenAI" for cls in kind.__mro__)


@lru_cache(maxsize=256)
def _field_of(kind: type[BaseChatModel]) -> str | None:
    """The field that holds the cap where a call can't give it as `max_tokens`."""
    if "max_tokens" in kind.model_fields:
        return None
    return next((name for name in _FIELDS if name in kind.model_fields), None)


def _without_caps(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in OUTPUT_CAPS}
