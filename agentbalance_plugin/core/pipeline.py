"""Teams that run as they are: every agent and edge stays, only backbones are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.design import Lengths, pipeline_edges
from agentbalance_plugin.core.limits import (
    BYTES_HEARD,
    LARGEST_SHARE,
    LIKELY,
    USEFUL_TOKENS,
    Limits,
    chance_of_end,
)
from agentbalance_plugin.core.prediction import Outlook
from agentbalance_plugin.core.profiles import ProfileTable
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Agent, Team

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# How much of the answer's quality is the decider's own; the rest is that of those it hears.
_DECIDER_SHARE = 0.6
# A choice fits if a reply of it is more likely to end than to be cut off.
_EVEN_CHANCE = 0.5


@dataclass(frozen=True)
class Pipeline:
    """What is worked out once per team and catalog.

    Args:
        team: whose agents and edges stay.
        table: of the backbones.
        options: per agent that calls, [B] whether it may use a backbone.
        others, last: [n] columns: choices of a backbone for the deciding agent and one for all
            others that give each agent one that it may use; the same one where no agent that
            calls decides.
        in_turn: agents that call one after the other.
        edges: of its plans.
    """

    team: Team
    table: ProfileTable
    options: Mapping[str, NDArray[np.bool_]]
    others: NDArray[np.int64]
    last: NDArray[np.int64]
    in_turn: int
    edges: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, team: Team, table: ProfileTable) -> Pipeline:
        """Work it out.

        Raises:
            ValueError: no backbone can do what an agent needs.
        """
        options = _options([agent for agent in team.agents if agent.calls_backbone], table)
        pairs = np.zeros((0, 2), dtype=np.int64)
        if options:
            pairs = np.argwhere(_possible(options, team.decider))
            if team.decider not in options:
                # No agent would be given the decider's.
                pairs = pairs[pairs[:, 0] == pairs[:, 1]]
            if not len(pairs):
                price = table.price_in + table.price_out
                pairs = np.array([_cheapest(options, team.decider, price)], dtype=np.int64)
        return cls(
            team, table, options, pairs[:, 0], pairs[:, 1], in_turn(team), pipeline_edges(team)
        )


@dataclass(frozen=True)
class PipelineValues:
    """The n choices of a pipeline for one task.

    Args:
        success, cost_usd, latency_s: [n] predicted. What a later step gains from a better earlier
            one was recorded nowhere; success is taken to be a weighted mean of both backbones' own,
            each as often as its reply is not cut off.
        worst_usd: [n] most that the team may cost.
        fits: [n] whether the cap has room for the replies of all of them.
    """

    success: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray
    worst_usd: FloatArray
    fits: NDArray[np.bool_]


def pipeline_values(
    pipeline: Pipeline, outlook: Outlook, limits: Limits, task: int
) -> PipelineValues:
    """What every choice is worth for one of the tasks of an outlook."""
    table, predicted = pipeline.table, outlook.predicted
    others, last = pipeline.others, pipeline.last
    success = 1.0 / (1.0 + np.exp(-predicted.log_odds[task]))
    visible = np.exp(outlook.log_tokens[task] + outlook.sigma[task] ** 2 / 2)
    before = max(0, len(pipeline.options) - 1)
    # Each agent reads about half of what the others write, in bytes four to six times its tokens.
    read = before / 2 * visible[others] * limits.calls[task]
    reading = read * (before * table.price_in[others] + table.price_in[last])
    worst = limits.earlier_usd[task] + limits.prompt_bound[task] * table.price_in
    worst = worst + table.max_output * table.price_out
    heard_usd = BYTES_HEARD * table.tokens_per_byte * table.price_in
    heard_usd = read * (before * heard_usd[others] + heard_usd[last])
    worst_usd = before * worst[others] + worst[last] + heard_usd
    share = _DECIDER_SHARE if before else 1.0
    cost, latency = predicted.cost_usd[task], predicted.latency_s[task]
    first, second = success[others], success[last]
    fits = worst_usd <= limits.cost_usd[task]
    if np.isfinite(limits.tokens[task]):
        most = limits.earlier_tokens[task] + limits.prompt_bound[task] + table.max_output
        heard = BYTES_HEARD * table.tokens_per_byte
        heard = read * (before * heard[others] + heard[last])
        fits &= before * most[others] + most[last] + heard <= limits.tokens[task]
    if not fits.all():
        typical = cost[others] + read * table.price_in[others]
        ends = _ends(pipeline, limits, task, typical, visible)
        of_others, of_last = (np.where(fits, 1.0, chance) for chance in ends)
        first, second = first * of_others, second * of_last
        fits = np.minimum(of_others, of_last) >= _EVEN_CHANCE
    seconds = (pipeline.in_turn - 1) * latency[others] + latency[last]
    in_time = limits.in_time_of(task, seconds)
    return PipelineValues(
        success=(share * second + (1.0 - share) * first) * in_time,
        cost_usd=before * cost[others] + cost[last] + reading,
        latency_s=seconds,
        worst_usd=worst_usd,
        fits=fits,
    )


def _ends(
    pipeline: Pipeline, limits: Limits, task: int, typical_usd: FloatArray, visible: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """[n] chance that a reply of the others, and of the decider, is not cut off by the caps.

    Args:
        typical_usd: [n] what a call of the others takes.
        visible: [B] mean tokens that an agent adds to the prompts of those after it.
    """
    table, others, last = pipeline.table, pipeline.others, pipeline.last
    usd = limits.cost_usd[task]
    prices = (table.price_in, table.price_out, limits.earlier_usd[task])
    rooms = _rooms(pipeline, limits, task, usd, prices, typical_usd, visible)
    if np.isfinite(limits.tokens[task]):
        one = np.ones_like(table.price_in)
        prices = (one, one, limits.earlier_tokens[task])
        typical = limits.likely_tokens[task, others] / LIKELY
        typical = typical + max(0, len(pipeline.options) - 2) / 2 * visible[others]
        more = _rooms(pipeline, limits, task, limits.tokens[task], prices, typical, visible)
        rooms = [np.minimum(some, other) for some, other in zip(rooms, more, strict=True)]

    def chance(column: IntArray, room: FloatArray) -> FloatArray:
        room = np.floor(np.minimum(limits.caps[task, column], room))
        hidden, spread, log_tokens = (
            values[task, column]
            for values in (limits.hidden_tokens, limits.output_spread, limits.log_tokens)
        )
        share = chance_of_end(room, log_tokens, limits.sigma[task], hidden, spread)
        return share * (room >= USEFUL_TOKENS)

    of_last = chance(last, rooms[0])
    if len(rooms) == 1:
        return np.ones_like(of_last), of_last
    return np.minimum.reduce([chance(others, room) for room in rooms[1:]]), of_last


def _rooms(
    pipeline: Pipeline,
    limits: Limits,
    task: int,
    cap: float,
    prices: tuple[FloatArray, FloatArray, FloatArray],
    typical: FloatArray,
    visible: FloatArray,
) -> list[FloatArray]:
    """[n] output tokens that a cap leaves the decider, the others on average, and their last.

    A cap is shared out as adapters do it: up to half of it is set aside for the decider, the
    others have even parts of the rest, and what one of them leaves is there for the next.

    Args:
        prices: [B] of a prompt's token, of an output token, and what a turn takes before its last
            call, all in what is capped.
        typical: [n] what a call of the others takes of it.
        visible: as in `_ends`.
    """
    price_in, price_out, earlier = prices
    before = max(0, len(pipeline.options) - 1)

    def worst(column: IntArray, heard: FloatArray) -> tuple[FloatArray, FloatArray]:
        per_byte = pipeline.table.tokens_per_byte[column]
        bound = limits.prompt_bound[task, column] + BYTES_HEARD * heard * per_byte
        prompt = bound * price_in[column] + earlier[column]
        return prompt, prompt + pipeline.table.max_output[column] * price_out[column]

    def room(column: IntArray, left: FloatArray, prompt: FloatArray) -> FloatArray:
        # A backbone whose output is free is limited by its prompt alone.
        return (left - prompt) / np.maximum(price_out[column], 1e-15)

    others, last = pipeline.others, pipeline.last
    last_prompt, last_most = worst(last, before * visible[others])
    if not np.isfinite(cap):
        return [np.full(len(last), np.inf)] * (1 + min(before, 2))
    if not before:
        return [room(last, np.full(len(last), cap), last_prompt)]
    prompt, most = worst(others, before / 2 * visible[others])
    aside = np.minimum(last_most, np.maximum(LARGEST_SHARE * cap, cap - before * most))
    part = (cap - aside) / before
    # On average: the first has its own part, the last all that those before it left.
    part = part + (before - 1) / 2 * np.maximum(part - typical, 0.0)
    found = [room(last, aside, last_prompt), room(others, np.minimum(part, most), prompt)]
    if before > 1:
        # The last of them hears most, and finds what the others left.
        prompt, _ = worst(others, (before - 1) * visible[others])
        found.append(room(others, cap - aside - (before - 1) * typical, prompt))
    return found


def pipeline_plan(
    pipeline: Pipeline,
    outlook: Outlook,
    limits: Limits,
    task: int,
    price_usd: float,
    notes: Mapping[str, Any],
    lengths: Lengths,
) -> Plan:
    """Every agent and edge of the team, on backbones of most predicted worth."""
    team, table = pipeline.team, pipeline.table
    if not pipeline.options:
        return Plan(
            assignment={agent.name: None for agent in team.agents},
            edges=pipeline.edges,
            decider=team.decider,
            hop_limit=max(8, len(team.agents)),
            notes=dict(notes),
        )
    found = pipeline_values(pipeline, outlook, limits, task)
    worth = found.success - price_usd * found.cost_usd
    row = int(np.where(found.fits, worth, -np.inf).argmax())
    if not found.fits.any():
        # The cheapest: the meter sees to the cap.
        row = int(found.worst_usd.argmin())
    others, last = int(pipeline.others[row]), int(pipeline.last[row])
    assignment: dict[str, str | None] = {}
    for agent in team.agents:
        if not agent.calls_backbone:
            assignment[agent.name] = None
            continue
        wanted = last if agent.name == team.decider else others
        mask = pipeline.options[agent.name]
        column = wanted if mask[wanted] else _cheapest_of(mask, table)
        assignment[agent.name] = table.names[column]
    return Plan(
        assignment=assignment,
        edges=pipeline.edges,
        decider=team.decider,
        hop_limit=max(8, len(team.agents)),
        expected=lengths.expected(
            float(found.success[row]),
            float(found.cost_usd[row]),
            float(found.latency_s[row]),
            assignment,
        ),
        notes=dict(notes)
        if len(pipeline.options) == 1
        else {**notes, "pipeline": "success is a weighted mean of the backbones' own"},
    )


def in_turn(team: Team) -> int:
    """How many agents call a backbone one after the other: those on the longest path of the fixed
    edges; all of them where nothing says who runs beside whom."""
    calls = {agent.name: int(agent.calls_backbone) for agent in team.agents}
    if not team.fixed_edges:
        return sum(calls.values())
    return int(Plan(dict.fromkeys(calls), team.fixed_edges).longest_path(calls))


def wish_of(agent: Agent) -> str:
    """What a backbone must be to fit an agent, in words."""
    if not agent.calls_backbone:
        return f"{agent.name!r} calls none"
    pinned = "" if agent.backbone is None else f" and is pinned to {agent.backbone!r}"
    return f"{agent.name!r} needs {sorted(agent.needs)}{pinned}"


def _options(agents: Sequence[Agent], table: ProfileTable) -> dict[str, NDArray[np.bool_]]:
    """Per agent, [B] whether it may use a backbone (ValueError: an agent can use none)."""
    masks: dict[tuple[frozenset[str], str | None], NDArray[np.bool_]] = {}
    for agent in agents:
        wish = (agent.needs, agent.backbone)
        if wish not in masks:
            fits = [
                agent.needs <= capable and agent.backbone in (None, name)
                for name, capable in zip(table.names, table.capable, strict=True)
            ]
            if not any(fits):
                raise ValueError(f"agent {wish_of(agent)}, no backbone of the catalog has that")
            masks[wish] = np.array(fits)
    return {agent.name: masks[agent.needs, agent.backbone] for agent in agents}


def _possible(options: Mapping[str, NDArray[np.bool_]], decider: str | None) -> NDArray[np.bool_]:
    """[B, B] whether all others can take the first and the decider the second; agents without a
    choice keep their own."""
    free = {name: mask | (mask.sum() <= 1) for name, mask in options.items()}
    every = np.ones(len(next(iter(free.values()))), dtype=np.bool_)
    last = free.get(decider, every) if decider is not None else every
    others = [mask for name, mask in free.items() if name != decider]
    return np.logical_and.reduce([every, *others])[:, None] & last


def _cheapest(
    options: Mapping[str, NDArray[np.bool_]], decider: str | None, price: FloatArray
) -> tuple[int, int]:
    def least(mask: NDArray[np.bool_]) -> int:
        return int(np.argmin(np.where(mask, price, np.inf)))

    others = [mask for name, mask in options.items() if name != decider]
    common = np.logical_and.reduce(others) if others else options[decider or ""]
    if not common.any():
        common = others[0]
    last = common if decider is None else options.get(decider, common)
    return least(common), least(last)


def _cheapest_of(mask: NDArray[np.bool_], table: ProfileTable) -> int:
    return int(np.argmin(np.where(mask, table.price_in + table.price_out, np.inf)))
