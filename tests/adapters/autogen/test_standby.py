"""Where a backbone's endpoint fails another answers: more backbones must not mean more failures."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_core.models import UserMessage
from chats import LARGE, MINI, Bench, chain, texts
from openai import InternalServerError, NotFoundError

from agentbalance_plugin import Agent, Budget, Catalog
from agentbalance_plugin.adapters.autogen.endpoints import clients_for
from agentbalance_plugin.adapters.autogen.run import Run
from agentbalance_plugin.adapters.autogen.standby import client_for
from agentbalance_plugin.adapters.backbones import standbys
from agentbalance_plugin.backbone import Endpoint
from agentbalance_plugin.runtime.call import CallDenied
from agentbalance_plugin.runtime.meter import Meter

pytestmark = pytest.mark.virtual_time

FLASH = "gemini-1.5-flash"


def broken(bench: Bench, name: str, *others: str) -> Catalog:
    """`name`'s endpoint knows no such model."""
    catalog = bench.catalog(name, *others)
    nowhere = Endpoint(model="nothing", base_url=bench.simulator.base_url)
    return Catalog([replace(catalog[name], endpoint=nowhere), *(catalog[n] for n in others)])


def a_run(usd: float) -> tuple[Run, Meter]:
    budget = Budget(cost_usd=usd)
    meter = Meter(budget)
    return Run(budget, meter, None), meter


def called(bench: Bench) -> list[tuple[str, str]]:
    return [(entry.agent, entry.backbone) for entry in bench.simulator.books.entries]


def test_those_nearest_in_price_that_are_able_stand_by(bench: Bench) -> None:
    catalog = bench.catalog(MINI, LARGE, FLASH, "o1-mini-2024-09-12")
    assert standbys(catalog, MINI, frozenset({"text"})) == (FLASH, "o1-mini-2024-09-12")
    sees = frozenset({"text", "vision"})
    far = replace(catalog[LARGE], capabilities=sees)
    mixed = Catalog([catalog[MINI], catalog[FLASH], far])
    assert standbys(mixed, MINI, sees) == (LARGE,)
    # Where the one that failed can see, those that can too come first.
    mixed = Catalog([replace(catalog[MINI], capabilities=sees), catalog[FLASH], far])
    assert standbys(mixed, MINI, frozenset({"text"})) == (LARGE, FLASH)


@pytest.mark.parametrize("routed", [False, True])
async def test_another_backbone_answers_where_an_endpoint_fails(bench: Bench, routed: bool) -> None:
    team = bench.wrap(
        bench.chat(["solver", "decider"]),
        chain({"solver": MINI, "decider": MINI}),
        backbones=broken(bench, MINI, FLASH, LARGE),
        mode="backbones" if routed else "full",
    )
    result = await team.run(task=bench.task())
    assert called(bench) == [("solver", FLASH), ("decider", FLASH)]
    assert texts(result.messages)[-1][0] == "decider"
    report = team.report
    assert report.spend.nanodollars == bench.billed()
    assert [agent.status for agent in report.agents] == ["done", "done"]
    said = f"{MINI} failed (NotFoundError, status 404); {FLASH} answered in its place"
    # The second agent did not ask the one that had failed.
    assert [agent.reason for agent in report.agents] == [said, ""]
    assert "nothing" not in report.to_text()


async def test_the_next_runs_do_not_ask_an_endpoint_that_has_just_failed(bench: Bench) -> None:
    catalog = bench.catalog(MINI, FLASH)
    team = bench.wrap(bench.chat(["solver"]), chain({"solver": MINI}), backbones=catalog)
    await team.run(task=f"[[fault:500@{MINI}]] {bench.task()}")
    for _ in range(2):
        await team.reset()
        await team.run(task=bench.task())
        assert [call.backbone for call in team.report.calls] == [FLASH]
        said = f"{MINI} had just failed (InternalServerError, status 500)"
        assert team.report.agents[0].reason == f"{said}; {FLASH} answered in its place"
    # It may be back by now.
    await asyncio.sleep(31)
    await team.reset()
    await team.run(task=bench.task())
    assert [call.backbone for call in team.report.calls] == [MINI]
    assert team.report.agents[0].reason == ""


async def test_an_endpoint_that_has_just_failed_is_asked_when_nobody_else_answers(
    bench: Bench,
) -> None:
    team = bench.wrap(
        bench.chat(["solver"]), chain({"solver": MINI}), backbones=bench.catalog(MINI, FLASH)
    )
    await team.run(task=f"[[fault:500@{MINI}]] {bench.task()}")
    await team.reset()
    await team.run(task=f"[[fault:500@{FLASH}]] {bench.task()}")
    assert [call.backbone for call in team.report.calls] == [FLASH] * 3 + [MINI]
    await team.reset()
    # Now that all of them have failed lately, they are asked as planned.
    await team.run(task=bench.task())
    assert [call.backbone for call in team.report.calls] == [MINI]


async def test_a_prompt_that_was_too_long_says_nothing_of_the_next(bench: Bench) -> None:
    def too_long(request: httpx.Request) -> httpx.Response:
        if b"very long" in request.content:
            error = {"message": "This model's maximum context length is 8 tokens", "code": None}
            return httpx.Response(400, json={"error": error})
        return httpx.Response(404, json={"error": {"message": "gone", "code": None}})

    http = httpx.AsyncClient(transport=httpx.MockTransport(too_long))
    catalog = bench.catalog(MINI, FLASH)
    client = bench.client(MINI, http_client=http)
    team = bench.wrap(
        bench.chat(["solver"]),
        chain({"solver": MINI}),
        backbones=[(catalog[MINI], client), (catalog[FLASH], bench.client(FLASH))],
    )
    await team.run(task=f"very long {bench.task()}")
    assert "too long" in team.report.agents[0].reason
    await team.reset()
    # It is asked again, and says something else.
    await team.run(task=bench.task())
    assert f"{MINI} failed (NotFoundError, status 404)" in team.report.agents[0].reason


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "overloaded", "code": 503}}',
        '{"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": null}',
        '{"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}',
        "<html>gateway</html>",
    ],
)
async def test_an_answer_that_is_no_reply_is_a_failure_of_the_endpoint(
    bench: Bench, body: str, streamed: bool
) -> None:
    kind = "text/html" if body.startswith("<") else "application/json"

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=body, headers={"content-type": kind})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    catalog = bench.catalog(MINI, FLASH)
    chat = bench.chat(["solver"])
    agent = bench.assistant("solver", model_client_stream=streamed)
    team = bench.wrap(
        type(chat)([agent], max_turns=1),
        chain({"solver": MINI}),
        backbones=[
            (catalog[MINI], bench.client(MINI, http_client=http)),
            (catalog[FLASH], bench.client(FLASH)),
        ],
    )
    await team.run(task=bench.task())
    assert [call.backbone for call in team.report.calls] == [MINI] * 3 + [FLASH]
    said = f"{MINI} failed (NoReply); {FLASH} answered in its place"
    assert team.report.agents[0].reason == said


async def test_tries_that_were_billed_stay_in_the_books(bench: Bench) -> None:
    team = bench.wrap(
        bench.chat(["solver"]), chain({"solver": MINI}), backbones=bench.catalog(MINI, FLASH)
    )
    await team.run(task=f"[[fault:500@{MINI}]] {bench.task()}")
    assert called(bench)[-1] == ("solver", FLASH)
    report = team.report
    assert [call.backbone for call in report.calls] == [MINI, MINI, MINI, FLASH]
    assert report.spend.nanodollars >= bench.billed()
    assert "status 500" in report.agents[0].reason


async def test_retries_leave_another_backbone_enough_to_answer(bench: Bench) -> None:
    team = bench.wrap(
        bench.chat(["solver"]),
        chain({"solver": MINI}),
        # A call of the first may cost 0.0026 USD.
        budget=Budget(cost_usd=0.003),
        backbones=bench.catalog(MINI, FLASH),
    )
    await team.run(task=f"[[fault:500@{MINI}]] {bench.task()}")
    report = team.report
    assert [call.backbone for call in report.calls] == [MINI, FLASH]
    assert report.complete
    assert report.within_budget
    assert "status 500" in report.agents[0].reason


async def test_streams_change_over_before_the_first_word(bench: Bench) -> None:
    chat = bench.chat(["solver"])
    agent = bench.assistant("solver", model_client_stream=True)
    team = bench.wrap(
        type(chat)([agent], max_turns=1),
        chain({"solver": MINI}),
        backbones=broken(bench, MINI, FLASH),
    )
    chunks = [
        event.content
        async for event in team.run_stream(task=bench.task())
        if isinstance(event, ModelClientStreamingChunkEvent)
    ]
    assert len(chunks) > 1
    assert called(bench) == [("solver", FLASH)]


async def test_who_has_begun_to_speak_is_not_replaced(bench: Bench) -> None:
    run, meter = a_run(1.0)
    clients = clients_for(bench.catalog(MINI, FLASH))
    client = client_for(Agent("solver"), MINI, clients, run)
    said: list[object] = []
    with pytest.raises(Exception, match=r"."):
        async for part in client.create_stream(
            [UserMessage(content=f"[[fault:cut_stream]] {bench.task()}", source="user")]
        ):
            said.append(part)
    assert said
    assert {call.backbone for call in meter.calls} == {MINI}
    await clients.close()


async def test_nobody_stands_in_for_a_backbone_of_the_users_choice(bench: Bench) -> None:
    clients = clients_for(broken(bench, MINI, FLASH))
    task = [UserMessage(content=bench.task(), source="user")]
    pinned = client_for(Agent("solver", backbone=MINI), MINI, clients, a_run(1.0)[0])
    with pytest.raises(NotFoundError):
        await pinned.create(task)
    assert called(bench) == []
    await clients.close()


async def test_where_everyone_fails_the_last_error_comes_out(bench: Bench) -> None:
    team = bench.wrap(
        bench.chat(["solver"]), chain({"solver": MINI}), backbones=bench.catalog(MINI, FLASH)
    )
    with pytest.raises(InternalServerError):
        await team.run(task=f"[[fault:500]] {bench.task()}")
    assert [call.backbone for call in team.report.calls] == [MINI] * 3 + [FLASH] * 3


async def test_a_standby_keeps_the_budget(bench: Bench) -> None:
    catalog = broken(bench, MINI, LARGE)
    clients = clients_for(catalog)
    client = client_for(Agent("solver"), MINI, clients, a_run(0.0001)[0])
    with pytest.raises(CallDenied, match=LARGE):
        await client.create([UserMessage(content=bench.task(), source="user")])
    assert called(bench) == []
    assert client.total_usage().prompt_tokens == 0
    await clients.close()
