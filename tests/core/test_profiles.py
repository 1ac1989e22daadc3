from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from small_policy import answered, backbone, plain_priors, shipped_catalog, shipped_traces

from agentbalance_plugin.backbone import Backbone, Catalog, Endpoint, Profile
from agentbalance_plugin.core.profiles import FEATURES, ProfileTable, learn_priors
from agentbalance_plugin.core.traces import TraceSet

PRIORS = plain_priors()
LOGIC, EASY, HARD = range(3)


def column(*, price: str = "1", **counts: tuple[int, int]) -> np.ndarray:
    """[C] log-odds of a backbone that was asked this often."""
    table = ProfileTable.of(Catalog([backbone("b", price, answered(**counts))]), PRIORS)
    return table.log_odds[:, 0]


def test_rates_come_close_to_what_was_seen_as_trials_grow() -> None:
    true = np.log(0.9 / 0.1)
    distances = [abs(column(logic=(9 * n, 10 * n))[LOGIC] - true) for n in (1, 4, 40, 400)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.02
    assert distances[0] > 0.5


def test_a_category_with_few_trials_leans_on_strength_elsewhere() -> None:
    strong = column(logic=(390, 400), sums__easy=(1, 2))
    weak = column(logic=(10, 400), sums__easy=(1, 2))
    assert strong[EASY] > 1.0
    assert weak[EASY] < -1.0
    # With many trials of its own, the category is what it was seen to be.
    assert column(logic=(390, 400), sums__easy=(200, 400))[EASY] == pytest.approx(0.0, abs=0.1)
    # A category never tried is strength alone, and so is every other such category.
    assert strong[HARD] > strong[EASY] > 0
    assert column(logic=(390, 400))[EASY] == column(logic=(390, 400))[HARD]


def test_agents_are_not_taken_to_answer_in_a_letter() -> None:
    """Kinds that were recorded so are no measure of how long live replies are."""
    priors = replace(PRIORS, log_tokens=np.log([300.0, 2.0, 100.0]))
    own = Profile(
        successes={"logic": 30.0}, trials={"logic": 40.0}, visible_tokens={"logic": 200.0}
    )
    endpoint = Endpoint(model="m", base_url="http://127.0.0.1:9/v1")
    for profile, logic, others in ((own, 200.0, 200.0), (None, 300.0, 150.0)):
        recorded = backbone("b", "1", profile)
        live = replace(recorded, endpoint=endpoint)
        before, after = (
            np.exp(ProfileTable.of(Catalog([each]), priors).log_tokens[:, 0])
            for each in (recorded, live)
        )
        assert before[EASY] < 10.0
        assert after[LOGIC] == pytest.approx(before[LOGIC]) == pytest.approx(logic)
        assert after[EASY] == pytest.approx(after[HARD]) == pytest.approx(others)


def test_trials_count_alike_in_one_category_and_spread_over_many() -> None:
    many = tuple(f"kind/{number}" for number in range(30))
    priors = plain_priors(many)

    def untried(*, trials: dict[str, float], share: float) -> float:
        right = {category: share * count for category, count in trials.items()}
        catalog = Catalog([backbone("b", "1", Profile(successes=right, trials=trials))])
        return float(ProfileTable.of(catalog, priors).log_odds[-1, 0])

    once = untried(trials={many[0]: 50.0}, share=0.9)
    spread = untried(trials=dict.fromkeys(many[:25], 2.0), share=0.9)
    assert spread == pytest.approx(once, abs=1e-6)
    # Not far from what was seen: twenty trials are what the price is worth.
    assert 1.3 < spread < np.log(0.9 / 0.1)
    assert untried(trials={many[0]: 1e6}, share=1.0) < 20.0


def test_without_any_trial_the_price_suggests_the_strength() -> None:
    unknown = Catalog([backbone("cheap", "0.1"), backbone("mean", "1"), backbone("dear", "10")])
    odds = ProfileTable.of(unknown, PRIORS).log_odds
    expected = PRIORS.price_slope * np.log([0.1, 1.0, 10.0])
    np.testing.assert_allclose(odds, np.tile(expected, (3, 1)), atol=1e-4)
    # A profile that is there but empty is as good as none.
    empty = ProfileTable.of(Catalog([backbone("dear", "10", answered())]), PRIORS)
    np.testing.assert_allclose(empty.log_odds[:, 0], odds[:, 2])


def test_a_backbone_with_few_trials_leans_on_its_price() -> None:
    few = [column(price=price, logic=(2, 4))[HARD] for price in ("0.1", "10")]
    many = [column(price=price, logic=(300, 600))[HARD] for price in ("0.1", "10")]
    assert few[1] - few[0] > 1.5
    assert 0 < many[1] - many[0] < 0.2


def test_an_unprofiled_backbone_gets_finite_figures_everywhere() -> None:
    table = ProfileTable.of(Catalog([backbone("new")]), PRIORS)
    for name in ("log_odds", "log_tokens", "features", "price_out", "ttft_s", "tokens_per_s"):
        assert np.isfinite(getattr(table, name)).all(), name
    np.testing.assert_allclose(table.log_tokens[:, 0], PRIORS.log_tokens)
    assert table.ttft_s[0] > 0
    assert table.tokens_per_s[0] > 0


def test_unknown_speeds_are_the_median_of_the_known() -> None:
    table = ProfileTable.of(
        Catalog(
            [
                backbone("a", ttft_s=0.2, tokens_per_s=10.0),
                backbone("b", ttft_s=0.4, tokens_per_s=50.0),
                backbone("c", ttft_s=3.0, tokens_per_s=60.0),
                backbone("d"),
            ]
        ),
        PRIORS,
    )
    assert table.ttft_s[3] == 0.4
    assert table.tokens_per_s[3] == 50.0


def test_prices_hidden_tokens_caps_and_capabilities_are_taken_as_they_are() -> None:
    thinker = replace(
        backbone("thinker", hidden_tokens={"sums": 700}, max_output_tokens=300),
        price_in_usd_per_mtok=Decimal("0.25"),
        price_out_usd_per_mtok=Decimal("4"),
        capabilities=frozenset({"text", "tools"}),
    )
    table = ProfileTable.of(Catalog([backbone("plain"), thinker]), PRIORS)
    assert table.price_in.tolist() == pytest.approx([1e-6, 0.25e-6])
    assert table.price_out.tolist() == pytest.approx([1e-6, 4e-6])
    assert table.hidden_tokens.tolist() == [[0, 0], [0, 700], [0, 700]]
    assert table.max_output.tolist() == [4096, 300]
    assert table.capable == (frozenset({"text"}), frozenset({"text", "tools"}))
    assert table.names == ("plain", "thinker")


def test_a_wordy_backbone_is_expected_to_be_wordy_where_it_was_never_asked() -> None:
    profile = answered(logic=(5, 10))
    wordy = replace(profile, visible_tokens={"logic": 400.0})
    table = ProfileTable.of(
        Catalog([backbone("a", profile=profile), backbone("b", profile=wordy)]), PRIORS
    )
    assert table.log_tokens[LOGIC, 1] == pytest.approx(np.log(400.0))
    assert np.log(100.0) < table.log_tokens[HARD, 1] < np.log(400.0)
    assert table.log_tokens[HARD, 0] == pytest.approx(np.log(100.0))
    verbosity = table.features[:, FEATURES.index("verbosity")]
    assert verbosity[1] > verbosity[0]


def test_only_categories_that_nobody_was_profiled_on_are_held_unlikely() -> None:
    some = Catalog([backbone("a", profile=answered(logic=(1, 5))), backbone("b")])
    prior = ProfileTable.of(some, PRIORS).category_prior
    assert prior[LOGIC] == 0.0
    assert (prior[[EASY, HARD]] < -1.0).all()
    nobody = ProfileTable.of(Catalog([backbone("a"), backbone("b")]), PRIORS).category_prior
    assert (nobody == 0.0).all()


def test_features_of_the_training_backbones_are_standardised(traces: TraceSet) -> None:
    catalog = traces.catalog.with_profiles(traces.profiles("train"))
    coincidence = dict.fromkeys(traces.categories, 0.3)
    priors = learn_priors([catalog], coincidence)
    features = ProfileTable.of(catalog, priors).features
    spread = features.std(axis=0)
    np.testing.assert_allclose(features.mean(axis=0), 0.0, atol=1e-9)
    for name, deviation in zip(FEATURES, spread, strict=True):
        # A figure that is equal for all backbones stays 0.
        assert deviation == pytest.approx(1.0) or deviation == pytest.approx(0.0), name
    assert spread[FEATURES.index("strength")] == pytest.approx(1.0)
    assert priors.categories == tuple(sorted(traces.categories))


def test_learned_priors_are_means_over_backbones_and_dearer_ones_are_stronger(
    traces: TraceSet,
) -> None:
    profiles = traces.profiles("train")
    catalog = traces.catalog.with_profiles(profiles)
    priors = learn_priors([catalog], dict.fromkeys(traces.categories, 0.3))
    assert priors.price_slope > 0
    for number, category in enumerate(priors.categories):
        prompt = np.mean([profile.prompt_tokens[category] for profile in profiles.values()])
        assert priors.prompt_tokens[number] == pytest.approx(prompt)
        rates = [
            (profile.successes[category] + 1) / (profile.trials[category] + 2)
            for profile in profiles.values()
        ]
        odds = np.mean([np.log(rate / (1 - rate)) for rate in rates])
        assert priors.log_odds[number] == pytest.approx(odds)


@pytest.mark.parametrize("seed", [0, 1])
def test_permuting_and_renaming_backbones_permutes_columns_only(seed: int) -> None:
    catalog = shipped_catalog()
    traces = shipped_traces()
    priors = learn_priors([catalog], dict.fromkeys(traces.categories, 0.3))
    order = np.random.default_rng(seed).permutation(len(catalog)).tolist()
    originals = list(catalog.values())
    other = Catalog(replace(originals[old], name=f"x{new}") for new, old in enumerate(order))
    before, after = ProfileTable.of(catalog, priors), ProfileTable.of(other, priors)
    for name in ("log_odds", "log_tokens", "hidden_tokens"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[:, order])
    for name in ("features", "price_in", "price_out", "ttft_s", "tokens_per_s", "max_output"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[order])
    np.testing.assert_array_equal(after.category_prior, before.category_prior)
    assert after.names == tuple(f"x{number}" for number in range(len(order)))


def test_a_profile_of_a_kind_that_was_never_seen_holds_for_every_category() -> None:
    def own(name: str, right: float, tokens: float) -> Backbone:
        profile = Profile(
            successes={"mine": right},
            trials={"mine": 200.0},
            visible_tokens={"mine": tokens},
            prompt_tokens={"mine": 90.0},
        )
        return replace(backbone(name), profile=profile)

    catalog = Catalog([own("weak", 40.0, 50.0), own("strong", 180.0, 900.0)])
    found = ProfileTable.of(catalog, plain_priors())
    assert (found.log_odds[:, 1] > 1.5).all()
    assert (found.log_odds[:, 0] < -0.8).all()
    np.testing.assert_allclose(np.exp(found.log_tokens[:, 1]), 900.0)
    np.testing.assert_allclose(np.exp(found.log_tokens[:, 0]), 50.0)


def test_a_backbone_known_by_fewer_trials_than_others_is_doubted() -> None:
    def odds(**trials: int) -> dict[str, float]:
        catalog = Catalog(
            [backbone(name, "1", answered(logic=(8 * n // 10, n))) for name, n in trials.items()]
        )
        table = ProfileTable.of(catalog, PRIORS)
        return dict(zip(table.names, table.log_odds[LOGIC].tolist(), strict=True))

    mixed = odds(well=1000, little=50, hardly=10)
    assert mixed["well"] > mixed["little"] + 0.2 > mixed["hardly"] + 0.4
    # It is how they compare that counts: nobody is doubted where all are known alike.
    assert odds(one=50, other=50)["one"] == pytest.approx(odds(alone=50)["alone"])
    assert odds(well=1000, little=50)["well"] == pytest.approx(odds(alone=1000)["alone"])
