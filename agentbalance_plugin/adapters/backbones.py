"""The `backbones` argument of every adapter, and the keys that its endpoints need."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlparse

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.runtime.tokenizers import measure_of

Client = TypeVar("Client")

# Where everything is out of reach, each of them would have to be waited for.
_MOST_STANDBYS = 2
_OPENAI = ".openai.com"
_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class OfLoops(Generic[Client]):
    """What calls each backbone, made when it is first needed: one for each event loop, which its
    connections belong to, and one where none runs. Safe to use from several threads."""

    def __init__(self) -> None:
        self._held: dict[asyncio.AbstractEventLoop | None, dict[str, Client]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: str, make: Callable[[], Client]) -> Client:
        """That of a backbone, in the loop that runs here."""
        here = running_loop()
        with self._lock:
            # Connections hold their loop, so that closed ones would stay for ever.
            for past in [each for each in self._held if each is not None and each.is_closed()]:
                del self._held[past]
            own = self._held.setdefault(here, {})
            if name not in own:
                own[name] = make()
            return own[name]

    def let_go(self) -> list[Client]:
        """Those of the loop that runs here and of none, which are not kept any longer."""
        with self._lock:
            found = [self._held.pop(loop, {}) for loop in (None, running_loop())]
        return [client for clients in found for client in clients.values()]


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs here; None in a thread without."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def read_backbones(
    backbones: str | Path | Catalog | Sequence[tuple[Backbone, Client]], kind: type, called: str
) -> tuple[Catalog, dict[str, Client]]:
    """A catalog file, a Catalog, or pairs of a Backbone and what calls it.

    Args:
        kind: of what calls a backbone.
        called: that in words.

    Returns:
        the catalog, and what the user made to call its backbones.

    Raises:
        CatalogError: the file can't be used.
        ValueError: none of these, no backbones, or a tokenizer that can't be had.
    """
    ready: dict[str, Client] = {}
    if isinstance(backbones, (str, Path)):
        catalog = Catalog.load(backbones)
    elif isinstance(backbones, Catalog):
        catalog = backbones
    else:
        if not isinstance(backbones, Sequence) or not all(
            _is_pair(pair, kind) for pair in backbones
        ):
            raise ValueError(
                f"backbones must be a catalog file, a Catalog, or a list of (Backbone, {called}) "
                f"pairs, got {type(backbones).__name__}"
            )
        catalog = Catalog(backbone for backbone, _ in backbones)
        ready = {backbone.name: client for backbone, client in backbones}
    if not catalog:
        raise ValueError("backbones: the catalog is empty; it needs at least one backbone")
    for backbone in catalog.values():
        measure_of(backbone)
    return catalog, ready


def standbys(
    catalog: Catalog, backbone: str, needs: frozenset[str], lately: Collection[str] = ()
) -> tuple[str, ...]:
    """The backbones to ask, in order, where the endpoint of one fails: able ones, those nearest in
    price first. A task may have pictures: where the one can see, so should others.

    Args:
        lately: backbones that failed a moment ago, who come last.
    """

    def typical(name: str) -> float:
        return math.log(catalog[name].cost(1000, 500) + 1.0)

    def distance(name: str) -> tuple[bool, bool, float]:
        sees = catalog[backbone].capabilities & {"vision"} <= catalog[name].capabilities
        return name in lately, not sees, abs(typical(name) - typical(backbone))

    able = [n for n, each in catalog.items() if n != backbone and needs <= each.capabilities]
    return tuple(sorted(able, key=distance)[:_MOST_STANDBYS])


def api_key(backbone: Backbone) -> str:
    """The key of a backbone with an endpoint, from the environment.

    Raises:
        ValueError: the variable is not set, no request could be sent with it, or none is named
            where OpenAI's is not meant.
    """
    endpoint = backbone.endpoint
    assert endpoint is not None
    if endpoint.api_key_env is not None:
        return variable(endpoint.api_key_env, backbone.name)
    host = None if endpoint.base_url is None else urlparse(endpoint.base_url).hostname
    if host in _LOCAL_HOSTS:
        # Local servers take any key, the client insists on one.
        return "local"
    # OpenAI's key is nobody else's business.
    if host is not None and not f".{host}".endswith(_OPENAI):
        raise ValueError(
            f"backbone {backbone.name!r}: api_key_env is missing; name the environment variable "
            f"that holds the key for {host} (for a server that asks for none, one with any text)"
        )
    return variable("OPENAI_API_KEY", backbone.name)


def variable(name: str, backbone: str) -> str:
    """An environment variable that a backbone needs.

    Raises:
        ValueError: it is not set, or no request could be sent with it.
    """
    value = os.environ.get(name)
    if not value:
        raise ValueError(
            f"backbone {backbone!r} needs the environment variable {name}, which is not set"
        )
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        # What fails over it quotes it, in logs and checkpoints.
        raise ValueError(
            f"backbone {backbone!r}: the environment variable {name} holds something that no key "
            "has (blanks or a line break around it, or letters beyond ASCII); set it without"
        )
    return value


def _is_pair(pair: object, kind: type) -> bool:
    if not isinstance(pair, tuple):
        return False
    parts = cast("tuple[Any, ...]", pair)
    return len(parts) == 2 and isinstance(parts[0], Backbone) and isinstance(parts[1], kind)
