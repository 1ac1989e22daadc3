"""What a budget's hard caps leave of a plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.teamwork import Family, Members

FloatArray = NDArray[np.float64]

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

# How far a call's time spreads around its mean, as the deviation of its logarithm.
_LATENCY_SIGMA = 0.45


@dataclass(frozen=True)
class Limits:
    """The hard caps, and what calls of one query may take of them.

    The meter guarantees the caps whatever is planned: a call is capped at the output tokens that
    are affordable when it starts. What a plan needs to know is how likely a reply is cut off then.

    Args:
        cost_usd, tokens, latency_s: hard caps; infinity for none.
        prompt_bound: tokens of the prompt, at most.
        price_in, price_out: [B] US dollars per token.
        caps: [B] output tokens that calls are given where the budget has room.
        likely_usd, likely_tokens: [B] what a call that is over has seldom taken more than.
        log_tokens: [B] predicted logarithm of visible tokens; sigma: its deviation.
        hidden_tokens: [B] billed but not visible.
    """

    cost_usd: float
    tokens: float
    latency_s: float
    prompt_bound: float
    price_in: FloatArray
    price_out: FloatArray
    caps: FloatArray
    likely_usd: FloatArray
    likely_tokens: FloatArray
    log_tokens: FloatArray
    sigma: float
    hidden_tokens: FloatArray

    def uncut(self, members: Members) -> FloatArray:
        """[n, m] chance that each member's reply is not cut off; 0 where it has no room at all."""
        columns = members.columns
        together = FIRST_HOP[members.family]
        chance = np.ones(columns.shape)
        spent_usd = np.zeros(len(columns))
        spent_tokens = np.zeros(len(columns))
        for j in range(columns.shape[1]):
            column = columns[:, j]
            if j < together:
                # Those that run at once hold their reservations at once.
                others = [columns[:, k] for k in range(together) if k != j]
                held_usd = sum((self._worst_usd[other] for other in others), spent_usd)
                held_tokens = sum((self._worst_tokens[other] for other in others), spent_tokens)
            else:
                before = columns[:, :j]
                held_usd = self.likely_usd[before].sum(axis=1)
                held_tokens = self.likely_tokens[before].sum(axis=1)
            chance[:, j] = self._uncut(column, held_usd, held_tokens)
        return chance

    def in_time(self, mean_s: FloatArray) -> FloatArray:
        """Chance that a log-normal time with this mean is within the deadline."""
        if not np.isfinite(self.latency_s):
            return np.ones_like(mean_s)
        z = np.log(self.latency_s) - np.log(mean_s) + _LATENCY_SIGMA**2 / 2
        return normal_share(z / _LATENCY_SIGMA)

    @property
    def _worst_usd(self) -> FloatArray:
        return self.prompt_bound * self.price_in + self.caps * self.price_out

    @property
    def _worst_tokens(self) -> FloatArray:
        return self.prompt_bound + self.caps

    def _uncut(
        self, column: NDArray[np.int64], held_usd: FloatArray, held_tokens: FloatArray
    ) -> FloatArray:
        room = self._room(column, held_usd, held_tokens)
        visible = np.log(np.maximum(room - self.hidden_tokens[column], 1.0))
        chance = normal_share((visible - self.log_tokens[column]) / self.sigma)
        return np.where(room >= USEFUL_TOKENS, chance, 0.0)

    def _room(
        self, column: NDArray[np.int64], held_usd: FloatArray, held_tokens: FloatArray
    ) -> FloatArray:
        """Output tokens that are affordable while others hold this much."""
        left = self.cost_usd - held_usd - self.prompt_bound * self.price_in[column]
        # A backbone whose output is free is limited by its prompt alone.
        price = np.maximum(self.price_out[column], 1e-15)
        room = np.minimum(self.caps[column], left / price)
        room = np.minimum(room, self.tokens - held_tokens - self.prompt_bound)
        return np.floor(np.maximum(room, 0.0))


def normal_share(z: FloatArray) -> FloatArray:
    """Share of a normal distribution below z, to within 0.01 (a logistic curve: no special
    function to import, and fast)."""
    return 1.0 / (1.0 + np.exp(-1.702 * np.clip(z, -30.0, 30.0)))
