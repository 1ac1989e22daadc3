"""Which errors are an endpoint's own, so that another backbone may answer."""

from __future__ import annotations

import httpx
import pytest
from openai import APIConnectionError, AuthenticationError, BadRequestError, RateLimitError

from agentbalance_plugin.runtime.failures import outage
from agentbalance_plugin.runtime.meter import CallDenied, DeadlineReached

REQUEST = httpx.Request("POST", "http://127.0.0.1:9/v1")


def refused(kind: type, status: int, said: str = "key sk-secret is wrong") -> Exception:
    return kind(said, response=httpx.Response(status, request=REQUEST), body=None)


class GoogleError(Exception):
    code = 503


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
        (httpx.ConnectError("refused"), "ConnectError"),
        (ConnectionRefusedError(), "ConnectionRefusedError"),
        (GoogleError(), "GoogleError, status 503"),
        (ValueError("a bug of the caller"), None),
        (CallDenied("no money"), None),
        (DeadlineReached("no time"), None),
    ],
)
def test_an_outage_is_told_from_a_fault_of_the_call(error: Exception, said: str | None) -> None:
    assert outage(error) == said
