"""Recorded queries as texts, where the traces have figures alone."""

from __future__ import annotations

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import Query

_FILLER = "so it is. "


def task_text(query: Query, replay: Replay) -> str:
    """A recorded query as a task: its text where the traces have it, else its marker and filler.

    The filler makes the text at least as many bytes as any backbone's recorded prompt has tokens,
    so that bounds on the prompt hold for what is billed.
    """
    marker = f"[[query:{query.key}]] "
    tokens = int(replay.traces.prompt_tokens[replay.traces.index(query.key)].max())
    text = marker + (query.question or "")
    return text + filler(tokens - len(text.encode()))


def filler(size: int) -> str:
    """So many bytes of text; none for a size below one."""
    return (_FILLER * (max(0, size) // len(_FILLER) + 1))[: max(0, size)]
