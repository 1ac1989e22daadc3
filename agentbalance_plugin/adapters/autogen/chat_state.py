"""A chat's own state, put into a fresh copy of it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

from autogen_agentchat.teams import BaseGroupChat, GraphFlow

from agentbalance_plugin.adapters.autogen.rebind import Participant, everyone_in, participants_of

TeamStates = Sequence[Mapping[str, Any] | None]
"""Of the teams inside a participant, in the order of `everyone_in`; None: has not run."""


async def state_of(chat: BaseGroupChat) -> Mapping[str, Any] | None:
    """AutoGen's own state of a chat; None if it has not run yet, or holds an agent whose state
    can't be saved."""
    try:
        return await chat.save_state() if vars(chat).get("_initialized") else None
    # Nobody asked for it to be saved, and what a run has said is paid for.
    except Exception as error:
        warnings.warn(
            f"the state of {chat.name!r} can't be saved, so its next run starts anew: {error!r}",
            stacklevel=2,
        )
        return None


async def states_inside(participant: Participant) -> TeamStates:
    """Where the teams inside a participant are: who spoke last, what was said. What their agents
    went through is the agents' own."""
    return [await state_of(team) for team in _teams_in(participant)]


async def load_inside(participant: Participant, states: TeamStates) -> None:
    """Let the teams inside a fresh copy of a participant go on from there."""
    for team, state in zip(_teams_in(participant), states, strict=False):
        if state is not None:
            await load_into(team, state)


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


def _teams_in(participant: Participant) -> list[BaseGroupChat]:
    return [held for held in everyone_in(participant) if isinstance(held, BaseGroupChat)]
