"""Model clients that a catalog names as AutoGen components."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import metadata
from typing import Any, NoReturn, cast

from autogen_core.models import ChatCompletionClient
from pydantic import ValidationError

from agentbalance_plugin.adapters.autogen.caps import check_made_with
from agentbalance_plugin.adapters.backbones import variable
from agentbalance_plugin.adapters.covered import check_maker

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_MODELS = "autogen_ext.models."


def check_component(component: Mapping[str, Any], name: str) -> None:
    """Fail before the first run, not in the middle of the hundredth.

    Args:
        name: of the backbone.

    Raises:
        ValueError: naming it and what of the component can't be used.
        ImportError: naming it and the library that is missing.
    """
    provider, config = component.get("provider"), component.get("config")
    if not isinstance(provider, str):
        raise ValueError(
            f"backbone {name!r}: component needs a provider, like "
            f"{_MODELS}openai.OpenAIChatCompletionClient, got {provider!r}"
        )
    if not isinstance(config, dict):
        raise ValueError(
            f"backbone {name!r}: component needs a config, the fields that {provider} is made "
            f"with, got a {type(config).__name__}"
        )
    filled = _with_variables(cast("dict[str, Any]", config), name)
    check_made_with(filled, name)
    check_maker("client", name, filled)
    module, _, attribute = provider.rpartition(".")
    # Without a dot it is one of AutoGen's own short names.
    if module:
        _check_class(module, attribute, name)


def _check_class(module: str, attribute: str, name: str) -> None:
    try:
        there = dir(import_module(module))
    except ImportError as error:
        missing = error.name or module
        if f"{module}.".startswith(f"{missing}."):
            raise ValueError(
                f"backbone {name!r}: component: there is no module {missing!r}; mend the provider, "
                "or install what it comes with"
            ) from error
        extra = module.removeprefix(_MODELS) if module.startswith(_MODELS) else ""
        raise _not_installed(name, module, missing, extra) from error
    if attribute not in there:
        near = get_close_matches(attribute, there, n=1)
        raise ValueError(
            f"backbone {name!r}: component: {module} has no {attribute!r}"
            + (f"; did you mean {near[0]}?" if near else "; mend the provider")
        )


def _not_installed(name: str, what: str, missing: str, extra: str) -> ImportError:
    """
    Args:
        name: of the backbone.
        what: needs the library `missing`.
        extra: of AutoGen's, if there is one of this name.
    """
    extra = extra.partition(".")[0].replace("_", "-")
    known = extra in (metadata("autogen-ext").get_all("Provides-Extra") or ())
    package = f"'autogen-ext[{extra}]'" if known else missing
    return ImportError(
        f"backbone {name!r}: {what} needs {missing!r}, which is not installed: "
        f"pip install {package}"
    )


def load_component(component: Mapping[str, Any], name: str) -> ChatCompletionClient:
    """The client of a component that `check_component` has let pass.

    Raises:
        ValueError: naming backbone and field.
        ImportError: naming it and the library that is missing.
    """
    filled = _with_variables(dict(component), name)
    try:
        return ChatCompletionClient.load_component(filled)
    except ImportError as error:
        # Some are needed when a client is made, Azure's for one.
        missing = error.name or str(error)
        raise _not_installed(name, str(component["provider"]), missing, missing) from error
    except ValidationError as error:
        # Its own text quotes the whole config, with the key, and would be in tracebacks.
        wrong = (f"{_path(each['loc'])}: {each['msg']}" for each in error.errors())
        _refuse(name, component, "; ".join(wrong), None)
    except (ValueError, TypeError) as error:
        _refuse(name, component, str(error), error)


def _refuse(name: str, component: Mapping[str, Any], why: str, cause: Exception | None) -> NoReturn:
    raise ValueError(
        f"backbone {name!r}: component: {component['provider']} can't be made of this config: {why}"
    ) from cause


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def _with_variables(value: Any, name: str) -> Any:
    """`value` with each ${VARIABLE} in its strings replaced from the environment."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: variable(found[1], name), value)
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: _with_variables(item, name) for key, item in items}
    if isinstance(value, list):
        return [_with_variables(item, name) for item in cast("list[Any]", value)]
    return value
