"""What a failed call cost, and whether it is worth another try."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from agentbalance_plugin.runtime.call import Call, CallDenied
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.outages import Fault
from agentbalance_plugin.runtime.usage import reported

MAX_RETRIES = 2
"""Tries after the first, each with a reservation of its own."""

_FIRST_DELAY_S = 0.5
# As the OpenAI and Anthropic SDKs have it: who is told to come back in an hour does not wait.
_LONGEST_DELAY_S = 60.0
_RETRIED_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})
# What is no JSON is a body that broke off, or a page of some gateway.
_TRANSPORT = ("APIConnectionError", "APITimeoutError", "APIError", "JSONDecodeError", "NoReply")
# A key, an account, a model's name or the load of this endpoint; another has its own.
_ELSEWHERE = frozenset({401, 402, 403, 404, 408, 409, 429})
# Work was done before these, and Azure bills it: a reply that took too long, a prompt that was read
# and filtered.
_TIMED_OUT = 408
_FILTERED = "content_filter"
# How OpenAI, vLLM, Anthropic and Google put it.
_TOO_LONG = (400, 413)
_PROMPT_TOO_LONG = ("context length", "context_length", "prompt is too long", "token count")
# What OpenAI's SDK raises where a reply that it parses ends at its cap.
_CUT = "LengthFinishReasonError"
_UNREACHABLE = (*_TRANSPORT, "ConnectError", "ConnectTimeout", "ReadTimeout", "ReadError")


class NoReply(Exception):
    """An endpoint answered, but not with a reply: an error where it should be, say, or nothing."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """What an error says about the call that raised it."""

    billed: bool
    retry: bool
    after_s: float | None = None


def pause_before_retry(meter: Meter, call: Call, error: Exception, attempt: int) -> float:
    """Book a failed call.

    Args:
        attempt: 0 for the first try; `MAX_RETRIES` for one after which there is none.

    Returns:
        Clock seconds to wait before the next try.

    Raises:
        CallDenied: the budget cut a reply whose end was needed.
        Exception: `error` itself, where another try would not help, or there is no time for it,
            or no money: a failure may be billed, and what is left is better spent elsewhere.
    """
    if isinstance(error, CallDenied):
        raise error
    if type(error).__name__ == _CUT:
        call.settle(*_usage(error))
        if call.lowered:
            raise call.cut_short() from error
        raise error
    failure = _classify(error)
    billed = failure.billed or call.worked
    if billed:
        call.settle(0, 0)
    else:
        call.release()
    left = meter.seconds_left(call.agent)
    delay = failure.after_s
    if delay is None:
        # Jitter keeps parallel agents from coming back in step.
        delay = _FIRST_DELAY_S * 2**attempt * random.uniform(0.75, 1.25)
    late = left is not None and delay >= left
    dear = billed and not meter.fits_again(call)
    if not failure.retry or attempt >= MAX_RETRIES or late or dear:
        raise error
    return delay


def outage(error: Exception) -> Fault | None:
    """What ails a backbone's endpoint, so that another may answer in its place; None where the
    call itself may be at fault."""
    if isinstance(error, CallDenied):
        return None
    status = _status(error)
    name = type(error).__name__
    if status in _TOO_LONG and any(words in str(error).lower() for words in _PROMPT_TOO_LONG):
        return Fault(f"{name}, the prompt is too long for it", lasts=False)
    if status is not None:
        known = status in _ELSEWHERE or status >= 500
        return Fault(f"{name}, status {status}") if known else None
    unreachable = _is(error, _UNREACHABLE) or isinstance(error, ConnectionError)
    return Fault(name) if unreachable else None


def _status(error: Exception) -> int | None:
    """HTTP SDKs agree on `status_code`; Google's says `code`."""
    status = getattr(error, "status_code", None)
    # The code of an error inside a stream of openai is the body's own, after tokens were made.
    code = None if hasattr(error, "body") else getattr(error, "code", None)
    for found in (status, code):
        if isinstance(found, int):
            return found
    return None


def _classify(error: Exception) -> _Failure:
    """HTTP SDKs agree on the names of their connection errors."""
    status = _status(error)
    if status is not None:
        worked = status == _TIMED_OUT or getattr(error, "code", None) == _FILTERED
        refused = 400 <= status < 500 and not worked
        after = _retry_after(error)
        soon = after is None or after <= _LONGEST_DELAY_S
        return _Failure(not refused, status in _RETRIED_STATUS and soon, after)
    causes = _causes(error)
    if _is(error, ("APIConnectionError",)) and any(
        _is(each, ("ConnectError", "ConnectTimeout")) for each in causes[1:]
    ):
        return _Failure(billed=False, retry=True)
    broken = isinstance(error, asyncio.IncompleteReadError)
    return _Failure(billed=True, retry=broken or _is(error, _TRANSPORT))


def _is(error: BaseException, names: tuple[str, ...]) -> bool:
    """Whether an error is of a class so named, or of one built on it."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__
    return found


def _usage(error: Exception) -> tuple[int, int]:
    """(prompt tokens, output tokens) of a reply that an error tells of; (0, 0) if not known."""
    usage: Any = getattr(getattr(error, "completion", None), "usage", None)
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return reported(*(getattr(usage, name, None) for name in names))


def _retry_after(error: Exception) -> float | None:
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return max(0.0, float(headers.get("retry-after")))
    except (TypeError, ValueError):
        return None
