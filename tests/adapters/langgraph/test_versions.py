"""What the adapter needs of LangGraph is in one place, and the supported versions are said once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables.retry import RunnableRetry

from agentbalance_plugin.adapters.langgraph import internals
from agentbalance_plugin.adapters.langgraph.internals import set_retrying

_ROOT = Path(__file__).parents[3]


def test_a_private_name_that_a_version_lacks_is_named_with_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load: Any = internals._load  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setitem(internals._NAMES, "ChannelRead", "langgraph.pregel._gone")  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setitem(internals._NAMES, "Gone", "langgraph.pregel._read")  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ImportError, match=r"has no langgraph\.pregel\._gone\.ChannelRead.*install"):
        load("ChannelRead")
    with pytest.raises(ImportError, match=r"has no langgraph\.pregel\._read\.Gone.*install"):
        load("Gone")


def test_a_langchain_that_retries_elsewhere_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(RunnableRetry, "_kwargs_retrying")
    with pytest.raises(ImportError, match=r"langchain-core .* has no RunnableRetry.*install"):
        set_retrying(dict)


def test_private_names_are_in_one_module() -> None:
    private = re.compile(r"\b(?:langgraph|langchain\w*)(?:\.\w+)*\._\w+")
    for path in (_ROOT / "agentbalance_plugin").rglob("*.py"):
        if path.name != "internals.py":
            assert not private.findall(path.read_text()), path


def test_the_lowest_versions_are_those_that_are_tested() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    ranges = [*extras["langgraph"], *extras["dev"]]
    lowest = dict(re.findall(r"^([\w-]+)==([\w.]+)$", (_ROOT / ".ci/lowest.txt").read_text(), re.M))
    stated = dict(re.findall(r"^([\w-]+)>=([\w.]+)", "\n".join(ranges), re.M))
    wanted = {name: stated[name] for name in stated if name.startswith("lang")}
    assert lowest.keys() == wanted.keys()
    for name, version in wanted.items():
        assert lowest[name] == version or lowest[name].startswith(f"{version}."), name
