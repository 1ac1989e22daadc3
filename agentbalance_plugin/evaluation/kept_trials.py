"""Trials kept between runs, so that an evaluation that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.core.whole_files import put
from agentbalance_plugin.evaluation.sources import code_digest
from agentbalance_plugin.evaluation.trials import Known, Method, Trial

TRIALS = Trial.__module__


@dataclass(frozen=True)
class KeptTrials:
    """One file per method, axis and seed, named by a digest of all it depends on.

    Args:
        folder: created when something is kept; None keeps nothing.
    """

    folder: Path | None = None

    def trials(
        self, method: Method, known: Known, replay: Replay, split: str
    ) -> tuple[Trial, Trial]:
        """A method's trials on the val queries and on a split of the replay, kept or made."""
        positions = replay.traces.positions(split)
        path = None
        if self.folder is not None:
            digest = digest_of(
                [
                    code_digest(modules_of(method)),
                    *(
                        repr(part)
                        for part in (
                            method.name,
                            known.axis,
                            known.highest,
                            known.seed,
                            known.steps,
                        )
                    ),
                    json.dumps(dict(method.grid), sort_keys=True),
                    traces_digest(known.traces),
                    traces_digest(replay.traces),
                    split,
                ]
            )
            path = self.folder / f"{digest[:24]}.npz"
            found = _read(path)
            if found is not None:
                return found
        fitted = method.fit(known)
        trials = (fitted(known.replay, known.val), fitted(replay, positions))
        if path is not None:
            _write(path, trials)
        return trials


def _read(path: Path) -> tuple[Trial, Trial] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            first, second = (
                Trial(*(file[f"{part}_{name}"] for name in ("right", "cost_usd", "latency_s")))
                for part in ("val", "split")
            )
    except (OSError, KeyError, ValueError, BadZipFile):
        # Absent, or cut short when the run was killed: it is made again.
        return None
    return first, second


def _write(path: Path, trials: tuple[Trial, Trial]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, trial in zip(("val", "split"), trials, strict=True):
        arrays[f"{part}_right"] = trial.right
        arrays[f"{part}_cost_usd"] = trial.cost_usd
        arrays[f"{part}_latency_s"] = trial.latency_s
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    put(path, file.getvalue())


def modules_of(method: Method) -> tuple[str, ...]:
    """Modules that a method comes from: its class's, and those of what it was made with."""
    parts = (method, *getattr(method, "__dict__", {}).values())
    found = {str(getattr(part, "__module__", "")) for part in parts}
    return (TRIALS, *sorted(found - {TRIALS}))


def digest_of(parts: Iterable[str | bytes]) -> str:
    """Of texts and bytes, in that order."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


@lru_cache(maxsize=64)
def traces_digest(traces: TraceSet) -> str:
    """Of everything recorded, and of the catalog."""
    samples = traces.samples
    arrays = (samples.correct, samples.answer, samples.prompt_tokens, samples.visible_tokens)
    parts: list[str | bytes] = [
        repr((traces.candidates, traces.reference)),
        repr([(query.key, query.category, query.split) for query in traces.queries]),
        *(repr(traces.catalog[name]) for name in traces.backbones),
        *(np.ascontiguousarray(array).tobytes() for array in arrays),
    ]
    if traces.latency_s is not None:
        parts.append(traces.latency_s.tobytes())
    return digest_of(parts)
