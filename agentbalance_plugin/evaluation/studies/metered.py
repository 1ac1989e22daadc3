"""Recorded backbones behind the scheduler and the meter of live runs, without a framework.

The vectorised replay knows no hard caps: what a call may cost is the meter's business. Here every
call is reserved and settled as it is live, on a clock that jumps, so caps hold as they do live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.replay import Replay, Reply
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.byte_bound import text_bound
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.scheduler import run_pass
from agentbalance_plugin.simulator.virtual_time import run_virtual


@dataclass(frozen=True)
class Task:
    """One task of a stream: its plan may depend on what earlier ones cost.

    Args:
        query: key of the recorded query.
        text: what bounds on the prompt are taken from.
        start: makes the plan, and the budget of this very run.
        end: told what the meter has booked.
    """

    query: str
    text: str
    start: Callable[[], tuple[Plan, Budget]]
    end: Callable[[int], None]


@dataclass(frozen=True)
class MeteredRun:
    """What came of one task.

    Args:
        correct: whether the answer is right.
        nanodollars: what its calls billed.
        latency_s: end to end.
        cut: whether the meter denied a call or a reply was cut off.
    """

    plan: Plan
    budget: Budget
    correct: bool
    nanodollars: int
    latency_s: float
    cut: bool


def run_metered(replay: Replay, tasks: Iterable[Task]) -> list[MeteredRun]:
    """Run tasks one after the other."""

    async def every() -> list[MeteredRun]:
        return [await _run(replay, task) for task in tasks]

    return run_virtual(every())


def percent_right(runs: Sequence[MeteredRun]) -> float:
    """Share of right answers."""
    return 100.0 * float(np.mean([run.correct for run in runs]))


def percent_cut(runs: Sequence[MeteredRun]) -> float:
    """Share of runs with a call that was denied or cut off."""
    return 100.0 * float(np.mean([run.cut for run in runs]))


def over_cost(runs: Sequence[MeteredRun]) -> int:
    """Runs that billed more than the hard cap of their budget."""
    caps = [run.budget.nanodollars for run in runs]
    return sum(
        cap is not None and run.nanodollars > cap for run, cap in zip(runs, caps, strict=True)
    )


async def _run(replay: Replay, task: Task) -> MeteredRun:
    plan, budget = task.start()
    meter = Meter(budget)
    said: dict[str, Reply] = {}
    billed: list[int] = []

    async def speak(agent: str, heard: tuple[str, ...]) -> Reply:
        name = plan.assignment[agent]
        assert name is not None
        backbone = replay.catalog[name]
        peers = [said[peer] for peer in heard]
        bound = text_bound(task.text) + sum(peer.visible_tokens for peer in peers)
        with meter.reserve(agent, backbone, bound, plan.output_caps.get(agent)) as call:
            reply = replay.reply(
                task.query,
                name,
                agent=agent,
                peers=[peer.as_peer() for peer in peers],
                output_cap=call.output_cap,
            )
            billed.append(reply.cost_nanodollars)
            await asyncio.sleep(reply.latency_s)
            call.settle(reply.prompt_tokens, reply.completion_tokens)
        said[agent] = reply
        return reply

    began = meter.clock.now()
    result = await run_pass(plan, speak, _answer, meter)
    meter.close()
    task.end(meter.spend().nanodollars)
    chosen = None if result.chosen is None else result.messages[result.chosen]
    return MeteredRun(
        plan=plan,
        budget=budget,
        correct=chosen is not None and chosen.correct,
        nanodollars=sum(billed),
        latency_s=meter.clock.now() - began,
        cut=bool(result.skipped) or any(reply.finish == "length" for reply in said.values()),
    )


def _answer(reply: Reply) -> str | None:
    return None if reply.answer < 0 else str(reply.answer)
