"""Where a training stands, so that a killed one goes on to the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.training_data import Part
from agentbalance_plugin.core.whole_files import put

STATE = "training.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """After an epoch.

    Args:
        stage: which stage of the training.
        epoch: epochs or steps done in it.
        best_loss, stale: the least validation loss so far, and epochs since.
        random: of the generator, as numpy gives it.
        tensors: current and best weights, and the optimizer's moments.
    """

    stage: str
    epoch: int
    best_loss: float
    stale: int
    random: dict[str, Any]
    tensors: dict[str, NDArray[np.float32]]


def digest(config: dict[str, Any], parts: Sequence[Part]) -> str:
    """Of everything that a training depends on."""
    found = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=16)
    for part in parts:
        for array in (part.category, part.correct, part.recorded, part.visible_tokens):
            found.update(np.ascontiguousarray(array).tobytes())
        for features in part.features:
            found.update(features.ids.tobytes())
            found.update(features.weights.tobytes())
    return found.hexdigest()


def save_state(state: TrainingState, folder: Path, made_from: str) -> None:
    """Write the state; a kill in the middle leaves the one before.

    Args:
        made_from: digest of configuration and data.
    """
    from safetensors.numpy import save

    facts = {
        "stage": state.stage,
        "epoch": state.epoch,
        "best_loss": state.best_loss,
        "stale": state.stale,
        "random": state.random,
        "made_from": made_from,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(array) for name, array in state.tensors.items()}
    put(folder / STATE, save(tensors, metadata={"state": json.dumps(facts)}))


def load_state(folder: Path, made_from: str) -> TrainingState | None:
    """The state in a folder; None if there is none.

    Raises:
        ValueError: it is of a training with other settings or traces, or can't be read.
    """
    path = folder / STATE
    if not path.exists():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(path, framework="numpy")
        with opened as file:
            facts: dict[str, Any] = json.loads(file.metadata()["state"])
            tensors: dict[str, NDArray[np.float32]] = {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118
            }
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: can't be read ({error}); delete it to start anew") from error
    if facts.pop("made_from") != made_from:
        raise ValueError(
            f"{path}: is of a training with other settings or traces; delete it to start anew"
        )
    return TrainingState(tensors=tensors, **facts)


def drop_state(folder: Path) -> None:
    """A finished training has no state."""
    (folder / STATE).unlink(missing_ok=True)
