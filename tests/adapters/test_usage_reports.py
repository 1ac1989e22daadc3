"""However an endpoint reports what a call used, no less than that is booked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest
from autogen_core.models import ModelInfo, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from langchain_core.messages import AIMessageChunk
from langgraph.graph import END, START, MessagesState, StateGraph

from agentbalance_plugin import Backbone, Budget, Catalog, Meter, balance
from agentbalance_plugin.adapters.autogen.client import BudgetClient
from agentbalance_plugin.adapters.autogen.sdk import in_the_open
from agentbalance_plugin.adapters.langgraph import StandIn
from agentbalance_plugin.backbone import Endpoint
from agentbalance_plugin.runtime.call import CallRecord

ABLE = ModelInfo(
    vision=False,
    function_calling=False,
    json_output=False,
    structured_output=False,
    family="unknown",
)


class Reporting(ThreadingHTTPServer):
    """Answers with whatever usage a test puts into `usage`; streams have it in each chunk, in the
    order of `usages`."""

    daemon_threads = True
    usages: tuple[Any, ...] = ()
    breaks_off = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)

    @property
    def backbone(self) -> Backbone:
        url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        endpoint = Endpoint(model="m", base_url=url)
        return Backbone("m", Decimal(1), Decimal(10), max_output_tokens=500, endpoint=endpoint)


class _Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        usages = cast("Reporting", self.server).usages
        said = {"role": "assistant", "content": "Answer: 3"}
        about = {"id": "x", "created": 1, "model": "m"}
        if asked.get("stream"):
            choice = {"index": 0, "delta": said, "finish_reason": None}
            chunks = [
                {**about, "object": "chat.completion.chunk", "choices": [choice], "usage": usage}
                for usage in usages
            ]
            if not cast("Reporting", self.server).breaks_off:
                chunks[-1]["choices"] = [{**choice, "finish_reason": "stop"}]
            lines = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"]
            kind, body = "text/event-stream", "".join(f"data: {line}\n\n" for line in lines)
        else:
            choice = {"index": 0, "message": said, "finish_reason": "stop"}
            whole = {**about, "object": "chat.completion", "choices": [choice]}
            kind, body = "application/json", json.dumps({**whole, "usage": usages[-1]})
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """No line for each request."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Reporting]:
    with Reporting() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def usage(prompt: Any, completion: Any, total: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def by_autogen(backbone: Backbone, streamed: bool) -> CallRecord:
    async def run() -> CallRecord:
        place = cast("Endpoint", backbone.endpoint).base_url
        inner = OpenAIChatCompletionClient(
            model="m", base_url=place, api_key="local", model_info=ABLE
        )
        meter = Meter(Budget(cost_usd=1.0))
        client = BudgetClient(inner, backbone, meter, "solver")
        asked = [UserMessage(content="hello", source="user")]
        if streamed:
            [_ async for _ in client.create_stream(asked)]
        else:
            await client.create(asked)
        await inner.close()
        return meter.calls[0]

    return asyncio.run(run())


def graph_of(node: Any, backbone: Backbone) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("solver", node)
    builder.add_edge(START, "solver")
    builder.add_edge("solver", END)
    return balance(builder, budget=Budget(cost_usd=1.0), backbones=Catalog([backbone])).compile()


def by_langgraph(backbone: Backbone, streamed: bool) -> CallRecord:
    def node(state: MessagesState) -> Any:
        model = StandIn()
        for _ in model.stream("hello") if streamed else [model.invoke("hello")]:
            pass
        return {}

    app = graph_of(node, backbone)
    app.invoke({"messages": [("user", "hello")]})
    return app.report.calls[0]


def by_readers_of_a_graph(backbone: Backbone, streamed: bool) -> CallRecord:
    """Nodes invoke, and LangChain streams to whoever reads messages."""
    app = graph_of(lambda state: {"messages": StandIn().invoke(state["messages"])}, backbone)
    said = list(app.stream({"messages": [("user", "hello")]}, stream_mode="messages"))
    assert isinstance(said[0][0], AIMessageChunk)
    return app.report.calls[0]


def by_async_readers_of_a_graph(backbone: Backbone, streamed: bool) -> CallRecord:
    async def node(state: MessagesState) -> Any:
        return {"messages": await StandIn().ainvoke(state["messages"])}

    async def read(app: Any) -> list[Any]:
        asked = {"messages": [("user", "hello")]}
        return [each async for each in app.astream(asked, stream_mode="messages")]

    app = graph_of(node, backbone)
    assert isinstance(asyncio.run(read(app))[0][0], AIMessageChunk)
    return app.report.calls[0]


EITHER = pytest.mark.parametrize("run", [by_autogen, by_langgraph])
ANY = pytest.mark.parametrize(
    "run", [by_autogen, by_langgraph, by_readers_of_a_graph, by_async_readers_of_a_graph]
)
STREAMED = pytest.mark.parametrize("streamed", [False, True])


@EITHER
@STREAMED
@pytest.mark.parametrize(
    ("told", "booked"),
    [
        # Hidden reasoning in the total alone.
        (usage(12, 5, 317), (12, 305)),
        (usage(12, 300, 312), (12, 300)),
        # A figure that is none books what was reserved for it.
        (usage(12, None, None), (12, 500)),
        (usage(12, -300, None), (12, 500)),
        (usage(12, 10**330, None), (12, 500)),
    ],
)
def test_no_less_than_was_used_is_booked(
    run: Any, streamed: bool, told: Any, booked: Any, endpoint: Reporting
) -> None:
    endpoint.usages = (told,)
    call = run(endpoint.backbone, streamed)
    assert (call.prompt_tokens, call.completion_tokens) == booked
    assert call.metered == (booked[1] < 500)


@ANY
def test_of_a_running_total_the_last_counts(run: Any, endpoint: Reporting) -> None:
    endpoint.usages = tuple(usage(12, tokens, 12 + tokens) for tokens in (1, 40, 40, 300))
    call = run(endpoint.backbone, True)
    assert (call.prompt_tokens, call.completion_tokens) == (12, 300)


@ANY
@pytest.mark.parametrize("made", [(40,), (1, 40)])
def test_what_a_reply_had_used_when_it_broke_off_is_not_all(
    run: Any, made: tuple[int, ...], endpoint: Reporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "breaks_off", True)
    endpoint.usages = tuple(usage(12, tokens, 12 + tokens) for tokens in made)
    call = run(endpoint.backbone, True)
    assert (call.prompt_tokens, call.completion_tokens) == (12, 500)
    assert not call.metered


@pytest.mark.parametrize("run", [by_langgraph, by_readers_of_a_graph])
def test_of_parts_the_sum_counts(run: Any, endpoint: Reporting) -> None:
    endpoint.usages = (usage(12, 1, 13), usage(0, 40, 40), usage(0, 30, 30))
    call = run(endpoint.backbone, True)
    assert (call.prompt_tokens, call.completion_tokens) == (12, 71)


def test_a_client_that_is_looked_at_keeps_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    client = OpenAIChatCompletionClient(model="gpt-4o", api_key="local")

    def connect(*_: object) -> None:
        raise AssertionError("connects anew")

    monkeypatch.setattr(OpenAIChatCompletionClient, "__setstate__", connect)
    seen: Any = in_the_open(client)
    assert isinstance(seen, OpenAIChatCompletionClient)
    assert seen._client._client is cast("Any", client)._client._client
    assert seen._client.max_retries == 0


async def test_what_anthropic_reads_and_writes_beside_the_prompt_is_seen() -> None:
    """Its SDK is no requirement; this has the shape of one."""
    told = SimpleNamespace(
        input_tokens=7, cache_creation_input_tokens=900, cache_read_input_tokens=None
    )

    class Sdk:
        def with_options(self, *, max_retries: int) -> Sdk:
            assert max_retries == 0
            return Sdk()

        async def post(self, *args: Any, stream: bool = False, **more: Any) -> Any:
            used = SimpleNamespace(**vars(told), output_tokens=3)
            reply = SimpleNamespace(usage=used)
            return _chunks(SimpleNamespace(message=reply)) if stream else reply

    async def _chunks(*chunks: Any) -> Any:
        for chunk in chunks:
            yield chunk

    client: Any = in_the_open(cast("Any", SimpleNamespace(_client=Sdk())))
    reply = await client._client.post("/v1/messages")
    [chunk] = [each async for each in await client._client.post("/v1/messages", stream=True)]
    for used in (reply.usage, chunk.message.usage):
        assert (used.input_tokens, used.output_tokens) == (907, 3)
