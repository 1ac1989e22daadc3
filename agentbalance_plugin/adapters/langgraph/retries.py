"""Tries after the first: none of a denied call, and none that would come after the deadline.

An asynchronous run is cancelled at its deadline, whatever it waits for. A synchronous one sleeps as
long as LangChain's `with_retry` or LangGraph's RetryPolicy tell it to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import RetryPolicy
from tenacity import retry_all, retry_if_exception_type, retry_if_not_exception_type, wait_none

from agentbalance_plugin.adapters.langgraph.internals import attempt_of, is_retried
from agentbalance_plugin.adapters.langgraph.race import Decided
from agentbalance_plugin.adapters.langgraph.run import OutOfBudget, Run, caller_of
from agentbalance_plugin.runtime.call import DeadlineReached


def within_budget(options: dict[str, Any]) -> dict[str, Any]:
    """What `with_retry` tells tenacity: to ask again whatever was raised, a second and more later.

    A budget does not grow back, so denials are final; and no pause goes on past the deadline, where
    the next try is denied.
    """
    asked = options.get("retry", retry_if_exception_type())
    final = retry_if_not_exception_type((OutOfBudget, Decided))
    pause: Any = options.get("wait", wait_none())

    def wait(state: Any) -> float:
        seconds = float(pause(state))
        caller = caller_of(None)
        left = None if caller is None else _real_seconds_left(caller.run, caller.agent)
        return seconds if left is None else min(seconds, left)

    return {**options, "retry": retry_all(asked, final), "wait": wait}


def too_late(
    run: Run, agent: str, policies: Sequence[RetryPolicy], error: Exception, config: RunnableConfig
) -> OutOfBudget | None:
    """What ends an agent whose node has failed and would be run again after the deadline; None
    where there is time, or where LangGraph gives up by itself.

    Args:
        policies: of the node.
        config: of the try that failed.
    """
    left = _real_seconds_left(run, agent)
    policy = next((each for each in policies if is_retried(each, error)), None)
    attempt = attempt_of(config)
    if left is None or policy is None or attempt >= policy.max_attempts:
        return None
    pause = policy.initial_interval * policy.backoff_factor ** (attempt - 1)
    # LangGraph adds up to a second of jitter.
    if min(pause, policy.max_interval) + 1.0 * policy.jitter < left:
        return None
    reason = f"{agent}: {type(error).__name__}: {error}; no time is left to try again"
    return OutOfBudget(DeadlineReached(reason))


def _real_seconds_left(run: Run, agent: str) -> float | None:
    left = run.meter.seconds_left(agent)
    return None if left is None else max(0.0, left) * run.meter.clock.scale
