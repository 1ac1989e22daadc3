"""Prompts are measured by the tokenizer that the catalog names, and plans count with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Annotated, Any, cast

import pytest
import tiktoken
import tiktoken.registry
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import FunctionCall
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)
from autogen_ext.models.openai import OpenAIChatCompletionClient
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel, Field, SecretStr

from agentbalance_plugin import Backbone, Budget, Catalog, Policy, balance, wrap_groupchat
from agentbalance_plugin.adapters.autogen.prompt_bound import prompt_bound as of_autogen
from agentbalance_plugin.adapters.langgraph.prompt_bound import prompt_bound as of_langchain
from agentbalance_plugin.backbone import Endpoint
from agentbalance_plugin.runtime.byte_bound import Measure
from agentbalance_plugin.runtime.report import RunReport
from agentbalance_plugin.runtime.tokenizers import measure_of
from agentbalance_plugin.team import Agent, Team

WORDS = "words_of_tests"
# A word and the space before it are one token; of anything else each byte is.
WORD = " ledger"
DOCUMENT = "Read:" + WORD * 3000
AGENTS = ("reader", "critic", "judge")


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> tiktoken.Encoding:
    """A tokenizer that tiktoken knows by name, as it knows its own."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for end in range(2, len(WORD) + 1):
        ranks[WORD[:end].encode()] = 255 + end
    settings = {
        "name": WORDS,
        "pat_str": r"\s?\w+|\s|[^\w\s]+",
        "mergeable_ranks": ranks,
        "special_tokens": {"<|end|>": 1000},
    }
    tiktoken.list_encoding_names()
    constructors: Any = tiktoken.registry.ENCODING_CONSTRUCTORS
    monkeypatch.setitem(constructors, WORDS, lambda: settings)
    return tiktoken.get_encoding(WORDS)


class Endpoints(ThreadingHTTPServer):
    """Bills prompts by a tokenizer, as vendors do."""

    daemon_threads = True

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self.encoding = encoding
        self.billed: list[tuple[str, int, int]] = []
        self.asked: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Answering)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def nanodollars(self, catalog: Catalog) -> int:
        return sum(catalog[name].cost(prompt, out) for name, prompt, out in self.billed)


class _Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast("Endpoints", self.server)
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server.asked.append(asked)
        # Three tokens open a message and three the reply, as in OpenAI's chats.
        prompt = 3 + sum(
            3 + len(server.encoding.encode_ordinary(str(each[key])))
            for each in asked["messages"]
            for key in ("role", "content", "name")
            if each.get(key)
        )
        server.billed.append((asked["model"], prompt, 12))
        said = "{}" if "response_format" in asked else "Answer: 3"
        message = {"role": "assistant", "content": said}
        usage = {"prompt_tokens": prompt, "completion_tokens": 12, "total_tokens": prompt + 12}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        about = {"id": "x", "object": "chat.completion", "created": 1, "model": asked["model"]}
        body = json.dumps({**about, "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """No line for each request."""


@pytest.fixture
def endpoints(words: tiktoken.Encoding) -> Iterator[Endpoints]:
    with Endpoints(words) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def catalog(url: str, tokenizer: str | None) -> Catalog:
    """A document costs 0.003 and 0.03 USD; as bytes, seven times that."""

    def backbone(name: str, price: int) -> Backbone:
        endpoint = Endpoint(model=name, base_url=url)
        return Backbone(
            name,
            Decimal(price),
            Decimal(price),
            max_output_tokens=500,
            endpoint=endpoint,
            tokenizer=tokenizer,
        )

    return Catalog([backbone("small", 1), backbone("big", 10)])


def run_chat(backbones: Catalog, url: str, budget: Budget) -> RunReport:
    async def run() -> RunReport:
        own = OpenAIChatCompletionClient(model="gpt-4o", base_url=url, api_key="local")
        agents = [AssistantAgent(name, own, system_message=f"You: {name}") for name in AGENTS]
        chat = RoundRobinGroupChat(list(agents), termination_condition=MaxMessageTermination(4))
        team = wrap_groupchat(chat, budget=budget, backbones=backbones)
        await team.run(task=DOCUMENT)
        await team.close()
        await own.close()
        return team.report

    return asyncio.run(run())


def run_graph(backbones: Catalog, url: str, budget: Budget) -> RunReport:
    model = ChatOpenAI(model="gpt-4o", base_url=url, api_key=SecretStr("local"))
    builder = StateGraph(MessagesState)
    before = START
    for name in AGENTS:

        def agent(state: MessagesState, name: str = name) -> Any:
            return {"messages": [model.invoke([("system", f"You: {name}"), *state["messages"]])]}

        builder.add_node(name, agent)
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    app = balance(builder, budget=budget, backbones=backbones).compile()
    app.invoke({"messages": [("user", DOCUMENT)]})
    return app.report


RUNS = pytest.mark.parametrize("run", [run_chat, run_graph])


@RUNS
def test_a_cap_that_bytes_would_not_fit_in_is_enough(run: Any, endpoints: Endpoints) -> None:
    budget = Budget(cost_usd=0.006)
    with pytest.raises(ValueError, match=r"one call of the cheapest backbone \(small\) may cost"):
        run(catalog(endpoints.url, None), endpoints.url, budget)
    assert not endpoints.billed
    backbones = catalog(endpoints.url, WORDS)
    report = run(backbones, endpoints.url, budget)
    billed = endpoints.nanodollars(backbones)
    assert 0 < billed <= 6_000_000
    assert report.spend.nanodollars == billed
    assert not any(call.overrun for call in report.calls)


@RUNS
def test_a_cap_on_tokens_is_measured_in_them_as_well(run: Any, endpoints: Endpoints) -> None:
    budget = Budget(tokens=8000)
    with pytest.raises(ValueError, match=r"Budget.tokens is 8000, but one call on this task may"):
        run(catalog(endpoints.url, None), endpoints.url, budget)
    report = run(catalog(endpoints.url, WORDS), endpoints.url, budget)
    assert 0 < sum(prompt + out for _, prompt, out in endpoints.billed) <= 8000
    assert report.spend.tokens <= 8000


@RUNS
def test_a_price_that_bytes_shut_out_is_affordable(run: Any, endpoints: Endpoints) -> None:
    """The stronger backbone's document takes 0.03 USD of 0.1, and would take 0.21 as bytes."""
    used: dict[str | None, set[str]] = {}
    for tokenizer in (None, WORDS):
        endpoints.billed.clear()
        run(catalog(endpoints.url, tokenizer), endpoints.url, Budget(cost_usd=0.1))
        used[tokenizer] = {name for name, _, _ in endpoints.billed}
    assert used == {None: {"small"}, WORDS: {"big"}}


def test_every_text_of_a_prompt_is_measured_and_schemas_by_their_bytes(
    words: tiktoken.Encoding,
) -> None:
    measure = measure_of(next(iter(catalog("http://127.0.0.1:1/v1", WORDS).values())))
    text = WORD * 50 + "<|end|>"
    assert measure(text) == len(words.encode_ordinary(text)) == 57
    schema: Any = {"name": "look", "description": WORD * 20, "parameters": {"type": "object"}}
    arguments = json.dumps({"q": WORD * 50})
    autogen = [
        SystemMessage(content=text),
        UserMessage(content=[text, text], source="user"),
        AssistantMessage(content=[FunctionCall("c", arguments, "look")], source="a", thought=text),
        FunctionExecutionResultMessage(
            content=[FunctionExecutionResult(content=text, name="look", call_id="c")]
        ),
    ]
    call: Any = {"name": "look", "args": {"q": WORD * 50}, "id": "c"}
    langchain = [
        HumanMessage(text),
        HumanMessage([text, {"type": "text", "text": text}]),
        AIMessage(text, tool_calls=[call]),
        ToolMessage(text, tool_call_id="c"),
    ]

    def bounds(measure: Measure) -> list[int]:
        return [
            of_autogen(autogen, [schema], measure=measure),
            of_langchain(langchain, {"tools": [schema]}, measure=measure),
        ]

    texts = len(words.encode_ordinary(text * 5 + arguments))
    in_schema = len(json.dumps(schema))
    for exact, in_bytes in zip(bounds(measure), bounds(lambda t: len(t.encode())), strict=True):
        assert texts + in_schema < exact < in_bytes / 2


class Leg(BaseModel):
    """One leg."""

    place: str | None = Field(None, description="where it ends, " * 20)


class Trip(BaseModel):
    """Its SDK sends each leg's schema in full."""

    out: Leg | None = Field(None, description="there")
    back: Annotated[Leg, Field(description="home")] = Leg(place=None)
    over: Annotated[Leg, Field(description="on")] = Leg(place=None)


async def test_a_schema_counts_as_it_is_sent(endpoints: Endpoints) -> None:
    own = OpenAIChatCompletionClient(model="gpt-4o", base_url=endpoints.url, api_key="local")
    await own.create([UserMessage(content="x", source="user")], json_output=Trip)
    await own.close()
    sent = len(json.dumps(endpoints.asked[0]["response_format"]))
    assert sent > 1.5 * len(json.dumps(Trip.model_json_schema()))
    assert of_autogen([], (), Trip) >= sent
    assert of_langchain([], {"response_format": Trip}) >= sent


def test_plans_have_room_for_more_where_prompts_are_measured() -> None:
    team = Team(tuple(Agent(name) for name in AGENTS), "judge")
    policy, task = Policy.load(), "Sum up. " + "A word of it. " * 2000
    plain, measured = (catalog("http://127.0.0.1:1/v1", name) for name in (None, "o200k_base"))
    for cap in (0.03, 0.06, 0.12, 0.24):
        bytes_, tokens = (
            policy.plan(task, team, Budget(cost_usd=cap), each).expected
            for each in (plain, measured)
        )
        assert bytes_ is not None
        assert tokens is not None
        assert tokens.success >= bytes_.success
        if cap == 0.12:
            # 26 kB at ten dollars a million: 0.26 USD as bytes, two fifths of that as tokens.
            assert tokens.success > bytes_.success + 0.02


@RUNS
def test_a_tokenizer_that_there_is_not_is_refused_before_any_call(
    run: Any, endpoints: Endpoints
) -> None:
    with pytest.raises(
        ValueError, match=r"'small': tokenizer must be one of .*o200k_base.*'o200k'"
    ):
        run(catalog(endpoints.url, "o200k"), endpoints.url, Budget(cost_usd=0.1))
    assert not endpoints.billed


def test_a_tokenizer_that_can_not_be_downloaded_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline() -> Any:
        raise ConnectionError("no route to host")

    tiktoken.list_encoding_names()
    constructors: Any = tiktoken.registry.ENCODING_CONSTRUCTORS
    monkeypatch.setitem(constructors, "far_away", offline)
    [backbone, _] = catalog("http://127.0.0.1:1/v1", "far_away").values()
    with pytest.raises(ValueError, match=r"'far_away' can't be loaded.*TIKTOKEN_CACHE_DIR"):
        measure_of(backbone)
