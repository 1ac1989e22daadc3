"""Tasks of a kind that nobody was trained on: what the backbones' own profile says, counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_policy import SHIPPED, team_of

from agentbalance_plugin.backbone import Backbone, Catalog, Profile
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import load_checkpoint
from agentbalance_plugin.core.novelty import trust_in_text
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.core.prediction import look_ahead
from agentbalance_plugin.core.profiles import ProfileTable
from agentbalance_plugin.core.traces import TraceSet

CHECKPOINT = load_checkpoint(SHIPPED)
# Of each candidate: share of right answers and mean tokens on tickets.
RIGHT = (0.95, 0.4, 0.7, 0.6)
TOKENS = (220.0, 35.0, 400.0, 90.0)
FAR = "[[ticket:7731]] Bitte Storno Rechnung RE-2291, Kunde wünscht Gutschrift binnen 3 Werktagen."


@pytest.fixture(scope="module")
def recorded(shipped: TraceSet) -> Catalog:
    return Catalog([*shipped.profiled_candidates().values()][: len(RIGHT)])


@pytest.fixture(scope="module")
def tickets(recorded: Catalog) -> Catalog:
    """The same backbones, profiled on tickets alone."""

    def own(backbone: Backbone, right: float, tokens: float) -> Backbone:
        profile = Profile(
            successes={"tickets/refund": 600.0 * right, "tickets/other": 200.0 * right},
            trials={"tickets/refund": 600.0, "tickets/other": 200.0},
            visible_tokens={"tickets/refund": tokens, "tickets/other": tokens},
            prompt_tokens={"tickets/refund": 100.0, "tickets/other": 100.0},
        )
        return replace(backbone, reasoning="no", hidden_tokens={}, profile=profile)

    return Catalog(
        own(backbone, right, tokens)
        for backbone, right, tokens in zip(recorded.values(), RIGHT, TOKENS, strict=True)
    )


def test_trust_falls_with_the_distance() -> None:
    distance = np.array([-np.inf, -1.0, 0.0, 0.5, 1.0, 9.0, np.inf])
    assert trust_in_text(distance).tolist() == [1.0, 1.0, 0.5, 0.25, 0.0, 0.0, 0.0]


def test_a_far_query_is_as_the_profile_says(tickets: Catalog) -> None:
    table = ProfileTable.of(tickets, CHECKPOINT.priors)
    assert table.own_kind
    # Whatever its text is like.
    vectors = np.random.default_rng(0).normal(size=(5, CHECKPOINT.anchors.shape[1]))
    vectors, sizes = vectors.astype(np.float32), np.full(5, 90.0)
    found = look_ahead(CHECKPOINT, table, vectors, sizes, np.full(5, np.inf))
    right = 1.0 / (1.0 + np.exp(-found.predicted.log_odds))
    assert np.abs(right - RIGHT).max() < 0.02
    mean = np.exp(found.log_tokens + found.sigma[:, None] ** 2 / 2)
    assert mean == pytest.approx(np.tile(TOKENS, (5, 1)))
    assert np.ptp(found.query, axis=0).max() == 0.0
    near = look_ahead(CHECKPOINT, table, vectors, sizes, np.full(5, -1.0))
    assert np.array_equal(
        near.predicted.log_odds, look_ahead(CHECKPOINT, table, vectors, sizes).predicted.log_odds
    )
    assert np.ptp(near.predicted.log_odds, axis=0).min() > 0.0


def test_of_kinds_that_are_known_the_text_is_read_however_far(recorded: Catalog) -> None:
    table = ProfileTable.of(recorded, CHECKPOINT.priors)
    assert not table.own_kind
    vectors, sizes = CHECKPOINT.anchors[:5], np.full(5, 90.0)
    far = look_ahead(CHECKPOINT, table, vectors, sizes, np.full(5, np.inf))
    assert np.array_equal(far.log_tokens, look_ahead(CHECKPOINT, table, vectors, sizes).log_tokens)


def test_the_plan_of_a_far_query_is_the_critics(tickets: Catalog) -> None:
    policy = Policy.load()
    for price in (0.0, 3.0, 30.0, 300.0):
        found = policy.explain(FAR, team_of(4), Budget(cost_usd=1), tickets, Knobs(price_usd=price))
        assert found["plan"]["notes"]["far"]
        others = [other["worth"] for other in found["runners_up"]]
        assert found["worth"] >= max(others)
        for name, right in zip(tickets, RIGHT, strict=True):
            assert found["backbones"][name]["success"] == pytest.approx(right, abs=0.02)
