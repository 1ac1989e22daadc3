"""What chats and graphs did through the frameworks, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentbalance_plugin.evaluation.report import table

_STREAMS = {"stock": "as written", "paced": "paced at T1", "hasty": "within L3"}


def plugin_table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A row for each stream of queries.

    Args:
        found: framework -> results as its example writes them.
    """
    header = ["framework", "suite", "system", "queries", "", "right, %", "USD a query", "seconds",
              "P@T1", "P@L1", "violations", "failed", "gain"]  # fmt: skip
    rows: list[list[str]] = []
    for framework, results in found.items():
        for result in results:
            for stream, shown in _STREAMS.items():
                one, scores = result[stream], result["scores"][stream]
                rows.append(
                    [
                        framework,
                        str(result["suite"]),
                        str(result["system"]),
                        str(result["queries"]),
                        shown,
                        _mean(one["right"], ".1f"),
                        _mean(one["cost_usd"], ".6f"),
                        _mean(one["latency_s"], ".2f"),
                        _score(scores["p_at_t1"]),
                        _score(scores["p_at_l1"]),
                        "" if stream == "stock" else str(one["violations"]),
                        str(one["failed"]),
                        _mean(result["gain"], "+.1f") if stream == "paced" else "",
                    ]
                )
    return table(header, rows)


def _mean(mean: Mapping[str, float], kind: str) -> str:
    return f"{mean['value']:{kind}} [{mean['low']:{kind}}, {mean['high']:{kind}}]"


def _score(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}"
