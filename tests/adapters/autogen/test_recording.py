"""Backbones are asked questions whose answers are known, for no more than was allowed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from chats import LARGE, MINI, Bench

from agentbalance_plugin import Catalog
from agentbalance_plugin.adapters.autogen.recording import record_answers, same_answer
from agentbalance_plugin.backbone import Endpoint
from agentbalance_plugin.core.recording import Question, Recorded

pytestmark = pytest.mark.virtual_time


def questions(bench: Bench, count: int) -> list[Question]:
    """Recorded ones; the simulator answers with the numbers of their answers."""
    traces = bench.replay.traces
    found: list[Question] = []
    for number in range(count):
        row = traces.index(bench.key(number))
        right = traces.answer[row][traces.correct[row] == 1]
        found.append(Question(bench.task(number), str(right[0]) if len(right) else "none"))
    return found


async def asked(
    bench: Bench, count: int, catalog: Catalog, max_cost_usd: float = 5.0, **more: Any
) -> tuple[list[Recorded], dict[str, str]]:
    kept: list[Recorded] = []
    stopped = await record_answers(
        questions(bench, count), catalog, max_cost_usd, kept.append, **more
    )
    return kept, stopped


async def test_answers_are_those_that_were_recorded(bench: Bench) -> None:
    kept, stopped = await asked(bench, 12, bench.catalog(MINI, LARGE))
    assert stopped == {}
    assert len(kept) == 24
    traces = bench.replay.traces
    of = {q.id: traces.index(bench.key(n)) for n, q in enumerate(questions(bench, 12))}
    for each in kept:
        cell = of[each.question], traces.backbones.index(each.backbone)
        assert each.correct == (traces.correct[cell] == 1)
        assert each.visible_tokens == traces.visible_tokens[cell]
        assert each.prompt_tokens == traces.prompt_tokens[cell]
        assert each.hidden_tokens == 0
        assert each.first_s is not None
        assert 0.0 < each.first_s < each.total_s
    assert sum(each.nanodollars for each in kept) == bench.billed()


async def test_the_budget_holds_and_no_reply_is_cut_short_by_it(bench: Bench) -> None:
    kept, stopped = await asked(bench, 40, bench.catalog(MINI, LARGE), 0.08)
    assert set(stopped) == {LARGE}
    said = re.search(r"no room .* cost ([\d.]+) USD, of which ([\d.]+) are left", stopped[LARGE])
    assert said is not None
    assert 0.0 < float(said[2]) < float(said[1]) < 0.08
    assert bench.billed() <= 80_000_000
    assert {entry.finish for entry in bench.simulator.books.entries} == {"stop"}
    # The cheap one goes on where the dear one has to stop.
    assert sum(each.backbone == MINI for each in kept) == 40
    assert 0 < sum(each.backbone == LARGE for each in kept) < 40


async def test_what_is_known_is_not_asked_again(bench: Bench) -> None:
    first, *_ = questions(bench, 5)
    kept, _ = await asked(bench, 5, bench.catalog(MINI), known={(first.id, MINI)})
    assert len(kept) == len(bench.simulator.books.entries) == 4
    assert first.id not in {each.question for each in kept}


async def test_a_backbone_that_cannot_be_reached_stops_alone(bench: Bench) -> None:
    catalog = bench.catalog(MINI, LARGE)
    nowhere = Endpoint(model="nothing", base_url=bench.simulator.base_url)
    broken = Catalog([catalog[MINI], replace(catalog[LARGE], endpoint=nowhere)])
    kept, stopped = await asked(bench, 10, broken, at_once=1)
    assert stopped == {LARGE: "NotFoundError (status 404)"}
    assert [each.backbone for each in kept] == [MINI] * 10


async def test_a_question_that_fails_alone_is_told_of(bench: Bench) -> None:
    asked_for = questions(bench, 3)
    asked_for.insert(1, Question(f"[[fault:500]] {bench.task(5)}", "7"))
    kept: list[Recorded] = []
    told = await record_answers(asked_for, bench.catalog(MINI), 5.0, kept.append)
    assert len(kept) == 3
    assert told == {MINI: "failed on 1, the last time by InternalServerError (status 500)"}


async def test_questions_that_are_always_refused_do_not_keep_others_from_being_asked(
    bench: Bench,
) -> None:
    refused = [Question(f"[[fault:filtered]] {bench.task(n)}", "7") for n in range(4)]
    first, *others = questions(bench, 4)
    kept: list[Recorded] = []
    again = {(first.id, MINI)}
    told = await record_answers(
        [first, *refused, *others], bench.catalog(MINI), 5.0, kept.append, known=again, at_once=1
    )
    assert [each.question for each in kept] == [question.id for question in others]
    assert told == {MINI: "failed on 4, the last time by BadRequestError (status 400)"}
    # Whoever has never answered is no endpoint for these calls.
    told = await record_answers(refused, bench.catalog(MINI), 5.0, kept.append, at_once=1)
    assert told == {MINI: "BadRequestError (status 400)"}


async def test_what_failed_in_an_earlier_run_is_asked_last(bench: Bench) -> None:
    broken = [Question(f"[[fault:500]] {bench.task(n)}", "7") for n in range(4)]
    first, second, *others = questions(bench, 4)
    kept: list[Recorded] = []
    asked_for, known = [first, *broken, second, *others], {(first.id, MINI), (second.id, MINI)}
    told = await record_answers(
        asked_for, bench.catalog(MINI), 5.0, kept.append, known=known, at_once=1
    )
    assert [each.question for each in kept] == [question.id for question in others]
    assert told == {MINI: "InternalServerError (status 500)"}


async def test_an_endpoint_that_bills_what_it_fails_stops_with_its_own_error(bench: Bench) -> None:
    broken = [Question(f"[[fault:500]] {bench.task(n)}", "7") for n in range(4)]
    told = await record_answers(broken, bench.catalog(MINI), 5.0, list[Recorded]().append)
    assert told == {MINI: "InternalServerError (status 500)"}


async def test_hidden_tokens_are_told_from_the_length_of_a_reply(bench: Bench) -> None:
    catalog = bench.catalog(MINI)
    reasoning = Catalog([replace(catalog[MINI], reasoning="yes")])
    [each], _ = await asked(bench, 1, reasoning)
    entry = bench.simulator.books.entries[0]
    assert each.visible_tokens + each.hidden_tokens == entry.completion_tokens
    assert 0 < each.visible_tokens < entry.completion_tokens


async def test_the_end_of_a_reply_without_an_answer_is_kept(bench: Bench) -> None:
    [whole], _ = await asked(bench, 1, bench.catalog(MINI))
    short = replace(bench.catalog(MINI)[MINI], max_output_tokens=60)
    [cut], _ = await asked(bench, 1, Catalog([short]))
    assert (whole.answer is None, whole.said) == (False, "")
    assert cut.answer is None
    assert 0 < len(cut.said) <= 200


async def test_an_endpoint_without_usage_does_not_make_a_profile_of_worst_cases(
    bench: Bench,
) -> None:
    [question] = questions(bench, 1)
    unmetered = replace(question, text=f"[[fault:no_usage]] {question.text}")
    kept: list[Recorded] = []
    await record_answers([unmetered], bench.catalog(MINI), 1.0, kept.append)
    worst = bench.catalog(MINI)[MINI].max_output_tokens
    assert 0 < kept[0].visible_tokens < worst / 2
    # What it may have cost is booked all the same.
    assert kept[0].nanodollars > bench.billed()
    assert not kept[0].metered


async def test_a_grade_of_ones_own_decides_and_its_error_is_the_callers(bench: Bench) -> None:
    kept, _ = await asked(bench, 3, bench.catalog(MINI), grade=lambda q, reply, answer: True)
    assert all(each.correct for each in kept)

    def broken(question: Question, reply: str, answer: str | None) -> bool:
        raise RuntimeError("no grade")

    with pytest.raises(RuntimeError, match="no grade"):
        await asked(bench, 3, bench.catalog(MINI), grade=broken)


@pytest.mark.parametrize(
    ("right", "said", "same"),
    [
        ("1,200.0", "1200", True),
        ("b", "B", True),
        ("Berlin", "berlin", True),
        ("B", "B. Paris", True),
        ("B", "(b) Paris", True),
        ("A", "A dog", False),
        ("42", "42 km", True),
        ("1200", "$1,200 a year", True),
        ("3", "3 or 4", False),
        ("4", "42 km", False),
        ("0.5", "1/2", False),
        ("x", None, False),
        ("The cat sat.", "The cat sat", True),
        ("__init__", "init", True),
        ("C++", "C++", True),
        ("C++", "C", False),
    ],
)
def test_answers_are_compared_as_agents_votes_are(right: str, said: str | None, same: bool) -> None:
    assert same_answer(Question("?", right), "", said) == same
