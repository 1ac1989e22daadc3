"""From catalog entries to AG2's clients."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from autogen import LLMConfig
from autogen.oai.client import OpenAIClient

from agentbalance_plugin.adapters.ag2.internals import client_of
from agentbalance_plugin.adapters.ag2.settings import OUTPUT_CAPS, SAMPLING, read_config
from agentbalance_plugin.adapters.backbones import api_key, read_backbones
from agentbalance_plugin.adapters.covered import check_maker
from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.runtime.outages import Downtimes

Config = LLMConfig | dict[str, Any]
Backbones = str | Path | Catalog | Sequence[tuple[Backbone, Config]]
"""What `wrap_groupchat` takes: a catalog file, a Catalog, or pairs of a Backbone and the llm_config
that calls it."""

# What AG2 calls by OpenAI's SDK, whose caps and retries are known.
_KINDS = ("openai", "azure")
# Model families whose endpoints refuse `max_tokens`.
_REASONING_FAMILIES = ("o1", "o3", "o4", "gpt-5")

# Of an entry, what does not make the client but goes along with each call.
_SENT = (
    "model",
    *SAMPLING,
    "extra_body",
    "extra_headers",
    "reasoning_effort",
    "verbosity",
    "user",
)


class Clients:
    """AG2's client of each backbone, made when it is first needed and then kept. Safe to use from
    several threads.

    Args:
        catalog: entries with an endpoint, or with a config in `ready`.
        ready: llm_configs that the user made, by backbone.

    `downtimes` is what the runs that share them know of endpoints that fail.

    Raises:
        ValueError: a backbone has neither an endpoint that AG2 can call nor a config, its key's
            environment variable is not set, or no budget could hold with its config.
    """

    def __init__(self, catalog: Catalog, ready: Mapping[str, Config] | None = None) -> None:
        self.catalog = catalog
        self.downtimes = Downtimes()
        given = ready or {}
        self._entries = {
            name: _entry_of(backbone, given[name]) if name in given else _entry_at(backbone)
            for name, backbone in catalog.items()
        }
        self._made: dict[str, OpenAIClient] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> OpenAIClient:
        """The client of a backbone (KeyError for an unknown one)."""
        with self._lock:
            if name not in self._made:
                self._made[name] = client_of(self._entries[name])
            return self._made[name]

    def sent(self, name: str) -> dict[str, Any]:
        """What goes along with each call of a backbone: its model, and what the user put into its
        config for the endpoint."""
        entry = self._entries[name]
        return {key: entry[key] for key in _SENT if entry.get(key) is not None}

    def asked_cap(self, name: str) -> int | None:
        """The cap on output tokens in the user's config of a backbone."""
        caps = [self._entries[name].get(cap) for cap in OUTPUT_CAPS]
        return min((cap for cap in caps if cap), default=None)

    def cap_name(self, name: str) -> str:
        """Under which name its endpoint takes a cap."""
        endpoint, entry = self.catalog[name].endpoint, self._entries[name]
        if endpoint is not None and endpoint.component is None:
            return endpoint.output_cap
        newer = entry.get(OUTPUT_CAPS[1]) or entry["model"].startswith(_REASONING_FAMILIES)
        return OUTPUT_CAPS[1 if newer else 0]


def clients_for(backbones: Backbones) -> Clients:
    """The clients of a catalog file, a Catalog, or pairs of Backbone and llm_config.

    Raises:
        CatalogError: the file can't be used.
        ValueError: no backbones, or one that can't be called.
    """
    return Clients(*read_backbones(backbones, object, "llm_config"))


def _entry_at(backbone: Backbone) -> dict[str, Any]:
    endpoint = backbone.endpoint
    if endpoint is None or endpoint.model is None:
        raise ValueError(
            f"backbones: AG2 can't call {backbone.name!r}, which has no model and base_url; give "
            "it these, or pass a pair of the Backbone and an llm_config of AG2"
        )
    entry = {"api_type": "openai", "model": endpoint.model, "api_key": api_key(backbone)}
    if endpoint.base_url is not None:
        entry["base_url"] = endpoint.base_url
    # A retry inside the SDK is a call that nothing was reserved for.
    return {**entry, "max_retries": 0}


def _entry_of(backbone: Backbone, config: object) -> dict[str, Any]:
    """The one entry of a user's llm_config."""
    where = f"backbones: the llm_config of {backbone.name!r}"
    if not isinstance(config, (LLMConfig, dict)):
        raise ValueError(f"{where} must be an LLMConfig or a dict, got {type(config).__name__}")
    known = read_config(cast("Config", config))
    if len(known.config_list) != 1:
        raise ValueError(
            f"{where} has {len(known.config_list)} entries, whose prices one backbone can't have; "
            "make a backbone of each"
        )
    whole = known.model_dump()
    (own,) = whole.pop("config_list")
    entry: dict[str, Any] = {**whole, **own}
    kind, custom = entry.get("api_type", "openai"), entry.get("model_client_cls")
    if kind not in _KINDS or custom:
        raise ValueError(
            f"{where} has {'model_client_cls' if custom else 'api_type'}={custom or kind!r}, whose "
            f"calls no budget could cap; use one of {list(_KINDS)}, which any OpenAI-compatible "
            "endpoint answers"
        )
    body: Mapping[str, Any] = entry.get("extra_body") or {}
    for cap in OUTPUT_CAPS:
        if cap in body:
            raise ValueError(
                f"{where} has {cap}={body[cap]!r} in extra_body, which no budget could lower; give "
                f"it beside the model"
            )
    check_maker("llm_config", backbone.name, entry)
    return {**entry, "max_retries": 0}
