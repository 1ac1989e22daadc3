"""The table in docs/performance.md, made of what the measurements found."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from agentbalance_plugin.cli.benches.measure import Findings, bar_text, short

_BEGIN, _END = "<!-- agentbalance bench table: begin -->", "<!-- agentbalance bench table: end -->"


def table(findings: Sequence[Findings]) -> str:
    """Every ratio as a line of a Markdown table."""
    lines = [
        f"Python {platform.python_version()}, {platform.machine()}, one thread; medians.",
        "",
        "| measured by `agentbalance bench ...` | ratio | median | quartiles | bar |",
        "|---|---|---|---|---|",
    ]
    for each in findings:
        for label, ratio in each.ratios.items():
            row = ratio.to_dict()
            spread = f"{short(row['low'])} to {short(row['high'])}"
            cells = [each.name, label, short(row["median"]), spread, bar_text(ratio)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_table(page: Path, findings: Sequence[Findings]) -> None:
    """Replace the page's table.

    Raises:
        ValueError: the page has no place for one.
    """
    before, after = around_table(page)
    content = f"{before}{_BEGIN}\n\n{table(findings)}\n\n{_END}{after}"
    page.write_text(content, encoding="utf-8")


def around_table(page: Path) -> tuple[str, str]:
    """What stands before and after a page's table (ValueError: it has no place for one)."""
    text = page.read_text(encoding="utf-8")
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"{page}: no lines {_BEGIN!r} and {_END!r} to put the table between")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before, after
