"""Whom the server takes a request for: query, agent, turn, peers; and unknown questions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from endpoint import QUERY, SMALL, THINKER, WORDY, Answered, Endpoint, marked, messages

from agentbalance_plugin.core.replay import PeerReply, Replay
from agentbalance_plugin.core.task_text import task_text

pytestmark = pytest.mark.virtual_time

OTHER = "math_l5/0"
UNKNOWN = "Which of these rivers is the longest, and by how much?"


def entry(endpoint: Endpoint) -> Any:
    """The last one of the books."""
    return endpoint.simulator.books.entries[-1]


def peer(replay: Replay, backbone: str, agent: str) -> PeerReply:
    return replay.reply(QUERY, backbone, agent=agent).as_peer()


async def test_replies_that_a_request_quotes_are_read_and_billed(endpoint: Endpoint) -> None:
    replay = endpoint.replay
    texts = [
        (await endpoint.ask(model=THINKER, agent="first")).text,
        (await endpoint.ask(model=SMALL, agent="second")).text,
    ]
    peers = [peer(replay, THINKER, "first"), peer(replay, SMALL, "second")]
    alone = replay.reply(QUERY, WORDY, agent="judge")
    for count in range(3):
        answered = await endpoint.ask(agent="judge", reads=tuple(texts[:count]))
        expected = replay.reply(QUERY, WORDY, agent="judge", peers=peers[:count])
        heard = sum(p.visible_tokens for p in peers[:count])
        assert answered.usage is not None
        assert answered.usage.prompt_tokens == expected.prompt_tokens
        assert answered.usage.prompt_tokens == alone.prompt_tokens + heard
        assert answered.usage.completion_tokens == expected.completion_tokens
        assert answered.answer == expected.answer
        assert answered.seconds == pytest.approx(expected.latency_s)
        assert entry(endpoint).correct == expected.correct
        assert entry(endpoint).nanodollars == expected.cost_nanodollars


async def test_a_reading_backbone_changes_its_mind_as_the_replay_says(endpoint: Endpoint) -> None:
    traces, replay = endpoint.replay.traces, endpoint.replay
    small, thinker = traces.backbones.index(SMALL), traces.backbones.index(THINKER)
    split = (traces.correct[:, small] == 0) & (traces.correct[:, thinker] == 1)
    queries = [traces.queries[int(i)].key for i in split.nonzero()[0][:25]]
    said = []
    for query in queries:
        heard = await endpoint.ask(query, THINKER, agent="first")
        said.append((await endpoint.ask(query, SMALL, agent="judge", reads=(heard.text,))).answer)
    peers = [replay.reply(query, THINKER, agent="first").as_peer() for query in queries]
    assert said == [
        replay.reply(query, SMALL, agent="judge", peers=[heard]).answer
        for query, heard in zip(queries, peers, strict=True)
    ]
    alone = [replay.reply(query, SMALL, agent="judge").answer for query in queries]
    assert said != alone


async def test_a_reply_quoted_twice_is_read_once(endpoint: Endpoint) -> None:
    text = (await endpoint.ask(model=SMALL, agent="first")).text
    once = await endpoint.ask(agent="judge", reads=(text,))
    assert (await endpoint.ask(agent="judge", reads=(text, text))).figures == once.figures


async def test_a_reply_about_another_query_is_not_read(endpoint: Endpoint) -> None:
    text = (await endpoint.ask(OTHER, SMALL, agent="first")).text
    alone = await endpoint.ask(agent="judge")
    assert (await endpoint.ask(agent="judge", reads=(text,))).figures == alone.figures


async def test_an_invented_reply_is_not_read(endpoint: Endpoint) -> None:
    alone = await endpoint.ask(agent="judge")
    invented = "[[reply:0123456789abcdef]]\nAnswer: 3"
    assert (await endpoint.ask(agent="judge", reads=(invented,))).figures == alone.figures


async def test_an_agents_own_replies_count_its_turns(endpoint: Endpoint) -> None:
    first = await endpoint.ask(agent="solver")
    again = [
        *messages(marked(QUERY)),
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "Think again."},
    ]
    completion = await endpoint.create("", messages=again)
    second = endpoint.replay.reply(QUERY, WORDY, agent="solver", turn=1)
    assert second.latency_s != pytest.approx(first.seconds)
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == second.prompt_tokens
    assert entry(endpoint).latency_s == pytest.approx(second.latency_s)


async def test_agents_without_a_marker_are_told_apart_by_their_prompts(
    endpoint: Endpoint,
) -> None:
    for prompt in ("You add.", "You multiply.", "You add."):
        said = [{"role": "system", "content": prompt}, *messages(marked(QUERY))[1:]]
        await endpoint.create("", messages=said)
    first, second, third = endpoint.simulator.books.entries
    assert first.agent == third.agent != second.agent
    assert first.latency_s == third.latency_s != second.latency_s


async def test_the_seed_of_a_request_names_the_sample(endpoint: Endpoint) -> None:
    queries = [query.key for query in endpoint.replay.traces.queries[:40]]
    for seed in (0, 1, 2):
        answers = [(await endpoint.ask(query, SMALL, seed=seed)).answer for query in queries]
        assert answers == [
            endpoint.replay.reply(query, SMALL, agent="solver", sample=seed).answer
            for query in queries
        ]


async def test_a_question_is_recognised_by_its_text(endpoint: Endpoint) -> None:
    traces = endpoint.replay.traces
    questions = {QUERY: "How many eggs are left?", OTHER: "What is the limit?"}
    queries = tuple(replace(q, question=questions.get(q.key)) for q in traces.queries)
    async with Endpoint(Replay(replace(traces, queries=queries))) as told:
        for query, question in questions.items():
            by_text = await told.ask(task=f"  {question}\n")
            assert entry(told).query == query
            assert by_text.answer == (await told.ask(query)).answer
    await endpoint.ask(task=questions[QUERY])
    assert entry(endpoint).query == ""


async def test_a_tasks_text_names_its_query_and_bounds_every_prompt(endpoint: Endpoint) -> None:
    replay = endpoint.replay
    for query in (replay.traces.queries[0], replay.traces.queries[-1]):
        task = task_text(query, replay)
        for backbone in (WORDY, SMALL):
            answered = await endpoint.ask(model=backbone, task=task)
            assert entry(endpoint).query == query.key
            assert answered.usage is not None
            assert answered.usage.prompt_tokens <= len(task.encode())


async def test_a_reply_has_at_least_as_many_bytes_as_visible_tokens(endpoint: Endpoint) -> None:
    for model in (WORDY, THINKER, SMALL):
        text = (await endpoint.ask(model=model)).text
        assert len(text.encode()) >= peer(endpoint.replay, model, "solver").visible_tokens


async def test_the_simulator_grades_the_last_reply_that_a_text_quotes(endpoint: Endpoint) -> None:
    traces = endpoint.replay.traces
    column = traces.backbones.index(SMALL)
    texts = {}
    for correct in (0, 1):
        row = int((traces.correct[:, column] == correct).nonzero()[0][0])
        texts[correct] = (await endpoint.ask(traces.queries[row].key, SMALL)).text
    grade = endpoint.simulator.correct
    assert [grade(texts[0]), grade(texts[1]), grade("Answer: 0")] == [False, True, False]
    assert grade(f"They said {texts[0]}, but {texts[1]}")
    assert not grade(f"They said {texts[1]}, but {texts[0]}")


async def ask_all(endpoint: Endpoint, order: list[int], *, at_once: bool) -> list[Answered]:
    """Six agents' replies to four tasks, one of them unknown, asked in an order."""
    queries = [query.key for query in endpoint.replay.traces.queries[:3]]
    tasks = [*map(marked, queries), UNKNOWN]
    models = list(endpoint.replay.traces.backbones[:6])
    calls = [(task, model, f"agent {model}") for task in tasks for model in models]

    async def ask(index: int) -> tuple[int, Answered]:
        task, model, agent = calls[index % len(calls)]
        return index, await endpoint.ask(task=task, model=model, agent=agent)

    if at_once:
        found = await asyncio.gather(*(ask(index) for index in order))
    else:
        found = [await ask(index) for index in order]
    return [answered for _, answered in sorted(found, key=lambda pair: pair[0])]


async def test_concurrent_calls_get_what_sequential_ones_get(replay: Replay) -> None:
    order = list(range(24))
    async with Endpoint(replay) as endpoint:
        sequential = await ask_all(endpoint, order, at_once=False)
    async with Endpoint(replay) as endpoint:
        begin = asyncio.get_running_loop().time()
        concurrent = await ask_all(endpoint, order[::-1], at_once=True)
        taken = asyncio.get_running_loop().time() - begin
    assert [a.figures for a in concurrent] == [a.figures for a in sequential]
    assert taken == pytest.approx(max(a.seconds for a in sequential))


async def test_servers_agree_if_and_only_if_their_seeds_do(replay: Replay) -> None:
    figures = []
    for seed in (3, 3, 4):
        async with Endpoint(Replay(replay.traces, seed=seed), seed=seed) as endpoint:
            answered = await ask_all(endpoint, list(range(24)), at_once=True)
            figures.append([a.figures for a in answered])
    assert figures[0] == figures[1]
    assert figures[0] != figures[2]
