"""A chat's own state, put into a fresh copy of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

from autogen_agentchat.teams import BaseGroupChat, GraphFlow

from agentbalance_plugin.adapters.autogen.rebind import participants_of


async def load_into(chat: BaseGroupChat, state: Mapping[str, Any]) -> None:
    """Let a fresh chat go on from what AutoGen's `save_state` said of another one.

    Raises:
        ValueError: AutoGen's own, where it is no state of such a chat.
    """
    # AutoGen's graphs count on in the very dictionary that they are given.
    own = copy.deepcopy(dict(state))
    _rearm(chat, own)
    await chat.load_state(own)


def _rearm(chat: BaseGroupChat, state: Mapping[str, Any]) -> None:
    """Make the nodes of a graph that are about to run ready to be reached once more.

    AutoGen does so when they start, from books that its saved state leaves out: a loop that was
    stopped in the middle would never come back to them.
    """
    states: Mapping[str, Any] = state.get("agent_states") or {}
    for inner in participants_of(chat):
        held = states.get(inner.name)
        if isinstance(inner, BaseGroupChat) and held:
            _rearm(inner, held.get("agent_state") or {})
    if not isinstance(chat, GraphFlow):
        return
    needed: Mapping[str, Mapping[str, int]] = cast("Any", chat)._graph.get_remaining_map()
    for manager in states.values():
        if "enqueued_any" not in manager:
            continue
        for node in manager["ready"]:
            remaining = manager["remaining"].get(node, {})
            done = {group for group, left in remaining.items() if left <= 0}
            remaining.update({group: needed[node][group] for group in done})
            groups = manager["enqueued_any"].get(node, {})
            groups.update(dict.fromkeys(groups, False))
