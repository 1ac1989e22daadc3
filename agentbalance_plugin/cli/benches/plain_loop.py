"""The replay as a plain loop: one query after the other, one call after the other, no arrays.

It makes the very outcomes of `agentbalance_plugin.core.replay`, which the measurement checks. What
does not depend on the plan (abilities, neighbours, keys of names) is worked out before, as there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.core.abilities import abilities
from agentbalance_plugin.core.communication import FIRST_NEW_ANSWER, Influence
from agentbalance_plugin.core.copies import Copies
from agentbalance_plugin.core.sampling import string_key
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import Plan

_LOW = 0xFFFFFFFFFFFFFFFF
_COPY_REPEATS = int(string_key("copy repeats itself"))
_COPY_TAKES = int(string_key("copy takes from"))
_READ = int(string_key("answer after reading"))
_LATENCY = int(string_key("latency"))


@dataclass
class _Said:
    """A reply as others read it."""

    backbone: int
    answer: int
    correct: bool
    visible: int


@dataclass
class PlainOutcome:
    """One plan on one query; the fields are those of `Outcomes`."""

    correct: bool = False
    answer: int = -1
    cost_nanodollars: int = 0
    latency_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    hops: int = 0


class PlainLoop:
    """Recorded backbones, called one at a time.

    Args:
        traces: complete and without measured latencies or repeated samples, as this loop knows
            neither.
        seed: of every draw.
    """

    def __init__(self, traces: TraceSet, seed: int) -> None:
        self._influence = Influence()
        known = abilities(traces)
        copies = Copies(traces, known)
        self._log_odds: list[list[float]] = known.log_odds.tolist()
        self._neighbours: list[list[list[int]]] = copies.neighbours.tolist()
        self._repeats: list[list[float]] = copies.repeats.tolist()
        self._category: list[int] = traces.category.tolist()
        self._correct: list[list[int]] = traces.correct.tolist()
        self._answer: list[list[int]] = traces.answer.tolist()
        self._prompt: list[list[int]] = traces.prompt_tokens.tolist()
        self._visible: list[list[int]] = traces.visible_tokens.tolist()
        self._hidden: list[list[int]] = traces.hidden_tokens.tolist()
        self._column = {name: column for column, name in enumerate(traces.backbones)}
        backbones = [traces.catalog[name] for name in traces.backbones]
        self._backbones = backbones
        ttft = [b.ttft_s for b in backbones if b.ttft_s is not None]
        speed = [b.tokens_per_s for b in backbones if b.tokens_per_s is not None]
        self._ttft = [float(np.median(ttft)) if b.ttft_s is None else b.ttft_s for b in backbones]
        self._speed = [
            float(np.median(speed)) if b.tokens_per_s is None else b.tokens_per_s for b in backbones
        ]
        self._seed_key = _mix(seed & _LOW)
        self._zero, self._one = _mix(0), _mix(1)
        self._query_keys = [int(string_key(query.key)) for query in traces.queries]
        self._backbone_keys = [int(string_key(name)) for name in traces.backbones]

    def outcome(self, query: int, plan: Plan) -> PlainOutcome:
        """The plan on one query, step by step as a scheduler does it."""
        found = PlainOutcome()
        said: dict[str, _Said] = {}
        ends: dict[str, float] = {}
        depth: dict[str, int] = {}

        def answer(agent: str) -> int | None:
            code = said[agent].answer
            return code if code >= 0 else None

        for agent in plan.order:
            waits = plan.waits_for(agent)
            ends[agent] = max((ends[name] for name in waits), default=0.0)
            depth[agent] = max((depth[name] for name in waits), default=0)
            gate = plan.late_gates.get(agent)
            if gate is not None:
                voters = [name for name in gate.watches if name in said]
                weights = [plan.weight(name) for name in voters]
                if leading_answer([answer(n) for n in voters], weights)[1] >= gate.threshold:
                    continue
            depth[agent] += 1
            peers = [said[name] for name in plan.parents(agent) if name in said]
            backbone = self._column[plan.assignment[agent] or ""]
            said[agent] = self._call(query, backbone, agent, peers, plan, found, ends)
        if plan.stop_at is not None:
            for when in sorted(ends.values()):
                voices = [answer(name) if ends[name] <= when else None for name in plan.assignment]
                weights = [plan.weight(name) for name in plan.assignment]
                if leading_answer(voices, weights)[1] >= plan.stop_at:
                    said = {name: each for name, each in said.items() if ends[name] <= when}
                    ends = {name: end for name, end in ends.items() if end <= when}
                    break
        found.latency_s = max(ends.values())
        found.hops = max(depth.values())
        speakers = [name for name in plan.assignment if name in said]
        chosen = plan.decider if plan.decision == "agent" and plan.decider in said else None
        if chosen is None:
            weights = [plan.weight(name) for name in speakers]
            first, _ = leading_answer([answer(name) for name in speakers], weights)
            if first is not None:
                chosen = speakers[first]
            elif plan.decider in said:
                chosen = plan.decider
            elif speakers:
                chosen = max(reversed(speakers), key=plan.weight)
        if chosen is not None:
            found.correct, found.answer = said[chosen].correct, said[chosen].answer
        return found

    def _call(
        self,
        query: int,
        backbone: int,
        agent: str,
        peers: list[_Said],
        plan: Plan,
        found: PlainOutcome,
        ends: dict[str, float],
    ) -> _Said:
        """One call; its bill and its time are added up."""
        start = _mix(_mix(self._seed_key ^ self._query_keys[query]) ^ self._backbone_keys[backbone])
        category = self._category[query]
        source = backbone
        if copy := sum(peer.backbone == backbone for peer in peers):
            key = _mix(start ^ copy)
            repeat = _uniform(_mix(self._zero ^ key), _COPY_REPEATS)
            near = self._neighbours[category][backbone]
            other = near[int(_uniform(_mix(self._zero ^ key), _COPY_TAKES) * len(near))]
            if repeat >= self._repeats[category][backbone] and self._correct[query][other] >= 0:
                source = other
        key = _mix(_mix(start ^ int(string_key(agent))) ^ 0)
        answer, correct = self._answer[query][source], self._correct[query][source] == 1
        if any(peer.answer >= 0 and peer.answer != answer for peer in peers):
            answer, correct = self._read(category, backbone, answer, correct, peers, key)
        entry = self._backbones[backbone]
        prompt = self._prompt[query][backbone] + sum(peer.visible for peer in peers)
        visible, hidden = self._visible[query][backbone], self._hidden[query][backbone]
        cap = min(plan.output_caps.get(agent, entry.max_output_tokens), entry.max_output_tokens)
        if visible + hidden > cap:
            answer, correct = -1, False
            hidden = min(hidden, cap)
            visible = cap - hidden
        key = _mix(_mix(self._zero ^ key) ^ _LATENCY)
        radius = math.sqrt(-2.0 * math.log1p(-_fraction(key)))
        noise = radius * math.cos(2.0 * math.pi * _fraction(_mix(key)))
        nominal = self._ttft[backbone] + (visible + hidden) / self._speed[backbone]
        ends[agent] += nominal * math.exp(0.2 * noise - 0.02)
        found.prompt_tokens += prompt
        found.completion_tokens += visible + hidden
        found.cost_nanodollars += entry.cost(prompt, visible + hidden)
        found.calls += 1
        return _Said(backbone, answer, correct, visible)

    def _read(
        self,
        category: int,
        backbone: int,
        answer: int,
        correct: bool,
        peers: list[_Said],
        call_key: int,
    ) -> tuple[int, bool]:
        """What a reader that faces disagreement answers."""
        constants = self._influence
        key = _mix(_mix(self._zero ^ call_key) ^ _READ)
        log_odds = self._log_odds[category]
        utility: dict[int, float] = {}
        right: dict[int, bool] = {}
        if answer >= 0 or correct:
            own = constants.count + constants.source * log_odds[backbone]
            utility[answer], right[answer] = constants.own + own, correct
        for peer in peers:
            if peer.answer >= 0:
                weight = constants.count + constants.source * log_odds[peer.backbone]
                utility[peer.answer] = utility.get(peer.answer, 0.0) + weight
                right.setdefault(peer.answer, peer.correct)
        for option in utility:
            utility[option] += constants.right * right[option]
        utility[-2] = constants.new + constants.right * (not any(right.values()))
        best = max(utility, key=lambda option: utility[option] + self._gumbel(key, option))
        if best == -2:
            return (_mix(self._zero ^ key) >> 34) + FIRST_NEW_ANSWER, False
        return best, right[best]

    def _gumbel(self, key: int, option: int) -> float:
        draw = _fraction(_mix(_mix(self._one ^ key) ^ (option & _LOW)))
        return -math.log(-math.log(max(draw, 2.0**-54)))


def _mix(key: int) -> int:
    key = (key + 0x9E3779B97F4A7C15) & _LOW
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & _LOW
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & _LOW
    return key ^ (key >> 31)


def _fraction(key: int) -> float:
    return (_mix(key) >> 11) * 2.0**-53


def _uniform(key: int, part: int) -> float:
    return _fraction(_mix(key ^ part))
