"""A service that answers each request in an event loop of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from chats import MINI, Bench, texts

from agentbalance_plugin.adapters.autogen import clients_for
from agentbalance_plugin.adapters.autogen.wrapped import WrappedTeam


async def answered(team: WrappedTeam, task: str) -> tuple[list[str], Any]:
    result = await team.run(task=task)
    return [source for source, _ in texts(result.messages)], result.stop_reason


async def test_chats_of_other_loops_and_threads_answer_as_well(instant: Bench) -> None:
    backbones = instant.catalog(MINI)
    first = instant.wrap(instant.chat(), mode="backbones", backbones=backbones)
    expected = await answered(first, instant.task())

    def request() -> Any:
        return asyncio.run(answered(first.another(instant.chat()), instant.task()))

    for _ in range(3):
        assert await asyncio.to_thread(request) == expected
    at_once = [asyncio.to_thread(request) for _ in range(4)]
    assert await asyncio.gather(*at_once) == [expected] * 4
    assert await answered(first.another(instant.chat()), instant.task()) == expected


async def test_clients_of_loops_that_are_over_are_not_kept(bench: Bench) -> None:
    clients = clients_for(bench.catalog(MINI))

    async def made() -> Any:
        assert clients(MINI) is clients(MINI)
        return clients(MINI)

    own = await made()
    others = [await asyncio.to_thread(lambda: asyncio.run(made())) for _ in range(3)]
    assert len({id(each) for each in [own, *others]}) == 4
    assert await made() is own
    assert len(clients._made) == 1
    await clients.close()
    assert await made() is not own
    await clients.close()
