from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from small_policy import SHIPPED, FloatArray, random_checkpoint

from agentbalance_plugin.core.checkpoint import (
    SETTINGS,
    TENSORS,
    Checkpoint,
    PolicyError,
    load_checkpoint,
    save_checkpoint,
)
from agentbalance_plugin.core.network import Weights
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.core.profiles import Priors

Tensors = dict[str, NDArray[Any]]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A folder with a saved policy."""
    folder = tmp_path / "policy"
    save_checkpoint(random_checkpoint(), folder)
    return folder


def assert_equal(one: Checkpoint, other: Checkpoint) -> None:
    """That one which was loaded is the same as another."""
    for field in fields(Weights):
        a, b = getattr(one.weights, field.name), getattr(other.weights, field.name)
        # The large table stays as it is on disk.
        assert a.dtype == (np.float16 if field.name == "embedding" else np.float32)
        np.testing.assert_array_equal(a, b, field.name)
    for field in fields(Priors):
        a, b = getattr(one.priors, field.name), getattr(other.priors, field.name)
        assert np.array_equal(a, b), field.name
    np.testing.assert_array_equal(one.anchors, other.anchors)
    np.testing.assert_array_equal(one.anchor_category, other.anchor_category)
    assert one.trained_on == other.trained_on


def test_what_is_saved_is_what_is_loaded(policy: Path) -> None:
    assert_equal(load_checkpoint(policy), random_checkpoint())


def test_the_shipped_policy_survives_a_round_trip_byte_for_byte(tmp_path: Path) -> None:
    Policy.load("default").save(tmp_path / "deep" / "copy")
    for name in (TENSORS, SETTINGS):
        assert (tmp_path / "deep" / "copy" / name).read_bytes() == (SHIPPED / name).read_bytes()
    assert_equal(load_checkpoint(tmp_path / "deep" / "copy"), load_checkpoint(SHIPPED))


def test_saving_again_replaces_the_old_policy(policy: Path) -> None:
    save_checkpoint(random_checkpoint(seed=5), policy)
    assert_equal(load_checkpoint(policy), random_checkpoint(seed=5))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere.*no such policy folder"):
        Policy.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PolicyError, match=r"file.*no such policy folder"):
        load_checkpoint(tmp_path / "file")


@pytest.mark.parametrize("name", [TENSORS, SETTINGS])
def test_a_missing_file_is_named(policy: Path, name: str) -> None:
    (policy / name).unlink()
    with pytest.raises(PolicyError, match=f"{name}.*can't be read"):
        load_checkpoint(policy)


@pytest.mark.parametrize("name", [TENSORS, SETTINGS])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(policy: Path, name: str, share: float) -> None:
    raw = (policy / name).read_bytes()
    (policy / name).write_bytes(raw[: min(int(share * len(raw)), len(raw) - 3)])
    with pytest.raises(PolicyError, match=f"{name}.*truncated"):
        load_checkpoint(policy)


def change_settings(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / SETTINGS).read_text())
    settings = {k: v for k, v in {**settings, **changes}.items() if v != "absent"}
    (folder / SETTINGS).write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1}, "schema 1.*reads schema 3"),
        ({"schema": "absent"}, "schema None"),
        ({"encoder": 3}, "encoder must be a name"),
        ({"categories": "absent"}, "not complete.*categories"),
        ({"categories": ["one"]}, "weights.category.*shape"),
        ({"categories": 3}, "not complete"),
        ({"price_slope": "steep"}, "not complete.*steep"),
        ({"mean_log_price": "absent"}, "not complete.*mean_log_price"),
    ],
)
def test_settings_of_another_kind_are_refused(
    policy: Path, changes: dict[str, Any], message: str
) -> None:
    change_settings(policy, **changes)
    with pytest.raises(PolicyError, match=message):
        load_checkpoint(policy)


@pytest.mark.parametrize(
    "changes",
    [
        {"trained_on": None},
        {"trained_on": 3},
        {"price_slope": float("nan")},
        {"mean_log_price": float("inf")},
    ],
)
def test_settings_without_sense_are_refused(policy: Path, changes: dict[str, Any]) -> None:
    change_settings(policy, **changes)
    with pytest.raises(PolicyError):
        load_checkpoint(policy)


def test_settings_that_are_no_object_are_refused(policy: Path) -> None:
    (policy / SETTINGS).write_text("[1, 2]")
    with pytest.raises(PolicyError, match=f"{SETTINGS}.*object"):
        load_checkpoint(policy)


def with_nan(array: FloatArray) -> FloatArray:
    changed = array.copy()
    changed.flat[-1] = np.nan
    return changed


ARRAYS = ["weights.embedding", "weights.match", "priors.shared", "priors.mean", "anchors"]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "missing"),
        (lambda array: array[..., :-1], "shape"),
        (lambda array: array[None], "shape"),
        (with_nan, "not finite"),
        (lambda array: array + np.array(np.inf, array.dtype), "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    policy: Path, name: str, change: Callable[[Any], Any] | None, message: str
) -> None:
    tensors: Tensors = load_file(policy / TENSORS)
    array = tensors.pop(name)
    if change is not None:
        tensors[name] = np.ascontiguousarray(change(array))
    save_file(tensors, policy / TENSORS)
    with pytest.raises(PolicyError, match=f"{TENSORS}.*{name!r}.*{message}"):
        load_checkpoint(policy)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_anchors_of_unknown_categories_are_refused(policy: Path, wrong: int) -> None:
    checkpoint = random_checkpoint()
    save_checkpoint(replace(checkpoint, anchor_category=np.full(6, wrong)), policy)
    with pytest.raises(PolicyError, match="anchor_category"):
        load_checkpoint(policy)


class Trap:
    """Its unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # noqa: S301
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["policy.pt", "policy.pth", "POLICY.PKL", "policy.bin"])
def test_a_pickle_by_name_is_never_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(PolicyError, match=f"{name}.*pickle.*never loaded"):
        Policy.load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("name", [TENSORS, SETTINGS])
def test_a_pickle_under_the_name_of_the_real_file_is_never_loaded(
    policy: Path, tmp_path: Path, name: str, protocol: int
) -> None:
    (policy / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=protocol))
    with pytest.raises(PolicyError, match=name):
        Policy.load(policy)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_never_loaded(policy: Path, tmp_path: Path, zipped: bool) -> None:
    trap = Trap(tmp_path / "sprung")
    torch.save({"weights": trap}, policy / TENSORS, _use_new_zipfile_serialization=zipped)
    with pytest.raises(PolicyError, match=f"{TENSORS}.*pickle.*never loaded"):
        Policy.load(policy)
    assert not (tmp_path / "sprung").exists()
