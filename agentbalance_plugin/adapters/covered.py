"""What the reservation of a call's tokens does not cover, refused before it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

NESTED = ("extra_body", "model_kwargs", "options", "generation_config")
"""Create arguments and fields that are passed on to the endpoint as they are."""

# The price of a call is that of its backbone's model.
_PRICED = ("model", "model_name", "models", "service_tier")
_KEPT_BY_VENDORS = ("previous_response_id", "conversation", "prompt", "cached_content")
# Create arguments and fields that make the vendor search, or run tools, by itself.
_SEARCHES = ("web_search_options", "search_parameters", "plugins", "mcp_servers")
# What the names of tools begin with that OpenAI, Anthropic and Google run themselves.
_RUN_BY_VENDORS = (
    "code_execution",
    "code_interpreter",
    "file_search",
    "google_search",
    "image_generation",
    "mcp",
    "url_context",
    "web_fetch",
    "web_search",
)


def check_covered(arguments: Mapping[str, Any], instead: str) -> None:
    """Refuse what is billed beside a call's own prompt and one reply.

    Args:
        arguments: of a call, or the fields that a model was made with.
        instead: what to do about tools that a vendor runs.

    Raises:
        ValueError: naming the argument and its value.
    """
    if not arguments:
        return
    for level in levels(arguments):
        # Endpoints make whole numbers of 3.0 and "3".
        if (replies := level.get("n") or 1) != 1:
            raise ValueError(
                f"n={replies!r}: every reply is billed, and a budgeted call makes one; make "
                "several calls"
            )
        if level.get("prediction"):
            raise ValueError(
                f"prediction={level['prediction']!r}: what of it is not in the reply is billed as "
                "output beside the cap, which no budget covers; leave it out"
            )
        for name in _KEPT_BY_VENDORS:
            if level.get(name):
                raise ValueError(
                    f"{name}={level[name]!r}: what the vendor keeps is billed as a part of the "
                    "prompt, how much of it no budget can know; send the messages themselves"
                )
        for kind in (*(name for name in _SEARCHES if level.get(name)), *_run_by_vendors(level)):
            raise ValueError(
                f"{kind!r} runs at the vendor, who bills it beside the tokens and puts what it "
                f"finds into the prompt, which no budget covers; {instead}"
            )


class OwnBudget:
    """What has a budget of its own: no other needs to reach what it calls."""

    __slots__ = ()


def is_of_a_vendor(value: Any) -> bool:
    """Whether it is a client of a vendor's SDK, or the class of one."""
    kind: type = value if isinstance(value, type) else type(value)
    # The SDKs of OpenAI, Anthropic, Groq and others are generated from one pattern.
    generated = {"SyncAPIClient", "AsyncAPIClient"} & {cls.__name__ for cls in kind.__mro__}
    return bool(generated) or kind.__module__.startswith("google.genai.client")


def check_maker(called: str, backbone: str, arguments: Mapping[str, Any]) -> None:
    """As `check_covered`, for what a backbone's client or chat model was made with.

    Args:
        called: what that is, in words.
    """
    try:
        check_covered(arguments, "make it without")
    except ValueError as error:
        raise ValueError(f"backbones: the {called} of {backbone!r}: {error}") from None


def without_price(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call without those by which another model, or a dearer tier of it, would
    answer at the backbone's price."""
    kept = {name: value for name, value in arguments.items() if name not in _PRICED}
    for name in NESTED:
        if isinstance(inner := kept.get(name), Mapping):
            parts = cast("Mapping[str, Any]", inner)
            kept[name] = {key: value for key, value in parts.items() if key not in _PRICED}
    return kept


def levels(arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Arguments, and what in them is passed on as it is."""
    yield arguments
    for name in NESTED:
        if isinstance(inner := arguments.get(name), Mapping):
            yield cast("Mapping[str, Any]", inner)


def _run_by_vendors(arguments: Mapping[str, Any]) -> Iterator[str]:
    tools: Any = arguments.get("tools") or ()
    for tool in cast("Sequence[Any]", tools) if isinstance(tools, (list, tuple)) else ():
        parts = cast("dict[str, Any]", tool if isinstance(tool, dict) else {})
        for kind in (str(parts.get("type")), *parts):
            if kind.startswith(_RUN_BY_VENDORS):
                yield kind
