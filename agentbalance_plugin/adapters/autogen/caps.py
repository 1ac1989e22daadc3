"""How each kind of model client is told the most output tokens it may make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from autogen_core.models import ChatCompletionClient

from agentbalance_plugin.backbone import Backbone

_OPENAI_NAMES = ("max_tokens", "max_completion_tokens")
# Model families whose endpoints refuse `max_tokens`.
_REASONING_FAMILIES = ("o1", "o3", "o4", "gpt-5")


def behind_cache(client: ChatCompletionClient) -> ChatCompletionClient:
    """What a ChatCompletionCache calls; any other client itself."""
    inner: Any = getattr(client, "client", None)
    return inner if isinstance(inner, ChatCompletionClient) else client


def package_of(client: ChatCompletionClient) -> str:
    """Which of AutoGen's packages of model clients a client is from; empty for any other."""
    parts = type(client).__module__.split(".")
    return parts[2] if parts[:2] == ["autogen_ext", "models"] else ""


def check_caps(client: ChatCompletionClient, name: str) -> None:
    """ValueError for a client, of the backbone `name`, whose calls a budget could not cap."""
    if package_of(client) == "semantic_kernel":
        raise ValueError(
            f"backbones: the {type(client).__name__} of {name!r} takes no cap on output tokens "
            "with a call, so no budget holds; use AutoGen's own client of that vendor"
        )
    check_made_with(create_args(client), name)


def check_made_with(arguments: Mapping[str, Any], name: str) -> None:
    """ValueError for what the maker of a client, of the backbone `name`, puts into every request
    where it would stand beside the budget's cap."""
    body = cast("Mapping[str, Any]", arguments.get("extra_body") or {})
    if given := [cap for cap in _OPENAI_NAMES if cap in body]:
        raise ValueError(
            f"backbones: the client of {name!r} has {given[0]}={body[given[0]]!r} in extra_body, "
            "which no budget could lower; give it as max_tokens, or as the Backbone's "
            "max_output_tokens"
        )
    both = [f"{cap}={arguments[cap]!r}" for cap in _OPENAI_NAMES if arguments.get(cap)]
    if len(both) > 1:
        raise ValueError(
            f"backbones: the client of {name!r} has {' and '.join(both)}, and a budget could lower "
            "only one of them; leave out the one that its endpoint does not know"
        )


def create_args(client: ChatCompletionClient) -> Mapping[str, Any]:
    """What a client's maker gave it for every call; nothing where a client keeps it elsewhere."""
    given: Any = getattr(behind_cache(client), "_create_args", None)
    return cast("Mapping[str, Any]", given) if isinstance(given, Mapping) else {}


@dataclass(frozen=True, slots=True)
class OutputCap:
    """One client's way of capping output.

    Args:
        name: the create argument; for Ollama an entry of `options`.
        nested: whether it goes into `options`.
        own: the cap that the client's maker gave it; None if none.
        options: what the client has in `options` already, for nested caps.
        streams_usage_on_request: whether streams report usage only with `stream_options`.
    """

    name: str
    nested: bool = False
    own: int | None = None
    options: Mapping[str, Any] | None = None
    streams_usage_on_request: bool = False

    @classmethod
    def of(cls, client: ChatCompletionClient, backbone: Backbone) -> OutputCap:
        """How to cap `client`; `backbone.endpoint` decides where the client leaves it open."""
        arguments = create_args(client)
        package = package_of(client)
        if package == "ollama":
            options = cast("Mapping[str, Any]", arguments.get("options") or {})
            return cls("num_predict", True, options.get("num_predict"), options)
        openai = package == "openai"
        for name in _OPENAI_NAMES:
            if name in arguments:
                return cls(name, own=arguments[name], streams_usage_on_request=openai)
        name = "max_tokens"
        if backbone.endpoint is not None and backbone.endpoint.component is None:
            name = backbone.endpoint.output_cap
        elif str(client.model_info.get("family", "")).startswith(_REASONING_FAMILIES) and openai:
            name = "max_completion_tokens"
        return cls(name, streams_usage_on_request=openai)

    def wanted(self, extra_create_args: Mapping[str, Any]) -> int | None:
        """The cap asked for by the caller or the client's maker: the smaller one; None if neither
        did."""
        options = self._options(extra_create_args)
        asked = [options.get(self.name), self.own]
        if not self.nested:
            sources: tuple[Mapping[str, Any], ...] = (options, options.get("extra_body") or {})
            asked += [source.get(name) for source in sources for name in _OPENAI_NAMES]
        # Below zero it means as many as there are.
        return min((cap for cap in asked if cap and cap > 0), default=None)

    def set(self, extra_create_args: Mapping[str, Any], cap: int) -> dict[str, Any]:
        """The create arguments with the cap in them."""
        arguments = dict(extra_create_args)
        if self.nested:
            options = {**(self.options or {}), **self._options(arguments)}
            arguments["options"] = {**options, self.name: cap}
        else:
            # Under its other name, or beside the arguments, a larger one might be what counts.
            for name in _OPENAI_NAMES:
                arguments.pop(name, None)
            if body := arguments.get("extra_body"):
                arguments["extra_body"] = {n: v for n, v in body.items() if n not in _OPENAI_NAMES}
            arguments[self.name] = cap
        return arguments

    def _options(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return arguments.get("options") or {} if self.nested else arguments
