"""The compile hook: every later `StateGraph.compile()` of the process makes balanced graphs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langgraph.graph import StateGraph

from agentbalance_plugin.adapters.langgraph.builder import BalancedStateGraph, stock_compile
from agentbalance_plugin.adapters.langgraph.discover import agents_of, reaches_of
from agentbalance_plugin.adapters.langgraph.models import Backbones
from agentbalance_plugin.adapters.langgraph.options import AnswerExtractor, Mode, Settings
from agentbalance_plugin.adapters.langgraph.planning import QueryReader
from agentbalance_plugin.adapters.planning import Planner
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.runtime.clock import Clock

_lock = threading.Lock()
_installed: list[Settings | None] = []


def install(
    *,
    budget: Budget | None = None,
    backbones: Backbones = "backbones.yaml",
    policy: str | Path | Planner | None = "default",
    mode: Mode = "auto",
    query: QueryReader | None = None,
    answer: AnswerExtractor | None = None,
    clock: Clock | None = None,
) -> None:
    """Make every later `StateGraph.compile()` of the process do what `balance(...)` does.

    Graphs without agents, and graphs that are balanced by themselves, compile as before. Graphs
    that `create_agent` makes keep their edges; as nodes of a balanced graph they are part of its
    runs, alone they have a budget of their own. May be called again: `uninstall` then goes back to
    what was installed before.

    Args:
        budget, backbones, mode, query, answer, clock: as for `balance`.
        policy: as for `balance`; None passes every graph through as it is.

    Raises:
        ValueError: an argument that can't work, or a policy without a budget.
    """
    with _lock:
        _installed.append(_settings(budget, backbones, policy, mode, query, answer, clock))
        if len(_installed) == 1:
            StateGraph.compile = _compile


def uninstall() -> None:
    """Undo the last `install`; graphs that were compiled stay as they are.

    Raises:
        RuntimeError: nothing is installed.
    """
    with _lock:
        if not _installed:
            raise RuntimeError("the compile hook is not installed")
        _installed.pop()
        if not _installed:
            StateGraph.compile = stock_compile


@contextmanager
def balanced(
    *,
    budget: Budget | None = None,
    backbones: Backbones = "backbones.yaml",
    policy: str | Path | Planner | None = "default",
    mode: Mode = "auto",
    query: QueryReader | None = None,
    answer: AnswerExtractor | None = None,
    clock: Clock | None = None,
) -> Generator[None]:
    """`install` for the length of a block."""
    install(
        budget=budget,
        backbones=backbones,
        policy=policy,
        mode=mode,
        query=query,
        answer=answer,
        clock=clock,
    )
    try:
        yield
    finally:
        uninstall()


def _settings(
    budget: Budget | None,
    backbones: Backbones,
    policy: str | Path | Planner | None,
    mode: Mode,
    query: QueryReader | None,
    answer: AnswerExtractor | None,
    clock: Clock | None,
) -> Settings | None:
    if policy is None:
        return None
    if budget is None:
        raise ValueError("budget: a policy needs a budget; pass policy=None to change nothing")
    return Settings.of(
        budget=budget,
        backbones=backbones,
        policy=policy,
        mode=mode,
        agents=None,
        query=query,
        answer=answer,
        clock=clock,
    )


@functools.wraps(stock_compile)
def _compile(self: StateGraph[Any, Any, Any, Any], *args: Any, **options: Any) -> Any:
    settings = _installed[-1] if _installed else None
    if (
        settings is None
        or isinstance(self, BalancedStateGraph)
        or not agents_of(self, None, reaches_of(self))
    ):
        return stock_compile(self, *args, **options)
    return BalancedStateGraph.of(self, settings).compile(*args, **options)
