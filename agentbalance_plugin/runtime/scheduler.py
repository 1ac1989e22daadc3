"""Dataflow execution of a plan: an agent starts the moment those it waits for are done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.call import CallDenied
from agentbalance_plugin.runtime.meter import Meter

Message = TypeVar("Message")


class NotNeeded(Exception):
    """An agent is not asked any more: what was to be done is done."""


@dataclass
class Pass(Generic[Message]):
    """What one pass over the plan produced, as far as it got.

    Args:
        messages: agent -> its message, in the order in which they spoke.
        answers: agent -> the answer in its message, None where there is none.
        skipped: agent -> why the budget or the clock left it out.
        failed: agent -> the error it raised.
        closed: agents whose late gate stayed closed, whom a decided vote did not wait for, or who
            were not needed.
        chosen: the agent whose message is the answer; None if nobody spoke.
        confidence: of the vote, when a vote decided.
        complete: every planned agent had its chance and the decision was made as planned.
        stop_reason: in words.
    """

    messages: dict[str, Message] = field(default_factory=dict[str, Message])
    answers: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    failed: dict[str, Exception] = field(default_factory=dict[str, Exception])
    closed: list[str] = field(default_factory=list[str])
    chosen: str | None = None
    confidence: float | None = None
    complete: bool = False
    stop_reason: str = ""


async def run_pass(
    plan: Plan,
    speak: Callable[[str, tuple[str, ...]], Awaitable[Message]],
    extract: Callable[[Message], str | None],
    meter: Meter,
) -> Pass[Message]:
    """Run every agent of a valid plan once.

    Args:
        plan: validated.
        speak: `speak(agent, heard)` runs one agent that reads the messages of `heard` (those of
            its parents that spoke) and returns its message. `CallDenied` means no budget,
            `NotNeeded` that it is not asked; any other exception means that agent failed. None of
            them stops the others.
        extract: the answer in a message.
        meter: the deadline is its.

    Returns:
        The pass. At the deadline running agents are cancelled and not waited for: what has been
        said by then is in the pass.

    Raises:
        asyncio.CancelledError: the caller or an agent was cancelled; all agents are then.
    """
    result: Pass[Message] = Pass()
    tasks: dict[str, asyncio.Task[None]] = {}

    async def run_agent(agent: str) -> None:
        if before := [tasks[name] for name in plan.waits_for(agent)]:
            await asyncio.wait(before)
        if _stays_closed(plan, agent, result.answers):
            result.closed.append(agent)
            meter.unprotect(agent)
            return
        heard = tuple(name for name in plan.parents(agent) if name in result.messages)
        try:
            result.messages[agent] = message = await speak(agent, heard)
            result.answers[agent] = extract(message)
        except NotNeeded:
            result.closed.append(agent)
        except CallDenied as denied:
            result.skipped[agent] = denied.reason
        # Agents and extractors are the user's code and may raise anything; the others' work, and
        # a message already paid for, must survive it.
        except Exception as error:
            result.failed[agent] = error
        finally:
            meter.unprotect(agent)

    for agent in plan.order:
        tasks[agent] = asyncio.create_task(run_agent(agent), name=f"agentbalance:{agent}")
    try:
        decided = await _wait(plan, tasks, result, meter)
        for agent in plan.order:
            if not tasks[agent].done() and decided:
                result.closed.append(agent)
            elif not tasks[agent].done():
                result.skipped.setdefault(agent, "cancelled at the deadline")
    finally:
        for task in tasks.values():
            task.cancel()
    # Stragglers may still write to `result` while they unwind; callers get a settled copy.
    return _decide(plan, _copy(result))


async def _wait(
    plan: Plan, tasks: Mapping[str, asyncio.Task[None]], result: Pass[Message], meter: Meter
) -> bool:
    """Until every agent is done, the deadline has come, or the vote is decided (True)."""
    waiting = set(tasks.values())
    when = asyncio.ALL_COMPLETED if plan.stop_at is None else asyncio.FIRST_COMPLETED
    while waiting:
        # wait() returns at the deadline whether or not the agents heed a cancellation.
        left = meter.seconds_left()
        timeout = None if left is None else max(0.0, left) * meter.clock.scale
        done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=when)
        for task in done:
            task.result()
        if not done:
            return False
        if waiting and plan.stop_at is not None and _confidence(plan, result) >= plan.stop_at:
            return True
    return False


def _confidence(plan: Plan, result: Pass[Message]) -> float:
    """In the leading answer of a vote, as if those still at work all differed."""
    voters = [n for n in plan.assignment if n not in result.skipped and n not in result.failed]
    answers = [result.answers.get(name) for name in voters]
    return leading_answer(answers, [plan.weight(name) for name in voters])[1]


def _stays_closed(plan: Plan, agent: str, answers: dict[str, str | None]) -> bool:
    gate = plan.late_gates.get(agent)
    if gate is None:
        return False
    voters = [name for name in gate.watches if name in answers]
    _, confidence = leading_answer(
        [answers[name] for name in voters], [plan.weight(name) for name in voters]
    )
    return confidence >= gate.threshold


def _decide(plan: Plan, result: Pass[Message]) -> Pass[Message]:
    """Fill in whose message is the answer, and whether it came about as planned."""
    decider = plan.decider
    if plan.decision == "agent" and decider in result.messages:
        result.chosen = decider
    else:
        speakers = [name for name in plan.assignment if name in result.messages]
        leader, confidence = leading_answer(
            [result.answers.get(name) for name in speakers],
            [plan.weight(name) for name in speakers],
        )
        if leader is not None:
            result.chosen, result.confidence = speakers[leader], confidence
        elif speakers:
            # Nothing to compare: the decider's message, else the most reliable speaker's.
            result.chosen = (
                decider if decider in result.messages else max(reversed(speakers), key=plan.weight)
            )
    as_planned = (
        plan.decision == "vote"
        or plan.decider is None
        or result.chosen == plan.decider
        or plan.decider in result.closed
    )
    result.complete = as_planned and not result.skipped and not result.failed
    result.stop_reason = _stop_reason(result, as_planned=as_planned)
    return result


def _stop_reason(result: Pass[Message], *, as_planned: bool) -> str:
    if result.complete:
        return "Plan complete"
    parts = [f"{agent} skipped: {reason}" for agent, reason in result.skipped.items()]
    parts += [f"{agent} failed: {error}" for agent, error in result.failed.items()]
    if not result.messages:
        head = "No answer"
    elif as_planned:
        head = "Plan complete, without everyone"
    else:
        head = f"Best answer so far, by {result.chosen}"
    kind = "Budget exhausted" if result.skipped else "Agents failed"
    return f"{kind}: {head} ({'; '.join(parts)})"


def _copy(result: Pass[Message]) -> Pass[Message]:
    return Pass(
        messages=dict(result.messages),
        answers=dict(result.answers),
        skipped=dict(result.skipped),
        failed=dict(result.failed),
        closed=list(result.closed),
    )
