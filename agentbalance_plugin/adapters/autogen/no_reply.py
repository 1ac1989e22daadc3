"""Answers of an endpoint that are no reply, or only the beginning of one, which AutoGen does not
say."""

from __future__ import annotations

import json
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


def has_no_end(result: CreateResult) -> bool:
    """Whether the last tool call of a reply has no end; AutoGen does not say why it ended."""
    if not isinstance(result.content, list):
        return False
    try:
        json.loads(result.content[-1].arguments or "{}")
    except ValueError:
        return True
    return False
