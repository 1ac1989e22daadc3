"""Questions that were never recorded, and tools."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from endpoint import QUERY, SMALL, THINKER, WORDY, Endpoint, marked, messages, visible

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.simulator.item_response import RIGHT_ANSWER, ItemResponse

pytestmark = pytest.mark.virtual_time

UNKNOWN = "Which of these rivers is the longest, and by how much?"


@pytest.mark.parametrize("task", [UNKNOWN, marked("gsm8k/never-recorded")])
async def test_an_unknown_question_is_answered_alike_by_every_server(
    replay: Replay, task: str
) -> None:
    figures = []
    for _ in range(2):
        async with Endpoint(replay, seed=5) as endpoint:
            figures.append((await endpoint.ask(task=task)).figures)
            (entry,) = endpoint.simulator.books.entries
            assert (entry.query, entry.run) == ("", "")
            answer = ItemResponse(replay.traces, 5).answer(task, WORDY, "solver", 0)
            assert (entry.answer, entry.correct) == answer
    assert figures[0] == figures[1]


async def test_an_unknown_question_is_billed_by_the_backbones_prices_and_means(
    endpoint: Endpoint,
) -> None:
    traces = endpoint.replay.traces
    answered = await endpoint.ask(task=UNKNOWN, model=THINKER)
    (entry,) = endpoint.simulator.books.entries
    price = endpoint.replay.catalog[THINKER]
    assert answered.usage is not None
    usage = answered.usage
    assert usage.completion_tokens_details is not None
    rows, column = traces.positions("train"), traces.backbones.index(THINKER)
    recorded = rows[traces.correct[rows, column] >= 0]
    hidden = usage.completion_tokens_details.reasoning_tokens
    assert hidden == round(float(traces.hidden_tokens[recorded, column].mean()))
    assert usage.completion_tokens == hidden + round(
        float(traces.visible_tokens[recorded, column].mean())
    )
    assert 0 < usage.prompt_tokens <= len(UNKNOWN.encode())
    assert entry.nanodollars == price.cost(usage.prompt_tokens, usage.completion_tokens)
    assert price.ttft_s is not None
    assert price.tokens_per_s is not None
    seconds = price.ttft_s + usage.completion_tokens / price.tokens_per_s
    assert answered.seconds == pytest.approx(seconds)
    assert (entry.finish, entry.latency_s) == ("stop", pytest.approx(seconds))


async def test_a_cap_cuts_the_reply_to_an_unknown_question(endpoint: Endpoint) -> None:
    for model in (WORDY, THINKER):
        cut = await endpoint.ask(task=UNKNOWN, model=model, max_tokens=20)
        assert (cut.finish, cut.answer) == ("length", -1)
        assert cut.usage is not None
        assert cut.usage.completion_tokens == 20
        assert not endpoint.simulator.books.entries[-1].correct


async def test_quoted_replies_raise_the_prompt_of_an_unknown_question(endpoint: Endpoint) -> None:
    alone = await endpoint.ask(task=UNKNOWN, agent="judge")
    text = (await endpoint.ask(task=UNKNOWN, agent="first")).text
    heard = await endpoint.ask(task=UNKNOWN, agent="judge", reads=(text,))
    assert alone.usage is not None
    assert heard.usage is not None
    assert heard.usage.prompt_tokens > alone.usage.prompt_tokens


async def test_no_prompt_has_more_tokens_than_bytes(endpoint: Endpoint) -> None:
    texts = [(await endpoint.ask(task=UNKNOWN, agent=name)).text for name in ("first", "second")]
    said = messages(UNKNOWN) + [{"role": "user", "content": text} for text in texts]
    completion = await endpoint.create("", messages=said)
    assert completion.usage is not None
    size = sum(len(message["content"].encode()) for message in said)
    assert completion.usage.prompt_tokens <= size


async def test_a_reply_to_another_unknown_question_is_not_read(endpoint: Endpoint) -> None:
    other = (await endpoint.ask(task="Who wrote this?", agent="first")).text
    for read in ("x" * len(other), other):
        said = [*messages(UNKNOWN), {"role": "assistant", "content": read}]
        await endpoint.create("", messages=said)
    _, without, given = endpoint.simulator.books.entries
    assert given.prompt_tokens == without.prompt_tokens


def test_backbones_are_right_as_often_as_on_recorded_queries(shipped: TraceSet) -> None:
    model = ItemResponse(shipped, 0)
    rows = shipped.positions("train")
    for column, backbone in enumerate(shipped.backbones):
        recorded = shipped.correct[rows, column]
        answers = [model.answer(f"question {i}", backbone, "solver", 0) for i in range(500)]
        share = np.mean([correct for _, correct in answers])
        assert share == pytest.approx(recorded[recorded >= 0].mean(), abs=0.06)
        assert all((answer == RIGHT_ANSWER) == correct for answer, correct in answers)


def test_hard_unknown_questions_are_hard_for_every_backbone(shipped: TraceSet) -> None:
    model = ItemResponse(shipped, 0)
    right = np.array(
        [
            [model.answer(f"question {i}", name, "solver", 0)[1] for i in range(500)]
            for name in (WORDY, SMALL)
        ]
    )
    assert np.corrcoef(right)[0, 1] > 0.2


def test_answers_depend_on_agent_turn_and_seed(shipped: TraceSet) -> None:
    def answers(seed: int, agent: str, turn: int) -> list[tuple[int, bool]]:
        model = ItemResponse(shipped, seed)
        return [model.answer(f"question {i}", SMALL, agent, turn) for i in range(50)]

    base = answers(0, "solver", 0)
    assert answers(0, "solver", 0) == base
    for other in (answers(1, "solver", 0), answers(0, "critic", 0), answers(0, "solver", 1)):
        assert other != base


def test_traces_without_a_training_split_will_do(shipped: TraceSet) -> None:
    model = ItemResponse(shipped.split("test"), 0)
    answers = [model.answer(f"question {i}", THINKER, "solver", 0) for i in range(50)]
    assert sum(correct for _, correct in answers) > 35


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "search", "parameters": {"type": "object", "properties": {}}},
}
CALLING = marked(QUERY) + ' [[tool:search {"query": "eggs", "where": {"page": 1}}]]'


async def test_a_tool_is_called_once_then_the_question_answered(endpoint: Endpoint) -> None:
    first = await endpoint.create(CALLING, tools=[TOOL])
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert message.tool_calls
    (call,) = message.tool_calls
    assert call.type == "function"
    assert call.function.name == "search"
    assert json.loads(call.function.arguments) == {"query": "eggs", "where": {"page": 1}}

    said = [
        *messages(CALLING),
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "12 eggs"},
    ]
    second = await endpoint.create("", messages=said, tools=[TOOL])
    assert second.choices[0].finish_reason == "stop"
    assert visible(second).endswith("Answer: 0")
    entries = endpoint.simulator.books.entries
    assert [(e.finish, e.answer) for e in entries] == [("tool_calls", -1), ("stop", 0)]
    assert first.usage is not None
    assert entries[0].completion_tokens == first.usage.completion_tokens


async def test_a_tool_call_can_be_streamed(endpoint: Endpoint) -> None:
    chunks = await endpoint.client.chat.completions.create(
        model=WORDY, messages=messages(CALLING), tools=[TOOL], stream=True
    )
    choices = [choice async for chunk in chunks for choice in chunk.choices]
    deltas = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert [(d.index, d.function and d.function.name) for d in deltas] == [(0, "search")]
    assert choices[-1].finish_reason == "tool_calls"


async def test_a_tool_that_was_not_offered_is_not_called(endpoint: Endpoint) -> None:
    completion = await endpoint.create(CALLING)
    assert completion.choices[0].finish_reason == "stop"
    assert visible(completion).endswith("Answer: 0")
