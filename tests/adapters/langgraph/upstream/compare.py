"""LangGraph's own tests, without the compile hook and with it in pass-through mode.

The tests come with LangGraph's source distribution, which pip downloads in the version that is
installed. Backends that want a server of their own (Postgres, Redis, LangGraph's development
server) are left out, as LangGraph does where there is no Docker.

    python compare.py [pytest arguments, for example -k interrupt]

Exits with 1 if a test ends differently with the hook, also when it is tried again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent

MODES = {
    "stock": "without the hook",
    "hook": "with the hook, no policy",
    "beside": "with the hook, no policy, in a process that has compiled a balanced graph",
}
_TRIES = 3

Outcomes = dict[str, list[str]]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        source = _download(Path(folder))
        print(f"langgraph {version('langgraph')}, langchain-core {version('langchain-core')}")
        found = {mode: _run(mode, source, arguments) for mode in MODES}
        worse = False
        for mode in [mode for mode in MODES if mode != "stock"]:
            unlike = _unlike(found["stock"], found[mode])
            print(f"{MODES[mode]}: {len(unlike)} of {len(found[mode])} tests end differently")
            left = unlike
            for _ in range(_TRIES):
                if not left:
                    break
                again = {each: _run(each, source, left) for each in ("stock", mode)}
                left = _unlike(again["stock"], again[mode])
            for test in unlike:
                state = "again differently" if test in left else "alike when tried again"
                print(f"  {test}: {found['stock'].get(test)} -> {found[mode].get(test)}, {state}")
            worse |= bool(left)
        for mode, outcomes in found.items():
            counts = Counter(" and ".join(each) for each in outcomes.values())
            print(f"{MODES[mode]}: {dict(counts.most_common())}")
        return int(worse)


def _download(folder: Path) -> Path:
    """LangGraph's tests, and the settings pytest has for them."""
    wanted = f"langgraph=={version('langgraph')}"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "download", "--no-deps", "--no-binary", "langgraph", "--dest", folder, wanted],
        check=True,
    )
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        # The package itself would hide the one that is installed.
        parts = [each for each in packed if each.name.split("/")[1] in ("tests", "pyproject.toml")]
        packed.extractall(folder, parts, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _run(mode: str, source: Path, arguments: list[str]) -> Outcomes:
    print(f"\n{MODES[mode]}:", flush=True)
    outcomes = source / "outcomes.jsonl"
    outcomes.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "NO_DOCKER": "true",
        "PYTHONPATH": str(HERE),
        "UPSTREAM_MODE": mode,
        "UPSTREAM_OUTCOMES": str(outcomes),
    }
    # LangGraph's own options but for those that print pages.
    options = "addopts=--strict-markers --strict-config --snapshot-warn-unused"
    pytest = [sys.executable, "-m", "pytest", "-p", "hook_plugin", "--override-ini", options]
    pytest += ["--quiet", "--tb=no", "--no-summary", "--timeout=300", "--disable-warnings"]
    subprocess.run([*pytest, *arguments], cwd=source, env=environment, check=False)
    if not outcomes.exists():
        raise SystemExit("pytest could not start, or ran no test")
    return dict(json.loads(line) for line in outcomes.read_text().splitlines())


def _unlike(stock: Outcomes, hooked: Outcomes) -> list[str]:
    return [test for test in {**stock, **hooked} if stock.get(test) != hooked.get(test)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
