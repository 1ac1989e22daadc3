from __future__ import annotations

from pathlib import Path

import pytest
from trace_folder import write_random

from agentbalance_plugin.core.traces import TraceSet


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic trace folder (see `write_random`)."""
    root = tmp_path_factory.mktemp("traces")
    write_random(root)
    return root


@pytest.fixture(scope="session")
def traces(folder: Path) -> TraceSet:
    return TraceSet.load(folder, "both")
