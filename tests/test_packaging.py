"""What a user gets from installing and importing the package."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "networkx",
    "pydantic",
    "sklearn",
    "autogen_core",
    "autogen_agentchat",
    "langgraph",
    "openai",
    "pyarrow",
    "starlette",
    "matplotlib",
    "typer",
    "yaml",
}


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded in a fresh interpreter that ran `code`."""
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/"
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import agentbalance_plugin")
    assert not loaded & (HEAVY | {"numpy"})


def test_the_leaves_load_nothing_heavy() -> None:
    loaded = modules_after(
        "from agentbalance_plugin import Agent, Backbone, Budget, Catalog, Meter, Plan, RunReport,"
        " Team"
    )
    assert not loaded & (HEAVY | {"numpy"})


def test_building_a_policy_and_planning_load_numpy_and_nothing_heavy() -> None:
    loaded = modules_after("from agentbalance_plugin import Policy; Policy.load()")
    assert "numpy" in loaded
    assert not loaded & (HEAVY | {"array_api_compat", "kmedoids", "rich"})
    loaded = modules_after(
        "from decimal import Decimal\n"
        "from agentbalance_plugin import Agent, Backbone, Budget, Catalog, Policy, Team\n"
        "catalog = Catalog(Backbone(f'b{n}', Decimal(n), Decimal(n)) for n in range(1, 6))\n"
        "team = Team((Agent('a'), Agent('b'), Agent('c')), decider='c')\n"
        "Policy.load().plan('2 + 2?', team, Budget(cost_usd=1), catalog).validate(team, catalog)\n"
        # No stage is random, and numpy's random part takes long to load.
        "import sys; assert 'numpy.random' not in sys.modules"
    )
    assert not loaded & HEAVY


def test_installing_without_extras_brings_nothing_that_only_an_extra_needs() -> None:
    # What makes the base installation small: see `agentbalance bench import`.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    assert not base & {"torch", "pyarrow", "networkx", "pydantic", "tiktoken", "matplotlib"}


def test_public_names_are_there_and_others_are_not() -> None:
    import agentbalance_plugin

    for name in agentbalance_plugin.__all__:
        assert getattr(agentbalance_plugin, name).__name__ == name
    assert set(agentbalance_plugin.__all__) <= set(dir(agentbalance_plugin))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = agentbalance_plugin.nothing


@pytest.mark.parametrize(
    ("absent", "use", "extra"),
    [
        (
            "autogen_agentchat",
            "from agentbalance_plugin import wrap_groupchat; wrap_groupchat(None, budget=None)",
            "autogen",
        ),
        ("autogen", "import agentbalance_plugin.adapters.ag2", "ag2"),
        ("langgraph", "from agentbalance_plugin import balance", "langgraph"),
        (
            "pyarrow",
            "from agentbalance_plugin.core.traces import TraceSet; TraceSet.shipped()",
            "simulator",
        ),
        (
            "starlette",
            "from agentbalance_plugin.simulator.server import Simulator;"
            "from agentbalance_plugin.simulator.server import create_app; create_app(None)",
            "simulator",
        ),
    ],
)
def test_an_absent_extra_is_named(absent: str, use: str, extra: str) -> None:
    script = f"import sys; sys.modules[{absent!r}] = None\n{use}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd="/")
    assert done.returncode != 0
    assert f"pip install 'agentbalance-plugin[{extra}]'" in done.stderr


@pytest.mark.parametrize(
    ("absent", "lost"),
    [
        (("autogen_agentchat", "autogen"), {"wrap_groupchat"}),
        (("autogen_agentchat",), set[str]()),
        (("langchain",), {"BudgetMiddleware"}),
        (
            ("langgraph",),
            {"BudgetMiddleware", "StandIn", "balance", "balanced", "direct", "install"}
            | {"uninstall"},
        ),
    ],
)
def test_an_absent_framework_takes_its_public_names_along(
    absent: tuple[str, ...], lost: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import agentbalance_plugin

    everything = set(agentbalance_plugin.__all__)
    for framework in absent:
        monkeypatch.setitem(sys.modules, framework, None)
    assert everything - set(agentbalance_plugin.__all__) == lost


def test_everything_is_imported_where_no_framework_is_there() -> None:
    script = (
        "import sys; sys.modules.update(autogen_agentchat=None, autogen=None)\n"
        "sys.modules.update(langgraph=None, langchain=None)\n"
        "from agentbalance_plugin import *\n"
        "print(Budget(cost_usd=1), Policy, 'balance' in dir())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd="/")
    assert done.stdout.endswith("False\n"), done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("dist")
    # hatchling's hook directly: building through pip would ask the registry for it.
    script = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return zipfile.ZipFile(out / done.stdout.splitlines()[-1])


def test_the_wheel_carries_types_licence_data_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "agentbalance_plugin/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.startswith("agentbalance_plugin/data/policy/") for name in names)
    assert {name.partition("/")[0] for name in names} == {
        "agentbalance_plugin",
        next(name for name in names if ".dist-info" in name).partition("/")[0],
    }


def test_the_shipped_data_is_small(wheel: zipfile.ZipFile) -> None:
    data = [i for i in wheel.infolist() if i.filename.startswith("agentbalance_plugin/data/")]
    assert sum(item.file_size for item in data) < 16 * 2**20


def test_nothing_shipped_is_a_pickle(wheel: zipfile.ZipFile) -> None:
    for name in wheel.namelist():
        assert Path(name).suffix not in {".pkl", ".pickle", ".pt", ".pth", ".joblib"}
