"""From catalog entries to chat models that can be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel

from agentbalance_plugin.adapters.backbones import OfLoops, api_key, read_backbones, running_loop
from agentbalance_plugin.adapters.covered import check_maker
from agentbalance_plugin.adapters.langgraph.caps import OUTPUT_CAPS, is_openai
from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.extras import require
from agentbalance_plugin.runtime.outages import Downtimes

Backbones = str | Path | Catalog | Sequence[tuple[Backbone, BaseChatModel]]
"""What `balance` takes: a catalog file, a Catalog, or pairs of a Backbone and the chat model that
calls it."""

ChatModel = TypeVar("ChatModel", bound=BaseChatModel)

_MARK = "_agentbalance_direct"


class Models:
    """The chat model of each backbone, made when it is first needed and then kept.

    Args:
        catalog: entries with an endpoint, or with a chat model in `ready`.
        ready: chat models that the user made, by backbone.

    `downtimes` is what the runs that share them know of endpoints that fail, `ready` the backbones
    whose chat models the user made.

    Raises:
        ValueError: a backbone has neither endpoint nor chat model, its key's environment variable
            is not set, or its chat model retries by itself, has a cap of its own that a budget
            could not lower, or is billed for more than its tokens.
    """

    def __init__(self, catalog: Catalog, ready: Mapping[str, BaseChatModel] | None = None) -> None:
        self.catalog = catalog
        self.downtimes = Downtimes()
        self.ready = frozenset(ready or ())
        self._made: dict[str, BaseChatModel] = {}
        self._of_loop = OfLoops[BaseChatModel]()
        for name, backbone in catalog.items():
            if ready is not None and name in ready:
                _check_covered(name, ready[name])
                _check_cap(name, ready[name])
                self._made[name] = direct(_without_retries(name, ready[name]))
            else:
                _check_endpoint(backbone)

    def __call__(self, name: str) -> BaseChatModel:
        """The chat model of a backbone (KeyError for an unknown one); its calls are direct."""
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = direct(_make_model(self.catalog[name]))
        if running_loop() is None:
            return made
        return self._of_loop.get(name, partial(_with_own_connections, made))


def models_for(backbones: Backbones) -> Models:
    """The chat models of a catalog file, a Catalog, or pairs of Backbone and chat model.

    Raises:
        CatalogError: the file can't be used.
        ValueError: no backbones, or one that can't be called.
    """
    return Models(*read_backbones(backbones, BaseChatModel, "chat model"))


def direct(model: ChatModel) -> ChatModel:
    """A copy of a chat model whose calls no budget sees and nothing substitutes.

    For a model inside a tool that is paid for elsewhere. What is bound to the copy (tools, a
    schema) keeps its calls direct.
    """
    copy = model.model_copy()
    # Not a field: it must neither be traced nor change how the model is written to a config.
    vars(copy)[_MARK] = True
    return copy


def is_direct(model: BaseChatModel) -> bool:
    return _MARK in vars(model)


def _check_endpoint(backbone: Backbone) -> None:
    """Fail before the first run, not in the middle of the hundredth."""
    endpoint = backbone.endpoint
    if endpoint is None:
        raise ValueError(
            f"backbones: {backbone.name!r} can't be called; give it a model and base_url, or pass "
            "a pair of the Backbone and its chat model"
        )
    if endpoint.component is not None:
        raise ValueError(
            f"backbones: {backbone.name!r} names an AutoGen component, which LangGraph can't call; "
            "pass a pair of the Backbone and its chat model"
        )
    api_key(backbone)


def _make_model(backbone: Backbone) -> BaseChatModel:
    endpoint = backbone.endpoint
    assert endpoint is not None
    settings: dict[str, Any] = {
        "model": endpoint.model,
        "api_key": api_key(backbone),
        # A retry inside the SDK is a call that nothing was reserved for.
        "max_retries": 0,
        # Without it a stream from another base_url reports no usage.
        "stream_usage": True,
    }
    if endpoint.base_url is not None:
        settings["base_url"] = endpoint.base_url
    openai = require("langchain_openai", extra="langgraph")
    return cast("BaseChatModel", openai.ChatOpenAI(**settings))


def _check_covered(name: str, model: BaseChatModel) -> None:
    # A field of this name is no stored prompt of a vendor's.
    fields = {field: value for field, value in vars(model).items() if field != "prompt"}
    check_maker(type(model).__name__, name, fields)


def _check_cap(name: str, model: BaseChatModel) -> None:
    """What the model's maker puts into every request's body would stand in for the budget's cap."""
    body: Any = getattr(model, "extra_body", None) or {}
    if given := [cap for cap in OUTPUT_CAPS if cap in body]:
        raise ValueError(
            f"backbones: the {type(model).__name__} of {name!r} has {given[0]!r} in extra_body, "
            "which no budget could lower; give it as max_tokens, or as the Backbone's "
            "max_output_tokens"
        )


def _without_retries(name: str, model: BaseChatModel) -> BaseChatModel:
    """The user's chat model with its SDK's own retries off, sharing its connections."""
    if not is_openai(model):
        if getattr(model, "max_retries", 0):
            raise ValueError(
                f"backbones: the {type(model).__name__} of {name!r} retries by itself, which no "
                "budget covers; make it with max_retries=0 (failed calls are retried under the "
                "budget)"
            )
        return model
    changed: dict[str, Any] = {"max_retries": 0, "stream_usage": True}
    for root, client in (("root_client", "client"), ("root_async_client", "async_client")):
        sdk: Any = getattr(model, root, None)
        if sdk is not None:
            changed[root] = sdk.with_options(max_retries=0)
            changed[client] = changed[root].chat.completions
    return model.model_copy(update=changed)


def _with_own_connections(model: BaseChatModel) -> BaseChatModel:
    """The chat model with asynchronous connections that no other event loop has opened.

    langchain-openai shares them between event loops, where those that an earlier loop left behind
    fail; the SDK's own retries, which are off, would hide that. A client of the user's own stays.
    """
    sdk: Any = getattr(model, "root_async_client", None)
    if not is_openai(model) or sdk is None or getattr(model, "http_async_client", None):
        return model
    openai = require("openai", extra="langgraph")
    fresh: Any = sdk.with_options(http_client=openai.DefaultAsyncHttpxClient())
    changed = {"root_async_client": fresh, "async_client": fresh.chat.completions}
    return model.model_copy(update=changed)
