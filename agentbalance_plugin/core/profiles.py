"""From a catalog's profiles to the arrays that the policy works on. Names stop here.

Rates are shrunk twice: a category with few trials leans on how strong the backbone is over all of
them, and a backbone with few trials leans on what its price suggests. A backbone that was never
profiled can thus be used at once. Of many backbones the one that looks best is often the one whose
few trials flatter it, so those with fewer trials than others of the catalog are doubted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import REASONED_TOKENS, USUAL_TOKENS, Backbone, Catalog, Profile
from agentbalance_plugin.core.kinds import everywhere, unknown_kinds

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

FEATURES = (
    "strength",
    "log_price_in",
    "log_price_out",
    "log_ttft",
    "log_tokens_per_s",
    "log_params",
    "params_unknown",
    "reasoning",
    "verbosity",
)

# Trials that the estimate from elsewhere is worth, for a category and for a whole backbone.
CATEGORY_TRIALS = 16.0
_BACKBONE_TRIALS = 20.0
# For the length of replies to a kind of the user's own.
_KIND_TRIALS = 8.0
# Of one trial, at a rate that is usual.
_VARIANCE = 0.2
# Deviations of a feature beyond those of any backbone that was trained on.
FURTHEST = 5.0
# Of the logarithm of a price, from that of the training backbones: a factor of a hundred.
_FURTHEST_PRICE = 4.6
# Of Newton's method; a handful is enough.
_MOST_STEPS = 50
# How many standard errors a rate is doubted by, beyond that of the backbone with most trials.
_DOUBT = 1.0
# A text has to speak clearly, by a factor of twenty, for a category that nobody was profiled on.
_LOG_UNPROFILED = -3.0
# A multiple of the mean that no reply comes near.
_NO_CUT = 1e3
_TYPICAL_TTFT_S = 0.5
_TYPICAL_TOKENS_PER_S = 60.0


@dataclass(frozen=True)
class Priors:
    """What holds for backbones in general, learned from the training traces.

    Args:
        categories: C names, "benchmark" or "benchmark/category".
        log_odds: [C] mean log-odds of a right answer.
        log_tokens: [C] mean logarithm of visible completion tokens.
        prompt_tokens: [C] mean tokens of a query's prompt.
        price_slope: change of log-odds per unit of log price (out).
        mean_log_price: of the training backbones.
        mean, scale: [F] of the features, which are standardised with them.
        coincidence: [C] probability that two wrong answers are equal.
        shared: [C] standard deviation of the difficulty that backbones share beyond prediction.
        spread: [C] standard deviation of the logarithm of visible tokens around its prediction.
    """

    categories: tuple[str, ...]
    log_odds: FloatArray
    log_tokens: FloatArray
    prompt_tokens: FloatArray
    price_slope: float
    mean_log_price: float
    mean: FloatArray
    scale: FloatArray
    coincidence: FloatArray
    shared: FloatArray
    spread: FloatArray


@dataclass(frozen=True)
class KindTable:
    """B backbones on K kinds of tasks.

    Args:
        log_odds: [K, B] shrunk log-odds of a right answer.
        log_tokens: [K, B] logarithm of mean visible completion tokens.
    """

    log_odds: FloatArray
    log_tokens: FloatArray


@dataclass(frozen=True)
class ProfileTable:
    """B backbones as arrays.

    Args:
        log_odds: [C, B] shrunk log-odds of a right answer.
        log_tokens: [C, B] logarithm of mean visible completion tokens.
        hidden_tokens: [C, B] billed but not visible.
        output_spread: [C, B] deviation of the logarithm of all output tokens; 0 where hidden ones
            are not known to vary.
        features: [B, F] standardised, in the order of `FEATURES`.
        category_prior: [C] log weight of each category before a text is looked at: a stream of
            tasks is likely to be of the kind that the backbones were profiled on.
        price_in, price_out: [B] US dollars per token.
        ttft_s, tokens_per_s: [B] unknown ones filled with the median of the known.
        cuts: [C, B, L, 3] output caps that may pay, as in `Profile.cuts`; where there are none, and
            for backbones that reason, caps that cut nothing.
        max_output: [B] tokens.
        tokens_per_byte: [B] of a prompt, see `Backbone`.
        own_kind: whether the backbones were profiled on nothing that the priors know, so that every
            category has the figures of that kind.
        kinds: what they do on each of the user's own kinds that are told apart; None for none.
        known: [B] whether its figures rest on at least half the trials of the best known one.
        capable: [B] sets of capabilities.
        names: [B], for the plan alone.
    """

    log_odds: FloatArray
    log_tokens: FloatArray
    hidden_tokens: FloatArray
    output_spread: FloatArray
    features: FloatArray
    category_prior: FloatArray
    price_in: FloatArray
    price_out: FloatArray
    ttft_s: FloatArray
    tokens_per_s: FloatArray
    cuts: FloatArray
    max_output: FloatArray
    tokens_per_byte: FloatArray
    own_kind: bool
    kinds: KindTable | None
    known: BoolArray
    capable: tuple[frozenset[str], ...]
    names: tuple[str, ...]

    def settled(self, columns: IntArray) -> BoolArray:
        """Which of these backbones say what is usual among them: the known ones, else all."""
        known = self.known[columns]
        return known if known.any() else np.ones_like(known)

    @classmethod
    def of(cls, catalog: Catalog, priors: Priors, kinds: Sequence[str] = ()) -> ProfileTable:
        """The table of a catalog, its columns in the catalog's order.

        Where backbones were profiled on nothing that the priors know, on the user's own kinds of
        tasks, each category has the figures of these together.

        Args:
            kinds: which of these are told apart.
        """
        backbones = list(catalog.values())
        own = unknown_kinds(backbones, priors.categories)
        if own:
            backbones = [everywhere(b, own, priors.categories) for b in backbones]
        success, trials = _counts(backbones, priors.categories)
        strength = _strength(success, trials, backbones, priors)
        log_odds = _shrunk_log_odds(success, trials, priors.log_odds[:, None] + strength)
        log_tokens, verbosity = _log_tokens(backbones, trials, priors)
        raw = _raw_features(backbones, strength, verbosity)
        price = np.array(
            [[b.picodollars_in, b.picodollars_out] for b in backbones], dtype=np.float64
        )
        return cls(
            log_odds=log_odds,
            log_tokens=log_tokens,
            hidden_tokens=_by_benchmark([b.hidden_tokens for b in backbones], priors.categories),
            output_spread=_by_benchmark([b.output_spread for b in backbones], priors.categories),
            features=(raw - priors.mean) / priors.scale,
            category_prior=_category_prior(trials),
            price_in=price[:, 0] * 1e-12,
            price_out=price[:, 1] * 1e-12,
            ttft_s=_filled([b.ttft_s for b in backbones], _TYPICAL_TTFT_S),
            tokens_per_s=_filled([b.tokens_per_s for b in backbones], _TYPICAL_TOKENS_PER_S),
            cuts=_cuts(backbones, priors.categories),
            max_output=np.array([float(b.max_output_tokens) for b in backbones]),
            tokens_per_byte=np.array([b.tokens_per_byte for b in backbones]),
            own_kind=bool(own),
            kinds=_of_kinds(list(catalog.values()), kinds, log_odds, log_tokens)
            if own and len(kinds) > 1
            else None,
            known=_well_known(trials.sum(axis=0)),
            capable=tuple(b.capabilities for b in backbones),
            names=tuple(catalog),
        )


def _by_benchmark(
    values: list[Mapping[str, int]] | list[Mapping[str, float]], categories: tuple[str, ...]
) -> FloatArray:
    """[C, B], 0 where a backbone has none."""
    names = [category.partition("/")[0] for category in categories]
    return np.array([[float(each.get(name, 0)) for each in values] for name in names])


def _well_known(trials: FloatArray) -> BoolArray:
    return 2.0 * trials >= trials.max(initial=0.0)


def learn_priors(catalogs: list[Catalog], coincidence: Mapping[str, float]) -> Priors:
    """What the profiles of several catalogs say of backbones in general.

    Args:
        catalogs: profiled on the training split.
        coincidence: per category, see `Priors`; what is shared and spread can only be seen beside
            a trained network and is left at 1.
    """
    backbones = [b for catalog in catalogs for b in catalog.values()]
    categories = tuple(
        sorted({c for b in backbones if b.profile is not None for c in b.profile.trials})
    )
    success, trials = _counts(backbones, categories)
    seen = trials > 0
    rate = (success + 1.0) / (trials + 2.0)
    log_odds = np.log(rate / (1.0 - rate))
    mean = np.where(seen, log_odds, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    log_tokens = np.log(np.maximum(_tokens(backbones, categories, "visible_tokens"), 1.0))
    prompt = np.where(seen, _tokens(backbones, categories, "prompt_tokens"), 0.0)
    mean_tokens = np.where(seen, log_tokens, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    price = _log_price_out(backbones)
    deviation = np.where(seen, log_odds - mean[:, None], 0.0).sum(axis=0) / np.maximum(
        seen.sum(axis=0), 1
    )
    centred = price - price.mean()
    slope = float((centred * deviation).sum() / max(float((centred**2).sum()), 1e-9))
    # Features are standardised with the very figures that they are made of at planning time.
    draft = Priors(
        categories=categories,
        log_odds=mean,
        log_tokens=mean_tokens,
        prompt_tokens=prompt.sum(axis=1) / np.maximum(seen.sum(axis=1), 1),
        price_slope=slope,
        mean_log_price=float(price.mean()),
        mean=np.zeros(len(FEATURES)),
        scale=np.ones(len(FEATURES)),
        coincidence=np.array([coincidence[c] for c in categories]),
        shared=np.ones(len(categories)),
        spread=np.ones(len(categories)),
    )
    raw = np.concatenate([ProfileTable.of(catalog, draft).features for catalog in catalogs])
    return replace(draft, mean=raw.mean(axis=0), scale=np.maximum(raw.std(axis=0), 1e-3))


def _counts(
    backbones: list[Backbone], categories: tuple[str, ...]
) -> tuple[FloatArray, FloatArray]:
    """([C, B] successes, [C, B] trials)."""
    empty = Profile()
    profiles = [b.profile or empty for b in backbones]
    success = np.array([[p.successes.get(c, 0.0) for p in profiles] for c in categories])
    trials = np.array([[p.trials.get(c, 0.0) for p in profiles] for c in categories])
    shape = (len(categories), len(backbones))
    return success.reshape(shape), trials.reshape(shape)


def _tokens(
    backbones: list[Backbone],
    categories: tuple[str, ...],
    which: Literal["visible_tokens", "prompt_tokens"],
) -> FloatArray:
    """[C, B] mean tokens, 0 where unknown."""
    empty = Profile()
    means: list[Mapping[str, float]] = [getattr(b.profile or empty, which) for b in backbones]
    rows = [[mean.get(c, 0.0) for mean in means] for c in categories]
    return np.array(rows).reshape(len(categories), len(backbones))


def _cuts(backbones: list[Backbone], categories: tuple[str, ...]) -> FloatArray:
    """[C, B, L, 3]; L is 0 where no backbone has any."""
    most = max((len(c) for b in backbones if b.profile for c in b.profile.cuts.values()), default=0)
    table = np.ones((len(categories), len(backbones), most, 3))
    table[..., 0] = _NO_CUT
    for column, backbone in enumerate(backbones):
        # Hidden tokens are estimates, and the visible ones say nothing of them.
        if backbone.profile is None or backbone.reasoning != "no":
            continue
        for row, category in enumerate(categories):
            cuts = backbone.profile.cuts.get(category.partition("/")[0], ())
            if cuts:
                table[row, column, : len(cuts)] = cuts
    return table


def _category_prior(trials: FloatArray) -> FloatArray:
    """[C] log weights; all equal where nothing was profiled."""
    profiled = trials.sum(axis=1) > 0
    return np.where(profiled | ~profiled.any(), 0.0, _LOG_UNPROFILED)


def _strength(
    success: FloatArray, trials: FloatArray, backbones: list[Backbone], priors: Priors
) -> FloatArray:
    """[B] log-odds above the mean backbone, the likeliest over all categories together.

    Where a few trials are spread over many categories, none of them says much by itself.
    """
    # Nobody knows how strong a backbone is that is dearer or cheaper than all.
    apart = _log_price_out(backbones) - priors.mean_log_price
    apart = np.clip(apart, -_FURTHEST_PRICE, _FURTHEST_PRICE)
    by_price = priors.price_slope * apart
    precision = _BACKBONE_TRIALS * _VARIANCE
    strength = by_price
    for _ in range(_MOST_STEPS):
        rate = 1.0 / (1.0 + np.exp(-priors.log_odds[:, None] - strength))
        slope = (success - trials * rate).sum(axis=0) - precision * (strength - by_price)
        step = slope / ((trials * rate * (1.0 - rate)).sum(axis=0) + precision)
        # Far from the maximum the curvature says too little.
        step = np.clip(step, -1.0, 1.0)
        strength = strength + step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return strength


def _shrunk_log_odds(success: FloatArray, trials: FloatArray, prior: FloatArray) -> FloatArray:
    """[C, B], doubted where others are known better."""
    expected = 1.0 / (1.0 + np.exp(-prior))
    rate = (success + CATEGORY_TRIALS * expected) / (trials + CATEGORY_TRIALS)
    error = 1.0 / np.sqrt(trials + CATEGORY_TRIALS)
    doubt = _DOUBT * (error - error.min(axis=1, keepdims=True)) / np.sqrt(rate * (1.0 - rate))
    return np.log(rate / (1.0 - rate)) - doubt


def _log_tokens(
    backbones: list[Backbone], trials: FloatArray, priors: Priors
) -> tuple[FloatArray, FloatArray]:
    """([C, B] log visible tokens, [B] how much wordier than the mean backbone)."""
    tokens = _tokens(backbones, priors.categories, "visible_tokens")
    known = (tokens > 0) & (trials > 0)
    live = all(backbone.endpoint is not None for backbone in backbones)
    # Some kinds were recorded of prompts that ask for a letter. Agents are not asked so: one that
    # writes more there is no wordy backbone.
    in_words = live & (priors.log_tokens < np.log(REASONED_TOKENS))[:, None]
    in_words = known & in_words & (tokens >= REASONED_TOKENS)
    counted = known & ~in_words
    written = np.log(np.maximum(tokens, 1.0))
    excess = np.where(counted, written - priors.log_tokens[:, None], 0.0)
    verbosity = excess.sum(axis=0) / (counted.sum(axis=0) + 0.5)
    filled = np.where(known, written, verbosity + priors.log_tokens[:, None])
    if live:
        # What they are asked was profiled at best on other kinds.
        usual = np.log(USUAL_TOKENS) + verbosity
        profiled = counted.any(axis=1)
        if profiled.any():
            usual = filled[profiled].mean(axis=0)
        elsewhere = ~known & (in_words.any(axis=1) | ~profiled)[:, None]
        filled = np.where(elsewhere, np.maximum(filled, usual), filled)
    return filled, verbosity


def _raw_features(
    backbones: list[Backbone], strength: FloatArray, verbosity: FloatArray
) -> FloatArray:
    """[B, F]"""
    rows: list[list[float]] = []
    for b, strong, wordy in zip(backbones, strength, verbosity, strict=True):
        rows.append(
            [
                float(strong),
                float(np.log(b.picodollars_in + 1.0)),
                float(np.log(b.picodollars_out + 1.0)),
                float(np.log((b.ttft_s or _TYPICAL_TTFT_S) + 0.05)),
                float(np.log(b.tokens_per_s or _TYPICAL_TOKENS_PER_S)),
                float(np.log(b.params_b)) if b.params_b else 0.0,
                0.0 if b.params_b else 1.0,
                {"no": 0.0, "hybrid": 0.5, "yes": 1.0}[b.reasoning],
                float(wordy),
            ]
        )
    return np.array(rows)


def _log_price_out(backbones: list[Backbone]) -> FloatArray:
    return np.log(np.array([b.picodollars_out + 1.0 for b in backbones], dtype=np.float64))


def _of_kinds(
    backbones: list[Backbone], kinds: Sequence[str], log_odds: FloatArray, log_tokens: FloatArray
) -> KindTable:
    """Rates and lengths of each kind, where it has few trials those of all kinds, as much harder
    and longer as the kind is for all backbones.

    Args:
        log_odds, log_tokens: [C, B] over all kinds.
    """
    success, trials = _counts(backbones, tuple(kinds))
    usual, shift = log_odds.mean(axis=0), np.zeros(len(kinds))
    for _ in range(_MOST_STEPS):
        rate = 1.0 / (1.0 + np.exp(-usual - shift[:, None]))
        slope = (success - trials * rate).mean(axis=1) - shift
        step = slope / ((trials * rate * (1.0 - rate)).mean(axis=1) + 1.0)
        shift = shift + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-9:
            break
    mean = np.exp(log_tokens.mean(axis=0))
    tokens = trials * _tokens(backbones, tuple(kinds), "visible_tokens")
    asked = trials.mean(axis=1, keepdims=True)
    longer = (tokens / mean).mean(axis=1, keepdims=True)
    longer = (longer + _KIND_TRIALS) / (asked + _KIND_TRIALS)
    tokens = (tokens + _KIND_TRIALS * mean * longer) / (trials + _KIND_TRIALS)
    return KindTable(
        log_odds=_shrunk_log_odds(success, trials, usual + shift[:, None]),
        log_tokens=np.log(np.maximum(tokens, 1.0)),
    )


def _filled(values: list[float | None], typical: float) -> FloatArray:
    known = [value for value in values if value is not None]
    default = float(np.median(known)) if known else typical
    return np.array([default if value is None else value for value in values])
