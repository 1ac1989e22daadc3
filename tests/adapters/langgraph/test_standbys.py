"""Where a backbone's endpoint fails another answers, however a node calls its model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from graphs import LARGE, Assign, Bench, OllamaServer, calling, chain_of
from langgraph.graph import MessagesState
from openai import NotFoundError

from agentbalance_plugin import Agent, Budget, Catalog
from agentbalance_plugin.backbone import Endpoint

MINI, FLASH = "gpt-4o-mini-2024-07-18", "gemini-1.5-flash"


def broken(bench: Bench, name: str, *others: str) -> Catalog:
    """`name`'s endpoint knows no such model."""
    catalog = bench.catalog(name, *others)
    nowhere = Endpoint(model="nothing", base_url=bench.simulator.base_url)
    return Catalog([replace(catalog[name], endpoint=nowhere), *(catalog[n] for n in others)])


def styles(bench: Bench) -> dict[str, Any]:
    model = bench.model()

    async def asynchronous(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def blocking(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def streamed(state: MessagesState) -> Any:
        said = [chunk.text async for chunk in model.astream(state["messages"])]
        return {"messages": ["".join(said)]}

    def blocking_stream(state: MessagesState) -> Any:
        return {"messages": ["".join(chunk.text for chunk in model.stream(state["messages"]))]}

    return {each.__name__: each for each in (asynchronous, blocking, streamed, blocking_stream)}


@pytest.mark.parametrize("style", ["asynchronous", "blocking", "streamed", "blocking_stream"])
async def test_another_backbone_answers_where_an_endpoint_fails(instant: Bench, style: str) -> None:
    node = styles(instant)[style]
    app = instant.balance(
        chain_of({"a": node, "b": node}),
        backbones=broken(instant, MINI, FLASH, LARGE),
        policy=Assign({"a": MINI, "b": MINI}),
    ).compile()
    result = await app.ainvoke(instant.ask())
    assert [backbone for _, backbone in instant.called()] == [FLASH, FLASH]
    assert "Answer:" in result["messages"][-1].text
    report = app.report
    assert report.spend.nanodollars == instant.billed()
    first, second = (agent.reason for agent in report.agents)
    assert first.startswith(f"{MINI} failed (")
    assert first.endswith(f"status 404); {FLASH} answered in its place")
    # The second node did not ask the one that had failed.
    assert second == ""


@pytest.mark.parametrize("style", ["asynchronous", "blocking", "streamed", "blocking_stream"])
async def test_the_next_run_does_not_ask_an_endpoint_that_has_just_failed(
    instant: Bench, style: str
) -> None:
    app = instant.balance(
        chain_of({"a": styles(instant)[style]}),
        backbones=broken(instant, MINI, FLASH, LARGE),
        policy=Assign({"a": MINI}),
    ).compile()
    await app.ainvoke(instant.ask())
    await app.ainvoke(instant.ask())
    assert [call.backbone for call in app.report.calls] == [FLASH]
    [agent] = app.report.agents
    assert agent.reason.startswith(f"{MINI} had just failed (")
    assert agent.reason.endswith(f"status 404); {FLASH} answered in its place")
    # Where nobody else answers it is asked all the same.
    with pytest.raises(NotFoundError):
        fault = f"[[fault:500@{FLASH}]] [[fault:500@{LARGE}]]"
        await app.ainvoke({"messages": [("user", f"{fault} {instant.task()}")]})
    assert {call.backbone for call in app.report.calls} == {FLASH, LARGE}


@pytest.mark.parametrize("style", ["asynchronous", "blocking", "streamed", "blocking_stream"])
async def test_retries_leave_another_backbone_enough_to_answer(instant: Bench, style: str) -> None:
    app = instant.balance(
        chain_of({"a": styles(instant)[style]}),
        # A call of the first may cost 0.0026 USD.
        budget=Budget(cost_usd=0.003),
        backbones=instant.catalog(MINI, FLASH),
        policy=Assign({"a": MINI}),
    ).compile()
    await app.ainvoke({"messages": [("user", f"[[fault:500@{MINI}]] {instant.task()}")]})
    report = app.report
    assert [call.backbone for call in report.calls] == [MINI, FLASH]
    assert report.complete
    assert report.within_budget
    [agent] = report.agents
    assert agent.reason.startswith(f"{MINI} failed (")
    assert agent.reason.endswith(f"status 500); {FLASH} answered in its place")


class Nonsense(BaseHTTPRequestHandler):
    """Answers that all is well, with a body of the test's choice."""

    body = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        kind = "text/html" if self.body.startswith(b"<") else "application/json"
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """The address of an endpoint that always says the same."""
    handler = type("Handler", (Nonsense,), {"body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("style", ["asynchronous", "blocking", "streamed", "blocking_stream"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "overloaded", "code": 503}}',
        b'{"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": null}',
        b'{"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}',
        b"<html>gateway</html>",
    ],
)
async def test_an_answer_that_is_no_reply_is_a_failure_of_the_endpoint(
    instant: Bench, style: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbalance_plugin.runtime.failures._FIRST_DELAY_S", 0.0)
    catalog = instant.catalog(MINI, FLASH)
    with answering(body) as address:
        odd = replace(catalog[MINI], endpoint=Endpoint(model=MINI, base_url=address))
        app = instant.balance(
            chain_of({"a": styles(instant)[style]}),
            backbones=Catalog([odd, catalog[FLASH]]),
            policy=Assign({"a": MINI}),
        ).compile()
        await app.ainvoke(instant.ask())
    assert [call.backbone for call in app.report.calls] == [MINI] * 3 + [FLASH]
    said = f"{MINI} failed (NoReply); {FLASH} answered in its place"
    assert app.report.agents[0].reason == said


async def test_a_call_that_can_not_be_made_is_no_failure_of_the_endpoint(instant: Bench) -> None:
    node = calling(instant.model(), no_such_option=1)
    app = instant.balance(chain_of({"a": node}), backbones=instant.catalog(MINI, FLASH)).compile()
    with pytest.raises(TypeError, match="no_such_option"):
        await app.ainvoke(instant.ask())
    assert len(app.report.calls) == 1


async def test_nobody_stands_in_for_a_backbone_of_the_users_choice(instant: Bench) -> None:
    app = instant.balance(
        chain_of({"a": styles(instant)["asynchronous"]}),
        agents={"a": Agent("a", backbone=MINI)},
        backbones=broken(instant, MINI, FLASH),
        policy=Assign({"a": MINI}),
    ).compile()
    with pytest.raises(NotFoundError):
        await app.ainvoke(instant.ask())
    assert instant.called() == []


async def test_a_call_that_does_not_cross_is_not_tried_on_another_provider(instant: Bench) -> None:
    server = OllamaServer()
    [(llama, chat)] = server.backbones
    catalog = broken(instant, MINI)
    able = frozenset({"text", "json"})
    nothing = instant.model("nothing")
    shaped = calling(instant.model(), response_format={"type": "json_object"})
    app = instant.balance(
        chain_of({"a": shaped}),
        backbones=[
            (replace(catalog[MINI], capabilities=able), nothing),
            (replace(llama, capabilities=able), chat),
        ],
        policy=Assign({"a": MINI}),
    ).compile()
    with pytest.raises(NotFoundError):
        await app.ainvoke(instant.ask())
    assert server.asked == []


async def test_what_has_begun_to_speak_is_not_replaced(instant: Bench) -> None:
    app = instant.balance(
        chain_of({"a": styles(instant)["streamed"]}),
        backbones=instant.catalog(MINI, FLASH),
        policy=Assign({"a": MINI}),
    ).compile()
    with pytest.raises(Exception, match=r"."):
        await app.ainvoke({"messages": [("user", f"[[fault:cut_stream]] {instant.task()}")]})
    assert {call.backbone for call in app.report.calls} == {MINI}


@pytest.mark.parametrize("chosen", [False, True])
async def test_a_call_that_the_planned_backbone_can_not_make_goes_to_one_that_can(
    instant: Bench, chosen: bool
) -> None:
    model = instant.model()

    async def binds(state: MessagesState) -> Any:
        """What it binds is known only when it runs."""
        bound = model.bind_tools([{"type": "function", "function": {"name": "look"}}])
        return {"messages": [await bound.ainvoke(state["messages"])]}

    catalog = instant.catalog(MINI, FLASH, LARGE, capabilities=["text"])
    able = replace(catalog[LARGE], capabilities=frozenset({"text", "tools"}))
    app = instant.balance(
        chain_of({"a": binds, "b": styles(instant)["asynchronous"]}),
        agents={"a": Agent("a", backbone=MINI if chosen else None), "b": None},
        backbones=Catalog([catalog[MINI], catalog[FLASH], able]),
        policy=Assign({"a": MINI, "b": MINI}),
    ).compile()
    await app.ainvoke(instant.ask())
    assert [each for _, each in instant.called()] == [MINI if chosen else LARGE, MINI]
    said = "" if chosen else f"{LARGE} made calls that need what {MINI} can not do"
    assert [agent.reason for agent in app.report.agents] == [said, ""]
    assert app.report.spend.nanodollars == instant.billed()
