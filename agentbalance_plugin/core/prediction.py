"""From a query and a catalog to what each backbone alone would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.core.checkpoint import Checkpoint
from agentbalance_plugin.core.encoder import Features
from agentbalance_plugin.core.kinds import Kinds, kinds_of
from agentbalance_plugin.core.knobs import NO_PAST, Past
from agentbalance_plugin.core.network import EMBEDDING, Weights, predict
from agentbalance_plugin.core.novelty import trust_in_text
from agentbalance_plugin.core.pools import build_pools, pareto
from agentbalance_plugin.core.profiles import FURTHEST, ProfileTable
from agentbalance_plugin.core.stages.config import PolicyConfig
from agentbalance_plugin.core.teamwork import Predicted

_Number = TypeVar("_Number", np.float32, np.float64)
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BYTES_PER_TOKEN = 4.2
"""English has four to five bytes a token with every tokenizer in use."""

_MOST_PER_POOL = 8
_POOLS = 3


@dataclass(frozen=True)
class Roster:
    """What is worked out once per catalog.

    Args:
        catalog: of these backbones.
        table: its profiles.
        pool: [B] pool of each backbone, 0 the weakest.
        columns: the backbones that plans may use, ascending: those that no other beats, at most
            eight of each pool.
        usual: those of them that say what a call usually takes: the well known ones, else all.
        kinds: tells the user's own kinds of tasks apart; None where the table has none.
    """

    catalog: Catalog
    table: ProfileTable
    pool: IntArray
    columns: IntArray
    usual: IntArray
    kinds: Kinds | None = None

    def kind_of(self, queries: Sequence[Features]) -> FloatArray | None:
        """[N, K] probabilities of the user's own kinds of tasks, if they are told apart."""
        return None if self.kinds is None else self.kinds.probabilities(queries)

    def kinds_in(
        self, outlook: Outlook, categories: Sequence[str]
    ) -> tuple[Sequence[str], FloatArray]:
        """What kinds a task may be of, and [N, ...] how likely it is of each: the user's own, or
        those that the policy was trained on."""
        if self.kinds is None or outlook.kind is None:
            return categories, outlook.category
        return self.kinds.names, outlook.kind


@dataclass(frozen=True)
class Outlook:
    """What is predicted of N queries, for each of B backbones.

    Args:
        query: [N, E] their vectors.
        predicted: success, cost, latency and how they depend on each other.
        category: [N, C] probabilities.
        hard: [N] log-odds that a backbone fails.
        prompt_tokens: [N] of a call that reads no one.
        log_tokens: [N, B] mean logarithm of visible completion tokens.
        hidden_tokens, output_spread: [N, B], see `ProfileTable`.
        sigma: [N] deviation of that logarithm.
        kind: [N, K] probabilities of the user's own kinds of tasks; None where none are told apart.
    """

    query: FloatArray
    predicted: Predicted
    category: FloatArray
    hard: FloatArray
    prompt_tokens: FloatArray
    log_tokens: FloatArray
    hidden_tokens: FloatArray
    output_spread: FloatArray
    sigma: FloatArray
    kind: FloatArray | None = None

    @property
    def difficulty(self) -> FloatArray:
        """[N] share of backbones expected to fail."""
        if self.kind is not None:
            # What the policy was trained on says nothing of these.
            return (1.0 / (1.0 + np.exp(self.predicted.log_odds))).mean(axis=1)
        return 1.0 / (1.0 + np.exp(-self.hard))

    def repeated(self, times: int) -> Outlook:
        """Each query several times in a row."""

        def again(values: FloatArray) -> FloatArray:
            return np.repeat(values, times, axis=0)

        predicted = self.predicted
        changed = {
            f.name: again(values)
            for f in fields(self)
            if f.name != "predicted" and (values := getattr(self, f.name)) is not None
        }
        inner = {f.name: again(getattr(predicted, f.name)) for f in fields(predicted)}
        return Outlook(predicted=Predicted(**inner), **changed)


def make_roster(
    catalog: Catalog,
    checkpoint: Checkpoint,
    choices: Sequence[NDArray[np.bool_]],
    config: PolicyConfig | None = None,
) -> Roster:
    """Profiles, pools and the backbones worth considering.

    Args:
        choices: per agent, [B] True for the backbones that it may use. What is beaten is looked at
            among these: the only backbone that has tools stays, however weak it is.
        config: whose `pools` says how backbones are grouped.
    """
    config = config or PolicyConfig()
    kinds = kinds_of(catalog)
    table = ProfileTable.of(catalog, checkpoint.priors, () if kinds is None else kinds.names)
    table = replace(table, features=np.clip(table.features, -FURTHEST, FURTHEST))
    if table.kinds is None:
        kinds = None
    typical = np.exp(table.log_tokens).mean(axis=0) + table.hidden_tokens.mean(axis=0)
    price = table.price_in * 200.0 + table.price_out * typical + 1e-12
    latency = table.ttft_s + typical / table.tokens_per_s
    distinct = [
        np.flatnonzero(mask) for mask in {mask.tobytes(): mask for mask in choices}.values()
    ]
    if config.pools == "off":
        everything = np.unique(np.concatenate(distinct)).astype(np.int64)
        pool = np.zeros(len(catalog), dtype=np.int64)
        usual = everything[table.settled(everything)]
        return Roster(catalog, table, pool, everything, usual, kinds)
    # One that is worse over all of the user's own kinds may be the best at one of them.
    quality = table.log_odds if table.kinds is None else table.kinds.log_odds
    unbeaten = [
        usable[pareto(quality[:, usable], price[usable], latency[usable])] for usable in distinct
    ]
    # Most policies draw nothing: numpy's random part, which takes long to load, is left alone.
    rng = np.random.default_rng(config.seed) if config.pools == "random" else None
    if rng is not None:
        # As many as nothing beats, whichever they are.
        unbeaten = [
            rng.choice(usable, size=len(group), replace=False)
            for usable, group in zip(distinct, unbeaten, strict=True)
        ]
    kept = np.unique(np.concatenate(unbeaten)).astype(np.int64)
    strength = table.log_odds.mean(axis=0)
    pool = np.zeros(len(catalog), dtype=np.int64)
    if rng is not None:
        pool[kept] = rng.integers(0, _POOLS, size=len(kept))
    elif config.pools == "fixed":
        pool[kept] = price[kept].argsort(kind="stable").argsort() * _POOLS // len(kept)
    else:
        pool[kept] = build_pools(
            strength[kept], price[kept], latency[kept], _POOLS, table.settled(kept)
        )
    chosen: set[int] = set()
    for group in unbeaten:
        for number in range(_POOLS):
            members = group[pool[group] == number]
            # Success per log price separates members of a pool; the best of each are enough.
            order = np.argsort(-(strength[members] - 0.5 * np.log(price[members])), kind="stable")
            chosen.update(members[order[:_MOST_PER_POOL]].tolist())
    columns = np.array(sorted(chosen), dtype=np.int64)
    return Roster(catalog, table, pool, columns, columns[table.settled(columns)], kinds)


def look_ahead(
    checkpoint: Checkpoint,
    table: ProfileTable,
    vectors: NDArray[np.float32],
    text_bytes: FloatArray,
    distance: FloatArray | None = None,
    role_bytes: float = 0.0,
    past: Past = NO_PAST,
    kind: FloatArray | None = None,
) -> Outlook:
    """Predict for queries given by their vectors.

    Args:
        vectors: [N, E], from `embed`.
        text_bytes: [N] UTF-8 bytes of the queries.
        distance: [N] from the training queries. Where the backbones were profiled on a kind of task
            that is new, the further a query is, the more of it is predicted by the profile alone,
            as if its text was a usual one. None: none is far.
        role_bytes: UTF-8 bytes of an agent's role.
        past: what earlier runs tell. With it cost and latency are those of a whole turn.
        kind: [N, K] probabilities of the user's own kinds of tasks, where they are told apart.
    """
    priors = checkpoint.priors
    query = vectors.astype(np.float64)
    trust = None
    if table.own_kind and distance is not None:
        trust = trust_in_text(distance)[:, None]
        query = checkpoint.usual + trust * (query - checkpoint.usual)
    found = predict(
        checkpoint.weights,
        query,
        table.log_odds,
        table.log_tokens,
        table.features,
        table.category_prior,
    )
    share = np.exp(found.category)
    sigma = share @ priors.spread
    success, log_tokens = found.success, found.log_tokens
    if trust is not None:
        odds, lengths = share @ table.log_odds, share @ table.log_tokens
        if kind is not None and table.kinds is not None:
            # They say more of a text than it says by itself.
            trust = 0.0
            odds, lengths = kind @ table.kinds.log_odds, kind @ table.kinds.log_tokens
        success = trust * success + (1.0 - trust) * odds
        # So that their mean is the profile's.
        profiled = lengths - sigma[:, None] ** 2 / 2
        log_tokens = trust * log_tokens + (1.0 - trust) * profiled
    if past.lengths or past.length != 1.0:
        longer = [past.lengths.get(name, past.length) for name in table.names]
        log_tokens = log_tokens + np.log(longer)
    log_tokens = np.clip(log_tokens, 0.0, 9.0)
    visible = np.exp(log_tokens + sigma[:, None] ** 2 / 2)
    hidden = share @ table.hidden_tokens
    # Long texts count by their bytes; a short one that stands for a known kind by that kind's mean.
    prompt = np.maximum(
        text_bytes / BYTES_PER_TOKEN, np.minimum(share @ priors.prompt_tokens, text_bytes)
    )
    prompt = prompt + (role_bytes + past.beside_bytes) / BYTES_PER_TOKEN
    billed = np.minimum(visible + hidden, table.max_output)
    predicted = Predicted(
        log_odds=success,
        cost_usd=past.calls * prompt[:, None] * table.price_in
        + past.replies * billed * table.price_out,
        latency_s=past.calls * table.ttft_s + past.replies * billed / table.tokens_per_s,
        shared=share @ priors.shared,
        coincidence=share @ priors.coincidence,
    )
    return Outlook(
        query=query,
        predicted=predicted,
        category=share,
        hard=np.asarray(found.difficulty, dtype=np.float64),
        prompt_tokens=prompt,
        log_tokens=log_tokens,
        hidden_tokens=hidden,
        output_spread=share @ table.output_spread,
        sigma=sigma,
        kind=kind,
    )


def for_tasks(values: NDArray[_Number], tasks: int) -> NDArray[_Number]:
    """What all tasks have in common, for each of them: [N, ...] of [...]."""
    # A view of one row is made many times as fast.
    return values[None] if tasks == 1 else np.broadcast_to(values, (tasks, *values.shape))


def embed(weights: Weights, features: Features) -> NDArray[np.float32]:
    """[1, E] vector of a query; zero for one without features."""
    vector = np.empty((1, EMBEDDING), dtype=np.float32)
    vector[0, :-1] = features.weights @ weights.rows.take(features.ids, axis=0)
    vector[0, -1] = features.log_length
    return vector
