"""From catalog entries to model clients that can be called."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from autogen_core.models import ChatCompletionClient, ModelInfo

from agentbalance_plugin.adapters.autogen.caps import check_caps, create_args
from agentbalance_plugin.adapters.autogen.components import check_component, load_component
from agentbalance_plugin.adapters.backbones import OfLoops, api_key, read_backbones
from agentbalance_plugin.adapters.covered import check_maker
from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.extras import require
from agentbalance_plugin.runtime.outages import Downtimes

Backbones = str | Path | Catalog | Sequence[tuple[Backbone, ChatCompletionClient]]
"""What `wrap_groupchat` takes: a catalog file, a Catalog, or pairs of a Backbone and the client
that calls it."""


class Clients:
    """The model client of each backbone, made when it is first needed and then kept. Safe to use
    from several threads: each event loop has clients of its own, whose connections belong to it.

    Args:
        catalog: entries with an endpoint, or with a client in `ready`.
        ready: clients that the user made, by backbone.

    `downtimes` is what the runs that share them know of endpoints that fail.

    Raises:
        ValueError: a backbone has neither endpoint nor client, its key's environment variable is
            not set, its component can't be, or its client takes no cap or is billed for more than
            its tokens.
        ImportError: the library of a component is not installed.
    """

    def __init__(
        self, catalog: Catalog, ready: dict[str, ChatCompletionClient] | None = None
    ) -> None:
        self.catalog = catalog
        self.downtimes = Downtimes()
        self._ready = dict(ready or {})
        for name, client in self._ready.items():
            check_caps(client, name)
            check_maker("client", name, create_args(client))
        self._made = OfLoops[ChatCompletionClient]()
        for name, backbone in catalog.items():
            if name not in self._ready and backbone.endpoint is None:
                raise ValueError(
                    f"backbones: {name!r} can't be called; give it a model and base_url (or an "
                    "AutoGen component), or pass a pair of the Backbone and its model client"
                )
            if name not in self._ready:
                _check_endpoint(backbone)

    def __call__(self, name: str) -> ChatCompletionClient:
        """The client of a backbone (KeyError for an unknown one)."""
        if (ready := self._ready.get(name)) is not None:
            return ready
        return self._made.get(name, partial(_make_client, self.catalog[name]))

    async def close(self) -> None:
        """Close the clients that were made here, in this event loop; the user's own stay open."""
        for client in self._made.let_go():
            await client.close()


def clients_for(backbones: Backbones) -> Clients:
    """The clients of a catalog file, a Catalog, or pairs of Backbone and client.

    Raises:
        CatalogError: the file can't be used.
        ValueError: no backbones, or one that can't be called.
    """
    # Any object may take the part of a client: what it lacks shows when it is called.
    return Clients(*read_backbones(backbones, object, "model client"))


def _check_endpoint(backbone: Backbone) -> None:
    """Fail before the first run, not in the middle of the hundredth."""
    if backbone.endpoint is not None and backbone.endpoint.component is not None:
        check_component(backbone.endpoint.component, backbone.name)
    else:
        api_key(backbone)


def _make_client(backbone: Backbone) -> ChatCompletionClient:
    endpoint = backbone.endpoint
    if endpoint is None:
        raise ValueError(f"backbone {backbone.name!r} has no endpoint")
    if endpoint.component is not None:
        return load_component(endpoint.component, backbone.name)
    openai = require("autogen_ext.models.openai", extra="autogen")
    settings: dict[str, Any] = {
        "model": endpoint.model,
        "api_key": api_key(backbone),
        "model_info": _model_info(backbone),
        # A retry inside the SDK is a call that nothing was reserved for.
        "max_retries": 0,
    }
    if endpoint.base_url is not None:
        settings["base_url"] = endpoint.base_url
    return cast("ChatCompletionClient", openai.OpenAIChatCompletionClient(**settings))


def _model_info(backbone: Backbone) -> ModelInfo:
    can = backbone.capabilities
    return ModelInfo(
        vision="vision" in can,
        function_calling="tools" in can,
        json_output="json" in can,
        structured_output="structured_output" in can,
        family="unknown",
        multiple_system_messages=True,
    )
