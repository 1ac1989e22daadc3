"""How an agent's own model client samples and shapes replies, on the client of its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from autogen_core.models import ChatCompletionClient
from pydantic import BaseModel

from agentbalance_plugin.adapters.autogen.caps import behind_cache, create_args, package_of
from agentbalance_plugin.backbone import Backbone

_OF_OPENAI = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "stop")
# By the packages of AutoGen's clients: a setting's name for each that they know.
_KNOWN: dict[str, Mapping[str, str]] = {
    "openai": {name: name for name in _OF_OPENAI},
    "ollama": {name: name for name in (*_OF_OPENAI, "top_k")},
    "anthropic": {
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "stop": "stop_sequences",
    },
}


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What goes along from one client to another.

    Args:
        arguments: create arguments, in the words of the other.
        json_output: as `create` takes it; None where the first asks for no JSON.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    json_output: bool | type[BaseModel] | None = None

    @classmethod
    def of(
        cls, asked: ChatCompletionClient | None, client: ChatCompletionClient, backbone: Backbone
    ) -> OwnSettings:
        """What the maker of an agent's own client gave it and the maker of its backbone's did not.

        Backbones that always reason sample as they do and refuse to be told.

        Args:
            asked: the agent's own client; None if it is not known.
            client: of the backbone.
        """
        if asked is None:
            return cls()
        own, theirs = create_args(asked), create_args(client)
        shape = None if "response_format" in theirs else _json_output(own.get("response_format"))
        said, known = _KNOWN.get(_package(asked)), _KNOWN.get(_package(client))
        if said is None or known is None or backbone.reasoning == "yes":
            return cls(json_output=shape)
        own, theirs = _options(asked, own), _options(client, theirs)
        arguments = {
            known[name]: [own[word]] if isinstance(own[word], str) else own[word]
            for name, word in said.items()
            if own.get(word) is not None and name in known and known[name] not in theirs
        }
        nested = _package(client) == "ollama" and arguments
        return cls({"options": arguments} if nested else arguments, shape)


def needs_of(client: ChatCompletionClient) -> frozenset[str]:
    """The capabilities that every call of an agent's own client needs of a backbone."""
    shape = _json_output(create_args(client).get("response_format"))
    return (
        frozenset()
        if shape is None
        else frozenset({"json" if shape is True else "structured_output"})
    )


def _package(client: ChatCompletionClient) -> str:
    return package_of(behind_cache(client))


def _options(client: ChatCompletionClient, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a client keeps its settings."""
    if _package(client) != "ollama":
        return arguments
    return cast("Mapping[str, Any]", arguments.get("options") or {})


def _json_output(shape: Any) -> bool | type[BaseModel] | None:
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        return shape
    return True if shape == {"type": "json_object"} else None
