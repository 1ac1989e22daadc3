"""Routers to one backbone per query: with a head per identity, and by the policy's profiles.

Both choose the backbone of most predicted success less what its predicted cost is priced at, so
that they differ in nothing but what they know of a backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.encoder import FEATURE_BUCKETS
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.metrics import Points
from agentbalance_plugin.evaluation.studies.setting import TEAM, Curve, Setting, singles_curve
from agentbalance_plugin.extras import require

FloatArray = NDArray[np.float64]

_PRICES = (0.0, *np.geomspace(0.5, 2e4, 40).tolist())
_EPOCHS = 25
_BATCH = 128
_RATE = 2e-3
_DECAY = 1e-5


class IdentityHeads:
    """A weight per n-gram and backbone for success and for cost: it can't take a new backbone.

    Args:
        traces: with train and val splits; only these backbones can be routed to.
        names: of the backbones.
        cost_usd: [train queries, B] of their answers alone.
        seed: of the order of training queries.

    Raises:
        ImportError: torch is not installed (extra `train`).
    """

    def __init__(
        self, traces: TraceSet, names: Sequence[str], cost_usd: FloatArray, seed: int = 0
    ) -> None:
        self._torch = torch = require("torch", extra="train")
        torch.set_num_threads(1)
        self._traces = traces
        self._columns = [traces.backbones.index(name) for name in names]
        # Rows of the last bucket are never hashed to by more than one feature in thousands; the
        # bias of each backbone is a feature that all queries have.
        count = len(names)
        right = np.maximum(traces.correct[traces.positions("train")][:, self._columns], 0)
        rate = (right.sum(axis=0) + 1.0) / (len(right) + 2.0)
        mean = np.log(np.maximum(cost_usd, 1e-9)).mean(axis=0)
        self._bias = torch.tensor(np.concatenate([np.log(rate / (1 - rate)), mean])).float()
        self._weights = torch.zeros(FEATURE_BUCKETS, 2 * count, requires_grad=True)
        optimizer = torch.optim.Adam([self._weights], lr=_RATE, weight_decay=_DECAY)
        target = torch.tensor(right).float()
        log_cost = torch.tensor(np.log(np.maximum(cost_usd, 1e-9))).float()
        train, val = traces.positions("train"), traces.positions("val")
        of_val = torch.tensor(np.maximum(traces.correct[val][:, self._columns], 0)).float()
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        rng = np.random.default_rng(seed)
        best, best_loss = self._weights.detach().clone(), np.inf
        for _ in range(_EPOCHS):
            for rows in np.array_split(rng.permutation(len(train)), max(1, len(train) // _BATCH)):
                found = self._scores(train[rows])
                error = found[:, count:] - log_cost[rows]
                loss = bce(found[:, :count], target[rows]) + 0.1 * (error**2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                val_loss = float(bce(self._scores(val)[:, :count], of_val))
            if val_loss < best_loss:
                best, best_loss = self._weights.detach().clone(), val_loss
        self._weights = best

    def predict(self, rows: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """([N, B] chance to be right, [N, B] US dollars)."""
        with self._torch.no_grad():
            found = self._scores(rows).numpy().astype(np.float64)
        count = len(self._columns)
        return 1.0 / (1.0 + np.exp(-found[:, :count])), np.exp(found[:, count:])

    def _scores(self, rows: NDArray[np.int64]) -> Any:
        torch = self._torch
        positions: list[int] = rows.tolist()
        bags = [_features(self._traces, row) for row in positions]
        offsets = np.cumsum([0, *(len(bag) for bag in bags[:-1])])
        # A sum over the root of their number: long texts speak louder, but not by their length.
        weights = np.concatenate([np.full(len(bag), len(bag) ** -0.5) for bag in bags])
        return self._bias + torch.nn.functional.embedding_bag(
            torch.from_numpy(np.concatenate(bags).astype(np.int64)),
            self._weights,
            torch.from_numpy(offsets.astype(np.int64)),
            mode="sum",
            per_sample_weights=torch.from_numpy(weights).float(),
        )


def _features(traces: TraceSet, row: int) -> NDArray[np.int32]:
    ids = traces.queries[row].ngrams
    return ids if len(ids) else np.zeros(1, dtype=np.int32)


def identity_router(setting: Setting, names: Sequence[str]) -> Curve:
    """The operating points by cost of a router with a head per identity."""
    singles = _alone(setting, names, "train")
    heads = IdentityHeads(setting.traces, names, singles.spend.T, setting.seed)
    return _routed(setting, names, heads.predict)


def profile_router(setting: Setting, catalog: Catalog, tick: Callable[[], None]) -> Curve:
    """Those of a router by what the policy predicts of each backbone from its profile."""
    names = list(catalog)
    budget = Budget(cost_usd=1e6)

    def predict(rows: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        success: list[list[float]] = []
        cost: list[list[float]] = []
        positions: list[int] = rows.tolist()
        for row in positions:
            text = task_text(setting.traces.queries[row], setting.replay)
            found = setting.policy.explain(text, TEAM, budget, catalog)["backbones"]
            success.append([found[name]["success"] for name in names])
            cost.append([found[name]["cost_usd"] for name in names])
            tick()
        return np.array(success), np.array(cost)

    return _routed(setting, names, predict)


def _routed(
    setting: Setting,
    names: Sequence[str],
    predict: Callable[[NDArray[np.int64]], tuple[FloatArray, FloatArray]],
) -> Curve:
    singles = singles_curve(names, setting.replay, "cost")

    def points(split: str, alone: Points) -> Points:
        rows = setting.traces.positions(split)
        success, cost = predict(rows)
        chosen = np.stack([(success - price * cost).argmax(axis=1) for price in _PRICES])
        each = np.arange(len(rows))
        return Points(alone.right[chosen, each], alone.spend[chosen, each])

    return Curve(points("val", singles.val), points("test", singles.test))


def _alone(setting: Setting, names: Sequence[str], split: str) -> Points:
    from agentbalance_plugin.plan import Plan

    plans = [Plan(assignment={"a": name}, decider="a") for name in names]
    found = setting.replay.evaluate(setting.traces.positions(split), plans)
    return Points(found.correct.astype(np.float64).T, np.asarray(found.cost_usd).T)
