"""How a team's agents work, as far as its earlier runs tell."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from agentbalance_plugin.plan import Expected, Plan
from agentbalance_plugin.runtime.call import CallRecord

# Messages that say enough of those to come, and how many of them are remembered.
_ENOUGH = 2
_REMEMBERED = 8
# Of a mean over runs, the last one's part is at least this: teams change.
_LEAST_WEIGHT = 1 / 32
# How fast the longest prompt is forgotten: the next one that is as long must not be denied again.
_FORGET = 1 / 8
# How much longer a reply would have been that was cut off by its cap.
_IF_CUT = 2.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a turn of an agent takes, beside one call that is predicted from the task alone.

    Args:
        length: how many times as long replies are as predicted.
        calls: prompts that a turn sends: with tools several, of agents that are seldom asked less
            than one.
        replies: output tokens of a turn, in replies as long as its longest.
        extra_tokens: of a prompt, that are in no text known beforehand: definitions and results of
            tools, what nodes add.
        most_extra_tokens: of the longest prompt that an agent had lately.
    """

    length: float = 1.0
    calls: float = 1.0
    replies: float = 1.0
    extra_tokens: float = 0.0
    most_extra_tokens: float = 0.0


UNKNOWN_WORK = Work()
_NOTHING = Expected(0.0, 0.0, 0.0)


class Habits:
    """What the last runs were like. Safe to use from several threads."""

    def __init__(self) -> None:
        self._answers: deque[bool] = deque(maxlen=_REMEMBERED)
        self._runs = 0
        self._expected = self._measured = 0.0
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
        called = set(denied)
        turns: defaultdict[str, list[CallRecord]] = defaultdict(list)
        for call in calls:
            called.add(call.agent)
            if call.metered:
                turns[call.agent].append(call)
        spoke = {name: turn for name, turn in turns.items() if plan.assignment.get(name)}
        prompts: defaultdict[str, list[float]] = defaultdict(list)
        for name, turn in spoke.items():
            prompts[name] += [call.prompt_tokens for call in turn]
        for name in denied.keys() & plan.assignment.keys():
            # With its room it would have been made.
            prompts[name].append(denied[name])
        if not prompts:
            return
        idle = 0
        if complete:
            # One behind a late gate that stayed shut is accounted for by the plan.
            idle = sum(
                backbone is not None and name not in called and name not in plan.late_gates
                for name, backbone in plan.assignment.items()
            )
        longest = {name: max(_whole(call) for call in turn) for name, turn in spoke.items()}
        replies = sum(
            sum(call.completion_tokens for call in turn) / max(1.0, longest[name])
            for name, turn in spoke.items()
        ) / max(1, len(spoke) + idle)
        number = sum(map(len, prompts.values())) / (len(prompts) + idle)
        one = plan.expected or _NOTHING
        expected = sum(one.reply_tokens.get(name, 0.0) for name in spoke) / told.length
        measured = sum(longest[name] for name in spoke if name in one.reply_tokens)
        known = one.prompt_tokens - told.extra_tokens
        heard = {
            name: sum(turns[p][-1].completion_tokens for p in plan.parents(name) if p in turns)
            for name in prompts
        }
        extra = [sum(sent) / len(sent) - heard[name] - known for name, sent in prompts.items()]
        most = max(max(sent) - heard[name] - known for name, sent in prompts.items())
        with self._lock:
            self._runs += 1
            weight = max(1.0 / self._runs, _LEAST_WEIGHT)
            work = replace(
                self._work,
                calls=_nearer(self._work.calls, number / rounds, weight),
            )
            if spoke:
                written = _nearer(work.replies, replies / rounds, weight)
                work = replace(work, replies=written)
            if one.prompt_tokens > 0.0 and not goes_on:
                mean = max(0.0, sum(extra) / len(extra))
                lower = _nearer(work.most_extra_tokens, most, _FORGET)
                work = replace(
                    work,
                    extra_tokens=_nearer(work.extra_tokens, mean, weight),
                    most_extra_tokens=max(0.0, most, lower),
                )
            if expected > 0.0:
                # Profiles say something of lengths, as much as a run. A ratio of sums, so that the
                # mean length is met.
                weight = max(1.0 / (self._runs + 1), _LEAST_WEIGHT)
                self._expected = _nearer(self._expected or expected, expected, weight)
                self._measured = _nearer(self._measured or expected, measured, weight)
                work = replace(work, length=self._measured / self._expected)
            self._work = work


def _whole(call: CallRecord) -> float:
    return call.completion_tokens * (_IF_CUT if call.cut else 1.0)


def _nearer(value: float, found: float, weight: float) -> float:
    return value + weight * (found - value)
