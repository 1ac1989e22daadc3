"""Which errors are an endpoint's own, so that another backbone may answer."""

from __future__ import annotations

from decimal import Decimal
from json import JSONDecodeError

import httpx
import pytest
from openai import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    RateLimitError,
)

from agentbalance_plugin import Backbone, Budget
from agentbalance_plugin.runtime.call import CallDenied, DeadlineReached
from agentbalance_plugin.runtime.failures import MAX_RETRIES, outage, pause_before_retry
from agentbalance_plugin.runtime.meter import Meter

REQUEST = httpx.Request("POST", "http://127.0.0.1:9/v1")


def refused(kind: type, status: int, said: str = "key sk-secret is wrong") -> Exception:
    return kind(said, response=httpx.Response(status, request=REQUEST), body=None)


class GoogleError(Exception):
    code = 503


class OpenAIConnectionError(APIConnectionError):
    """As langchain-openai names it."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refused(AuthenticationError, 401), "AuthenticationError, status 401"),
        (refused(RateLimitError, 429), "RateLimitError, status 429"),
        (refused(BadRequestError, 400), None),
        (
            refused(BadRequestError, 400, "This model's maximum context length is 8192 tokens"),
            "BadRequestError, the prompt is too long for it",
        ),
        (APIConnectionError(request=REQUEST), "APIConnectionError"),
        (OpenAIConnectionError(request=REQUEST), "OpenAIConnectionError"),
        (httpx.ConnectError("refused"), "ConnectError"),
        (ConnectionRefusedError(), "ConnectionRefusedError"),
        (GoogleError(), "GoogleError, status 503"),
        (JSONDecodeError("not JSON", "<html>", 0), "JSONDecodeError"),
        (ValueError("a bug of the caller"), None),
        (CallDenied("no money"), None),
        (DeadlineReached("no time"), None),
    ],
)
def test_an_outage_is_told_from_a_fault_of_the_call(error: Exception, said: str | None) -> None:
    fault = outage(error)
    assert (fault and fault.reason) == said


@pytest.mark.parametrize(
    ("asked", "waits"), [("7", 7.0), ("0", 0.0), ("3600", None), ("inf", None)]
)
def test_nobody_waits_for_an_endpoint_that_is_away_for_long(
    asked: str, waits: float | None
) -> None:
    meter = Meter(Budget(cost_usd=1))
    response = httpx.Response(429, request=REQUEST, headers={"retry-after": asked})
    error = RateLimitError("too many requests", response=response, body=None)
    with meter.reserve("solver", Backbone("mini", Decimal(1), Decimal(1)), 100) as call:
        if waits is None:
            with pytest.raises(RateLimitError):
                pause_before_retry(meter, call, error, 0)
        else:
            assert pause_before_retry(meter, call, error, 0) == waits
    assert meter.spend().calls == 0


@pytest.mark.parametrize(
    ("budget", "again"),
    [
        (Budget(cost_usd=0.0014), True),
        (Budget(cost_usd=0.0013), False),
        (Budget(tokens=1400), True),
        (Budget(tokens=1300), False),
    ],
)
def test_a_failure_that_may_be_billed_is_not_retried_with_less_than_it_had(
    budget: Budget, again: bool
) -> None:
    backbone = Backbone("mini", Decimal(1), Decimal(1), max_output_tokens=600)
    for error, retried in (
        (refused(InternalServerError, 500), again),
        (refused(RateLimitError, 429), True),
    ):
        meter = Meter(budget)
        with meter.reserve("solver", backbone, 100) as call:
            if retried:
                assert pause_before_retry(meter, call, error, 0) > 0
            else:
                with pytest.raises(InternalServerError):
                    pause_before_retry(meter, call, error, 0)


@pytest.mark.parametrize(
    ("status", "code", "calls"),
    [(408, None, 1), (400, "content_filter", 1), (400, "invalid_value", 0), (413, None, 0)],
)
def test_a_refusal_after_work_was_done_is_booked(status: int, code: str | None, calls: int) -> None:
    meter = Meter(Budget(cost_usd=0.0015))
    response = httpx.Response(status, request=REQUEST)
    error = APIStatusError("refused", response=response, body={"code": code})
    backbone = Backbone("mini", Decimal(1), Decimal(1), max_output_tokens=900)
    with meter.reserve("solver", backbone, 100) as call, pytest.raises(APIStatusError):
        pause_before_retry(meter, call, error, MAX_RETRIES)
    assert meter.spend().calls == calls
    assert meter.spend().tokens == 1000 * calls


def test_what_is_set_aside_for_others_is_no_room_for_a_retry() -> None:
    meter = Meter(Budget(cost_usd=0.002))
    meter.protect("decider", nanodollars=700_000)
    backbone = Backbone("mini", Decimal(1), Decimal(1), max_output_tokens=600)
    with meter.reserve("solver", backbone, 100) as call, pytest.raises(InternalServerError):
        pause_before_retry(meter, call, refused(InternalServerError, 500), 0)
