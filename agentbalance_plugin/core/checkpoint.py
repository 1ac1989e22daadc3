"""A policy on disk: safetensors for arrays, JSON for the rest. Never a pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.network import EMBEDDING, Weights
from agentbalance_plugin.core.profiles import FEATURES, Priors
from agentbalance_plugin.core.stages.arrays import SHAPES, StageWeights

SCHEMA = 3
TENSORS = "policy.safetensors"
SETTINGS = "policy.json"

_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".bin")


class PolicyError(ValueError):
    """A policy that can't be used; the message says which file and why."""


@dataclass(frozen=True)
class Checkpoint:
    """What a trained policy consists of.

    Args:
        weights: of the network, float32; the embedding float16, as it is on disk, once read.
        stages: weights of the stages, float32.
        reach: how far below that of the likeliest candidate a log-probability may be, see `decide`.
        encoder: name of the query encoder that it was trained with.
        priors: of backbones in general.
        anchors: [A, E] vectors of training queries, which stand for a stream of tasks.
        anchor_category: [A] their categories, columns of the priors.
        trained_on: what it was made from, for people.
    """

    weights: Weights
    stages: StageWeights
    reach: float
    encoder: str
    priors: Priors
    anchors: NDArray[np.float32]
    anchor_category: NDArray[np.int64]
    trained_on: dict[str, Any]

    @cached_property
    def usual(self) -> NDArray[np.float32]:
        """[E] the mean vector of training queries."""
        return self.anchors.mean(axis=0)


def save_checkpoint(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write `policy.safetensors` and `policy.json` into a folder (made if need be)."""
    from safetensors.numpy import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {}
    for field in fields(Weights):
        array = np.asarray(getattr(checkpoint.weights, field.name), dtype=np.float32)
        # Half precision halves the file; the embeddings are averages of many, the loss is nothing.
        tensors[f"weights.{field.name}"] = array.astype(np.float16) if array.size > 4096 else array
    for name in SHAPES:
        array = getattr(checkpoint.stages, name)
        tensors[f"stages.{name}"] = np.asarray(array, dtype=np.float32)
    priors = checkpoint.priors
    for name in _prior_arrays():
        tensors[f"priors.{name}"] = np.asarray(getattr(priors, name), dtype=np.float64)
    tensors["anchors"] = np.asarray(checkpoint.anchors, dtype=np.float32)
    tensors["anchor_category"] = np.asarray(checkpoint.anchor_category, dtype=np.int64)
    (folder / TENSORS).write_bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
    settings = {
        "schema": SCHEMA,
        "encoder": checkpoint.encoder,
        "reach": checkpoint.reach,
        "categories": list(priors.categories),
        "price_slope": priors.price_slope,
        "mean_log_price": priors.mean_log_price,
        "trained_on": checkpoint.trained_on,
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        PolicyError: no such policy, a truncated file, another schema, a pickle, a missing array or
            one of another shape.
    """
    folder = Path(folder)
    if folder.suffix.lower() in _PICKLES:
        raise PolicyError(f"{folder} looks like a pickle, which is never loaded; {_expected()}")
    if not folder.is_dir():
        raise PolicyError(f"{folder}: no such policy folder; {_expected()}")
    settings = _settings(folder / SETTINGS)
    tensors = _tensors(folder / TENSORS)
    try:
        categories = tuple(str(name) for name in settings["categories"])
        shapes = _weight_shapes(len(categories))
        learned = {
            name: _array(tensors, f"weights.{name}", shape) for name, shape in shapes.items()
        }
        # The embedding becomes single precision when the first plan is made (`Weights.rows`).
        weights = Weights(
            **{
                name: array if name == "embedding" else array.astype(np.float32)
                for name, array in learned.items()
            }
        )
        stages = StageWeights(
            **{
                name: _array(tensors, f"stages.{name}", shape).astype(np.float32)
                for name, shape in SHAPES.items()
            }
        )
        per_feature = {"mean", "scale"}
        arrays = {
            name: _array(
                tensors,
                f"priors.{name}",
                (len(FEATURES) if name in per_feature else len(categories),),
            )
            for name in _prior_arrays()
        }
        priors = Priors(
            categories=categories,
            price_slope=_finite(settings, "price_slope"),
            mean_log_price=_finite(settings, "mean_log_price"),
            **arrays,
        )
        anchors = _array(tensors, "anchors", (None, EMBEDDING)).astype(np.float32)
        anchor_category = _array(tensors, "anchor_category", (len(anchors),)).astype(np.int64)
        if not ((anchor_category >= 0) & (anchor_category < len(categories))).all():
            raise PolicyError(f"{TENSORS}: array 'anchor_category' names unknown categories")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"{folder}: the policy is not complete: {error}") from error
    return Checkpoint(
        weights=weights,
        stages=stages,
        reach=_finite(settings, "reach"),
        encoder=str(settings["encoder"]),
        priors=priors,
        anchors=anchors,
        anchor_category=anchor_category,
        trained_on=_trained_on(settings, folder),
    )


def _finite(settings: dict[str, Any], name: str) -> float:
    value = float(settings[name])
    if not np.isfinite(value):
        raise PolicyError(f"{SETTINGS}: {name} is {value}, which is no number to plan with")
    return value


def _trained_on(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    found = settings.get("trained_on", {})
    if not isinstance(found, dict):
        raise PolicyError(f"{folder / SETTINGS}: trained_on must be an object, got {found!r}")
    return cast("dict[str, Any]", found)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(f"{path}: can't be read ({error.strerror}); {_expected()}") from error
    except ValueError as error:
        raise PolicyError(f"{path}: truncated or not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise PolicyError(f"{path}: expected an object")
    known = cast("dict[str, Any]", settings)
    if known.get("schema") != SCHEMA:
        raise PolicyError(
            f"{path}: schema {known.get('schema')!r}, this version reads schema {SCHEMA}; train "
            "the policy again"
        )
    if not isinstance(known.get("encoder"), str):
        raise PolicyError(f"{path}: encoder must be a name, got {known.get('encoder')!r}")
    return known


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path}: can't be read ({error.strerror}); {_expected()}") from error
    # Pickles start with protocol marker 0x80 (bare) or as a zip archive (torch.save).
    if raw[:1] == b"\x80" or raw[:2] == b"PK":
        raise PolicyError(f"{path} is a pickle, which is never loaded; {_expected()}")
    try:
        return load(raw)
    # KeyError: a number format that numpy does not have (bfloat16).
    except (SafetensorError, ValueError, KeyError) as error:
        raise PolicyError(f"{path}: truncated or not safetensors: {error}") from error


def _array(
    tensors: dict[str, NDArray[Any]], name: str, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    if name not in tensors:
        raise PolicyError(f"{TENSORS}: array {name!r} is missing")
    found = tensors[name]
    if found.ndim != len(shape) or any(
        want is not None and want != size for want, size in zip(shape, found.shape, strict=True)
    ):
        raise PolicyError(f"{TENSORS}: array {name!r} has shape {found.shape}, expected {shape}")
    if not _all_finite(found):
        raise PolicyError(f"{TENSORS}: array {name!r} has values that are not finite")
    return found


def _all_finite(array: NDArray[Any]) -> bool:
    if array.dtype == np.float16:
        # By their bits, many times as fast: those of infinity come after all of numbers.
        return int((array.view(np.uint16) & 0x7FFF).max(initial=0)) < 0x7C00
    return bool(np.isfinite(array).all())


def _weight_shapes(categories: int) -> dict[str, tuple[int | None, ...]]:
    return {
        "embedding": (None, EMBEDDING - 1),
        "category": (EMBEDDING, categories),
        "category_bias": (categories,),
        "scale": (1,),
        "match": (EMBEDDING, len(FEATURES)),
        "shift": (EMBEDDING,),
        "shift_match": (len(FEATURES),),
        "tokens_match": (EMBEDDING, len(FEATURES)),
        "tokens_shift": (EMBEDDING,),
        "log_sigma": (1,),
        "difficulty": (EMBEDDING,),
        "difficulty_bias": (1,),
    }


def _prior_arrays() -> list[str]:
    scalars = {"categories", "price_slope", "mean_log_price"}
    return [field.name for field in fields(Priors) if field.name not in scalars]


def _expected() -> str:
    return f"a policy is a folder with {TENSORS} and {SETTINGS}"
