"""What commands print where nobody looks at a terminal."""

from __future__ import annotations

import pytest
from rich.table import Table

from agentbalance_plugin.cli.output import plain_console


@pytest.mark.parametrize(("columns", "whole"), [(None, True), ("40", False)])
def test_figures_in_a_pipe_are_whole_unless_its_width_is_told(
    columns: str | None,
    whole: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    table = Table()
    cells = [f"[0.000{number}, 0.00123]" for number in range(6)]
    for cell in cells:
        table.add_column(cell)
    table.add_row(*cells)
    plain_console().print(table)
    printed = capsys.readouterr().out
    assert all(cell in printed for cell in cells) is whole
