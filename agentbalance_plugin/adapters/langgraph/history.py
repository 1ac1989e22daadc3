"""The task that a run goes on with, and all that it has spent on its thread so far.

A run leaves its books at the checkpoint that it reached. Whoever edits the state after it, or goes
back to an earlier checkpoint, goes on at one that does not have them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from agentbalance_plugin.adapters.langgraph.stored import (
    StoredTask,
    begins,
    checkpoint_id,
    spends_in,
    stored_task,
    with_books,
)


class Found(NamedTuple):
    """Where a run goes on; None for nothing.

    Args:
        saved: the checkpoint that it was called at.
        task: that this is in the middle of.
        latest: the id of the thread's last checkpoint.
    """

    saved: CheckpointTuple | None = None
    task: StoredTask | None = None
    latest: str | None = None


def resumed(
    saver: BaseCheckpointSaver[Any], config: RunnableConfig, thread: RunnableConfig
) -> Found:
    """What there is to go on with at a config.

    Args:
        thread: the config's, at no checkpoint.

    Raises:
        ValueError: the checkpoint was written by a version with another format.
    """
    saved = saver.get_tuple(config)
    latest = _id(saved if checkpoint_id(config) is None else saver.get_tuple(thread))
    task = stored_task(saved)
    if task is None or _is_last(task, config):
        return Found(saved, task, latest)
    search = _Search(task)
    try:
        for each in saver.list(thread):
            if search.ends_at(each):
                break
    # Not every checkpointer can look back.
    except NotImplementedError:
        pass
    return Found(saved, with_books(task, search.found), latest)


async def aresumed(
    saver: BaseCheckpointSaver[Any], config: RunnableConfig, thread: RunnableConfig
) -> Found:
    """As `resumed`."""
    saved = await saver.aget_tuple(config)
    latest = _id(saved if checkpoint_id(config) is None else await saver.aget_tuple(thread))
    task = stored_task(saved)
    if task is None or _is_last(task, config):
        return Found(saved, task, latest)
    search = _Search(task)
    try:
        async for each in saver.alist(thread):
            if search.ends_at(each):
                break
    except NotImplementedError:
        pass
    return Found(saved, with_books(task, search.found), latest)


def _id(saved: CheckpointTuple | None) -> str | None:
    return None if saved is None else checkpoint_id(saved.config)


def _is_last(task: StoredTask, config: RunnableConfig) -> bool:
    """Whether nothing was done on the thread since the task's last part ended."""
    return task.left_here and checkpoint_id(config) is None


class _Search:
    """Through a thread's checkpoints, the newest first, for what a task has spent.

    It goes no further back than the task's own end: who goes back from there does it again, from
    the books of that time. Other tasks may lie between: the thread went on with one before someone
    came back to this.
    """

    def __init__(self, task: StoredTask) -> None:
        self._number = task.number
        self.found: list[Any] = []

    def ends_at(self, saved: CheckpointTuple) -> bool:
        """Look at a checkpoint; whether the search is over."""
        own = [each for each in spends_in(saved) if each["run"] == self._number]
        if any(each.get("over") for each in own):
            return True
        self.found += own
        return begins(saved, self._number)
