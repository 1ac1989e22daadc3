from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_policy import team_of
from trace_folder import Row, row, write_benchmark, write_catalog

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import SETTINGS, TENSORS, Checkpoint
from agentbalance_plugin.core.dependence import coincidence_of
from agentbalance_plugin.core.encoder import HashedEncoder, SemanticEncoder
from agentbalance_plugin.core.episodes import Course
from agentbalance_plugin.core.latent_text import latent_directions
from agentbalance_plugin.core.network import LATENT, LEARNT, Weights
from agentbalance_plugin.core.policy import Knobs, Policy, PolicyError
from agentbalance_plugin.core.policy_gradient import Duals, episode_of, imitation
from agentbalance_plugin.core.prediction import embed, look_ahead
from agentbalance_plugin.core.profiles import ProfileTable
from agentbalance_plugin.core.stage_trainer import StageConfig
from agentbalance_plugin.core.traces import Answers, TraceError, TraceSet
from agentbalance_plugin.core.trainer import Progress, TrainerConfig, train
from agentbalance_plugin.core.training_data import prepare, query_features, without_own
from agentbalance_plugin.core.training_state import STATE

WORDS = {
    "animals": ["badger", "heron", "lizard", "otter", "weasel", "falcon", "turtle", "ferret"],
    "machines": ["lathe", "piston", "turbine", "gearbox", "boiler", "pulley", "dynamo", "crane"],
}
SKILLS = {
    "zoo": {"animals": 0.95, "machines": 0.15},
    "shop": {"animals": 0.15, "machines": 0.95},
    "plain": {"animals": 0.5, "machines": 0.5},
    "late": {"animals": 0.8, "machines": 0.8},
}
SPLITS = ("train", "train", "train", "val", "test")
STAGES = StageConfig(
    imitation_steps=12, gradient_steps=6, imitation_tasks=8, gradient_tasks=4,
    check_every=5, val_queries=8,
)  # fmt: skip
QUICK = TrainerConfig(
    embedding_epochs=6, category_epochs=3, head_epochs=4, batch=16, anchors=12, stages=STAGES
)


def write(root: Path, *, queries: int = 150, change: str = "") -> TraceSet:
    """Two kinds of questions, each with a backbone that is good at it.

    Args:
        change: a split all of whose recorded answers are changed, or a backbone.
    """
    rng = np.random.default_rng(0)
    write_catalog(root, [f"{name},1,2,0.4,80" for name in SKILLS])
    (root / "suites.yaml").write_text(
        "words:\n  benchmarks: [words]\n  reference: plain\n"
        "  candidates: [zoo, shop, plain]\n  unseen: [late]\n",
        encoding="utf-8",
    )
    entries: list[Row] = []
    rows: list[Row] = []
    for number in range(queries):
        kind = "animals" if rng.random() < 0.5 else "machines"
        key, split = f"q{number}", SPLITS[number % len(SPLITS)]
        text = " ".join(rng.choice(WORDS[kind], size=6).tolist())
        if change == split == "test":
            text = f"changed {text}"
        entries.append({"query_id": key, "split": split, "category": kind, "question": text})
        for name, skill in SKILLS.items():
            right = bool(rng.random() < skill[kind])
            answer, tokens = f"answer {rng.integers(4)}", int(rng.integers(20, 90))
            if change in (split, name):
                right, answer, tokens = not right, "changed", tokens + 500
            value = "right" if right else answer
            rows.append(row(key, name, value, int(right), completion_tokens=tokens))
    write_benchmark(root, "words", entries, rows)
    return TraceSet.load(root, "words")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> TraceSet:
    return write(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def trained(
    words: TraceSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Checkpoint, list[Progress]]:
    """(folder of the policy, the policy, what its training reported)."""
    out, seen = tmp_path_factory.mktemp("policies") / "words", []
    checkpoint = train([words], out, QUICK, seen.append)
    return out, checkpoint, seen


def bytes_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / TENSORS).read_bytes(), (folder / SETTINGS).read_bytes()


def test_training_learns_which_backbone_is_good_at_what(
    words: TraceSet, trained: tuple[Path, Checkpoint, list[Progress]]
) -> None:
    checkpoint = trained[1]
    catalog = words.catalog.subset(words.candidates).with_profiles(words.profiles("train"))
    table = ProfileTable.of(catalog, checkpoint.priors)
    zoo, shop = table.names.index("zoo"), table.names.index("shop")
    seen: set[str] = set()
    for query in words.split("val").queries:
        vector = embed(checkpoint.weights, query_features(query, HashedEncoder()))
        outlook = look_ahead(checkpoint, table, vector, np.array([40.0]))
        odds = outlook.predicted.log_odds[0]
        good, bad = (zoo, shop) if query.category == "words/animals" else (shop, zoo)
        assert odds[good] > odds[bad] + 1.0, query.question
        best = int(outlook.category[0].argmax())
        assert checkpoint.priors.categories[best] == query.category
        seen.add(query.category)
    assert seen == {"words/animals", "words/machines"}


def test_a_trained_policy_routes_new_texts(
    words: TraceSet, trained: tuple[Path, Checkpoint, list[Progress]]
) -> None:
    policy = Policy.load(trained[0])
    catalog = words.catalog.subset(words.candidates).with_profiles(words.profiles("train"))
    for text, name in (("An otter and a heron.", "zoo"), ("A lathe, a turbine.", "shop")):
        plan = policy.plan(text, team_of(1), Budget(cost_usd=0.01), catalog, Knobs())
        assert plan.assignment == {"a0": name}


def test_the_latent_part_of_embeddings_stays_as_the_texts_give_it(
    words: TraceSet, trained: tuple[Path, Checkpoint, list[Progress]]
) -> None:
    encoder, weights = HashedEncoder(), trained[1].weights
    texts = [query_features(query, encoder) for query in words.split("train").queries]
    found = latent_directions(texts, encoder.size, LATENT, QUICK.seed)
    np.testing.assert_array_equal(weights.embedding[:, LEARNT:], found)
    # Every part of a vector says something of the category: learnt, latent and the length.
    for part in (slice(0, LEARNT), slice(LEARNT, -1), slice(-1, None)):
        assert weights.category[part].any()


def test_one_seed_gives_identical_files_and_another_does_not(
    words: TraceSet, trained: tuple[Path, Checkpoint, list[Progress]], tmp_path: Path
) -> None:
    train([words], tmp_path / "again", QUICK)
    assert bytes_of(tmp_path / "again") == bytes_of(trained[0])
    train([words], tmp_path / "other", replace(QUICK, seed=1))
    assert bytes_of(tmp_path / "other")[0] != bytes_of(trained[0])[0]


@pytest.mark.parametrize("change", ["test", "late"])
def test_neither_test_queries_nor_unseen_backbones_influence_the_policy(
    trained: tuple[Path, Checkpoint, list[Progress]], tmp_path: Path, change: str
) -> None:
    train([write(tmp_path, change=change)], tmp_path / "policy", QUICK)
    assert bytes_of(tmp_path / "policy") == bytes_of(trained[0])


@pytest.mark.parametrize("change", ["train", "val", "plain"])
def test_train_and_val_queries_of_candidates_influence_the_policy(
    trained: tuple[Path, Checkpoint, list[Progress]], tmp_path: Path, change: str
) -> None:
    train([write(tmp_path, change=change)], tmp_path / "policy", QUICK)
    assert bytes_of(tmp_path / "policy")[0] != bytes_of(trained[0])[0]


def test_progress_is_told_of_every_stage(
    trained: tuple[Path, Checkpoint, list[Progress]],
) -> None:
    seen = trained[2]
    stages = [each.stage for each in seen]
    phases = ["embeddings", "categories", "heads", "imitation", "gradient"]
    assert list(dict.fromkeys(stages)) == phases
    for stage, most in (("embeddings", 6), ("categories", 3), ("heads", 4)):
        here = [each for each in seen if each.stage == stage]
        assert [each.epoch for each in here] == list(range(1, len(here) + 1))
        assert 1 <= len(here) <= most
        assert {each.of for each in here} == {most}
        assert np.isfinite([(each.train_loss, each.val_loss) for each in here]).all()
    learnt = [each.val_loss for each in seen if each.stage == "embeddings"]
    assert min(learnt) < learnt[0] / 2
    worth = [(each.epoch, -each.val_loss) for each in seen if each.stage == "imitation"]
    # Before the first step untrained stages are looked at; what is shown is what was seen last.
    assert [step for step, _ in worth] == list(range(13))
    assert np.isfinite(worth).all()


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best(
    words: TraceSet, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    # Steps this large only do harm.
    config = replace(QUICK, head_epochs=40, head_rate=3.0, patience=2)
    stopped = train([words], tmp_path, config, seen.append)
    losses = [each.val_loss for each in seen if each.stage == "heads"]
    best = int(np.argmin(losses)) + 1
    assert best + 2 <= len(losses) < 40
    short = train([words], tmp_path, replace(config, head_epochs=best))
    for field in fields(Weights):
        kept, wanted = getattr(stopped.weights, field.name), getattr(short.weights, field.name)
        np.testing.assert_array_equal(kept, wanted, field.name)


def test_the_policy_tells_what_it_was_trained_on(
    trained: tuple[Path, Checkpoint, list[Progress]],
) -> None:
    checkpoint = trained[1]
    assert checkpoint.trained_on["benchmarks"] == ["words"]
    assert checkpoint.trained_on["queries"] == 90
    assert checkpoint.trained_on["config"]["batch"] == 16
    assert checkpoint.anchors.shape[0] == len(checkpoint.anchor_category) == 12
    assert checkpoint.priors.categories == ("words/animals", "words/machines")


def test_without_torch_the_extra_is_named(
    words: TraceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"agentbalance-plugin\[train\]"):
        train([words], tmp_path / "policy", QUICK)
    assert not (tmp_path / "policy").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_named(words: TraceSet, tmp_path: Path, split: str) -> None:
    other = words.split("val" if split == "train" else "train")
    with pytest.raises(TraceError, match=f"no split '{split}'"):
        train([other], tmp_path, QUICK)


def without(traces: TraceSet, split: str, backbone: str) -> TraceSet:
    """None of a backbone's answers to a split's queries; "" stands for all of them."""
    rows = np.array([split in ("", query.split) for query in traces.queries])
    columns = np.array([backbone in ("", name) for name in traces.backbones])
    gone = rows[:, None, None] & columns[:, None]
    kept = traces.samples
    samples = Answers(
        np.where(gone, -1, kept.correct).astype(np.int8),
        np.where(gone, -1, kept.answer),
        np.where(gone, 0, kept.prompt_tokens),
        np.where(gone, 0, kept.visible_tokens),
    )
    return replace(traces, samples=samples)


def in_a_category(traces: TraceSet, split: str, number: int) -> TraceSet:
    """The first queries of a split are of a category that no other query is of."""
    chosen = set(traces.positions(split)[:number].tolist())
    return replace(
        traces,
        queries=tuple(
            replace(query, category="words/plants") if index in chosen else query
            for index, query in enumerate(traces.queries)
        ),
    )


def test_val_queries_of_a_kind_without_train_answers_are_left_out(words: TraceSet) -> None:
    _, _, [whole] = prepare([words], HashedEncoder())
    priors, _, [part] = prepare([in_a_category(words, "val", 5)], HashedEncoder())
    assert priors.categories == ("words/animals", "words/machines")
    assert len(part.features) == len(whole.features) - 5
    assert np.array_equal(part.correct, whole.correct[5:])
    assert np.array_equal(part.visible_tokens, whole.visible_tokens[5:])


def test_a_split_without_a_query_that_can_be_learned_from_is_named(
    words: TraceSet, tmp_path: Path
) -> None:
    with pytest.raises(TraceError, match=r"the val split has no query .* are words/plants, those"):
        train([in_a_category(words, "val", len(words.queries))], tmp_path, QUICK)
    with pytest.raises(TraceError, match=r"the train split has no query .* answers none"):
        train([without(words, "train", "")], tmp_path, QUICK)


def test_a_candidate_that_was_never_recorded_is_named(words: TraceSet, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="backbone 'shop' has no recorded answer to words"):
        train([without(words, "", "shop")], tmp_path, QUICK)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_without_answers_on_val_the_priors_stay(words: TraceSet, tmp_path: Path) -> None:
    checkpoint = train([without(words, "val", "")], tmp_path, QUICK)
    assert checkpoint.priors.spread.tolist() == [1.0, 1.0]
    assert checkpoint.priors.shared.tolist() == [1.0, 1.0]


def test_queries_without_a_text_are_refused_before_anything_is_trained(
    words: TraceSet, tmp_path: Path
) -> None:
    silent = replace(words, queries=tuple(replace(query, question="") for query in words.queries))
    with pytest.raises(ValueError, match="validation queries with a text"):
        train([silent], tmp_path / "policy", QUICK)
    assert not (tmp_path / "policy").exists()


def test_tables_leave_out_the_answer_that_is_to_be_predicted(words: TraceSet) -> None:
    _, (part, *_), _ = prepare([words.subset(words.candidates)], HashedEncoder())
    rows = np.arange(len(part.features))
    table = without_own(part, rows)
    for n in rows.tolist():
        own, full = table[n, part.category[n]], part.table.log_odds[part.category[n]]
        # Without a right answer the rate is lower, without a wrong one higher.
        assert (np.sign(full - own) == np.where(part.correct[n] > 0, 1, -1)).all()
        others = [c for c in range(table.shape[1]) if c != part.category[n]]
        np.testing.assert_array_equal(table[n, others], part.table.log_odds[others])


def test_coincidence_is_the_share_of_equal_answers_among_wrong_pairs(tmp_path: Path) -> None:
    def entry(key: str) -> dict[str, Any]:
        return {"query_id": key, "split": "train", "category": "", "question": "?"}

    write_catalog(tmp_path, [f"{name},1,2,0.4,80" for name in "abcd"])
    keys = [f"q{number}" for number in range(600)]
    # One pair of six is equal: missing answers never are.
    given = {"a": "x", "b": "x", "c": None, "d": None}
    rows = [row(key, name, answer, 0) for key in keys for name, answer in given.items()]
    write_benchmark(tmp_path, "odd", [entry(key) for key in keys], rows)
    found = coincidence_of(TraceSet.load(tmp_path), "train")
    assert found == {"odd": pytest.approx(1 / 6, abs=0.001)}


def test_a_semantic_encoder_can_be_used_instead_and_is_asked_for_again(
    words: TraceSet, tmp_path: Path
) -> None:
    def kinds(text: str) -> list[float]:
        """Stands for a sentence model: how much of each kind a text is."""
        return [0.1 + sum(text.lower().count(word) for word in kind) for kind in WORDS.values()]

    encoder = SemanticEncoder(kinds, name="two-kinds", size=2)
    train([words], tmp_path, replace(QUICK, embedding_epochs=20), encoder=encoder)
    catalog = words.catalog.subset(words.candidates).with_profiles(words.profiles("train"))
    policy = Policy.load(tmp_path, encoder)
    for text, name in (("An otter and a heron.", "zoo"), ("A lathe, a turbine.", "shop")):
        plan = policy.plan(text, team_of(1), Budget(cost_usd=0.01), catalog, Knobs())
        assert plan.assignment == {"a0": name}
    with pytest.raises(PolicyError, match="trained with 'semantic:two-kinds' of size 2"):
        Policy.load(tmp_path)


@pytest.mark.parametrize(
    "kills",
    [
        [("embeddings", 2)],
        [("embeddings", 6)],
        [("categories", 1)],
        [("heads", 1)],
        [("embeddings", 4), ("categories", 2), ("heads", 3)],
    ],
)
def test_a_training_that_was_killed_goes_on_to_the_same_result(
    words: TraceSet,
    trained: tuple[Path, Checkpoint, list[Progress]],
    tmp_path: Path,
    kills: list[tuple[str, int]],
) -> None:
    for kill in kills:

        def stop(progress: Progress, kill: tuple[str, int] = kill) -> None:
            if (progress.stage, progress.epoch) == kill:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train([words], tmp_path, QUICK, stop, resume=True)
        assert (tmp_path / STATE).exists()
    seen: list[Progress] = []
    train([words], tmp_path, QUICK, seen.append, resume=True)
    assert bytes_of(tmp_path) == bytes_of(trained[0])
    stage, epoch = kills[-1]
    left = [each for each in trained[2] if each.stage == stage and each.epoch > epoch]
    assert seen[: len(left)] == left
    # A finished training leaves no state behind, and resuming nothing begins anew.
    assert not (tmp_path / STATE).exists()


@pytest.mark.parametrize("names", [["zoo"], ["zoo", "shop"]])
def test_no_episode_pins_more_agents_than_there_are_backbones(
    words: TraceSet, trained: tuple[Path, Checkpoint, list[Progress]], names: list[str]
) -> None:
    suite, checkpoint = words.subset(names), trained[1]
    vectors = np.concatenate(
        [embed(checkpoint.weights, query_features(q, HashedEncoder())) for q in suite.queries]
    )
    courses = [Course.of(suite, vectors, 0)]
    duals, positions = Duals.initial(1), [suite.positions("train")]
    most = 0
    for number in range(150):
        rng = np.random.default_rng(number)
        _, episode = episode_of(courses, positions, checkpoint, HashedEncoder(), duals, 2, rng)
        known = episode.known
        assert known.least <= len(known.fastest)
        most = max(most, known.least)
        assert np.isfinite(imitation(episode, rng).weight).all()
    # Those that fit stay pinned.
    assert most == len(names)


def test_a_state_of_another_training_is_refused(words: TraceSet, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([words], tmp_path, QUICK, stop)
    with pytest.raises(ValueError, match="other settings or traces"):
        train([words], tmp_path, replace(QUICK, seed=9), resume=True)
    (tmp_path / STATE).write_bytes(b"broken")
    with pytest.raises(ValueError, match="can't be read"):
        train([words], tmp_path, QUICK, resume=True)
    # Without resume a state is not looked at.
    train([words], tmp_path, QUICK)
