"""Supervised training of the policy's heads on recorded answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.checkpoint import Checkpoint, save_checkpoint
from agentbalance_plugin.core.encoder import Features, HashedEncoder, QueryEncoder
from agentbalance_plugin.core.network import EMBEDDING, Weights, predict
from agentbalance_plugin.core.prediction import embed
from agentbalance_plugin.core.profiles import FEATURES
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.core.training_data import Part, prepare, without_own
from agentbalance_plugin.core.training_fit import with_dependence
from agentbalance_plugin.core.training_state import (
    TrainingState,
    digest,
    drop_state,
    load_state,
    save_state,
)
from agentbalance_plugin.extras import require

IntArray = NDArray[np.int64]

# What the category of a query is read from; the other weights are the heads.
_ENCODING = ("embedding", "category", "category_bias")


@dataclass(frozen=True)
class TrainerConfig:
    """Everything that can be tuned.

    The embeddings are trained to tell categories apart, then kept while the heads are trained:
    trained on success itself they remember the training queries, and predict unseen ones worse
    than the table of rates per category does.

    Args:
        category_epochs, head_epochs: most passes over the training queries, for each of the two.
        batch: queries per step.
        embedding_rate, category_rate, head_rate: of Adam.
        weight_decay: of the heads; embeddings have dropout instead.
        patience: epochs without a better validation loss before either training stops.
        tokens_weight, difficulty_weight: of their losses beside that of success.
        feature_dropout: share of a query's features left out in each step.
        backbone_dropout: share of backbones left out in each step.
        anchors: queries kept in the checkpoint to stand for a stream of tasks.
        seed: of initial weights, order and dropout.
        threads: of torch; results are equal for an equal number.
    """

    category_epochs: int = 30
    head_epochs: int = 20
    batch: int = 128
    embedding_rate: float = 2e-2
    category_rate: float = 5e-3
    head_rate: float = 2e-3
    weight_decay: float = 1e-3
    patience: int = 4
    tokens_weight: float = 0.2
    difficulty_weight: float = 0.2
    feature_dropout: float = 0.5
    backbone_dropout: float = 0.3
    anchors: int = 300
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Progress:
    """After each epoch.

    Args:
        stage: "categories" or "heads".
        epoch: from 1.
        of: most epochs of this stage.
        train_loss, val_loss: mean loss; the weights kept are those of the least `val_loss`.
    """

    stage: str
    epoch: int
    of: int
    train_loss: float
    val_loss: float


def train(
    traces: Sequence[TraceSet],
    out: str | Path,
    config: TrainerConfig | None = None,
    progress: Callable[[Progress], None] | None = None,
    encoder: QueryEncoder | None = None,
    *,
    resume: bool = False,
) -> Checkpoint:
    """Train on the `train` splits, stop by the `val` splits, and write a policy.

    Args:
        traces: one TraceSet per suite; only their candidates are used.
        out: folder for the policy.
        config: what can be tuned.
        progress: called after each epoch.
        encoder: of queries; hashed n-grams by default. Others need traces with question texts.
        resume: go on where a training into this folder was killed, to the same result as without
            the kill; from the beginning if there is none. The state is written after each epoch.

    Raises:
        TraceError: a split is absent.
        ValueError: a query has no text to encode, or `resume` finds a training with other settings
            or traces.
        ImportError: torch is not installed (extra `train`).
    """
    encoder = encoder or HashedEncoder()
    training = _Training(traces, Path(out), config or TrainerConfig(), progress, encoder, resume)
    training.fit_categories()
    training.fit_heads()
    checkpoint = training.finish()
    save_checkpoint(checkpoint, out)
    drop_state(Path(out))
    return checkpoint


Loss = Callable[[Part, IntArray, "np.random.Generator | None"], Any]
"""Mean loss of some rows of a part; with a generator, things are dropped."""


class _Training:
    def __init__(
        self,
        traces: Sequence[TraceSet],
        out: Path,
        config: TrainerConfig,
        progress: Callable[[Progress], None] | None,
        encoder: QueryEncoder,
        resume: bool,
    ) -> None:
        self._torch = require("torch", extra="train")
        self._torch.set_num_threads(config.threads)
        self._config = config
        self._progress = progress
        self._encoder = encoder
        self._out = out
        self._rng = np.random.default_rng(config.seed)
        self._suites = [suite.subset(suite.candidates) for suite in traces]
        self._priors, self._train, self._val = prepare(self._suites, encoder)
        generator = self._torch.Generator().manual_seed(config.seed)
        categories = len(self._priors.categories)
        self._weights = _initial(self._torch, encoder.size, categories, generator)
        settings = {**asdict(config), "encoder": encoder.name}
        self._made_from = digest(settings, [*self._train, *self._val])
        self._resumed = load_state(out, self._made_from) if resume else None

    def fit_categories(self) -> None:
        """Embeddings and the category head."""
        config, weights = self._config, self._weights
        groups = [
            {"params": [weights.embedding], "lr": config.embedding_rate},
            {"params": [weights.category, weights.category_bias], "lr": config.category_rate},
        ]
        optimizer = self._torch.optim.Adam(groups)
        self._fit("categories", config.category_epochs, optimizer, self._category_loss)
        for name in _ENCODING:
            getattr(weights, name).requires_grad_(False)

    def fit_heads(self) -> None:
        """Success, tokens and difficulty, on embeddings that stay as they are."""
        config = self._config
        heads = [f.name for f in fields(Weights) if f.name not in _ENCODING]
        optimizer = self._torch.optim.Adam(
            [getattr(self._weights, name) for name in heads],
            lr=config.head_rate,
            weight_decay=config.weight_decay,
        )
        self._fit("heads", config.head_epochs, optimizer, self._head_loss)

    def finish(self) -> Checkpoint:
        """Fit how backbones fail together and spread; pick queries that stand for a stream."""
        weights = _to_numpy(self._weights)
        priors = with_dependence(weights, self._priors, self._val)
        anchors: list[NDArray[np.float32]] = []
        categories: list[int] = []
        for part in self._train:
            count = min(len(part.features), max(1, self._config.anchors // len(self._train)))
            picked = self._rng.choice(len(part.features), size=count, replace=False)
            rows: list[int] = picked.tolist()
            for row in rows:
                anchors.append(embed(weights, part.features[row])[0])
                categories.append(int(part.category[row]))
        return Checkpoint(
            weights=weights,
            encoder=self._encoder.name,
            priors=priors,
            anchors=np.stack(anchors).astype(np.float32),
            anchor_category=np.array(categories),
            trained_on={
                "benchmarks": [name for suite in self._suites for name in suite.benchmarks],
                "queries": sum(len(part.features) for part in self._train),
                "config": asdict(self._config),
            },
        )

    def _fit(self, stage: str, epochs: int, optimizer: Any, loss: Loss) -> None:
        """Train until validation gets no better; the best weights stay."""
        best, best_loss, stale, done = self._state(), np.inf, 0, 0
        resumed = self._resumed
        if resumed is not None and resumed.stage != stage == "categories":
            # The heads' state has the embeddings in it.
            return
        if resumed is not None and resumed.stage == stage:
            best = self._restore(resumed, optimizer)
            best_loss, stale, done = resumed.best_loss, resumed.stale, resumed.epoch
            self._resumed = None
        for epoch in range(done + 1, epochs + 1):
            if stale >= self._config.patience:
                break
            losses: list[float] = []
            for part, rows in self._batches():
                optimizer.zero_grad()
                step = loss(part, rows, self._rng)
                step.backward()
                optimizer.step()
                losses.append(float(step.detach()))
            with self._torch.no_grad():
                val = [float(loss(part, np.arange(len(part.features)), None)) for part in self._val]
            val_loss = float(np.mean(val))
            stale += 1
            if val_loss < best_loss - 1e-4:
                best, best_loss, stale = self._state(), val_loss, 0
            self._save(stage, epoch, best_loss, stale, best, optimizer)
            if self._progress is not None:
                self._progress(Progress(stage, epoch, epochs, float(np.mean(losses)), val_loss))
        with self._torch.no_grad():
            for name, value in best.items():
                getattr(self._weights, name).copy_(value)

    def _save(
        self,
        stage: str,
        epoch: int,
        best_loss: float,
        stale: int,
        best: dict[str, Any],
        optimizer: Any,
    ) -> None:
        tensors = {f"now.{name}": value for name, value in self._state().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        arrays = {name: np.asarray(value, dtype=np.float32) for name, value in tensors.items()}
        random = dict(self._rng.bit_generator.state)
        save_state(
            TrainingState(stage, epoch, best_loss, stale, random, arrays, self._made_from),
            self._out,
        )

    def _restore(self, state: TrainingState, optimizer: Any) -> dict[str, Any]:
        """Weights, moments and random numbers as they were; returns the best weights."""
        tensors = {name: self._torch.from_numpy(a.copy()) for name, a in state.tensors.items()}
        moments: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, number, moment = name.split(".")
                moments.setdefault(int(number), {})[moment] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        with self._torch.no_grad():
            for field in fields(Weights):
                getattr(self._weights, field.name).copy_(tensors[f"now.{field.name}"])
        self._rng.bit_generator.state = state.random
        return {field.name: tensors[f"best.{field.name}"] for field in fields(Weights)}

    def _state(self) -> dict[str, Any]:
        return {f.name: getattr(self._weights, f.name).detach().clone() for f in fields(Weights)}

    def _batches(self) -> Iterator[tuple[Part, IntArray]]:
        """All training queries in random order, each batch of one suite."""
        size = self._config.batch
        batches: list[tuple[Part, IntArray]] = []
        for part in self._train:
            rows = self._rng.permutation(len(part.features))
            batches += [(part, rows[start : start + size]) for start in range(0, len(rows), size)]
        for number in self._rng.permutation(len(batches)).tolist():
            yield batches[number]

    def _category_loss(self, part: Part, rows: IntArray, rng: np.random.Generator | None) -> Any:
        weights = self._weights
        scores = self._vectors(part, rows, rng) @ weights.category + weights.category_bias
        target = self._torch.from_numpy(part.category[rows])
        return self._torch.nn.functional.cross_entropy(scores, target)

    def _head_loss(self, part: Part, rows: IntArray, rng: np.random.Generator | None) -> Any:
        config, weights = self._config, self._weights
        table = part.table
        # The embeddings stay as they are here: dropping features would only add noise.
        found = predict(
            weights,
            self._vectors(part, rows, None),
            self._tensor(table.log_odds if rng is None else without_own(part, rows)),
            self._tensor(table.log_tokens),
            self._tensor(table.features),
            self._tensor(table.category_prior),
        )
        recorded, correct = part.recorded[rows], part.correct[rows]
        mask = recorded.copy()
        if rng is not None:
            mask[:, rng.random(recorded.shape[1]) < config.backbone_dropout] = 0.0
        weight, count = self._tensor(mask), max(float(mask.sum()), 1.0)
        bce = self._torch.nn.functional.binary_cross_entropy_with_logits
        each = bce(found.success, self._tensor(correct), reduction="none")
        error = (self._tensor(part.log_tokens[rows]) - found.log_tokens) * self._torch.exp(
            -weights.log_sigma
        )
        failing = 1.0 - (recorded * correct).sum(axis=1) / np.maximum(recorded.sum(axis=1), 1.0)
        return (
            (weight * each).sum() / count
            + config.tokens_weight * (weight * (0.5 * error**2 + weights.log_sigma)).sum() / count
            + config.difficulty_weight * bce(found.difficulty, self._tensor(failing))
        )

    def _vectors(self, part: Part, rows: IntArray, rng: np.random.Generator | None) -> Any:
        """[N, E] vectors of queries, some of their features dropped."""
        numbers: list[int] = rows.tolist()
        bags = [part.features[row] for row in numbers]
        if rng is not None:
            bags = [_thinned(bag, self._config.feature_dropout, rng) for bag in bags]
        offsets = np.cumsum([0, *(len(bag.ids) for bag in bags[:-1])])
        return self._torch.nn.functional.embedding_bag(
            self._torch.from_numpy(np.concatenate([bag.ids for bag in bags]).astype(np.int64)),
            self._weights.embedding,
            self._torch.from_numpy(offsets.astype(np.int64)),
            mode="sum",
            per_sample_weights=self._tensor(np.concatenate([bag.weights for bag in bags])),
        )

    def _tensor(self, values: NDArray[Any]) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _thinned(bag: Features, dropout: float, rng: np.random.Generator) -> Features:
    """Without a share of the features, the others weighing more; short texts keep theirs."""
    if len(bag.ids) <= 4:
        return bag
    kept = rng.random(len(bag.ids)) >= dropout
    scale = len(bag.ids) / max(1, int(kept.sum()))
    return Features(bag.ids[kept], bag.weights[kept] * scale)


def _initial(torch: Any, rows: int, categories: int, generator: Any) -> Weights:
    def normal(*shape: int, scale: float) -> Any:
        return (scale * torch.randn(*shape, generator=generator)).requires_grad_()

    def zeros(*shape: int) -> Any:
        return torch.zeros(*shape).requires_grad_()

    features = len(FEATURES)
    return Weights(
        embedding=normal(rows, EMBEDDING, scale=0.1),
        category=normal(EMBEDDING, categories, scale=0.3),
        category_bias=zeros(categories),
        scale=torch.ones(1).requires_grad_(),
        match=normal(EMBEDDING, features, scale=0.01),
        shift=normal(EMBEDDING, scale=0.01),
        shift_match=zeros(features),
        tokens_match=normal(EMBEDDING, features, scale=0.01),
        tokens_shift=normal(EMBEDDING, scale=0.01),
        log_sigma=torch.full((1,), -0.7).requires_grad_(),
        difficulty=normal(EMBEDDING, scale=0.01),
        difficulty_bias=zeros(1),
    )


def _to_numpy(weights: Weights) -> Weights:
    return Weights(
        **{f.name: getattr(weights, f.name).detach().numpy().copy() for f in fields(Weights)}
    )
