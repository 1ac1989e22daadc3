"""An OpenAI-compatible server of recorded backbones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from agentbalance_plugin.backbone import Catalog, Endpoint
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.extras import require
from agentbalance_plugin.simulator.books import Books, Entry
from agentbalance_plugin.simulator.faults import Fault, Faults
from agentbalance_plugin.simulator.speaker import RequestError, Speaker, Spoken, read_request

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOCALHOST = "127.0.0.1"

_CHUNKS = 8
_NEVER_S = 1e6
# Simulated pauses between calls must not let idle connections expire under virtual time.
_KEEP_ALIVE_S = 10**7


class Service:
    """The endpoints, without a transport.

    Args:
        replay: what the backbones answer.
        scale: seconds waited per simulated second; 0 does not wait.
        seed: of answers to queries that were never recorded.
    """

    def __init__(self, replay: Replay, *, scale: float = 1.0, seed: int = 0) -> None:
        if scale < 0:
            raise ValueError(f"scale must be at least 0, got {scale}")
        self.speaker = Speaker(replay, seed)
        self.books = Books()
        self._catalog = replay.catalog
        self._faults = Faults()
        self._scale = scale

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "recorded"}
            for name in self._catalog
        ]
        return _json({"object": "list", "data": models})

    async def ledger(self, request: Request) -> Response:
        """GET /books: every entry of the server's ledger."""
        return _json({"entries": self.books.to_list()})

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        raw = await request.body()
        try:
            parsed: Any = json.loads(raw)
            if not isinstance(parsed, dict):
                raise RequestError(400, "the body must be a JSON object")
            body = cast("dict[str, Any]", parsed)
            asked = read_request(body)
            usage = _wants_usage(body)
            header = request.headers.get("x-simulate-fault")
            fault = self._faults.of(header, asked.texts, asked.backbone)
            if fault in ("429", "500"):
                return _failure(int(fault), f"simulated {fault}", retry_after=fault == "429")
            spoken = self.speaker.speak(asked)
        except RequestError as error:
            return _failure(error.status, str(error))
        except ValueError as error:
            return _failure(400, f"the request can't be read: {error}")
        entry = _entry(spoken, request.headers.get("x-simulate-run"))
        self.books.add(entry)
        if fault == "timeout":
            await self._wait(_NEVER_S, request, entry)
        if body.get("stream"):
            return _stream(self._chunks(spoken, fault, entry, with_usage=usage))
        await self._wait(spoken.reply.latency_s * self._scale, request, entry)
        if fault == "malformed":
            return _raw(b'{"id": "chatcmpl", "choices": [{"index": 0, "mess')
        return _json(_completion(spoken, fault))

    async def _wait(self, seconds: float, request: Request, entry: Entry) -> None:
        """Take the reply's time, or as long as the client waits for it."""
        entry.aborted = True  # until the time is over
        timer = asyncio.ensure_future(asyncio.sleep(seconds))
        # The body has been read: the next thing to receive is the client's leaving.
        left = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait({timer, left}, return_when=asyncio.FIRST_COMPLETED)
            entry.aborted = not timer.done()
        finally:
            timer.cancel()
            left.cancel()

    async def _chunks(
        self, spoken: Spoken, fault: Fault | None, entry: Entry, *, with_usage: bool
    ) -> AsyncGenerator[bytes]:
        """Server-sent events, the reply's latency spread over its pieces."""
        pieces = _pieces(spoken)
        base = {"id": "chatcmpl-recorded", "object": "chat.completion.chunk", "created": 0}
        base["model"] = spoken.reply.backbone
        entry.aborted = True  # until the last byte is out
        for number, delta in enumerate(pieces):
            await asyncio.sleep(spoken.reply.latency_s / len(pieces) * self._scale)
            if fault == "cut_stream" and number == len(pieces) // 2:
                raise ConnectionAbortedError("simulated cut stream")
            if fault == "malformed" and number == len(pieces) // 2:
                yield b"data: {not json\n\n"
            yield _event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        end: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": spoken.finish}
        yield _event({**base, "choices": [end]})
        if with_usage and fault != "no_usage":
            yield _event({**base, "choices": [], "usage": _usage(spoken, fault)})
        entry.aborted = False
        yield b"data: [DONE]\n\n"


def _wants_usage(body: dict[str, Any]) -> bool:
    options: Any = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise RequestError(400, f"'stream_options' must be an object, got {options!r}")
    return bool(cast("dict[str, Any]", options or {}).get("include_usage"))


def create_app(service: Service) -> Starlette:
    """The ASGI application (ImportError naming the extra without starlette)."""
    applications = require("starlette.applications", extra="simulator")
    route = require("starlette.routing", extra="simulator").Route
    return applications.Starlette(
        routes=[
            route("/v1/chat/completions", service.chat, methods=["POST"]),
            route("/v1/models", service.models),
            route("/books", service.ledger),
        ]
    )


class Simulator:
    """The server in the running event loop, as an async context manager.

    Under `agentbalance_plugin.simulator.virtual_time` its latencies pass on the loop's clock alone.

    Args:
        replay: what the backbones answer.
        scale: loop seconds waited per simulated second.
        host: the address to bind.
        port: 0 takes a free one.
        seed: of answers to queries that were never recorded.
    """

    def __init__(
        self,
        replay: Replay,
        *,
        scale: float = 1.0,
        host: str = LOCALHOST,
        port: int = 0,
        seed: int = 0,
    ) -> None:
        self.service = Service(replay, scale=scale, seed=seed)
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None

    @property
    def books(self) -> Books:
        """What the server billed."""
        return self.service.books

    @property
    def base_url(self) -> str:
        """For OpenAI clients (RuntimeError unless the server runs)."""
        if self._socket is None:
            raise RuntimeError("the simulator does not run; use it with 'async with'")
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"

    def serving(self, catalog: Catalog) -> Catalog:
        """The same backbones, to be called at this server."""
        return Catalog(
            (
                replace(backbone, endpoint=Endpoint(model=name, base_url=self.base_url))
                for name, backbone in catalog.items()
            ),
            catalog.kinds,
        )

    def correct(self, text: str) -> bool:
        """Whether the reply that a message quotes is right."""
        return self.service.speaker.correct(text)

    async def __aenter__(self) -> Simulator:
        uvicorn = require("uvicorn", extra="simulator")
        config = uvicorn.Config(
            create_app(self.service),
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        config.load()
        self._socket = _listen(self._host, self._port)
        server = self._server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # startup without serve(): that adds signal handlers and a tick every tenth of a second.
        await server.startup(sockets=[self._socket])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        # Clients may hold idle connections, and a simulated timeout never answers.
        self._server.force_exit = True
        for task in list(self._server.server_state.tasks):
            task.cancel()
        await self._server.shutdown(sockets=[self._socket] if self._socket else None)
        self._socket = None


def serve(replay: Replay, *, host: str, port: int, scale: float, seed: int = 0) -> None:
    """Serve until interrupted; prints the base URL first."""

    async def run() -> None:
        simulator = Simulator(replay, scale=scale, host=host, port=port, seed=seed)
        async with simulator:
            print(f"recorded backbones at {simulator.base_url}", flush=True)
            print(f"books at {simulator.base_url.removesuffix('/v1')}/books", flush=True)
            await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket without Nagle's delay.

    asyncio switches the delay off only where the protocol number says TCP, which that of
    `socket.create_server` does not; a virtual clock would jump past the forty real milliseconds.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise OSError(
            f"can't listen on host {host!r}, port {port}: {error.strerror}; port 0 takes a free one"
        ) from error
    return listening


def _entry(spoken: Spoken, run: str | None) -> Entry:
    reply = spoken.reply
    return Entry(
        run=run or spoken.query,
        query=spoken.query,
        backbone=reply.backbone,
        agent=spoken.agent,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        nanodollars=reply.cost_nanodollars,
        latency_s=reply.latency_s,
        finish=spoken.finish,
        answer=reply.answer,
        correct=reply.correct,
    )


def _message(spoken: Spoken) -> dict[str, Any]:
    if spoken.tool_call is None:
        return {"role": "assistant", "content": spoken.content}
    name, arguments = spoken.tool_call
    call = {"id": "call_recorded", "type": "function"}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**call, "function": {"name": name, "arguments": arguments}}],
    }


def _completion(spoken: Spoken, fault: Fault | None) -> dict[str, Any]:
    completion: dict[str, Any] = {
        "id": "chatcmpl-recorded",
        "object": "chat.completion",
        "created": 0,
        "model": spoken.reply.backbone,
        "choices": [{"index": 0, "message": _message(spoken), "finish_reason": spoken.finish}],
    }
    if fault != "no_usage":
        completion["usage"] = _usage(spoken, fault)
    return completion


def _usage(spoken: Spoken, fault: Fault | None) -> dict[str, Any]:
    reply = spoken.reply
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    if fault == "zero_usage":
        prompt = completion = 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": min(reply.hidden_tokens, completion)},
    }


def _pieces(spoken: Spoken) -> list[dict[str, Any]]:
    """The deltas of a streamed reply."""
    if spoken.tool_call is not None:
        message = _message(spoken)
        message["tool_calls"][0]["index"] = 0
        return [message]
    text = spoken.content or ""
    size = max(1, -(-len(text) // _CHUNKS))
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    return [{"role": "assistant", "content": part} for part in parts]


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _json(content: dict[str, Any]) -> Response:
    return require("starlette.responses", extra="simulator").JSONResponse(content)


def _raw(content: bytes) -> Response:
    response = require("starlette.responses", extra="simulator").Response
    return response(content, media_type="application/json")


def _stream(chunks: AsyncGenerator[bytes]) -> Response:
    response = require("starlette.responses", extra="simulator").StreamingResponse
    return response(chunks, media_type="text/event-stream")


def _failure(status: int, message: str, *, retry_after: bool = False) -> Response:
    error = {"message": message, "type": "simulated", "param": None, "code": None}
    return require("starlette.responses", extra="simulator").JSONResponse(
        {"error": error}, status, headers={"retry-after": "1"} if retry_after else None
    )
