"""A simulator and OpenAI's own client, as the tests of this room use them."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.simulator.server import Simulator

QUERY = "gsm8k/gsm8k-main-test-#0"
WORDY = "gpt-4o-2024-08-06"
THINKER = "o1-mini-2024-09-12"
SMALL = "Meta-Llama-3.1-8B-Instruct"

_ANSWER = re.compile(r"^Answer: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Answered:
    """What a client sees of one call, and the loop's seconds that it took."""

    text: str
    usage: CompletionUsage | None
    finish: str | None
    seconds: float

    @property
    def answer(self) -> int:
        """The code on the answer line; -1 without one."""
        found = _ANSWER.findall(self.text)
        return int(found[-1]) if found else -1

    @property
    def figures(self) -> tuple[str, int, int, str | None, float]:
        assert self.usage is not None
        prompt, completion = self.usage.prompt_tokens, self.usage.completion_tokens
        return self.text, prompt, completion, self.finish, round(self.seconds, 6)


def messages(task: str, agent: str = "solver") -> list[Any]:
    """A task for a named agent; what else the agent reads may be appended."""
    return [
        {"role": "system", "content": f"[[agent:{agent}]] You solve tasks."},
        {"role": "user", "content": task},
    ]


def marked(query: str) -> str:
    return f"[[query:{query}]] Please solve this."


def visible(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content or ""


class Endpoint:
    """As an async context manager: a simulator runs and `client` talks to it."""

    def __init__(self, replay: Replay, *, scale: float = 1.0, seed: int = 0) -> None:
        self.replay = replay
        self.simulator = Simulator(replay, scale=scale, seed=seed)

    async def __aenter__(self) -> Endpoint:
        await self.simulator.__aenter__()
        self.client = self.new_client()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.client.close()
        await self.simulator.__aexit__(*error)

    def new_client(self, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=self.simulator.base_url, api_key="local", **{"max_retries": 0, **options}
        )

    async def create(self, task: str, model: str = WORDY, **options: Any) -> ChatCompletion:
        """One plain completion of a task."""
        options.setdefault("messages", messages(task))
        return await self.client.chat.completions.create(model=model, **options)

    async def ask(
        self,
        query: str = QUERY,
        model: str = WORDY,
        *,
        agent: str = "solver",
        reads: tuple[str, ...] = (),
        task: str | None = None,
        **options: Any,
    ) -> Answered:
        """One recorded query (or a task in its own words) after reading other replies."""
        said = messages(marked(query) if task is None else task, agent)
        said += [{"role": "user", "content": f"A colleague said: {text}"} for text in reads]
        loop = asyncio.get_running_loop()
        begin = loop.time()
        completion = await self.create("", model, messages=said, **options)
        seconds = loop.time() - begin
        return Answered(
            visible(completion), completion.usage, completion.choices[0].finish_reason, seconds
        )

    async def stream(self, task: str, model: str = WORDY, **options: Any) -> Answered:
        """The same, streamed to its end."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        chunks = await self.client.chat.completions.create(
            model=model, messages=messages(task), stream=True, **options
        )
        text, usage, finish = "", None, None
        async for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        return Answered(text, usage, finish, loop.time() - begin)
