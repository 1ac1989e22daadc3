"""The plan of a task, made once, before any call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Any, cast

from langchain_core.messages import BaseMessage, HumanMessage

from agentbalance_plugin.adapters.langgraph.run import Run
from agentbalance_plugin.adapters.planning import (
    aplan_task,
    check_affordable,
    denied_tokens,
    expected_seconds,
    heard_bytes,
    past_of,
    plan_task,
)
from agentbalance_plugin.core.knobs import Past
from agentbalance_plugin.core.limits import LARGEST_SHARE
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.byte_bound import text_bound
from agentbalance_plugin.team import Team

QueryReader = Callable[[Any], str]
"""From a graph's state at its start (channel -> value) to the task as text."""


def make_plan(run: Run, values: object, read_query: QueryReader | None) -> Plan:
    """Plan the run's task and set its agents' shares aside.

    Args:
        values: the state at the start: channel -> value, or the value itself.
        read_query: the user's way to find the task in it; None takes the last user message, or
            all text there is.

    Raises:
        ValueError: the budget affords no call at all, no backbone can do what an agent needs, or
            `read_query` returns no text.
        PlanError: the planner's plan can't be run.
    """
    query, team, images = _task(run, values, read_query)
    catalog, past = run.models.catalog, _past(run, values, query, images)
    plan = run.plan = plan_task(run.planner, query, team, run.budget, catalog, run.price_usd, past)
    return plan


async def amake_plan(run: Run, values: object, read_query: QueryReader | None) -> Plan:
    """As `make_plan`, but what takes long is done beside the event loop, whose other runs must not
    wait for it."""
    query, team, images = _task(run, values, read_query)
    catalog, beside = run.models.catalog, run.plans_beside or team is not run.team
    plan = run.plan = await aplan_task(
        run.planner,
        query,
        team,
        run.budget,
        catalog,
        run.price_usd,
        _past(run, values, query, images),
        beside=beside,
    )
    return plan


def _task(run: Run, values: object, read_query: QueryReader | None) -> tuple[str, Team, int]:
    """The task as text, the team with what it needs, and how many images there are (ValueError: no
    call is affordable)."""
    asked = _last_user_message(values)
    if read_query is not None:
        query = read_query(values)
        if not isinstance(query, str):
            raise ValueError(f"query must return the task's text, got {query!r}")
    else:
        query = asked.text if asked is not None else "\n".join(_texts(values))
    images = _images(asked) if asked is not None else 0
    team = run.team.needing("vision") if images else run.team
    # What is left of a mean is not what the user gave: such a run ends for want of budget.
    if run.price_usd is None:
        check_affordable(run.budget, run.models.catalog, query, images)
    return query, team, images


def allot(run: Run, certain: Iterable[str], prompt: int) -> None:
    """Set aside a share of money and tokens for every agent that is certain to run.

    Without it the first of several parallel agents may hold all there is. What an agent leaves
    goes to the others as soon as it is done. The decider gets up to half. Agents behind late gates
    get nothing: mostly they do not run, and others would answer with half a message.

    Args:
        certain: agents that no routing of the user's own leaves out.
        prompt: bytes of the task's prompt.
    """
    plan = run.plan
    if plan is None:
        return
    decider = plan.decider if plan.decision == "agent" else None
    known = [name for name in certain if plan.assignment.get(name) is not None]
    names = [name for name in known if name not in plan.late_gates]
    backbones = {name: run.models.catalog[cast("str", plan.assignment[name])] for name in names}
    bounds = {
        name: ceil((prompt + heard_bytes(plan, name)) * backbone.tokens_per_byte)
        for name, backbone in backbones.items()
    }
    caps = {name: plan.output_caps.get(name, backbones[name].max_output_tokens) for name in names}
    money = {name: backbones[name].cost(bounds[name], caps[name]) for name in names}
    tokens = {name: bounds[name] + caps[name] for name in names}
    money_left, tokens_left = run.meter.left()
    money = _shares(money, money_left, decider)
    tokens = _shares(tokens, tokens_left, decider)
    time = run.meter.seconds_left()
    for name in names:
        seconds = 0.0
        if name == decider and time is not None and len(names) > 1:
            seconds = min(expected_seconds(backbones[name]), LARGEST_SHARE * max(0.0, time))
        run.meter.protect(name, nanodollars=money[name], tokens=tokens[name], seconds=seconds)


def _shares(worst: Mapping[str, int], left: int | None, decider: str | None) -> dict[str, int]:
    """The worst cases where what is left has room for all; else the decider's, up to half of it,
    and an even part of the rest for each other, what small ones leave going to the larger."""
    if left is None:
        return dict.fromkeys(worst, 0)
    shares = {n: min(worst[n], int(left * LARGEST_SHARE)) for n in worst if n == decider}
    free = left - sum(shares.values())
    others = sorted((name for name in worst if name != decider), key=worst.__getitem__)
    for number, name in enumerate(others):
        shares[name] = min(worst[name], free // (len(others) - number))
        free -= shares[name]
    if decider in shares:
        shares[decider] = min(worst[decider], shares[decider] + free)
    return shares


def prompt_of(values: object) -> int:
    """Bytes that the text in a state takes of a prompt."""
    return sum(text_bound(text) for text in _texts(values))


def learn_from(run: Run) -> None:
    """What a run that has ended tells of the next ones."""
    run.habits.note_answers(run.answers)
    # A resumed run was planned elsewhere, and made some of its calls there.
    if run.plan is not None and run.told is not None:
        complete = run.ended and not run.exceeded
        denied = denied_tokens(run.meter)
        run.habits.note_calls(
            run.plan, run.meter.calls, told=run.told, denied=denied, complete=complete
        )


def _past(run: Run, values: object, query: str, images: int) -> Past:
    work = run.told = run.habits.work
    beside = max(0, prompt_of(values) - text_bound(query))
    return past_of(work, run.habits.comparable, beside, images, with_extra=True)


def _last_user_message(values: object) -> HumanMessage | None:
    found = [message for message in _messages(values) if isinstance(message, HumanMessage)]
    return found[-1] if found else None


def _messages(values: object) -> list[BaseMessage]:
    if isinstance(values, BaseMessage):
        return [values]
    if isinstance(values, str):
        return []
    if isinstance(values, Mapping):
        values = list(cast("Mapping[str, Any]", values).values())
    if isinstance(values, (list, tuple)):
        items = cast("list[Any]", values)
        return [message for item in items for message in _messages(item)]
    return []


def _texts(values: object) -> list[str]:
    if isinstance(values, str):
        return [values]
    if isinstance(values, BaseMessage):
        return [values.text]
    if isinstance(values, Mapping):
        values = list(cast("Mapping[str, Any]", values).values())
    if isinstance(values, (list, tuple)):
        return [text for item in cast("list[Any]", values) for text in _texts(item)]
    return []


def _images(message: HumanMessage) -> int:
    if isinstance(message.content, str):
        return 0
    return sum(
        isinstance(part, dict) and "image" in str(part.get("type")) for part in message.content
    )
