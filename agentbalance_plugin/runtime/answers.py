"""What an agent's message says the answer is, so that agreement can be seen."""

from __future__ import annotations

import json
import re
from typing import Any, cast

_ANSWER_LINE = re.compile(r"^[\s*_#>-]*(?:final\s+)?answer[*_]*\s*:[\s*_]*(?P<answer>\S.*)$", re.I)
_BOXED = r"\boxed{"
# What may stand around a letter; a sign is part of it (A+ is not A-, nor C++ C).
_CHOICE = re.compile(r"[\s(\[{*_\"'`$]*([A-Za-z])[\s)\]}*_\"'`$.:,;]*")
_MATHS = re.compile(r"\$+([^$]+)\$+|\\\((.+)\\\)|\\\[(.+)\\\]")
_NUMBER = re.compile(r"[-+]?\$?\s?[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?")


def extract_answer(text: str) -> str | None:
    """The answer in a message, or None if it gives none that could be compared.

    The first rule that matches wins: an `Answer:` or `Final answer:` line (the last one), the last
    `\\boxed{}`, a message that is one choice letter, a JSON object's key `answer`, a message that
    is one number. Numbers are compared without thousands separators, `$` and trailing zeros.
    """
    for rule in (_from_line, _from_box, _from_choice, _from_json, _from_number):
        answer = rule(text)
        if answer:
            return canonical(answer)
    return None


def canonical(answer: str) -> str:
    """One spelling for answers that mean the same: numbers, letters, white space."""
    answer = " ".join(answer.split())
    if maths := _MATHS.fullmatch(answer):
        answer = next(filter(None, maths.groups())).strip()
    if _NUMBER.fullmatch(answer):
        return _plain_number(answer)
    choice = _CHOICE.fullmatch(answer)
    return choice[1].upper() if choice else answer


def _from_line(text: str) -> str | None:
    for line in reversed(text.splitlines()):
        found = _ANSWER_LINE.match(line)
        if found:
            answer = found["answer"].strip().strip("*_`").strip()
            return _from_box(answer) or answer.removesuffix(".")
    return None


def _from_box(text: str) -> str | None:
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth = 1
    begin = start + len(_BOXED)
    for index in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index].strip()
    return None


def _from_choice(text: str) -> str | None:
    found = _CHOICE.fullmatch(text.strip())
    return found[1] if found else None


def _from_json(text: str) -> str | None:
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        value: Any = json.loads(text[start : end + 1])
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    answer = cast("dict[str, Any]", value).get("answer")
    return None if answer is None else str(answer).strip()


def _from_number(text: str) -> str | None:
    text = text.strip().removesuffix(".")
    return text if _NUMBER.fullmatch(text) else None


def _plain_number(text: str) -> str:
    percent = "%" if text.endswith("%") else ""
    text = re.sub(r"[,$\s%]", "", text).removeprefix("+")
    if "e" not in text.lower() and "." in text:
        text = text.rstrip("0").rstrip(".")
    text = re.sub(r"^(-?)0+(?=\d)", r"\1", text)
    text = re.sub(r"^(-?)\.", r"\g<1>0.", text)
    return ("0" if text in ("-0", "") else text) + percent
