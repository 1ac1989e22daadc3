"""`agentbalance serve-backbones`, in a process of its own and in real time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from endpoint import QUERY, WORDY, marked, messages, visible
from openai import APITimeoutError, OpenAI

from agentbalance_plugin.core.replay import Replay

COMMAND = [sys.executable, "-c", "from agentbalance_plugin.cli.main import main; main()"]


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    arguments = ["serve-backbones", "--port", "0", "--scale", "0"]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def base_url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:[1-9]\d*/v1$", line.strip())
    assert found, f"no base URL in {line!r}"
    return found[0]


def stop(server: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error after an interrupt."""
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=10)
    return server.returncode, errors


def test_it_answers_at_the_address_it_prints_and_stops_when_interrupted(
    server: subprocess.Popen[str], replay: Replay
) -> None:
    with OpenAI(base_url=base_url(server), api_key="local", max_retries=0) as client:
        completion = client.chat.completions.create(
            model=WORDY, messages=messages(marked(QUERY)), timeout=30
        )
    reply = replay.reply(QUERY, WORDY, agent="solver")
    assert visible(completion).endswith(f"\nAnswer: {reply.answer}")
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == reply.prompt_tokens
    assert completion.usage.completion_tokens == reply.completion_tokens
    assert stop(server) == (0, "")


def test_it_stops_when_interrupted_though_a_request_hangs(server: subprocess.Popen[str]) -> None:
    with OpenAI(base_url=base_url(server), api_key="local", max_retries=0) as client:
        with pytest.raises(APITimeoutError):
            client.chat.completions.create(
                model=WORDY,
                messages=messages(marked(QUERY)),
                extra_headers={"x-simulate-fault": "timeout"},
                timeout=0.2,
            )
        code, errors = stop(server)
    assert code == 0
    assert "Traceback" not in errors
