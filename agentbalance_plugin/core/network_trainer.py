"""Supervised training of the policy's heads on recorded answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.encoder import Features
from agentbalance_plugin.core.latent_text import latent_directions
from agentbalance_plugin.core.network import EMBEDDING, LATENT, LEARNT, Weights, predict
from agentbalance_plugin.core.profiles import FEATURES
from agentbalance_plugin.core.stage_trainer import StageConfig
from agentbalance_plugin.core.training_data import Part, without_own
from agentbalance_plugin.core.training_state import TrainingState

IntArray = NDArray[np.int64]

# What the category of a query is read from; the other weights are the heads.
_ENCODING = ("embedding", "category", "category_bias")
_STAGES = ("embeddings", "categories", "heads")
# Validation queries whose loss is worked out at once.
_AT_ONCE = 1_024


@dataclass(frozen=True)
class TrainerConfig:
    """Everything that can be tuned.

    A part of the embeddings is trained to tell categories apart, then kept while the heads are
    trained: trained on success itself they remember the training queries, and predict unseen ones
    worse than the table of rates per category does. The other part is not trained at all.

    Args:
        embedding_epochs, category_epochs, head_epochs: most passes over the training queries, for
            the learnt embeddings, the category head on all of them, and the other heads.
        batch: queries per step.
        embedding_rate, category_rate, head_rate: of Adam.
        weight_decay: of the heads; embeddings have dropout instead.
        patience: epochs without a better validation loss before either training stops.
        tokens_weight, difficulty_weight: of their losses beside that of success.
        feature_dropout: share of a query's features left out in each step.
        backbone_dropout: share of backbones left out in each step.
        anchors: queries kept in the checkpoint to stand for a stream of tasks.
        stages: of the second half of the training.
        seed: of initial weights, order and dropout.
        threads: of torch; results are equal for an equal number.
    """

    embedding_epochs: int = 30
    category_epochs: int = 20
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
    stages: StageConfig = field(default_factory=StageConfig)
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Progress:
    """After each epoch.

    Args:
        stage: "embeddings", "categories", "heads", "imitation" or "gradient".
        epoch: from 1; steps for the latter two, from 0 for untrained stages.
        of: most epochs of this stage.
        train_loss, val_loss: mean loss; the weights kept are those of the least `val_loss`. Of the
            latter two: minus the log-probability, and minus what plans were worth on validation
            queries when that was last looked at.
    """

    stage: str
    epoch: int
    of: int
    train_loss: float
    val_loss: float


Loss = Callable[[Part, IntArray, "np.random.Generator | None"], Any]
"""Mean loss of some rows of a part; with a generator, things are dropped."""


class NetworkTrainer:
    """Trains the network of a policy: first embeddings by category, then what is read from them.

    Args:
        torch: the module.
        parts: train and val, one per suite.
        categories: their number.
        config: what can be tuned.
        encoder_size: rows of the embedding table.
        keep: called after each epoch with the state; progress: likewise.
    """

    def __init__(
        self,
        torch: Any,
        parts: tuple[Sequence[Part], Sequence[Part]],
        categories: int,
        config: TrainerConfig,
        encoder_size: int,
        keep: Callable[[TrainingState], None],
        progress: Callable[[Progress], None],
    ) -> None:
        self._torch = torch
        self._train, self._val = parts
        self._config = config
        self._keep = keep
        self._progress = progress
        self._rng = np.random.default_rng(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        self._weights = _initial(torch, encoder_size, categories, generator)
        self._resumed: TrainingState | None = None

    def run(self, resumed: TrainingState | None) -> Weights:
        """The trained network, float32 arrays of numpy.

        Args:
            resumed: state of either of this trainer's stages to go on from.
        """
        self._resumed = resumed
        self._fit_embeddings()
        self._add_latent_directions()
        self._fit_categories()
        self._fit_heads()
        return _to_numpy(self._weights)

    def _fit_embeddings(self) -> None:
        """The learnt part of the embeddings, with the category head.

        The latent part is zero on both sides, so no gradient reaches it.
        """
        config, weights = self._config, self._weights
        groups = [
            {"params": [weights.embedding], "lr": config.embedding_rate},
            {"params": [weights.category, weights.category_bias], "lr": config.category_rate},
        ]
        optimizer = self._torch.optim.Adam(groups)
        self._fit("embeddings", config.embedding_epochs, optimizer, self._category_loss)
        weights.embedding.requires_grad_(False)

    def _add_latent_directions(self) -> None:
        if self._is_past("embeddings"):
            return
        texts = [features for part in self._train for features in part.features]
        embedding = self._weights.embedding
        found = latent_directions(texts, len(embedding), LATENT, self._config.seed)
        embedding[:, LEARNT:] = self._torch.from_numpy(found)

    def _fit_categories(self) -> None:
        """The category head once more, on all of an embedding."""
        config, weights = self._config, self._weights
        head = [weights.category, weights.category_bias]
        optimizer = self._torch.optim.Adam(head, lr=config.category_rate)
        self._fit("categories", config.category_epochs, optimizer, self._category_loss)
        for each in head:
            each.requires_grad_(False)

    def _fit_heads(self) -> None:
        """Success, tokens and difficulty, on embeddings that stay as they are."""
        config = self._config
        heads = [f.name for f in fields(Weights) if f.name not in _ENCODING]
        optimizer = self._torch.optim.Adam(
            [getattr(self._weights, name) for name in heads],
            lr=config.head_rate,
            weight_decay=config.weight_decay,
        )
        self._fit("heads", config.head_epochs, optimizer, self._head_loss)

    def _fit(self, stage: str, epochs: int, optimizer: Any, loss: Loss) -> None:
        """Train until validation gets no better; the best weights stay."""
        best, best_loss, stale, done = self._state(), np.inf, 0, 0
        if self._is_past(stage):
            return
        resumed = self._resumed
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
            val_loss = float(np.mean([self._whole_loss(part, loss) for part in self._val]))
            stale += 1
            if val_loss < best_loss - 1e-4:
                best, best_loss, stale = self._state(), val_loss, 0
            self._save(stage, epoch, best_loss, stale, best, optimizer)
            self._progress(Progress(stage, epoch, epochs, float(np.mean(losses)), val_loss))
        with self._torch.no_grad():
            for name, value in best.items():
                getattr(self._weights, name).copy_(value)

    def _whole_loss(self, part: Part, loss: Loss) -> float:
        """The mean over all rows of a part, some at a time: memory must not grow with them."""
        blocks = [
            np.arange(start, min(start + _AT_ONCE, len(part.features)))
            for start in range(0, len(part.features), _AT_ONCE)
        ]
        with self._torch.no_grad():
            found = [float(loss(part, rows, None)) for rows in blocks]
        return float(np.average(found, weights=[len(rows) for rows in blocks]))

    def _is_past(self, stage: str) -> bool:
        """Whether the state to go on from is of a later stage: what this one made is in it."""
        resumed = self._resumed
        return resumed is not None and _STAGES.index(resumed.stage) > _STAGES.index(stage)

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
        self._keep(TrainingState(stage, epoch, best_loss, stale, random, arrays))

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
            mask[:, rng.random(recorded.shape[1]) < config.backbone_dropout] = False
        weight, count = self._tensor(mask), max(float(mask.sum()), 1.0)
        bce = self._torch.nn.functional.binary_cross_entropy_with_logits
        each = bce(found.success, self._tensor(correct), reduction="none")
        error = (self._tensor(part.log_tokens(rows)) - found.log_tokens) * self._torch.exp(
            -weights.log_sigma
        )
        failing = 1.0 - correct.sum(axis=1) / np.maximum(recorded.sum(axis=1), 1)
        return (
            (weight * each).sum() / count
            + config.tokens_weight * (weight * (0.5 * error**2 + weights.log_sigma)).sum() / count
            + config.difficulty_weight * bce(found.difficulty, self._tensor(failing))
        )

    def _vectors(self, part: Part, rows: IntArray, rng: np.random.Generator | None) -> Any:
        """[N, E] vectors of queries, some of their features dropped."""
        numbers: list[int] = rows.tolist()
        bags = [part.features[row] for row in numbers]
        lengths = np.array([[bag.log_length] for bag in bags])
        if rng is not None:
            bags = [_thinned(bag, self._config.feature_dropout, rng) for bag in bags]
        offsets = np.cumsum([0, *(len(bag.ids) for bag in bags[:-1])])
        summed = self._torch.nn.functional.embedding_bag(
            self._torch.from_numpy(np.concatenate([bag.ids for bag in bags]).astype(np.int64)),
            self._weights.embedding,
            self._torch.from_numpy(offsets.astype(np.int64)),
            mode="sum",
            per_sample_weights=self._tensor(np.concatenate([bag.weights for bag in bags])),
        )
        return self._torch.cat([summed, self._tensor(lengths)], dim=1)

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
    embedding = zeros(rows, EMBEDDING - 1)
    category = zeros(EMBEDDING, categories)
    with torch.no_grad():
        embedding[:, :LEARNT] = normal(rows, LEARNT, scale=0.1)
        category[:LEARNT] = normal(LEARNT, categories, scale=0.3)
    return Weights(
        embedding=embedding,
        category=category,
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
