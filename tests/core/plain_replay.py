"""The replay's rules once more, for one query at a time and without arrays.

It shares the keyed draws and the definition of agreement with the package, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.core.replay import PeerReply, Reply
from agentbalance_plugin.core.sampling import draw_keys, normals, string_key, uniforms
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import Plan

Call = Callable[[str, str, Sequence[PeerReply], int | None], Reply]


@dataclass
class Outcome:
    correct: bool = False
    answer: int = -1
    cost_nanodollars: int = 0
    latency_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    hops: int = 0


def execute(plan: Plan, call: Call) -> Outcome:
    """Run a plan step by step, as a scheduler does."""
    outcome = Outcome()
    replies: dict[str, Reply | None] = {}
    ends: dict[str, float] = {}
    depth: dict[str, int] = {}

    def answer(agent: str) -> int | None:
        reply = replies.get(agent)
        return None if reply is None or reply.answer < 0 else reply.answer

    for agent in plan.order:
        ends[agent] = max((ends[name] for name in plan.waits_for(agent)), default=0.0)
        depth[agent] = max((depth[name] for name in plan.waits_for(agent)), default=0)
        gate = plan.late_gates.get(agent)
        if gate is not None:
            voters = [name for name in gate.watches if name in replies]
            _, confidence = leading_answer(
                [answer(name) for name in voters], [plan.weight(name) for name in voters]
            )
            if confidence >= gate.threshold:
                continue
        depth[agent] += 1
        backbone = plan.assignment[agent]
        if backbone is None:
            replies[agent] = None
            continue
        heard = [replies.get(name) for name in plan.parents(agent)]
        peers = [reply.as_peer() for reply in heard if reply is not None]
        replies[agent] = reply = call(agent, backbone, peers, plan.output_caps.get(agent))
        ends[agent] += reply.latency_s
        outcome.cost_nanodollars += reply.cost_nanodollars
        outcome.prompt_tokens += reply.prompt_tokens
        outcome.completion_tokens += reply.completion_tokens
        outcome.calls += 1
    if plan.stop_at is not None:
        for when in sorted(ends.values()):
            voices = [answer(name) if ends[name] <= when else None for name in plan.assignment]
            weights = [plan.weight(name) for name in plan.assignment]
            if leading_answer(voices, weights)[1] >= plan.stop_at:
                replies = {name: reply for name, reply in replies.items() if ends[name] <= when}
                ends = {name: end for name, end in ends.items() if end <= when}
                break
    outcome.latency_s = max(ends.values())
    outcome.hops = max(depth.values())
    speakers = [name for name in plan.assignment if name in replies]
    chosen = plan.decider if plan.decision == "agent" and plan.decider in replies else None
    if chosen is None:
        first, _ = leading_answer([answer(n) for n in speakers], [plan.weight(n) for n in speakers])
        if first is not None:
            chosen = speakers[first]
        elif plan.decider in replies:
            chosen = plan.decider
        elif speakers:
            chosen = max(reversed(speakers), key=plan.weight)
    final = replies.get(chosen) if chosen is not None else None
    if final is not None:
        outcome.correct, outcome.answer = final.correct, final.answer
    return outcome


class PlainBackbones:
    """Scalar replies; constants are written out again."""

    def __init__(self, traces: TraceSet, seed: int, copies: str = "resampled") -> None:
        self.traces = traces
        self.seed = seed
        self.copies = copies
        self.train = [i for i, query in enumerate(traces.queries) if query.split == "train"]
        self._log_odds: dict[tuple[str, str], float] = {}
        self._near: dict[tuple[str, str], tuple[list[str], float]] = {}

    def rows(self, category: str, *, prefix: bool = False) -> list[int]:
        def belongs(index: int) -> bool:
            query = self.traces.queries[index]
            return (query.benchmark if prefix else query.category) == category

        return [index for index in self.train if belongs(index)]

    def log_odds(self, category: str, backbone: str) -> float:
        key = (category, backbone)
        if key not in self._log_odds:
            column = self.traces.backbones.index(backbone)

            def counts(rows: list[int]) -> tuple[int, int]:
                cells = [int(c) for row in rows for c in self.traces.samples.correct[row, column]]
                return cells.count(1), len(cells) - cells.count(-1)

            right, answered = counts(self.rows(category.split("/")[0], prefix=True))
            overall = (right + 1) / (answered + 2)
            right, answered = counts(self.rows(category))
            rate = (right + 8 * overall) / (answered + 8)
            self._log_odds[key] = math.log(rate / (1 - rate))
        return self._log_odds[key]

    def near(self, category: str, backbone: str) -> tuple[list[str], float]:
        """The four backbones of closest ability, and how often they agree with this one."""
        key = (category, backbone)
        if key not in self._near:
            own = self.log_odds(category, backbone)
            others = [name for name in self.traces.backbones if name != backbone]
            others.sort(key=lambda name: abs(self.log_odds(category, name) - own))
            similar = others[:4]

            def same(rows: list[int], similar: list[str]) -> tuple[int, int]:
                equal = compared = 0
                me = self.traces.backbones.index(backbone)
                for name in similar:
                    you = self.traces.backbones.index(name)
                    for row in rows:
                        correct, answer = self.traces.correct[row], self.traces.answer[row]
                        if correct[me] < 0 or correct[you] < 0:
                            continue
                        compared += 1
                        if answer[me] < 0 and answer[you] < 0:
                            equal += int(correct[me] == correct[you])
                        else:
                            equal += int(answer[me] == answer[you])
                return equal, compared

            benchmark = category.split("/")[0]
            parts = {q.category for q in self.traces.queries if q.benchmark == benchmark}
            sums = [
                same(
                    self.rows(part),
                    similar if part == category else self.near_names(part, own=backbone),
                )
                for part in sorted(parts)
            ]
            equal, compared = (sum(values) for values in zip(*sums, strict=True))
            prior = (equal + 10 * 0.7) / (compared + 10)
            equal, compared = same(self.rows(category), similar)
            self._near[key] = (similar, (equal + 10 * prior) / (compared + 10))
        return self._near[key]

    def near_names(self, category: str, own: str) -> list[str]:
        mine = self.log_odds(category, own)
        others = [name for name in self.traces.backbones if name != own]
        return sorted(others, key=lambda name: abs(self.log_odds(category, name) - mine))[:4]

    def call(
        self,
        query_key: str,
        agent: str,
        backbone: str,
        peers: Sequence[PeerReply],
        output_cap: int | None,
        sample: int | None = None,
    ) -> Reply:
        traces = self.traces
        row, column = traces.index(query_key), traces.backbones.index(backbone)
        entry = traces.catalog[backbone]
        query = traces.queries[row]
        if sample is None:
            sample = sum(peer.backbone == backbone for peer in peers)
        if self.copies == "identical":
            sample = 0
        keys = draw_keys(
            self.seed, string_key(query_key), string_key(backbone), string_key(agent), 0
        )
        missing = traces.correct[row, column] < 0
        if missing:
            same = [i for i, q in enumerate(traces.queries) if q.benchmark == query.benchmark]
            there = [i for i in same if traces.correct[i, column] >= 0]
            prompt = round(float(np.mean(traces.prompt_tokens[there, column])))
            visible = round(float(np.mean(traces.visible_tokens[there, column])))
            answer, correct = -1, False
        else:
            depth = traces.samples.correct.shape[2]
            real = sample
            if sample >= depth or traces.samples.correct[row, column, sample] < 0:
                real = 0
            prompt = int(traces.samples.prompt_tokens[row, column, real])
            visible = int(traces.samples.visible_tokens[row, column, real])
            source = column
            if sample > 0 and real == 0:
                similar, repeats = self.near(query.category, backbone)
                copy = draw_keys(self.seed, string_key(query_key), string_key(backbone), sample)
                if uniforms(draw_keys(0, copy, string_key("copy repeats itself")))[0] >= repeats:
                    draw = uniforms(draw_keys(0, copy, string_key("copy takes from")))[0]
                    other = traces.backbones.index(similar[int(draw * 4)])
                    if traces.correct[row, other] >= 0:
                        source = other
            answer = int(traces.samples.answer[row, source, real])
            correct = bool(traces.samples.correct[row, source, real] == 1)
            answer, correct = self.read(query.category, backbone, answer, correct, peers, keys)
        prompt += sum(peer.visible_tokens for peer in peers)
        hidden = entry.hidden_tokens.get(query.benchmark, 0)
        cap = entry.max_output_tokens if output_cap is None else output_cap
        cap = min(cap, entry.max_output_tokens)
        cut = visible + hidden > cap
        if cut:
            answer, correct = -1, False
            visible, hidden = max(0, cap - hidden), min(hidden, cap)
        ttfts = sorted(b.ttft_s for b in traces.catalog.values() if b.ttft_s is not None)
        speeds = sorted(
            b.tokens_per_s for b in traces.catalog.values() if b.tokens_per_s is not None
        )
        ttft = middle(ttfts) if entry.ttft_s is None else entry.ttft_s
        speed = middle(speeds) if entry.tokens_per_s is None else entry.tokens_per_s
        noise = float(normals(draw_keys(0, keys, string_key("latency")))[0])
        return Reply(
            backbone=backbone,
            answer=answer,
            correct=correct,
            prompt_tokens=prompt,
            visible_tokens=visible,
            hidden_tokens=hidden,
            latency_s=(ttft + (visible + hidden) / speed) * math.exp(0.2 * noise - 0.02),
            finish="length" if cut else "stop",
            cost_nanodollars=math.ceil(
                Fraction(entry.price_in_usd_per_mtok) * 1000 * prompt
                + Fraction(entry.price_out_usd_per_mtok) * 1000 * (visible + hidden)
            ),
        )

    def read(
        self,
        category: str,
        backbone: str,
        answer: int,
        correct: bool,
        peers: Sequence[PeerReply],
        keys: np.ndarray,
    ) -> tuple[int, bool]:
        said = [peer for peer in peers if peer.answer >= 0]
        if all(peer.answer == answer for peer in said):
            return answer, correct
        key = draw_keys(0, keys, string_key("answer after reading"))

        def noise(option: int) -> float:
            code = np.array([option], dtype=np.int64).view(np.uint64)
            draw = float(uniforms(draw_keys(1, key, code))[0])
            return -math.log(-math.log(max(draw, 2.0**-54)))

        utility: dict[int, float] = {}
        right: dict[int, bool] = {}
        if answer >= 0 or correct:
            utility[answer] = 0.04 + 0.96
            right[answer] = correct
        for peer in said:
            utility[peer.answer] = utility.get(peer.answer, 0.0) + 0.96
            right.setdefault(peer.answer, peer.correct)
        for option in utility:
            utility[option] += 0.34 * right[option]
        utility[-2] = -0.28 + 0.34 * (not any(right.values()))
        best = max(utility, key=lambda option: utility[option] + noise(option))
        if best == -2:
            return (int(draw_keys(0, key)[0]) >> 34) + 2**30, False
        return best, right[best]


def middle(values: Sequence[float]) -> float:
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def plain_outcome(
    backbones: PlainBackbones, key: str, plan: Plan, samples: Mapping[str, int] | None = None
) -> Outcome:
    """The plan on one query, by the plain rules."""
    chosen = samples or {}
    return execute(
        plan,
        lambda agent, backbone, peers, cap: backbones.call(
            key, agent, backbone, peers, cap, chosen.get(agent)
        ),
    )
