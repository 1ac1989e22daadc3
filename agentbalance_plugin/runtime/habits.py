"""How a team's agents work, as far as its earlier runs tell."""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentbalance_plugin.plan import Expected, Plan
from agentbalance_plugin.runtime.call import CallRecord

# Messages that say enough of those to come, and how many of them are remembered.
_ENOUGH = 2
_REMEMBERED = 8
# Of a mean over runs, the last one's part is at least this: teams change.
_LEAST_WEIGHT = 1 / 32
# How fast the longest prompt is forgotten: the next one that is as long must not be denied again.
_FORGET = 1 / 8
# Of the logarithm of a length. Backbones that are chosen are those whose replies were predicted too
# short, a little; corrected for these alone, those that are not would always look better.
_NO_SURPRISE = 0.35
# Replies that are almost empty say nothing of the next one's length.
_LEAST_LENGTH = 0.05
# How much longer a reply would have been that was cut off by its cap.
_IF_CUT = 2.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a turn of an agent takes, beside one call that is predicted from the task alone.

    Args:
        lengths: backbone -> how many times as long its replies are as predicted, beyond a margin.
        length: the same of backbones that were not called yet.
        calls: prompts that a turn sends: with tools several, of agents that are seldom asked less
            than one.
        replies: output tokens of a turn, in replies as long as its longest.
        extra_tokens: of a prompt, that are in no text known beforehand: definitions and results of
            tools, what nodes add.
        most_extra_tokens: of the longest prompt that an agent had lately.
    """

    lengths: Mapping[str, float] = field(default_factory=dict[str, float])
    length: float = 1.0
    calls: float = 1.0
    replies: float = 1.0
    extra_tokens: float = 0.0
    most_extra_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long a backbone's replies are beside the predicted length, as a ratio of means, so that
    their sum is met.

    Args:
        runs: that it is known of.
        expected, measured: tokens of a run's replies, a mean over them.
    """

    runs: int
    expected: float
    measured: float

    @property
    def surprise(self) -> float:
        """Logarithm of the ratio, less what is no surprise."""
        found = math.log(max(self.measured / self.expected, _LEAST_LENGTH))
        return math.copysign(max(0.0, abs(found) - _NO_SURPRISE), found)

    def noting(self, replies: Sequence[tuple[float, float]]) -> Lengths:
        """With (predicted, measured) tokens of the replies of another run."""
        expected, measured = _sums(replies)
        runs = self.runs + 1
        weight = max(1.0 / (runs + 1), _LEAST_WEIGHT)
        return Lengths(
            runs, _nearer(self.expected, expected, weight), _nearer(self.measured, measured, weight)
        )

    @classmethod
    def of(cls, replies: Sequence[tuple[float, float]]) -> Lengths:
        """Of the first run; what is predicted counts as one more."""
        expected, _ = _sums(replies)
        return cls(0, expected, expected).noting(replies)


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is kept of runs.

    Args:
        runs: that `work` is of.
        lengths: by backbone; those of `work` follow from it.
        answers: whether the last messages had an answer that can be compared.
        passes: whether the first pass of the last plans ended their chats.
    """

    runs: int
    work: Work
    lengths: Mapping[str, Lengths]
    answers: tuple[bool, ...]
    passes: tuple[bool, ...]


UNKNOWN_WORK = Work()
_NOTHING = Expected(0.0, 0.0, 0.0)


class Habits:
    """What the last runs were like. Safe to use from several threads."""

    def __init__(self) -> None:
        self._answers: deque[bool] = deque(maxlen=_REMEMBERED)
        self._passes: deque[bool] = deque(maxlen=_REMEMBERED)
        self._runs = 0
        self._lengths: dict[str, Lengths] = {}
        self._work = UNKNOWN_WORK
        self._lock = threading.Lock()

    @property
    def comparable(self) -> bool:
        """Whether agents give answers that can be compared: False once several messages in a row
        had none."""
        last = tuple(self._answers)
        return len(last) < _ENOUGH or any(last)

    @property
    def work(self) -> Work:
        """A mean over the runs, the last ones first of all."""
        return self._work

    @property
    def one_pass_does(self) -> bool:
        """Whether plans that choose among the agents end a chat that something said must end: False
        once most of the last did not."""
        last = tuple(self._passes)
        return 2 * sum(last) >= len(last)

    def note_pass(self, *, ended: bool) -> None:
        """Whether the first pass of such a plan did."""
        self._passes.append(ended)

    def note_answers(self, answers: Iterable[str | None]) -> None:
        """What the messages of a run gave: None for one without an answer."""
        self._answers.extend([answer is not None for answer in answers])

    def note_calls(
        self,
        plan: Plan,
        calls: Iterable[CallRecord],
        *,
        told: Work,
        denied: Mapping[str, float],
        rounds: float = 1.0,
        complete: bool = True,
        goes_on: bool = False,
    ) -> None:
        """What the calls of a run took.

        Args:
            plan: the run's.
            calls: of all its agents.
            told: what the plan was made with.
            denied: agents whose calls the budget had no room for -> prompt tokens of such a call.
            rounds: how often the run is taken to have gone through all agents.
            complete: whether agents that made no call were not asked; else the run may have ended
                before.
            goes_on: whether prompts held what was said before, too, which says nothing of
                `extra_tokens`.
        """
        taken = _taken(plan, calls, denied, complete)
        if not taken.prompts:
            return
        one = plan.expected or _NOTHING
        with self._lock:
            self._runs += 1
            weight = max(1.0 / self._runs, _LEAST_WEIGHT)
            made = _nearer(self._work.calls, taken.calls / rounds, weight)
            work = replace(self._work, calls=made)
            if taken.turns:
                written = _nearer(work.replies, taken.replies / rounds, weight)
                work = replace(work, replies=written)
            if one.prompt_tokens > 0.0 and not goes_on:
                mean, most = taken.extra(plan, one.prompt_tokens - told.extra_tokens)
                lower = _nearer(work.most_extra_tokens, most, _FORGET)
                work = replace(
                    work,
                    extra_tokens=_nearer(work.extra_tokens, max(0.0, mean), weight),
                    most_extra_tokens=max(0.0, most, lower),
                )
            if replied := taken.replied(plan, told):
                for backbone, pairs in replied.items():
                    known = self._lengths.get(backbone)
                    self._lengths[backbone] = known.noting(pairs) if known else Lengths.of(pairs)
                work = self._with_lengths(work)
            self._work = work

    @property
    def memory(self) -> Memory:
        """What all of this rests on, as it is now."""
        with self._lock:
            lengths, answers, passes = dict(self._lengths), self._answers, self._passes
            return Memory(self._runs, self._work, lengths, tuple(answers), tuple(passes))

    def remember(self, memory: Memory) -> None:
        """Go on from what other runs left, in place of what is known."""
        with self._lock:
            self._runs = memory.runs
            self._lengths = dict(memory.lengths)
            self._answers = deque(memory.answers, maxlen=_REMEMBERED)
            self._passes = deque(memory.passes, maxlen=_REMEMBERED)
            self._work = self._with_lengths(memory.work)

    def _with_lengths(self, work: Work) -> Work:
        return replace(work, lengths=self._all_lengths(), length=self._usual_length())

    def _all_lengths(self) -> dict[str, float]:
        return {name: math.exp(each.surprise) for name, each in self._lengths.items()}

    def _usual_length(self) -> float:
        """Of any backbone. One that never stops says little of the others, so that what was
        predicted counts as one more of them."""
        surprises = [each.surprise for each in self._lengths.values()]
        return math.exp(sum(surprises) / (len(surprises) + 1))


@dataclass(frozen=True, slots=True)
class _Taken:
    """What the agents of a plan took in a run.

    Args:
        turns: agent -> its calls whose usage is known.
        prompts: agent -> tokens of its prompts, of a call that had no room too.
        idle: agents that nobody asked.
        cut_short: whether a call's usage is unknown: it was given up, most likely.
    """

    turns: Mapping[str, Sequence[CallRecord]]
    prompts: Mapping[str, Sequence[float]]
    idle: int
    cut_short: bool

    @property
    def calls(self) -> float:
        """Of an agent."""
        return sum(map(len, self.prompts.values())) / (len(self.prompts) + self.idle)

    @property
    def replies(self) -> float:
        """Of an agent, as many times as its longest."""
        written = sum(
            sum(call.completion_tokens for call in turn) / max(1.0, _longest(turn))
            for turn in self.turns.values()
        )
        return written / (len(self.turns) + self.idle)

    def extra(self, plan: Plan, known: float) -> tuple[float, float]:
        """Tokens of a prompt beyond those that were known and those heard of others: (mean over
        the agents, most)."""
        means: list[float] = []
        most: list[float] = []
        for name, sent in self.prompts.items():
            heard = sum(
                self.turns[parent][-1].completion_tokens
                for parent in plan.parents(name)
                if parent in self.turns
            )
            means.append(sum(sent) / len(sent) - heard - known)
            most.append(max(sent) - heard - known)
        return sum(means) / len(means), max(most)

    def replied(self, plan: Plan, told: Work) -> dict[str, list[tuple[float, float]]]:
        """Backbone -> (predicted, measured) tokens of the agents' replies, where it is the one
        that was planned; empty where long ones were not waited for, and only short ones are
        known."""
        if self.cut_short or plan.stop_at is not None:
            return {}
        found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        predicted = (plan.expected or _NOTHING).reply_tokens
        for name, turn in self.turns.items():
            backbone = turn[-1].backbone
            if name in predicted and backbone == plan.assignment[name]:
                usual = predicted[name] / told.lengths.get(backbone, told.length)
                found[backbone].append((usual, _longest(turn)))
        return dict(found)


def _taken(
    plan: Plan, calls: Iterable[CallRecord], denied: Mapping[str, float], complete: bool
) -> _Taken:
    called, cut_short = set(denied), False
    turns: defaultdict[str, list[CallRecord]] = defaultdict(list)
    prompts: defaultdict[str, list[float]] = defaultdict(list)
    for call in calls:
        called.add(call.agent)
        if not plan.assignment.get(call.agent):
            continue
        cut_short |= not call.metered
        if call.metered:
            turns[call.agent].append(call)
            prompts[call.agent].append(call.prompt_tokens)
    for name in denied.keys() & plan.assignment.keys():
        # With its room it would have been made.
        prompts[name].append(denied[name])
    # One behind a late gate that stayed shut is accounted for by the plan.
    idle = sum(
        backbone is not None and name not in called and name not in plan.late_gates
        for name, backbone in plan.assignment.items()
    )
    return _Taken(turns, prompts, idle if complete else 0, cut_short)


def _longest(turn: Sequence[CallRecord]) -> float:
    return max(call.completion_tokens * (_IF_CUT if call.cut else 1.0) for call in turn)


def _nearer(value: float, found: float, weight: float) -> float:
    return value + weight * (found - value)


def _sums(replies: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(one for one, _ in replies), sum(found for _, found in replies)
