"""Answers of an endpoint that AutoGen's client of OpenAI's API finds no reply in."""

from __future__ import annotations

from traceback import walk_tb

from autogen_core.models import CreateResult

_CLIENT = "autogen_ext.models.openai._openai_client"


def found_no_reply(error: Exception) -> bool:
    """Whether the client failed over an answer that has no choices, an error in their place, or is
    a page. It says so by bare errors, so where they are raised tells them from others."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    if frame.f_globals.get("__name__") != _CLIENT or frame.f_code.co_name != "create":
        return False
    # Another TypeError is about the arguments of the call.
    missing = isinstance(error, TypeError) and "NoneType" in str(error)
    return missing or isinstance(error, (IndexError, AttributeError))


def is_no_reply(result: CreateResult) -> bool:
    """Whether a stream that nothing came of ends with this."""
    used = result.usage.prompt_tokens or result.usage.completion_tokens
    return not used and not result.content and result.finish_reason == "unknown"
