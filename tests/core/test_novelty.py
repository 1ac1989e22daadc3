from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_policy import SHIPPED, team_of

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import PolicyError, load_checkpoint
from agentbalance_plugin.core.encoder import Features, RecordedEncoder, hash_features
from agentbalance_plugin.core.novelty import NOVELTY, Novelty
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.core.traces import TraceSet


def bags(traces: TraceSet, split: str, benchmark: str) -> list[Features]:
    return [
        Features.mean(query.features)
        for query in traces.queries
        if query.split == split and query.benchmark == benchmark and query.features is not None
    ]


@pytest.fixture(scope="module")
def traces() -> TraceSet:
    return TraceSet.shipped("reasoning")


@pytest.fixture(scope="module")
def maths(traces: TraceSet) -> Novelty:
    """Knows school and competition maths, and has never seen code."""
    known = tuple(query for query in traces.queries if query.benchmark != "crux")
    rows = np.array([traces.index(query.key) for query in known])
    part = replace(traces, queries=known, samples=traces.samples.take((rows,)))
    return Novelty.of_traces([part])


def test_a_benchmark_that_was_held_out_is_far_and_known_ones_are_not(
    traces: TraceSet, maths: Novelty
) -> None:
    code = [maths.distance(bag) > maths.threshold for bag in bags(traces, "test", "crux")]
    assert np.mean(code) > 0.9
    for name in ("gsm8k", "math_l5"):
        known = [maths.distance(bag) > maths.threshold for bag in bags(traces, "test", name)]
        assert np.mean(known) < 0.2


def test_nothing_is_infinitely_far(maths: Novelty) -> None:
    assert maths.distance(Features.mean(hash_features(""))) == np.inf
    assert maths.distance(Features.mean(hash_features(""))) > maths.threshold


def test_it_is_the_same_after_saving(traces: TraceSet, maths: Novelty, tmp_path: Path) -> None:
    maths.save(tmp_path)
    loaded = Novelty.load(tmp_path)
    assert loaded is not None
    for bag in bags(traces, "test", "gsm8k")[:20]:
        assert loaded.distance(bag) == maths.distance(bag)
    assert (tmp_path / NOVELTY).stat().st_size < 2_000_000


def test_a_policy_without_it_has_none_and_a_broken_one_is_refused(
    maths: Novelty, tmp_path: Path
) -> None:
    assert Novelty.load(tmp_path) is None
    maths.save(tmp_path)
    whole = (tmp_path / NOVELTY).read_bytes()
    (tmp_path / NOVELTY).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PolicyError, match=NOVELTY):
        Novelty.load(tmp_path)


def test_it_needs_queries() -> None:
    with pytest.raises(ValueError, match="novelty needs"):
        Novelty.fit([], [], [])
    nothing, known = Features.mean(hash_features("")), Features.mean(hash_features("a lathe"))
    with pytest.raises(ValueError, match="validation queries with a text"):
        Novelty.fit([known], [0], [nothing])
    fitted = Novelty.fit([known, nothing], [0, 0], [known])
    with_nothing = Novelty.fit([known, nothing], [0, 0], [nothing, known])
    assert with_nothing.threshold == fitted.threshold


def test_far_queries_get_agreement_instead_of_a_confident_guess(
    traces: TraceSet, maths: Novelty, tmp_path: Path
) -> None:
    encoder = RecordedEncoder(traces)
    checkpoint = load_checkpoint(SHIPPED)
    catalog = traces.profiled_candidates()
    known, unknown = Policy(checkpoint, encoder), Policy(checkpoint, encoder, novelty=maths)
    more = 0
    knobs = [Knobs(price_usd=price) for price in np.geomspace(10.0, 3000.0, 8)]
    for query in traces.split("test").queries[::20]:
        text = f"[[query:{query.key}]]"
        before, after = (
            policy.sweep(text, team_of(4), Budget(cost_usd=1), catalog, knobs)
            for policy in (known, unknown)
        )
        for usual, careful in zip(before, after, strict=True):
            assert "far" not in usual.notes
            assert careful.notes["far"] == (careful.notes["novelty"] > maths.threshold)
            if careful.notes["far"] and len(usual.assignment) == 1:
                more += len(careful.assignment) > 1 and bool(careful.late_gates)
            elif careful.notes["far"]:
                assert len(careful.assignment) > 1
            else:
                assert usual.assignment == careful.assignment
    assert more > 10


def test_a_policy_keeps_its_novelty(traces: TraceSet, maths: Novelty, tmp_path: Path) -> None:
    Policy(load_checkpoint(SHIPPED), novelty=maths).save(tmp_path)
    plan = Policy.load(tmp_path).plan(
        "Bonjour", team_of(1), Budget(cost_usd=1), traces.profiled_candidates()
    )
    assert plan.notes["far"] in (True, False)
