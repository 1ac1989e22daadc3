"""What the runs of a team taught, as JSON values: for the process that serves it next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from agentbalance_plugin.runtime.habits import Habits, Lengths, Memory, Work
from agentbalance_plugin.runtime.pacing import Pacer

_VERSION = 1


def learned_of(habits: Habits, pacer: Pacer | None) -> dict[str, Any]:
    """JSON values only; `learn` takes them."""
    known = habits.memory
    work = known.work
    return {
        "version": _VERSION,
        "runs": known.runs,
        "calls": work.calls,
        "replies": work.replies,
        "extra_tokens": work.extra_tokens,
        "most_extra_tokens": work.most_extra_tokens,
        "lengths": {
            name: {"runs": each.runs, "expected": each.expected, "measured": each.measured}
            for name, each in known.lengths.items()
        },
        "answers": list(known.answers),
        "passes": list(known.passes),
        "price": None
        if pacer is None
        else {
            "mean_cost_usd": pacer.budget.mean_cost_usd,
            "price_usd": pacer.base_price_usd,
        },
    }


def learn(given: object, habits: Habits, pacer: Pacer | None) -> None:
    """Go on from what `learned_of` gave, in place of what is known.

    A price that was found for another mean is left out, and so is money that was left over: each
    process that learned the same would spend it.

    Raises:
        ValueError: it is not what `learned_of` gives, naming the field and the value.
    """
    fields = _mapping(given, "it")
    if fields.get("version") != _VERSION:
        raise ValueError(
            f"learned: version must be {_VERSION}, got {fields.get('version')!r}; give what "
            "`learned` of a wrapped chat or a balanced graph gave"
        )
    memory = Memory(
        runs=_count(fields, "runs"),
        work=Work(
            calls=_number(fields, "calls", above=True),
            replies=_number(fields, "replies", above=True),
            extra_tokens=_number(fields, "extra_tokens"),
            most_extra_tokens=_number(fields, "most_extra_tokens"),
        ),
        lengths={
            name: _lengths(_mapping(each, f"lengths.{name}"), f"lengths.{name}.")
            for name, each in _mapping(fields.get("lengths"), "lengths").items()
        },
        answers=_flags(fields, "answers"),
        passes=_flags(fields, "passes"),
    )
    if fields.get("price") is not None:
        price = _mapping(fields["price"], "price")
        price_usd = _number(price, "price_usd", "price.", above=True)
        mean = _number(price, "mean_cost_usd", "price.", above=True)
        if pacer is not None and pacer.budget.mean_cost_usd == mean:
            pacer.go_on_from(price_usd)
    habits.remember(memory)


def _lengths(fields: Mapping[str, Any], within: str) -> Lengths:
    return Lengths(
        _count(fields, "runs", within),
        _number(fields, "expected", within, above=True),
        _number(fields, "measured", within, above=True),
    )


def _mapping(given: object, name: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"learned: {name} must be a mapping, got {given!r}")
    return cast("Mapping[str, Any]", given)


def _number(
    fields: Mapping[str, Any], name: str, within: str = "", *, above: bool = False
) -> float:
    """A finite number of at least 0, or above it."""
    value = fields.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        number = float(value)
        if number > 0.0 or (number == 0.0 and not above):
            return number
    least = "above 0" if above else "of at least 0"
    raise ValueError(f"learned: {within}{name} must be a number {least}, got {value!r}")


def _count(fields: Mapping[str, Any], name: str, within: str = "") -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(
            f"learned: {within}{name} must be a whole number of at least 0, got {value!r}"
        )
    return value


def _flags(fields: Mapping[str, Any], name: str) -> tuple[bool, ...]:
    value = fields.get(name)
    flags = cast("list[object]", value) if isinstance(value, (list, tuple)) else [value]
    found = tuple(flag for flag in flags if isinstance(flag, bool))
    if len(found) < len(flags):
        raise ValueError(f"learned: {name} must be a list of true and false, got {value!r}")
    return found
