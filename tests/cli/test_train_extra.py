from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentbalance_plugin.cli.train import run_training


def test_training_without_extras_names_the_one_that_has_all_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"'agentbalance-plugin\[train\]'"):
        run_training(None, ["reasoning"], tmp_path / "policy", seed=0, resume=False)
    assert not list(tmp_path.iterdir())
