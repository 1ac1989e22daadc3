from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trace_folder import row, write_benchmark, write_catalog

from agentbalance_plugin.core.encoder import RecordedEncoder, hash_features
from agentbalance_plugin.core.figures import export_figures, export_profiles
from agentbalance_plugin.core.reference import reference_plan
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.trace_files import pack_features
from agentbalance_plugin.core.traces import SHIPPED, TraceError, TraceSet


@pytest.fixture(scope="module")
def figures(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("figures")
    export_figures(folder, out, ["sums", "crux"])
    return out


def assert_same_figures(original: TraceSet, copy: TraceSet) -> None:
    assert copy.backbones == original.backbones
    assert (copy.reference, copy.candidates, copy.unseen) == (
        original.reference,
        original.candidates,
        original.unseen,
    )
    assert dict(copy.catalog) == dict(original.catalog)
    for mine, theirs in zip(copy.queries, original.queries, strict=True):
        assert (mine.key, mine.category, mine.split) == (theirs.key, theirs.category, theirs.split)
        assert mine.question is None
        assert mine.features is not None
        assert theirs.question is not None
        assert np.array_equal(mine.features, hash_features(theirs.question))
    for field in ("correct", "answer", "prompt_tokens", "visible_tokens"):
        left, right = getattr(copy.samples, field), getattr(original.samples, field)
        assert np.array_equal(left, right), field
    if original.latency_s is None:
        assert copy.latency_s is None
    else:
        assert copy.latency_s is not None
        assert np.array_equal(copy.latency_s, original.latency_s, equal_nan=True)


@pytest.mark.parametrize("suite", ["both", "sums", None])
def test_figures_are_those_of_the_original(figures: Path, folder: Path, suite: str | None) -> None:
    assert_same_figures(TraceSet.load(folder, suite), TraceSet.load(figures, suite))


def test_replay_cannot_tell_them_apart(figures: Path, folder: Path) -> None:
    plan = reference_plan("mid")
    outcomes = [
        Replay(traces, seed=3).evaluate(traces.positions("test"), plan)
        for traces in (TraceSet.load(folder, "both"), TraceSet.load(figures, "both"))
    ]
    assert np.array_equal(outcomes[0].answer, outcomes[1].answer)
    assert np.array_equal(outcomes[0].latency_s, outcomes[1].latency_s)
    assert outcomes[0].provenance == outcomes[1].provenance


def test_no_text_and_no_model_output_is_left(figures: Path) -> None:
    for benchmark in ("sums", "crux"):
        folder = figures / "traces" / benchmark
        for line in gzip.decompress((folder / "queries.jsonl.gz").read_bytes()).splitlines():
            assert set(json.loads(line)) == {"query_id", "category", "split", "features"}
        table = pq.read_table(folder / "responses.parquet")
        assert pa.types.is_integer(table.schema.field("answer").type)
        assert table["answer"].null_count > 0
        texts = [f.name for f in table.schema if not pa.types.is_primitive(f.type)]
        assert sorted(texts) == ["backbone", "query_id"]
    everything = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in figures.rglob("*")
        if path.is_file()
    )
    for secret in (b"zweiundvierzig", b"richtig", b"secret gold", b"roughly", b"option"):
        assert secret not in everything.replace(b"options", b"")


def test_exports_are_the_same_to_the_byte(figures: Path, folder: Path, tmp_path: Path) -> None:
    export_figures(folder, tmp_path / "again", ["sums", "crux"])
    # Figures of figures, too: nothing is lost on the way.
    export_figures(figures, tmp_path / "twice", ["sums", "crux"])
    for path in figures.rglob("*"):
        if path.is_file():
            name = path.relative_to(figures)
            assert (tmp_path / "again" / name).read_bytes() == path.read_bytes(), name
            if name.name != "PROVENANCE.md":
                assert (tmp_path / "twice" / name).read_bytes() == path.read_bytes(), name


def test_only_what_was_asked_for_is_exported(folder: Path, tmp_path: Path) -> None:
    export_figures(folder, tmp_path, ["sums"])
    assert [path.name for path in (tmp_path / "traces").iterdir()] == ["sums"]
    assert TraceSet.load(tmp_path, "sums").benchmarks == ("sums",)
    with pytest.raises(TraceError, match="no suite 'both'; there are sums"):
        TraceSet.load(tmp_path, "both")
    text = (tmp_path / "PROVENANCE.md").read_text(encoding="utf-8")
    assert "Benchmarks: sums." in text
    assert text.endswith("From a friend.\n")


def test_measured_latency_is_exported(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_catalog(source, ["a,1,2,1,10", "b,1,2,1,10"])
    rows = [row("1", "a", "x", 1, latency_s=0.25), row("1", "b", "x", 1, latency_s=None)]
    queries = [{"query_id": "1", "split": "train", "question": "?"}]
    write_benchmark(source, "bench", queries, rows)
    export_figures(source, tmp_path / "out", ["bench"])
    assert_same_figures(TraceSet.load(source), TraceSet.load(tmp_path / "out"))


def test_a_withheld_text_leaves_no_features(tmp_path: Path) -> None:
    write_catalog(tmp_path, ["a,1,2,1,10"])
    write_benchmark(tmp_path, "bench", [{"query_id": "1", "split": "x"}], [row("1", "a", "x", 1)])
    export_figures(tmp_path, tmp_path / "out", ["bench"])
    for folder in (tmp_path, tmp_path / "out"):
        traces = TraceSet.load(folder)
        # The marker and its filler are not taken for the text either.
        assert len(RecordedEncoder(traces).encode("[[query:bench/1]] so it is.").ids) == 0
    assert len(TraceSet.load(tmp_path / "out").queries[0].features) == 0


@pytest.mark.parametrize("ids", [[], [0], [32767], [0, 1, 127, 128, 255, 16384, 32767], [300]])
def test_packed_features_read_back(tmp_path: Path, ids: list[int]) -> None:
    packed = pack_features(np.array(ids, dtype=np.int32))
    write_catalog(tmp_path, ["a,1,2,1,10"])
    queries = [{"query_id": "1", "split": "x", "features": packed}]
    write_benchmark(tmp_path, "bench", queries, [row("1", "a", "x", 1)])
    features = TraceSet.load(tmp_path).queries[0].features
    assert features is not None
    assert features.tolist() == ids


@pytest.mark.parametrize("suite", ["reasoning", "mmlu_pro", "mmlu"])
def test_shipped_figures_are_complete(suite: str) -> None:
    traces = TraceSet.shipped(suite)
    assert traces.reference in traces.candidates
    assert set(traces.splits) == {"train", "val", "test"}
    assert all(query.features is not None and query.question is None for query in traces.queries)
    row_exists = traces.correct >= 0
    assert row_exists.mean() > 0.97
    accuracy = (traces.correct == 1).sum(axis=0) / row_exists.sum(axis=0)
    assert 0.1 < accuracy.min() < accuracy.max() < 0.95


@pytest.mark.skipif(
    "AGENTBALANCE_TRACES" not in os.environ,
    reason="AGENTBALANCE_TRACES does not name the folder of the original traces",
)
@pytest.mark.parametrize("suite", ["reasoning", "mmlu_pro", "mmlu"])
def test_shipped_figures_are_those_of_the_original(suite: str) -> None:
    original = TraceSet.load(os.environ["AGENTBALANCE_TRACES"], suite)
    assert_same_figures(original, TraceSet.shipped(suite))


def test_the_shipped_profiles_are_those_of_the_shipped_traces(tmp_path: Path) -> None:
    suites = [TraceSet.shipped(name) for name in ("reasoning", "mmlu_pro", "mmlu")]
    export_profiles(suites, tmp_path / "profiles.json.gz")
    made, shipped = ((each / "profiles.json.gz").read_bytes() for each in (tmp_path, SHIPPED))
    # Other versions of zlib pack the same text otherwise.
    assert gzip.decompress(made) == gzip.decompress(shipped)
