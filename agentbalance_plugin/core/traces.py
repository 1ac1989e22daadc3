"""Recorded answers of backbones to queries, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Catalog, Profile
from agentbalance_plugin.core.reply_cuts import reply_cuts
from agentbalance_plugin.core.suites import Suite, read_suites
from agentbalance_plugin.core.trace_files import (
    Query,
    Responses,
    TraceError,
    read_queries,
    read_responses,
    recorded_backbones,
)

__all__ = ["SHIPPED", "Answers", "Query", "TraceError", "TraceSet"]

IntArray = NDArray[np.int32]

SHIPPED = Path(__file__).resolve().parent.parent / "data"
"""The folder of the figures that come with the package."""


@dataclass(frozen=True)
class Answers:
    """What was recorded, per query, backbone and sample: arrays of shape [Q, B, S].

    Args:
        correct: int8; 1 right, 0 wrong, -1 no such row.
        answer: int32; equal codes within one query are equal answers (over backbones and samples),
            -1 where there is no answer.
        prompt_tokens: int32; 0 where there is no row.
        visible_tokens: int32 completion tokens of the visible reply; 0 where there is no row.
    """

    correct: NDArray[np.int8]
    answer: IntArray
    prompt_tokens: IntArray
    visible_tokens: IntArray

    def take(self, index: tuple[NDArray[np.int64] | slice, ...]) -> Answers:
        """The same index into every array."""
        return Answers(
            self.correct[index],
            self.answer[index],
            self.prompt_tokens[index],
            self.visible_tokens[index],
        )


@dataclass(frozen=True, eq=False)
class TraceSet:
    """Queries × backbones, with what each backbone answered alone.

    Args:
        queries: Q of them, benchmark by benchmark in the order of their files.
        backbones: B names, the columns.
        catalog: prices and speeds of exactly these backbones.
        samples: recorded answers with every repeat, [Q, B, S]; sample 0 is "the" recorded row.
        latency_s: [Q, B] measured seconds of sample 0, nan where not measured; None where nothing
            was measured.
        reference: backbone of the suite's reference chat; None without a suite.
        candidates: backbones a policy may choose from; all of them without a suite.
        unseen: backbones kept out of training.
    """

    queries: tuple[Query, ...]
    backbones: tuple[str, ...]
    catalog: Catalog
    samples: Answers
    latency_s: NDArray[np.float64] | None = None
    reference: str | None = None
    candidates: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        path: str | Path,
        suite: str | None = None,
        benchmarks: Sequence[str] | None = None,
    ) -> TraceSet:
        """Read a trace folder.

        Args:
            path: holds catalog.csv, suites.yaml and
                traces/<benchmark>/{queries.jsonl.gz, responses.parquet}; or its `traces` folder.
            suite: a suite of suites.yaml: its benchmarks and backbones are loaded. Without it
                every backbone with a row is.
            benchmarks: only these; by default those of the suite, or every folder there is.

        Raises:
            TraceError: a file that can't be used (naming file, row or column, value), or a suite
                or benchmark that does not exist (listing those that do).
            CatalogError: the catalog can't be used.
            ImportError: pyarrow is not installed (extras `simulator` and `train`).
        """
        root = Path(path)
        if not (root / "traces").is_dir() and root.name == "traces":
            root = root.parent
        folder = root / "traces"
        if not folder.is_dir():
            raise TraceError(f"{root}: no folder 'traces' in it")
        chosen = _suite(root, suite)
        names = _benchmarks(folder, chosen, benchmarks)
        if chosen is None:
            paths = (folder / name / "responses.parquet" for name in names)
            backbones = tuple(sorted({name for path in paths for name in recorded_backbones(path)}))
        else:
            backbones = chosen.backbones
        catalog = Catalog.load(root / "catalog.csv")
        for backbone in backbones:
            if backbone not in catalog:
                where = "recorded responses" if chosen is None else f"suite {suite!r}"
                raise TraceError(
                    f"{root / 'catalog.csv'}: backbone {backbone!r} of the {where} has no row, so "
                    "it has no price"
                )
        queries: list[Query] = []
        blocks: list[tuple[Responses, int]] = []
        for name in names:
            here = read_queries(folder / name / "queries.jsonl.gz", name)
            ids = [query.key.removeprefix(f"{name}/") for query in here]
            path = folder / name / "responses.parquet"
            blocks.append((read_responses(path, ids, backbones, name), len(queries)))
            queries += here
        samples, latency_s = _tables(blocks, len(queries), len(backbones))
        return cls(
            queries=tuple(queries),
            backbones=backbones,
            catalog=catalog.subset(backbones),
            samples=samples,
            latency_s=latency_s,
            reference=None if chosen is None else chosen.reference,
            candidates=backbones if chosen is None else chosen.candidates,
            unseen=() if chosen is None else chosen.unseen,
        )

    @classmethod
    def shipped(cls, suite: str | None = None, benchmarks: Sequence[str] | None = None) -> TraceSet:
        """The figures-only traces that come with the package: features instead of texts.

        Args:
            suite, benchmarks: as in `load`.

        Raises:
            TraceError: no such suite or benchmark (listing those that exist).
        """
        return cls.load(SHIPPED, suite, benchmarks)

    @cached_property
    def correct(self) -> NDArray[np.int8]:
        """[Q, B] of sample 0: 1 right, 0 wrong, -1 no such row."""
        return self.samples.correct[:, :, 0]

    @cached_property
    def answer(self) -> IntArray:
        """[Q, B] of sample 0: codes that are equal where a query's answers are; -1 for none."""
        return self.samples.answer[:, :, 0]

    @cached_property
    def prompt_tokens(self) -> IntArray:
        """[Q, B] of sample 0."""
        return self.samples.prompt_tokens[:, :, 0]

    @cached_property
    def visible_tokens(self) -> IntArray:
        """[Q, B] of sample 0: completion tokens without the hidden ones."""
        return self.samples.visible_tokens[:, :, 0]

    @cached_property
    def hidden_tokens(self) -> IntArray:
        """[Q, B] hidden reasoning tokens: an estimate of the catalog, recorded nowhere."""
        hidden = [self.catalog[name].hidden_tokens for name in self.backbones]
        per_benchmark = {
            benchmark: np.array([tokens.get(benchmark, 0) for tokens in hidden], dtype=np.int32)
            for benchmark in self.benchmarks
        }
        return np.stack([per_benchmark[query.benchmark] for query in self.queries])

    @cached_property
    def benchmarks(self) -> tuple[str, ...]:
        """In the order of the queries."""
        return tuple(dict.fromkeys(query.benchmark for query in self.queries))

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """In the order of the queries."""
        return tuple(dict.fromkeys(query.category for query in self.queries))

    @cached_property
    def category(self) -> NDArray[np.int64]:
        """[Q] position of each query's category in `categories`."""
        position = {name: index for index, name in enumerate(self.categories)}
        return np.array([position[query.category] for query in self.queries], dtype=np.int64)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits there are, in the order of the queries."""
        return tuple(dict.fromkeys(query.split for query in self.queries))

    def index(self, key: str) -> int:
        """The position of a query (KeyError for an unknown one)."""
        try:
            return self._positions[key]
        except KeyError:
            raise KeyError(f"no query {key!r} in these traces") from None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {query.key: index for index, query in enumerate(self.queries)}

    def positions(self, split: str) -> NDArray[np.int64]:
        """The positions of a split's queries.

        Raises:
            TraceError: no query is in that split; the message lists the splits that exist.
        """
        if split not in self.splits:
            raise TraceError(
                f"no split {split!r}; there are {', '.join(self.splits)}; record more questions "
                "(each falls into one of the splits by its text), or divide the queries anew"
            )
        found = [index for index, query in enumerate(self.queries) if query.split == split]
        return np.array(found, dtype=np.int64)

    def split(self, name: str) -> TraceSet:
        """These traces with the queries of one split (TraceError if there is no such split)."""
        return self.take(self.positions(name))

    def take(self, rows: NDArray[np.int64]) -> TraceSet:
        """These traces with some of the queries, in the order given."""
        return replace(
            self,
            queries=tuple(self.queries[int(row)] for row in list(rows)),
            samples=self.samples.take((rows,)),
            latency_s=None if self.latency_s is None else self.latency_s[rows],
        )

    def subset(self, backbones: Iterable[str]) -> TraceSet:
        """These traces with some of the backbones, in the order given (KeyError if unknown)."""
        names = tuple(backbones)
        if names == self.backbones:
            return self
        catalog = self.catalog.subset(names)
        columns = np.array([self.backbones.index(name) for name in names], dtype=np.int64)
        return TraceSet(
            queries=self.queries,
            backbones=names,
            catalog=catalog,
            samples=self.samples.take((slice(None), columns)),
            latency_s=None if self.latency_s is None else self.latency_s[:, columns],
            reference=self.reference if self.reference in names else None,
            candidates=tuple(name for name in self.candidates if name in names),
            unseen=tuple(name for name in self.unseen if name in names),
        )

    def profiled_candidates(self, split: str = "train") -> Catalog:
        """The candidates, with what a split says of each as its profile.

        Raises:
            TraceError: there is no such split.
        """
        return self.catalog.subset(self.candidates).with_profiles(self.profiles(split))

    def profiles(self, split: str = "train") -> dict[str, Profile]:
        """What the answers of one split say of each backbone, over all recorded samples.

        Raises:
            TraceError: no such split.
        """
        rows = self.positions(split)
        samples = self.samples.take((rows,))
        present = samples.correct >= 0
        sums = {
            name: _per_category(
                np.where(present, values, 0), self.category[rows], len(self.categories)
            )
            for name, values in (
                ("trials", present),
                ("successes", samples.correct),
                ("visible_tokens", samples.visible_tokens),
                ("prompt_tokens", samples.prompt_tokens),
            )
        }
        mean_tokens = sums["visible_tokens"] / np.maximum(sums["trials"], 1)
        profiles: dict[str, Profile] = {}
        for column, backbone in enumerate(self.backbones):
            trials = {
                name: float(sums["trials"][row, column])
                for row, name in enumerate(self.categories)
                if sums["trials"][row, column]
            }
            totals = {
                field: {
                    name: float(sums[field][self.categories.index(name), column]) for name in trials
                }
                for field in ("successes", "visible_tokens", "prompt_tokens")
            }
            profiles[backbone] = Profile(
                successes=totals["successes"],
                trials=trials,
                visible_tokens={n: v / trials[n] for n, v in totals["visible_tokens"].items()},
                prompt_tokens={n: v / trials[n] for n, v in totals["prompt_tokens"].items()},
                cuts=reply_cuts(
                    self.categories,
                    self.category[rows],
                    mean_tokens[:, column],
                    samples.visible_tokens[:, column],
                    samples.correct[:, column],
                ),
            )
        return profiles


def _per_category(
    values: NDArray[np.integer], category: NDArray[np.int64], categories: int
) -> NDArray[np.int64]:
    """[Q, B, S] summed over samples and the queries of each category: [C, B]."""
    sums = np.zeros((categories, values.shape[1]), dtype=np.int64)
    np.add.at(sums, category, values.sum(axis=2, dtype=np.int64))
    return sums


def _suite(root: Path, name: str | None) -> Suite | None:
    if name is None:
        return None
    path = root / "suites.yaml"
    suites = read_suites(path)
    if name not in suites:
        raise TraceError(f"{path}: no suite {name!r}; there are {', '.join(suites) or 'none'}")
    return suites[name]


def _benchmarks(folder: Path, suite: Suite | None, asked: Sequence[str] | None) -> tuple[str, ...]:
    there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    names = asked if asked is not None else there if suite is None else suite.benchmarks
    if not names:
        raise TraceError(f"{folder}: no benchmark; there are {', '.join(there) or 'none'}")
    for name in names:
        if name not in there:
            raise TraceError(f"{folder}: no benchmark {name!r}; there are {', '.join(there)}")
        if suite is not None and name not in suite.benchmarks:
            raise TraceError(
                f"benchmark {name!r} is not in the suite, which has {', '.join(suite.benchmarks)}"
            )
    return tuple(dict.fromkeys(names))


def _tables(
    blocks: Sequence[tuple[Responses, int]], queries: int, backbones: int
) -> tuple[Answers, NDArray[np.float64] | None]:
    """Flat rows, with the position of each block's first query, as [Q, B, S] arrays."""
    depth = 1 + max((int(rows.sample.max(initial=0)) for rows, _ in blocks), default=0)
    # Samples are the outermost axis in memory, so that sample 0 is contiguous.
    shape = (depth, queries, backbones)
    samples = Answers(
        correct=np.moveaxis(np.full(shape, -1, dtype=np.int8), 0, 2),
        answer=np.moveaxis(np.full(shape, -1, dtype=np.int32), 0, 2),
        prompt_tokens=np.moveaxis(np.zeros(shape, dtype=np.int32), 0, 2),
        visible_tokens=np.moveaxis(np.zeros(shape, dtype=np.int32), 0, 2),
    )
    latency_s: NDArray[np.float64] | None = None
    for rows, first in blocks:
        cells = (rows.query + first, rows.backbone, rows.sample)
        samples.correct[cells] = rows.correct
        samples.answer[cells] = _numbered_per_query(rows)
        samples.prompt_tokens[cells] = rows.prompt_tokens
        samples.visible_tokens[cells] = rows.completion_tokens
        if rows.latency_s is not None:
            if latency_s is None:
                latency_s = np.full((queries, backbones), np.nan)
            alone = rows.sample == 0
            latency_s[rows.query[alone] + first, rows.backbone[alone]] = rows.latency_s[alone]
    return samples, latency_s


def _numbered_per_query(rows: Responses) -> IntArray:
    """Answer codes 0, 1, ... per query, in the order of the columns that gave them first.

    The numbering depends on the loaded rows alone, not on how the file spelled the answers.
    """
    numbers = np.full(len(rows.answer), -1, dtype=np.int32)
    given = np.flatnonzero(rows.answer >= 0)
    if not len(given):
        return numbers
    pairs = rows.query[given] * (int(rows.answer.max()) + 1) + rows.answer[given]
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    # Rows are sorted by query, so in order of appearance the answers of one query are neighbours.
    appearance = np.argsort(first)
    rank = np.empty(len(first), dtype=np.int64)
    rank[appearance] = np.arange(len(first))
    query = rows.query[given][first[appearance]]
    begins = np.searchsorted(query, query)
    numbers[given] = (rank - begins[rank])[inverse.ravel()].astype(np.int32)
    return numbers
