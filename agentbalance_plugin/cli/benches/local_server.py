"""A local endpoint that always answers the same: what is left is client and framework."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from agentbalance_plugin.backbone import Catalog, Endpoint

_MODEL = re.compile(rb'"model"\s*:\s*"([^"]+)"')
# Clients check that the reply names the backbone that they asked for.
_BEFORE, _AFTER = (
    json.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 0,
            "model": "MODEL",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "Seventeen times twenty-three is 391.\nAnswer: 391",
                    },
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 40, "completion_tokens": 16, "total_tokens": 56},
        }
    )
    .encode()
    .split(b"MODEL")
)


def _reply(body: bytes) -> bytes:
    found = _MODEL.search(body)
    content = _BEFORE + (found[1] if found else b"none") + _AFTER
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
    return head.encode() + str(len(content)).encode() + b"\r\n\r\n" + content


class _Connection(asyncio.Protocol):
    """Reads requests with a content-length, which is all that the clients send."""

    def __init__(self, seconds: float, places: asyncio.Semaphore | None) -> None:
        self._seconds = seconds
        self._places = places
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            _, _, after = head.partition(b"content-length:")
            total = end + 4 + int(after.partition(b"\r\n")[0] or 0)
            if len(self._buffer) < total:
                return
            body, self._buffer = self._buffer[end + 4 : total], self._buffer[total:]
            if self._places is None:
                self._send(body)
            else:
                task = asyncio.create_task(self._send_later(body, self._places))
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)

    async def _send_later(self, body: bytes, places: asyncio.Semaphore) -> None:
        async with places:
            await asyncio.sleep(self._seconds)
        self._send(body)

    def _send(self, body: bytes) -> None:
        assert self._transport is not None
        self._transport.write(_reply(body))


@asynccontextmanager
async def local_server(seconds: float = 0.0, at_once: int | None = None) -> AsyncGenerator[str]:
    """Serve in the running event loop; yields the base URL for OpenAI clients.

    Args:
        seconds: that a reply takes, with `at_once`.
        at_once: replies made at a time, others wait; None answers all of them at once.
    """
    loop = asyncio.get_running_loop()
    places = None if at_once is None else asyncio.Semaphore(at_once)
    # Hundreds of runs connect at once: a full backlog would cost each of them a second.
    server = await loop.create_server(
        lambda: _Connection(seconds, places), "127.0.0.1", 0, backlog=2048
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def served(catalog: Catalog, base_url: str) -> Catalog:
    """The same backbones, to be called at this server."""
    return Catalog(
        replace(backbone, endpoint=Endpoint(model=name, base_url=base_url))
        for name, backbone in catalog.items()
    )
