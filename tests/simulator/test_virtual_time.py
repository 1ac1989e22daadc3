from __future__ import annotations

import asyncio
import threading

import pytest

from agentbalance_plugin.simulator.virtual_time import run_virtual

pytestmark = pytest.mark.virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_sleeps_and_timeouts_take_virtual_seconds() -> None:
    begin = now()
    await asyncio.gather(asyncio.sleep(1000), asyncio.sleep(3000))
    assert now() - begin == pytest.approx(3000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.Event().wait()
    assert now() - begin == pytest.approx(3005)


async def test_timers_fire_in_order() -> None:
    fired: list[int] = []
    for seconds in (30, 10, 20):
        asyncio.get_running_loop().call_later(seconds, fired.append, seconds)
    await asyncio.sleep(40)
    assert fired == [10, 20, 30]


async def test_sockets_take_no_time_but_what_the_server_sleeps() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        await asyncio.sleep(float(line))
        writer.write(line)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def ask(seconds: float) -> float:
        begin = now()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{seconds}\n".encode())
        await reader.readline()
        writer.close()
        return now() - begin

    for _ in range(20):
        taken = await asyncio.gather(*(ask(seconds) for seconds in (3, 1, 2)))
        assert taken == pytest.approx([3, 1, 2])
    server.close()
    await server.wait_closed()


async def test_the_clock_stands_while_a_thread_works() -> None:
    release = threading.Event()
    loop = asyncio.get_running_loop()
    timer = loop.call_later(10, lambda: None)
    work = loop.run_in_executor(None, release.wait)
    loop.call_soon(release.set)
    begin = now()
    assert await work is True
    assert now() == begin
    timer.cancel()


def test_run_virtual_returns_the_result() -> None:
    async def main() -> float:
        await asyncio.sleep(12)
        return now()

    assert run_virtual(main()) == pytest.approx(12)
