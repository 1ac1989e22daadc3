"""What a budget's hard caps leave of a plan."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.teamwork import Family, Members, pick

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

USEFUL_TOKENS = 16
"""An answer takes at least so many output tokens."""

FIRST_HOP: dict[Family, int] = {
    "single": 1,
    "pair": 2,
    "triple": 3,
    "pair_then_one": 2,
    "pair_then_two": 2,
    "race_three": 3,
    "race_four": 4,
}
"""Agents of each family that run at once, at first; those after them run one by one."""

# Agents that a plan has at most.
_MOST_CALLS = 4.0
# How far a call's time spreads around its mean, as the deviation of its logarithm.
_LATENCY_SIGMA = 0.45


@dataclass(frozen=True)
class Limits:
    """The hard caps of N tasks, and what their calls may take of them.

    The meter guarantees the caps whatever is planned: a call is capped at the output tokens that
    are affordable when it starts. What a plan needs to know is how likely a reply is cut off then.

    Args:
        cost_usd, tokens, latency_s: [N] hard caps; infinity for none.
        prompt_bound: [N] tokens of the prompt, at most.
        sigma: [N] deviation of the logarithm of visible tokens.
        price_in, price_out: [N, B] US dollars per token.
        caps: [N, B] output tokens that calls are given where the budget has room.
        likely_usd, likely_tokens: [N, B] what a call that is over has seldom taken more than.
        log_tokens: [N, B] predicted logarithm of visible tokens.
        hidden_tokens: [N, B] billed but not visible.
    """

    cost_usd: FloatArray
    tokens: FloatArray
    latency_s: FloatArray
    prompt_bound: FloatArray
    sigma: FloatArray
    price_in: FloatArray
    price_out: FloatArray
    caps: FloatArray
    likely_usd: FloatArray
    likely_tokens: FloatArray
    log_tokens: FloatArray
    hidden_tokens: FloatArray

    def of(self, local: IntArray) -> Limits:
        """For some of the backbones alone.

        Args:
            local: [N, m] columns.
        """
        changed = {
            field.name: np.take_along_axis(values, local, axis=1)
            for field in fields(self)
            if (values := getattr(self, field.name)).ndim == 2
        }
        return replace(self, **changed)

    def rows(self, rows: IntArray) -> Limits:
        """For some of the tasks alone."""
        return Limits(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def uncut(self, members: Members) -> FloatArray | None:
        """[N, n, m] chance that each member's reply is not cut off; 0 where it has no room at all.

        None where no cap is near.
        """
        if self.unbounded:
            return None
        columns = members.columns
        size = columns.shape[-1]
        together = FIRST_HOP[members.family]
        worst_usd = [pick(self._worst_usd, columns[..., j]) for j in range(together)]
        worst_tokens = [pick(self._worst_tokens, columns[..., j]) for j in range(together)]
        shape = worst_usd[0].shape
        spent_usd, spent_tokens = np.zeros(shape), np.zeros(shape)
        chances: list[FloatArray] = []
        for j in range(size):
            if j < together:
                # Those that run at once hold their reservations at once.
                held_usd = sum((worst_usd[k] for k in range(together) if k != j), np.zeros(shape))
                held_tokens = sum(
                    (worst_tokens[k] for k in range(together) if k != j), np.zeros(shape)
                )
            else:
                held_usd, held_tokens = spent_usd, spent_tokens
            chances.append(self._uncut(columns[..., j], held_usd, held_tokens))
            spent_usd = spent_usd + pick(self.likely_usd, columns[..., j])
            spent_tokens = spent_tokens + pick(self.likely_tokens, columns[..., j])
        return np.stack(chances, axis=-1)

    def in_time(self, mean_s: FloatArray) -> FloatArray:
        """Chance that a log-normal time with this mean, [N, n], is within the deadline."""
        if not np.isfinite(self.latency_s).any():
            return np.ones_like(mean_s)
        z = np.log(self.latency_s)[:, None] - np.log(mean_s) + _LATENCY_SIGMA**2 / 2
        return normal_share(np.minimum(z, 1e3) / _LATENCY_SIGMA)

    @cached_property
    def unbounded(self) -> bool:
        """Whether the caps hold four of the dearest calls of every task with ease."""
        usd = (self.cost_usd > _MOST_CALLS * self._worst_usd.max(axis=1)).all()
        tokens = (self.tokens > _MOST_CALLS * self._worst_tokens.max(axis=1)).all()
        whole = (self.caps > np.exp(self.log_tokens + 6.0 * self.sigma[:, None])).all()
        return bool(usd and tokens and whole)

    @cached_property
    def _worst_usd(self) -> FloatArray:
        return self.prompt_bound[:, None] * self.price_in + self.caps * self.price_out

    @cached_property
    def _worst_tokens(self) -> FloatArray:
        return self.prompt_bound[:, None] + self.caps

    def _uncut(self, column: IntArray, held_usd: FloatArray, held_tokens: FloatArray) -> FloatArray:
        room = self._room(column, held_usd, held_tokens)
        visible = np.log(np.maximum(room - pick(self.hidden_tokens, column), 1.0))
        chance = normal_share((visible - pick(self.log_tokens, column)) / self.sigma[:, None])
        return np.where(room >= USEFUL_TOKENS, chance, 0.0)

    def _room(self, column: IntArray, held_usd: FloatArray, held_tokens: FloatArray) -> FloatArray:
        """Output tokens that are affordable while others hold this much."""
        bound = self.prompt_bound[:, None]
        left = self.cost_usd[:, None] - held_usd - bound * pick(self.price_in, column)
        # A backbone whose output is free is limited by its prompt alone.
        price = np.maximum(pick(self.price_out, column), 1e-15)
        room = np.minimum(pick(self.caps, column), left / price)
        room = np.minimum(room, self.tokens[:, None] - held_tokens - bound)
        return np.floor(np.maximum(room, 0.0))


def normal_share(z: FloatArray) -> FloatArray:
    """Share of a normal distribution below z, to within 0.01 (a logistic curve: no special
    function to import, and fast)."""
    return 1.0 / (1.0 + np.exp(-1.702 * np.clip(z, -30.0, 30.0)))
