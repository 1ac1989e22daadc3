"""Asking backbones questions whose answers are known, so that they can be profiled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from autogen_core.models import ChatCompletionClient, CreateResult, UserMessage

from agentbalance_plugin.adapters.autogen.client import BudgetClient
from agentbalance_plugin.adapters.autogen.endpoints import Backbones, clients_for
from agentbalance_plugin.adapters.autogen.prompt_bound import prompt_bound
from agentbalance_plugin.backbone import Backbone
from agentbalance_plugin.budget import NANODOLLARS_PER_USD, Budget
from agentbalance_plugin.core.prediction import BYTES_PER_TOKEN
from agentbalance_plugin.core.recording import Question, Recorded, called
from agentbalance_plugin.runtime.answers import canonical, extract_answer
from agentbalance_plugin.runtime.byte_bound import size
from agentbalance_plugin.runtime.call import CallDenied, CallRecord
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.tokenizers import measure_of

INSTRUCTION = "End with a line that says 'Answer:' and your answer, nothing else."

Grade = Callable[[Question, str, str | None], bool]
"""(question, reply, the answer in the reply) -> whether it is right."""

_CHOICE = re.compile(r"\(?([a-z])[.):,]\s")
_NUMBER = re.compile(r"([-+$\d.,]*\d%?)\s+\D*$")
_FAILURES_IN_A_ROW = 3
# What endpoints say of a request that they do not take: filtered, too long, not allowed.
_REFUSED = (400, 403, 413, 422)
# Characters of a reply in which no answer was found.
_KEPT = 200
# A first token that comes when nearly all of the reply does was no stream.
_IN_ONE_PIECE = 0.95


def same_answer(question: Question, reply: str, answer: str | None) -> bool:
    """Whether the answer in the reply is the right one, however a number is written.

    A letter or a number may be followed by what it stands for: "B. Paris", "42 km".
    """
    if answer is None:
        return False
    # Read as a reply's is, so that what reading takes off (a full stop, quotes) is off both.
    right = extract_answer(f"Answer: {' '.join(question.answer.split())}") or question.answer
    right, said = right.casefold(), answer.casefold()
    if said == right:
        return True
    found = (_CHOICE if right.isalpha() else _NUMBER).match(said)
    return found is not None and canonical(found[1]).casefold() == right


async def record_answers(
    questions: Sequence[Question],
    backbones: Backbones,
    max_cost_usd: float,
    keep: Callable[[Recorded], None],
    *,
    known: Collection[tuple[str, str]] = (),
    grade: Grade = same_answer,
    instruction: str = INSTRUCTION,
    at_once: int = 4,
) -> dict[str, str]:
    """Ask every backbone every question, in order.

    No more than `max_cost_usd` is spent: a question is asked when the worst that it can cost is
    left, so that no reply is cut short by the budget.

    Args:
        questions: for each backbone in this order, but that those which failed in an earlier run
            come last.
        backbones: as `wrap_groupchat` takes them.
        max_cost_usd: US dollars that all calls together may cost.
        keep: is told each answer as soon as it is there.
        known: (question id, backbone) that need not be asked.
        grade: what is right.
        instruction: follows each question.
        at_once: calls of one backbone that run side by side.

    Returns:
        backbone -> why it has not answered all questions.

    Raises:
        ValueError: bad backbones or no budget, before anything is sent.
    """
    purse = _Purse(Budget(cost_usd=max_cost_usd).nanodollars or 0)
    clients = clients_for(backbones)
    stopped: dict[str, str] = {}
    failed: dict[str, list[Exception]] = {}

    async def work(desk: _Desk, open_questions: Iterator[Question]) -> None:
        for question in open_questions:
            if desk.backbone.name in stopped:
                return
            try:
                reply = await desk.ask(question)
            except _NoRoom as error:
                stopped.setdefault(desk.backbone.name, str(error))
                return
            except Exception as error:
                # One bad question must not end the rest; a wrong key or name ends them all.
                failed.setdefault(desk.backbone.name, []).append(error)
                if desk.has_answered and _status(error) in _REFUSED:
                    continue
                desk.failures += 1
                if desk.failures >= _FAILURES_IN_A_ROW:
                    stopped.setdefault(desk.backbone.name, _said(error))
                continue
            desk.failures = 0
            desk.has_answered = True
            answer = extract_answer(reply.text)
            keep(desk.recorded(question, reply, answer, grade(question, reply.text, answer)))

    try:
        async with asyncio.TaskGroup() as group:
            for name, backbone in clients.catalog.items():
                answered = {question for question, who in known if who == name}
                desk = _Desk(backbone, clients(name), purse, instruction, bool(answered))
                todo = iter(_to_ask(questions, answered))
                for _ in range(at_once):
                    group.create_task(work(desk, todo))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await clients.close()
    for name, errors in failed.items():
        stopped.setdefault(name, f"failed on {len(errors)}, the last time by {_said(errors[-1])}")
    return stopped


def _to_ask(questions: Sequence[Question], answered: Collection[str]) -> list[Question]:
    """Those without an answer. What an earlier run came past without one comes last, so that
    questions that fail each time do not keep others from being asked."""
    tried = max((n for n, q in enumerate(questions, start=1) if q.id in answered), default=0)
    in_turn = (*questions[tried:], *questions[:tried])
    return [question for question in in_turn if question.id not in answered]


class _NoRoom(Exception):
    """The budget has no room for a question, and will have none."""


@dataclass
class _Purse:
    """What is left for calls, less the worst cases of those under way."""

    nanodollars: int
    held: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, worst: int) -> None:
        """Hold `worst` as soon as there is room (_NoRoom where there will be none)."""
        async with self.changed:
            while self.nanodollars - self.held < worst:
                if not self.held:
                    raise _NoRoom(
                        "the budget has no room for its next call, which may cost "
                        f"{worst / NANODOLLARS_PER_USD:.6f} USD, of which "
                        f"{self.nanodollars / NANODOLLARS_PER_USD:.6f} are left; allow more, or "
                        "lower its max_output_tokens"
                    )
                await self.changed.wait()
            self.held += worst

    async def settle(self, worst: int, spent: int) -> None:
        async with self.changed:
            self.held -= worst
            self.nanodollars -= spent
            self.changed.notify_all()


@dataclass
class _Desk:
    """Where one backbone is asked.

    Args:
        has_answered: whether it has answered any question, so that what it refuses is the
            question's fault.
        failures: calls in a row that failed.
    """

    backbone: Backbone
    client: ChatCompletionClient
    purse: _Purse
    instruction: str
    has_answered: bool
    failures: int = 0

    async def ask(self, question: Question) -> _Reply:
        """One question (_NoRoom: the budget has no room for it). Failures are raised."""
        prompt = [UserMessage(content=f"{question.text}\n\n{self.instruction}", source="user")]
        bound = prompt_bound(prompt, measure=measure_of(self.backbone))
        worst = self.backbone.cost(bound, self.backbone.max_output_tokens)
        await self.purse.take(worst)
        # Of one call's size, so that a retry is made only where nothing was billed.
        meter = Meter(Budget(cost_usd=worst / NANODOLLARS_PER_USD))
        try:
            return await self._read(prompt, meter)
        finally:
            # What is under way when all is cancelled is booked in full.
            meter.close()
            await asyncio.shield(self.purse.settle(worst, meter.spend().nanodollars))

    async def _read(self, prompt: Sequence[UserMessage], meter: Meter) -> _Reply:
        client = BudgetClient(self.client, self.backbone, meter, self.backbone.name)
        first: float | None = None
        text = ""
        async for part in client.create_stream(prompt):
            if isinstance(part, CreateResult):
                text = str(part.content)
            elif first is None:
                first = meter.clock.now() - meter.started
        call = meter.calls[-1]
        return _Reply(text, call, first, meter.spend().nanodollars)

    def recorded(
        self, question: Question, reply: _Reply, answer: str | None, correct: bool
    ) -> Recorded:
        call, total = reply.call, reply.call.ended_s - reply.call.started_s
        said = round(size(reply.text) / BYTES_PER_TOKEN)
        prompt, completion = call.prompt_tokens, call.completion_tokens
        if not call.metered:
            # The endpoint told no usage, and what was booked is the worst case.
            prompt, completion = round(size(question.text) / BYTES_PER_TOKEN), said
        # Endpoints bill hidden tokens together with the reply; its length tells them apart.
        visible = completion if self.backbone.reasoning == "no" else min(completion, said)
        begun = None if reply.first_s is None else reply.first_s - call.started_s
        return Recorded(
            question=question.id,
            backbone=self.backbone.name,
            answer=answer,
            correct=bool(correct),
            prompt_tokens=prompt,
            visible_tokens=visible,
            hidden_tokens=completion - visible,
            first_s=begun if begun is not None and begun < _IN_ONE_PIECE * total else None,
            total_s=total,
            nanodollars=reply.nanodollars,
            called=called(self.backbone),
            said=reply.text.strip()[-_KEPT:] if answer is None else "",
            metered=call.metered,
        )


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply that was paid for.

    Args:
        first_s: when its first token came, in seconds of the call's meter.
        nanodollars: what it, and tries that failed before it, cost.
    """

    text: str
    call: CallRecord
    first_s: float | None
    nanodollars: int


def _said(error: Exception) -> str:
    """What failed; not the endpoint's own words, which may quote a key."""
    status = _status(error)
    return type(_cause(error)).__name__ + (f" (status {status})" if status else "")


def _status(error: Exception) -> int | None:
    return getattr(_cause(error), "status_code", None)


def _cause(error: Exception) -> Exception:
    if isinstance(error, CallDenied) and isinstance(error.__cause__, Exception):
        # The failed call was billed and has used up what there was for the question.
        return error.__cause__
    return error
