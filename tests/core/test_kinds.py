"""The user's own kinds of tasks, told apart by their texts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_policy import SHIPPED, team_of

from agentbalance_plugin.backbone import Catalog, CatalogError, Profile
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import load_checkpoint
from agentbalance_plugin.core.encoder import Features, hash_features
from agentbalance_plugin.core.kinds import KINDS, Kinds, candidates_of
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.core.profiles import ProfileTable
from agentbalance_plugin.core.traces import TraceSet

POLICY = Policy.load()
EASY, HARD = "tickets/refund", "tickets/contract"
TEXTS = {
    EASY: "Please refund order number {}, the parcel never arrived.",
    HARD: "Does clause {} of the lease allow the tenant to end the contract before its term?",
}
MONEY = Budget(cost_usd=1.0)


def bag(text: str) -> Features:
    return Features.mean(hash_features(text))


def fitted(refunds: int = 30, contracts: int = 10) -> Kinds:
    kinds = [EASY] * refunds + [HARD] * contracts
    bags = [bag(TEXTS[kind].format(100 + number)) for number, kind in enumerate(kinds)]
    return Kinds.fit(bags, kinds)


@pytest.fixture(scope="module")
def tickets(shipped: TraceSet, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Two backbones that are as good at refunds, of which only the dear one can read leases."""
    path = tmp_path_factory.mktemp("kinds") / KINDS
    fitted().save(path)
    recorded = shipped.profiled_candidates()
    rates = {"gpt-4o-mini-2024-07-18": (0.95, 0.2), "gpt-4o-2024-08-06": (0.95, 0.9)}

    def profile(easy: float, hard: float) -> Profile:
        return Profile(
            successes={EASY: 300 * easy, HARD: 100 * hard},
            trials={EASY: 300.0, HARD: 100.0},
            visible_tokens={EASY: 50.0, HARD: 400.0},
            prompt_tokens={EASY: 60.0, HARD: 60.0},
        )

    return Catalog(
        (replace(recorded[name], profile=profile(*both)) for name, both in rates.items()), path
    )


def test_texts_are_told_apart() -> None:
    kinds = fitted()
    assert kinds.names == (HARD, EASY)
    asked = [bag(TEXTS[HARD].format(7)), bag(TEXTS[EASY].format(7)), bag("")]
    found = kinds.probabilities(asked)
    assert found.sum(axis=1) == pytest.approx(1.0)
    assert found[0, 0] > 0.9
    assert found[1, 1] > 0.9
    # Where nothing is said, as many as there were.
    assert found[2] == pytest.approx([0.25, 0.75])
    stream = kinds.stream(200)
    assert stream.sum(axis=1).tolist() == [1.0] * 200
    assert stream.mean(axis=0) == pytest.approx([0.25, 0.75])


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    kinds, path = fitted(), tmp_path / KINDS
    kinds.save(path)
    again = Kinds.load(path)
    asked = [bag(TEXTS[HARD].format(7))]
    assert again.names == kinds.names
    assert np.array_equal(again.probabilities(asked), kinds.probabilities(asked))
    whole = path.read_bytes()
    for broken in (whole[:-10], b"", whole.replace(b"tickets", b'tick"ts')):
        path.write_bytes(broken)
        with pytest.raises(CatalogError, match="can't be used"):
            Kinds.load(path)


def test_rates_of_a_kind_lean_on_all_kinds_where_it_was_seldom_asked(tickets: Catalog) -> None:
    priors = load_checkpoint(SHIPPED).priors
    table = ProfileTable.of(tickets, priors, (EASY, HARD)).kinds
    assert table is not None
    right = 1.0 / (1.0 + np.exp(-table.log_odds))
    assert np.abs(right - [[0.95, 0.95], [0.2, 0.9]]).max() < 0.08
    assert np.exp(table.log_tokens) == pytest.approx(np.array([[50.0] * 2, [400.0] * 2]), rel=0.2)

    def asked_less(catalog: Catalog, factor: float) -> Catalog:
        def less(profile: Profile) -> Profile:
            scaled = {k: v * (factor if k == HARD else 1) for k, v in profile.successes.items()}
            trials = {k: v * (factor if k == HARD else 1) for k, v in profile.trials.items()}
            return replace(profile, successes=scaled, trials=trials)

        profiles = {b.name: less(b.profile) for b in catalog.values() if b.profile is not None}
        return catalog.with_profiles(profiles)

    few = ProfileTable.of(asked_less(tickets, 0.04), priors, (EASY, HARD)).kinds
    assert few is not None
    gap = np.diff(table.log_odds, axis=1)[1, 0]
    assert 0.0 < np.diff(few.log_odds, axis=1)[1, 0] < gap / 2
    # Without names of kinds, or with one alone, there is nothing to tell apart.
    assert ProfileTable.of(tickets, priors).kinds is None
    assert ProfileTable.of(tickets, priors, (EASY,)).kinds is None


def test_each_kind_is_planned_on_the_backbones_that_can_do_it(tickets: Catalog) -> None:
    mini, large = tickets
    chosen: Counter[tuple[str, str | None]] = Counter()
    for number in range(20):
        for kind, text in TEXTS.items():
            plan = POLICY.plan(
                text.format(500 + number), team_of(1), MONEY, tickets, Knobs(price_usd=50.0)
            )
            assert plan.notes["category"] == kind
            [name] = plan.assignment.values()
            chosen[kind, name] += 1
    assert chosen == {(EASY, mini): 20, (HARD, large): 20}
    found = POLICY.explain(TEXTS[HARD].format(1), team_of(1), MONEY, tickets)
    assert next(iter(found["categories"])) == HARD
    right = [alone["success"] for alone in found["backbones"].values()]
    assert right[0] < 0.35
    assert found["difficulty"] == pytest.approx(1 - np.mean(right))
    # Parts of the catalog know the kinds as well.
    part = tickets.subset([mini])
    assert POLICY.plan(TEXTS[HARD].format(1), team_of(1), MONEY, part).notes["category"] == HARD
    # Without the file all tasks are of one kind.
    blind = Catalog(tickets.values())
    seen = {
        kind: POLICY.explain(text.format(1), team_of(1), MONEY, blind)["backbones"][mini]["success"]
        for kind, text in TEXTS.items()
    }
    assert abs(seen[EASY] - seen[HARD]) < 0.2


def test_a_backbone_that_is_best_at_one_kind_alone_may_be_used(tickets: Catalog) -> None:
    """However dear it is, and weaker than others over all kinds."""
    mini, large = tickets
    profile = tickets[large].profile
    assert profile is not None
    specialist = replace(profile, successes={EASY: 0.0, HARD: 95.0})
    catalog = tickets.with_profiles({large: specialist})
    for text, name in ((TEXTS[EASY], mini), (TEXTS[HARD], large)):
        plan = POLICY.plan(text.format(7), team_of(1), MONEY, catalog)
        assert list(plan.assignment.values()) == [name]


def test_the_price_of_a_mean_is_that_of_the_kinds_that_were_recorded(tickets: Catalog) -> None:
    def price(mean: float) -> float:
        budget = Budget.average(cost_usd=mean, max_cost_usd=0.05)
        return POLICY.price_for(team_of(1), budget, tickets)

    # A contract on the dear one gains 0.7 for 0.004 USD; every fourth task is one.
    worth = (0.9 - 0.2) / 0.0042
    assert price(0.0009) > 0.9 * worth
    assert 1.0 < price(0.0013) < 0.5 * worth


def test_someone_who_recorded_a_suite_can_tell_its_kinds_apart(shipped: TraceSet) -> None:
    catalog = candidates_of(shipped)
    kinds = catalog.kinds
    assert isinstance(kinds, Kinds)
    assert set(kinds.names) == {query.category for query in shipped.queries}
    val = shipped.split("val").queries
    bags = [Features.mean(query.features) for query in val if query.features is not None]
    likeliest = kinds.probabilities(bags).argmax(axis=1)
    told = [kinds.names[k] == query.category for k, query in zip(likeliest, val, strict=True)]
    assert np.mean(told) > 0.9
    # The policy was trained on these kinds, and goes by its own head.
    plan = POLICY.plan(TEXTS[HARD], team_of(1), MONEY, catalog)
    assert plan.notes["category"] in load_checkpoint(SHIPPED).priors.categories


def test_a_catalog_names_the_file(tmp_path: Path) -> None:
    entry = "backbones:\n- {backbone: a, price_in_usd_per_mtok: 1, price_out_usd_per_mtok: 2}\n"
    path = tmp_path / "backbones.yaml"
    path.write_text(entry)
    assert Catalog.load(path).kinds is None
    path.write_text("kinds: kinds.safetensors\n" + entry)
    with pytest.raises(CatalogError, match=r"kinds: no such file: 'kinds\.safetensors'"):
        Catalog.load(path)
    fitted().save(tmp_path / KINDS)
    assert Catalog.load(path).kinds == tmp_path / KINDS
    (tmp_path / KINDS).write_bytes(b"nothing")
    with pytest.raises(CatalogError, match="can't be used"):
        POLICY.plan("Refund?", team_of(1), MONEY, Catalog.load(path))
