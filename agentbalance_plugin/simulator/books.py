"""The server's own ledger: what it billed, whatever its clients believe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from agentbalance_plugin.budget import Spend


@dataclass(slots=True)
class Entry:
    """One request that was answered, billed when it was accepted.

    Args:
        run: the request's `x-simulate-run` header, else the query's key.
        query: the query's key; empty for one that was never recorded.
        finish: "stop", "length" or "tool_calls".
        latency_s: simulated seconds.
        answer, correct: of the reply; -1 and False for none.
        aborted: the client left before the reply was complete. It is billed all the same.
    """

    run: str
    query: str
    backbone: str
    agent: str
    prompt_tokens: int
    completion_tokens: int
    nanodollars: int
    latency_s: float
    finish: str
    answer: int
    correct: bool
    aborted: bool = False


class Books:
    """Entries in the order in which requests were accepted."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def spend(self, run: str | None = None) -> Spend:
        """What one run, or everyone, was billed; latencies of the calls added up."""
        total = Spend()
        for entry in self.entries:
            if run is None or entry.run == run:
                total += Spend(
                    entry.nanodollars,
                    entry.prompt_tokens,
                    entry.completion_tokens,
                    1,
                    entry.latency_s,
                )
        return total

    def clear(self) -> None:
        self.entries.clear()

    def to_list(self) -> list[dict[str, Any]]:
        """JSON values only."""
        return [asdict(entry) for entry in self.entries]
