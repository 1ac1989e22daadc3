from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentbalance_plugin.core.encoder import (
    FEATURE_BUCKETS,
    Features,
    HashedEncoder,
    RecordedEncoder,
    SemanticEncoder,
    hash_features,
)
from agentbalance_plugin.core.traces import TraceSet

TEXT = "A train leaves at 9:15 and travels 240 miles. How fast is the train?\nA. 60\nB. 80"


def test_features_are_sorted_unique_ids() -> None:
    ids = hash_features(TEXT)
    assert ids.dtype == np.int32
    assert (np.diff(ids) > 0).all()
    assert ids[0] >= 0
    assert ids[-1] < FEATURE_BUCKETS
    assert len(ids) > 25


def test_features_do_not_change_between_versions_and_machines() -> None:
    assert hash_features("Add 2 and 17.").tolist() == PINNED


PINNED = [7021, 11593, 12354, 15885, 21413, 25154, 26769, 29671, 31566]


def test_case_and_white_space_do_not_matter_words_and_order_do() -> None:
    assert np.array_equal(hash_features("Two  Trains\nmeet"), hash_features("two trains meet"))
    assert not np.array_equal(hash_features("trains two meet"), hash_features("two trains meet"))
    shared = np.intersect1d(hash_features("multiplying"), hash_features("multiplied"))
    assert len(shared) >= 4


def test_a_long_text_is_known_by_its_beginning_and_end() -> None:
    words = [f"word{number} " for number in range(40_000)]
    text = "".join(words)
    ids = hash_features(text)
    assert len(ids) <= 400
    middle_changed = "".join([*words[:20_000], "surprise ", *words[20_001:]])
    assert np.array_equal(ids, hash_features(middle_changed))
    assert not np.array_equal(ids, hash_features(text + " surprise"))


def test_odd_texts_have_features_too() -> None:
    assert len(hash_features("")) == 0
    assert len(hash_features(" \n")) == 0
    assert len(hash_features("多少 \ud800 🙂")) > 0


def test_lengths_are_logarithmic_and_those_of_short_texts_alike() -> None:
    def length(count: int) -> float:
        return Features.mean(np.arange(count, dtype=np.int32)).log_length

    assert length(200) - length(100) == pytest.approx(np.log(2))
    assert length(1) == length(40) < length(41) < 0
    assert length(0) == 0.0


def test_recorded_features_are_found_by_marker(traces: TraceSet) -> None:
    known = traces.queries[3]
    features = np.array([4, 9], dtype=np.int32)
    recorded = replace(traces, queries=(replace(known, features=features), traces.queries[4]))
    encoder = RecordedEncoder(recorded)
    assert encoder.encode(f"Please: [[query:{known.key}]] filler").ids.tolist() == [4, 9]
    for other in (TEXT, "[[query:sums/none]] why", f"[[query:{traces.queries[4].key}]] text"):
        assert np.array_equal(encoder.encode(other).ids, HashedEncoder().encode(other).ids)


def test_sentence_embeddings_come_at_unit_length_and_bad_ones_are_named() -> None:
    encoder = SemanticEncoder(lambda text: [3.0, len(text) * 2.0], name="toy", size=2)
    features = encoder.encode("ab")
    assert features.ids.tolist() == [0, 1]
    assert features.weights.tolist() == pytest.approx([0.6, 0.8])
    assert encoder.name == "semantic:toy"
    for wrong in ([1.0], [float("nan"), 1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match=r"semantic:toy: expected .*\(2,\)"):
            SemanticEncoder(lambda _, wrong=wrong: wrong, name="toy", size=2).encode("text")
