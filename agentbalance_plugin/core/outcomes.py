"""What a replay found, and which of its numbers are exact."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CopyMode = Literal["resampled", "identical"]


@dataclass(frozen=True)
class Provenance:
    """How the numbers of a replay came about: counts of calls, unless said otherwise.

    Prices, recorded tokens, prompt growth, votes and late gates are exact arithmetic throughout.

    Args:
        calls: all of them.
        influenced: answers drawn by the model of communication, as peers' answers were read.
        resampled: answers of a backbone's further copies drawn from a similar backbone or repeated
            (such a call may be influenced as well).
        missing: the traces have no row: wrong, no answer, that backbone's mean tokens.
        cut: ended by the output cap: no answer, wrong.
        hidden: billed hidden reasoning tokens, an estimate of the catalog.
        hidden_tokens: their number.
        measured: latency was measured; all others are nominal speeds with noise.
        speed_unknown: latency from typical speeds, as the catalog states none.
        copies: "resampled", or "identical" where copies of a backbone answer alike.
        estimated_on: the split that abilities and agreement rates come from; None if the traces
            do not have it, so that no source counts more than another.
    """

    calls: int = 0
    influenced: int = 0
    resampled: int = 0
    missing: int = 0
    cut: int = 0
    hidden: int = 0
    hidden_tokens: int = 0
    measured: int = 0
    speed_unknown: int = 0
    copies: CopyMode = "resampled"
    estimated_on: str | None = "train"

    def __add__(self, other: Provenance) -> Provenance:
        """The counts of two replays by the same rules together."""
        counts = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name not in ("copies", "estimated_on")
        }
        return Provenance(**counts, copies=self.copies, estimated_on=self.estimated_on)

    def describe(self) -> str:
        """One paragraph to print beside the numbers."""
        parts = [
            f"replay of recorded answers, {self.calls} calls",
            f"{self.influenced} answers modelled after reading peers",
            f"{self.resampled} modelled as further samples (copies {self.copies})",
        ]
        if self.missing:
            parts.append(f"{self.missing} without a recorded row (wrong, mean tokens)")
        if self.cut:
            parts.append(f"{self.cut} cut by the output cap")
        if self.hidden:
            parts.append(
                f"{self.hidden} with {self.hidden_tokens} hidden reasoning tokens estimated by "
                "the catalog"
            )
        parts.append(f"latency modelled from nominal speeds, {self.measured} calls measured")
        if self.speed_unknown:
            parts.append(f"{self.speed_unknown} at a typical speed, as theirs is unknown")
        if self.estimated_on is None:
            parts.append("no split to estimate abilities from")
        return "; ".join(parts)


@dataclass(frozen=True)
class Outcomes:
    """Results of plans on queries; arrays of shape [N], or [N, P] for several plans.

    Args:
        correct: bool, whether the team's answer is right.
        answer: int64 code of the answer, -1 for none.
        cost_nanodollars: int64.
        latency_s: float64 end to end.
        prompt_tokens, completion_tokens: int64 as billed over all calls; completion tokens hold
            the hidden ones.
        calls: int64.
        hops: int64 agents on the longest path among those that ran.
        provenance: of all of them together.
    """

    correct: NDArray[np.bool_]
    answer: NDArray[np.int64]
    cost_nanodollars: NDArray[np.int64]
    latency_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    completion_tokens: NDArray[np.int64]
    calls: NDArray[np.int64]
    hops: NDArray[np.int64]
    provenance: Provenance

    @property
    def cost_usd(self) -> NDArray[np.float64]:
        """The cost in US dollars."""
        return self.cost_nanodollars / 1e9
