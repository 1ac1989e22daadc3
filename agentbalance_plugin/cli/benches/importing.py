"""What the package weighs: time to import it and build a policy, and megabytes installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from rich.console import Console

import agentbalance_plugin
from agentbalance_plugin.cli.benches import THREADS
from agentbalance_plugin.cli.benches.measure import Figure, Findings, Ratio, Span, in_turns

_NUMPY = "import numpy"
_PACKAGE = "from agentbalance_plugin import Policy; Policy.load()"
_BAR_MB = 120.0


def bench_import(*, rounds: int, seed: int, console: Console) -> Findings:
    """The package and a policy against numpy alone, each in a fresh interpreter."""
    found = Findings("import")
    measured = in_turns(
        {"numpy": lambda: _fresh(_NUMPY), "package": lambda: _fresh(_PACKAGE)},
        rounds,
        console,
        title="imports",
        seed=seed,
    )
    found.add_spans(_NUMPY, measured["numpy"])
    found.add_spans("import agentbalance_plugin, build a Policy", measured["package"])
    found.compare_spans(
        "package and policy / numpy", measured["package"], measured["numpy"], bar=2.0
    )
    sizes = installed_megabytes("agentbalance-plugin")
    for name, megabytes in sorted(sizes.items(), key=lambda item: -item[1]):
        if megabytes >= 1.0:
            found.figures[f"installed, {name}"] = Figure([megabytes], "MB")
    total = sum(sizes.values())
    found.figures["installed, all without extras"] = Figure([total], "MB")
    found.ratios[f"installed / {_BAR_MB:.0f} MB"] = Ratio([total / _BAR_MB], bar=1.0)
    found.notes.append(
        "Each import in a fresh interpreter, files cached by the system. Installed: the package "
        "and what it requires without extras, byte code included; pip itself is not."
    )
    return found


def _fresh(code: str) -> Span:
    """What `code` takes in an interpreter of its own, its start left out."""
    script = (
        "import time; wall, busy = time.perf_counter(), time.process_time()\n"
        f"{code}\n"
        "print([time.perf_counter() - wall, time.process_time() - busy])"
    )
    # Threads as a user's interpreter starts them: the limits of the other measurements go.
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, cwd="/", env=environment
    )
    return Span(*json.loads(done.stdout))


def installed_megabytes(distribution: str) -> dict[str, float]:
    """Size of a distribution and of everything that it requires without extras, by name."""
    sizes: dict[str, float] = {}
    waiting = [distribution]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in sizes:
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            # Required on other systems or by other versions of Python.
            continue
        sizes[name] = _bytes(found) / 1e6
        for requirement in found.requires or ():
            if "extra ==" not in requirement:
                waiting.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return sizes


def _bytes(found: metadata.Distribution) -> int:
    """Of its files; of an editable installation those of the package's folder."""
    listed = [Path(str(file.locate())) for file in found.files or ()]
    if found.name == "agentbalance-plugin":
        listed = list(Path(agentbalance_plugin.__file__).parent.rglob("*"))
    return sum(p.stat().st_size for p in listed if p.is_file())
