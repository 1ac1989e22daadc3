from __future__ import annotations

import numpy as np

from agentbalance_plugin.core.sampling import draw_keys, normals, string_key, string_keys, uniforms


def test_a_draw_depends_on_what_it_is_for_alone() -> None:
    queries = string_keys(["a", "b", "c"])
    backbones = string_keys(["x", "y", "z"])
    together = draw_keys(7, queries, backbones, 3)
    backwards = draw_keys(7, queries[::-1], backbones[::-1], 3)
    assert together.tolist() == backwards[::-1].tolist()
    assert together[1] == draw_keys(7, string_key("b"), string_key("y"), 3)[0]


def test_every_part_of_the_key_matters() -> None:
    base = draw_keys(0, string_key("q"), string_key("b"), 1)[0]
    others = [
        draw_keys(1, string_key("q"), string_key("b"), 1)[0],
        draw_keys(0, string_key("r"), string_key("b"), 1)[0],
        draw_keys(0, string_key("b"), string_key("q"), 1)[0],
        draw_keys(0, string_key("q"), string_key("b"), 2)[0],
        draw_keys(0, string_key("q"), string_key("b"))[0],
    ]
    assert len({int(base), *map(int, others)}) == 6


def test_keys_are_the_same_on_every_machine() -> None:
    assert int(string_key("gsm8k/1")) == STRING
    assert int(draw_keys(-1, string_key("gsm8k/1"), 2)[0]) == DRAWN


STRING = 12872645082961327337
DRAWN = 16327796593215875111


def test_uniforms_and_normals_are_distributed_as_named() -> None:
    keys = draw_keys(0, np.arange(200_000))
    uniform = uniforms(keys)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    counts = np.histogram(uniform, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 10_000).max() < 500
    normal = normals(keys)
    assert np.isfinite(normal).all()
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs((np.abs(normal) < 1.96).mean() - 0.95) < 0.005
    assert abs(np.corrcoef(uniform[:-1], uniform[1:])[0, 1]) < 0.01
