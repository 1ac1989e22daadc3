"""What a task may cost, and what it did cost.

Money is counted in integer nano-dollars inside the package; dollars as floats appear only at the
edges (arguments and reports).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

NANODOLLARS_PER_USD = 1_000_000_000

_LARGEST_INT = 2**63 - 1

OnExceeded = Literal["finish", "raise"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard caps for one task.

    Args:
        cost_usd: most that the calls of one task may cost, in US dollars.
        latency_s: seconds from the start of a run after which it returns what it has.
        tokens: most prompt + completion + hidden tokens, as reported by the endpoints, unweighted
            over backbones. With tokens alone money is unbounded.
        on_exceeded: "finish" returns the best answer so far with a stop reason, "raise" raises
            `BudgetExceeded`, which carries the report.
        mean_cost_usd: set by `Budget.average`: what the mean cost over a stream of tasks is
            steered to. Always at most `cost_usd`.

    Raises:
        ValueError: no limit at all, or one that is zero, negative or not a finite number.
    """

    cost_usd: float | None = None
    latency_s: float | None = None
    tokens: int | None = None
    on_exceeded: OnExceeded = "finish"
    mean_cost_usd: float | None = None

    def __post_init__(self) -> None:
        if self.cost_usd is None and self.latency_s is None and self.tokens is None:
            raise ValueError("Budget needs at least one limit: cost_usd, latency_s or tokens")
        for field in ("cost_usd", "latency_s", "tokens", "mean_cost_usd"):
            object.__setattr__(self, field, _plain(field, getattr(self, field)))
        if self.tokens is not None and not isinstance(self.tokens, int):
            raise ValueError(f"Budget.tokens must be a whole number, got {self.tokens!r}")
        if self.on_exceeded not in ("finish", "raise"):
            raise ValueError(
                f"Budget.on_exceeded must be 'finish' or 'raise', got {self.on_exceeded!r}"
            )
        if self.mean_cost_usd is not None:
            if self.cost_usd is None:
                raise ValueError("Budget.mean_cost_usd needs a hard cap: use Budget.average(...)")
            if self.mean_cost_usd > self.cost_usd:
                raise ValueError(
                    f"the mean cost ({self.mean_cost_usd} USD) is above the hard cap per task "
                    f"({self.cost_usd} USD); raise max_cost_usd or lower cost_usd"
                )
        for field in ("cost_usd", "mean_cost_usd"):
            usd = getattr(self, field)
            if usd is not None and not math.isfinite(usd * NANODOLLARS_PER_USD):
                raise ValueError(f"Budget.{field} is too large to count in nano-dollars: {usd!r}")
            if usd is not None and usd_to_nanodollars(usd) == 0:
                raise ValueError(f"Budget.{field} is below one nano-dollar: {usd!r}")

    @classmethod
    def average(
        cls,
        *,
        cost_usd: float,
        max_cost_usd: float,
        latency_s: float | None = None,
        on_exceeded: OnExceeded = "finish",
    ) -> Budget:
        """A mean cost over the stream of tasks, with a hard cap on each of them.

        Args:
            cost_usd: the mean over the stream, in US dollars.
            max_cost_usd: hard cap of each task, in US dollars, at least `cost_usd`.
            latency_s: deadline of each task, in seconds.
            on_exceeded: as in `Budget`.

        Raises:
            ValueError: as `Budget`, or a mean above the hard cap.
        """
        for field, usd in (("cost_usd", cost_usd), ("max_cost_usd", max_cost_usd)):
            if _plain(f"average {field}", usd) is None:
                raise ValueError(f"Budget.average {field} must be a number, got None")
        return cls(
            cost_usd=max_cost_usd,
            latency_s=latency_s,
            on_exceeded=on_exceeded,
            mean_cost_usd=cost_usd,
        )

    @property
    def nanodollars(self) -> int | None:
        """The hard cost cap in nano-dollars, rounded down."""
        return None if self.cost_usd is None else usd_to_nanodollars(self.cost_usd)


@dataclass(frozen=True, slots=True)
class Spend:
    """What calls used: money in nano-dollars, tokens as billed, seconds end to end."""

    nanodollars: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    latency_s: float = 0.0

    @property
    def cost_usd(self) -> float:
        return self.nanodollars / NANODOLLARS_PER_USD

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Spend) -> Spend:
        """Sum of two spends; their latencies add up, as for calls made one after the other."""
        return Spend(
            self.nanodollars + other.nanodollars,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.calls + other.calls,
            self.latency_s + other.latency_s,
        )


def usd_to_nanodollars(usd: float) -> int:
    """Dollars to whole nano-dollars, rounded down (a cap is never rounded up).

    The tiny relative margin keeps decimal amounts such as 0.1 from losing a nano-dollar to their
    binary representation.
    """
    return math.floor(usd * NANODOLLARS_PER_USD * (1 + 1e-12))


def _plain(field: str, value: float | None) -> float | None:
    """The limit as one of Python's own numbers, of at most 64 bits: checkpoints hold no others, and
    would say so only after calls were paid for."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"Budget.{field} must be an int or a float, got {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"Budget.{field} must be a finite number above zero, got {value!r}")
    if isinstance(value, float):
        return float(value)
    if value > _LARGEST_INT:
        raise ValueError(f"Budget.{field} must be at most {_LARGEST_INT}, got {value!r}")
    return int(value)
