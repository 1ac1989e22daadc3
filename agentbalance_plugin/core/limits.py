"""What a budget's hard caps leave of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.candidates import Table, group_sums

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

USEFUL_TOKENS = 16
"""An answer takes at least so many output tokens."""

LARGEST_SHARE = 0.5
"""At most this much is set aside for the decider: those it listens to have to be paid as well."""

BYTES_HEARD = 6
"""Of a token that an agent hears: generous, so that shares of a prompt's bound are."""

LIKELY = 1.5
"""What a call that is over has taken: seldom more than this many means."""

# Agents that a plan has at most.
_MOST_CALLS = 4.0
# Of a budget; prompts may turn out longer than they look from here, and tools take further calls.
_PLANNED = 0.9
# How far a call's time spreads around its mean, as the deviation of its logarithm.
_LATENCY_SIGMA = 0.45


@dataclass(frozen=True)
class Limits:
    """The hard caps of N tasks, and what their calls may take of them.

    The meter guarantees the caps whatever is planned: a call is capped at the output tokens that
    are affordable when it starts. What a plan needs to know is how likely a reply is cut off then.

    Args:
        cost_usd, tokens, latency_s: [N] hard caps; infinity for none.
        prompt_bound: [N, B] tokens of the prompt, at most.
        sigma: [N] deviation of the logarithm of visible tokens.
        price_in, price_out: [N, B] US dollars per token.
        caps: [N, B] output tokens that calls are given where the budget has room.
        calls: [N] prompts that a turn of an agent sends.
        earlier_usd, earlier_tokens: [N, B] what a turn takes before its last call.
        likely_usd, likely_tokens: [N, B] what a turn that is over has seldom taken more than.
        log_tokens: [N, B] predicted logarithm of visible tokens.
        hidden_tokens, output_spread: [N, B], see `ProfileTable`.
    """

    cost_usd: FloatArray
    tokens: FloatArray
    latency_s: FloatArray
    prompt_bound: FloatArray
    sigma: FloatArray
    calls: FloatArray
    price_in: FloatArray
    price_out: FloatArray
    caps: FloatArray
    earlier_usd: FloatArray
    earlier_tokens: FloatArray
    likely_usd: FloatArray
    likely_tokens: FloatArray
    log_tokens: FloatArray
    hidden_tokens: FloatArray
    output_spread: FloatArray

    def of(self, local: IntArray) -> Limits:
        """For some of the backbones alone.

        Args:
            local: [N, m] columns.
        """
        rows = np.arange(len(local))[:, None]
        changed = {
            field.name: values[rows, local]
            for field in fields(self)
            if (values := getattr(self, field.name)).ndim == 2
        }
        return replace(self, **changed)

    def uncut(self, candidates: Table) -> FloatArray | None:
        """[N, C + 1] chance that the reply of each call of a table is not cut off; 0 where it has
        no room at all; 1 for the last, which stands for no call. None where no cap is near.

        Those that run at once hold their reservations at once; those after them find what is
        left.
        """
        if self.unbounded:
            return None
        backbone, group = candidates.call_backbone, candidates.call_group
        at_once = candidates.call_at_once
        price_in, price_out, caps, hidden, spread, log_tokens = (
            values.take(backbone, axis=1)
            for values in (
                self.price_in,
                # A backbone whose output is free is limited by its prompt alone.
                np.maximum(self.price_out, 1e-15),
                self.caps,
                self.hidden_tokens,
                self.output_spread,
                self.log_tokens,
            )
        )

        def held(worst: FloatArray, likely: FloatArray) -> FloatArray:
            together = group_sums(worst, candidates).take(group, axis=1) - worst.take(
                backbone, axis=1
            )
            return np.where(at_once, together, group_sums(likely, candidates).take(group, axis=1))

        bound = self.prompt_bound.take(backbone, axis=1)
        earlier = self.earlier_usd.take(backbone, axis=1)
        left = self.cost_usd[:, None] - held(self._worst_usd, self.likely_usd)
        room = np.minimum(caps, (left - earlier - bound * price_in) / price_out)
        if np.isfinite(self.tokens).any():
            tokens = self.tokens[:, None] - held(self._worst_tokens, self.likely_tokens)
            earlier = self.earlier_tokens.take(backbone, axis=1)
            room = np.minimum(room, tokens - earlier - bound)
        room = np.floor(np.maximum(room, 0.0))
        chance = chance_of_end(room, log_tokens, self.sigma[:, None], hidden, spread)
        ends = np.ones((len(room), room.shape[1] + 1))
        np.multiply(chance, room >= USEFUL_TOKENS, out=ends[:, :-1])
        return ends

    def alone(self, mean_s: FloatArray) -> FloatArray | None:
        """[N, B] chance that a call that nobody else spends beside is neither cut off nor late;
        None where no cap is near.

        Args:
            mean_s: [N, B] of a call.
        """
        timed = bool(np.isfinite(self.latency_s).any())
        if self.unbounded:
            return self.in_time(mean_s) if timed else None
        prompt = self.earlier_usd + self.prompt_bound * self.price_in
        # A backbone whose output is free is limited by its prompt alone.
        room = (self.cost_usd[:, None] - prompt) / np.maximum(self.price_out, 1e-15)
        tokens = self.tokens[:, None] - self.earlier_tokens - self.prompt_bound
        room = np.floor(np.maximum(np.minimum(self.caps, np.minimum(room, tokens)), 0.0))
        sigma, hidden, spread = self.sigma[:, None], self.hidden_tokens, self.output_spread
        chance = chance_of_end(room, self.log_tokens, sigma, hidden, spread)
        return chance * (room >= USEFUL_TOKENS) * self.in_time(mean_s)

    def given(self, task: int, columns: Sequence[int], longest: FloatArray) -> FloatArray:
        """[B] output tokens that a plan's calls are given: `caps`, or as many times that as the
        budget has room for in all of them together.

        How long replies are is predicted from what was recorded of other prompts; an agent that is
        asked for more than those must not be cut short while there is money.

        Args:
            columns: backbone of each call of the plan.
            longest: [B] output tokens of the longest replies.
        """
        which, caps, times = list(columns), self.caps[task], float("inf")
        bound = self.prompt_bound[task, which]
        calls = list(zip(caps[which].tolist(), longest[which].tolist(), strict=True))
        if np.isfinite(self.cost_usd[task]):
            used = bound * self.price_in[task, which] + self.earlier_usd[task, which]
            left = float(_PLANNED * self.cost_usd[task] - used.sum())
            times = _times(calls, self.price_out[task, which].tolist(), left)
        if np.isfinite(self.tokens[task]):
            used = bound + self.earlier_tokens[task, which]
            left = float(_PLANNED * self.tokens[task] - used.sum())
            times = min(times, _times(calls, [1.0] * len(calls), left))
        return caps if times <= 1.0 else np.minimum(longest, np.floor(caps * times))

    def in_time(self, mean_s: FloatArray) -> FloatArray:
        """Chance that a log-normal time with this mean, [N, n], is within the deadline."""
        if not np.isfinite(self.latency_s).any():
            return np.ones_like(mean_s)
        return _within(self.latency_s[:, None], mean_s)

    def in_time_of(self, task: int, mean_s: FloatArray) -> FloatArray:
        """[n] the same, of one task."""
        if not np.isfinite(self.latency_s[task]):
            return np.ones_like(mean_s)
        return _within(self.latency_s[task], mean_s)

    @cached_property
    def unbounded(self) -> bool:
        """Whether the caps hold four of the dearest calls of every task with ease."""
        return bool(
            (self.cost_usd > _MOST_CALLS * self._worst_usd.max(axis=1)).all()
            and (self.tokens > _MOST_CALLS * self._worst_tokens.max(axis=1)).all()
            and (self.caps > self._longest).all()
        )

    @cached_property
    def _longest(self) -> FloatArray:
        """[N, B] output tokens that no reply is longer than."""
        longest = self.hidden_tokens + np.exp(self.log_tokens + 6.0 * self.sigma[:, None])
        if not self.output_spread.any():
            return longest
        mean = self.hidden_tokens + np.exp(self.log_tokens + self.sigma[:, None] ** 2 / 2)
        varied = mean * np.exp(6.0 * self.output_spread)
        return np.where(self.output_spread > 0.0, varied, longest)

    @cached_property
    def _worst_usd(self) -> FloatArray:
        prompt = self.prompt_bound * self.price_in
        return self.earlier_usd + prompt + self.caps * self.price_out

    @cached_property
    def _worst_tokens(self) -> FloatArray:
        return self.earlier_tokens + self.prompt_bound + self.caps


def _within(latency_s: FloatArray | np.float64, mean_s: FloatArray) -> FloatArray:
    """Chance that log-normal times with these means are within the deadlines."""
    z = np.log(latency_s) - np.log(mean_s) + _LATENCY_SIGMA**2 / 2
    return normal_share(np.minimum(z, 1e3) / _LATENCY_SIGMA)


def _times(calls: Sequence[tuple[float, float]], prices: Sequence[float], left: float) -> float:
    """How many times its cap each call may have for what is left, none more than its longest reply.

    In plain numbers: they are four at most.

    Args:
        calls: (cap, longest reply) of each; prices: of a token.
    """
    slope = sum(price * cap for (cap, _), price in zip(calls, prices, strict=True))
    if slope == 0.0:
        return float("inf") if left >= 0.0 else 0.0
    by_room = sorted(zip(calls, prices, strict=True), key=lambda call: call[0][1] / call[0][0])
    for (cap, longest), price in by_room:
        if left < slope * longest / cap:
            return left / slope
        left -= price * longest
        slope -= price * cap
    return float("inf")


def chance_of_end(
    room: FloatArray,
    log_tokens: FloatArray,
    sigma: FloatArray | np.float64,
    hidden: FloatArray,
    spread: FloatArray,
) -> FloatArray:
    """Chance that a reply ends within so many output tokens.

    Where hidden tokens are known to vary, all of a reply's tokens are log-normal around their mean;
    elsewhere the visible ones have what the hidden ones leave of the room.

    Args:
        room: output tokens that a call is given.
        log_tokens, sigma: mean and deviation of the logarithm of visible tokens.
        hidden, spread: see `ProfileTable.hidden_tokens` and `output_spread`.
    """
    z = (np.log(np.maximum(room - hidden, 1.0)) - log_tokens) / sigma
    if not spread.any():
        return normal_share(z)
    median = np.log(hidden + np.exp(log_tokens + sigma**2 / 2)) - spread**2 / 2
    together = (np.log(np.maximum(room, 1.0)) - median) / np.maximum(spread, 1e-6)
    return normal_share(np.where(spread > 0.0, together, z))


def normal_share(z: FloatArray) -> FloatArray:
    """Share of a normal distribution below z, to within 0.01 (a logistic curve: no special
    function to import, and fast)."""
    return 1.0 / (1.0 + np.exp(-1.702 * np.minimum(np.maximum(z, -30.0), 30.0)))
