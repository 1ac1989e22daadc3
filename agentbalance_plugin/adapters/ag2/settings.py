"""What of an agent's own llm_config holds on its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autogen import ConversableAgent, LLMConfig

from agentbalance_plugin.adapters.covered import check_covered
from agentbalance_plugin.backbone import Backbone

OUTPUT_CAPS = ("max_tokens", "max_completion_tokens")
"""Names under which callers ask for a cap."""

SAMPLING = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "stop")
"""How a reply is drawn."""

_KEPT = (
    *SAMPLING,
    *OUTPUT_CAPS,
    "tools",
    "functions",
    "function_call",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "stream",
    "allow_format_str_template",
)


def read_config(given: LLMConfig | dict[str, Any]) -> LLMConfig:
    """A user's llm_config in AG2's own form."""
    # AG2 takes the list out of a dict that it reads, and its copies lose a temperature of 0.
    return given if isinstance(given, LLMConfig) else LLMConfig.ensure_config({**given})


def own_config(agent: ConversableAgent) -> dict[str, Any]:
    """An agent's llm_config with the first entry of its config_list; empty without one."""
    given: Any = agent.llm_config
    if not given:
        return {}
    known = read_config(given)
    whole = known.model_dump()
    entry: dict[str, Any] = whole.pop("config_list")[0]
    # Which class a reply is of is no JSON, and copies of a config don't keep it everywhere.
    shape: Any = known.config_list[0].get("response_format") or known.get("response_format")
    found = {**whole, **entry, "response_format": shape}
    return {name: value for name, value in found.items() if value is not None}


def settings_of(agent: ConversableAgent) -> dict[str, Any]:
    """What goes along with each of an agent's calls, whichever model answers."""
    own = own_config(agent)
    return {name: own[name] for name in _KEPT if name in own}


def fit(params: Mapping[str, Any], backbone: Backbone) -> dict[str, Any]:
    """The params of a call without what a backbone refuses: those that always reason sample as
    they do."""
    left_out = frozenset(SAMPLING) if backbone.reasoning == "yes" else frozenset[str]()
    return {name: value for name, value in params.items() if name not in left_out}


def needs_of(agent: ConversableAgent) -> frozenset[str]:
    """The capabilities that an agent's calls need of a backbone."""
    own, needs = own_config(agent), {"text"}
    if own.get("tools") or own.get("functions"):
        needs.add("tools")
    shape: Any = own.get("response_format")
    if shape is not None:
        needs.add("json" if shape == {"type": "json_object"} else "structured_output")
    return frozenset(needs)


def check_settings(agent: ConversableAgent) -> None:
    """Refuse what no budget covers in an agent's own llm_config (ValueError naming both)."""
    own = own_config(agent)
    try:
        check_covered(own, "leave it out")
    except ValueError as error:
        raise ValueError(f"llm_config of agent {agent.name!r}: {error}") from None
    if own.get("built_in_tools"):
        raise ValueError(
            f"llm_config of agent {agent.name!r}: built_in_tools={own['built_in_tools']!r} run at "
            "the vendor, who bills them beside the tokens; leave them out"
        )
