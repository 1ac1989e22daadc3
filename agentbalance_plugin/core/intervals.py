"""Between what a plan's cost and latency will be, nine times out of ten.

A mean says little of a plan with late gates: most runs end after the first hop, some pay for every
agent. A plan is run through the replay's own rules of gates, votes and races a few hundred times
with drawn replies: whether each agent is right, how long it writes and how long a call takes. The
draws are hashed from their number and the agent, so the same plan always gets the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.calls import Message, Spoken
from agentbalance_plugin.core.outcomes import Provenance
from agentbalance_plugin.core.prediction import Outlook
from agentbalance_plugin.core.profiles import ProfileTable
from agentbalance_plugin.core.sampling import (
    KeyArray,
    draw_keys,
    normals,
    string_key,
    uniforms,
)
from agentbalance_plugin.core.team_replay import Designs, run_designs
from agentbalance_plugin.plan import Plan

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

COVERAGE = 0.9

DRAWS = 256

# Fitted on the validation splits of the shipped traces; `agentbalance study follow-through` shows
# what they give on the test splits. Shares of the spread of reply lengths: what makes one backbone
# write long makes the others write long too, and hard queries get longer replies.
_SHARED_LENGTH = 0.5
_LENGTH_BY_DIFFICULTY = 0.2
# Prompts in tokens are estimated from bytes, and each backbone's tokenizer differs.
_PROMPT_SIGMA = 0.15
# Lengths of replies spread more around predictions than they did where the spread was fitted.
_LENGTH_WIDENED = 1.1
# Around the nominal speeds; as in the replay.
_CALL_SIGMA = 0.2

_DIFFICULTY, _LENGTH, _PROMPT, _TIME, _RIGHT, _WRONG = (
    string_key(f"interval: {name}")
    for name in ("difficulty", "length", "prompt", "time", "right", "wrong")
)
_PROVENANCE = Provenance()


@dataclass(frozen=True)
class Forecast:
    """What is predicted of one query and B backbones, each alone.

    Args:
        names: [B].
        log_odds: [B] of a right answer.
        prompt_tokens: of a call that reads no one.
        log_tokens: [B] mean logarithm of visible completion tokens.
        sigma: its deviation.
        hidden_tokens: [B] billed but not visible.
        price_in, price_out: [B] US dollars per token.
        ttft_s, tokens_per_s: [B].
        max_output: [B] most completion tokens.
        shared: standard deviation of the difficulty that backbones share, in log-odds.
        coincidence: probability that two wrong answers are equal.
    """

    names: Sequence[str]
    log_odds: FloatArray
    prompt_tokens: float
    log_tokens: FloatArray
    sigma: float
    hidden_tokens: FloatArray
    price_in: FloatArray
    price_out: FloatArray
    ttft_s: FloatArray
    tokens_per_s: FloatArray
    max_output: FloatArray
    shared: float
    coincidence: float


@dataclass(frozen=True)
class Intervals:
    """(low, high) that hold `COVERAGE` of the runs; equal shares of the rest lie on either side."""

    cost_usd: tuple[float, float]
    latency_s: tuple[float, float]


def forecast_of(outlook: Outlook, table: ProfileTable) -> Forecast:
    """Of the first query of an outlook."""
    predicted = outlook.predicted
    return Forecast(
        names=table.names,
        log_odds=predicted.log_odds[0],
        prompt_tokens=float(outlook.prompt_tokens[0]),
        log_tokens=outlook.log_tokens[0],
        sigma=float(outlook.sigma[0]),
        hidden_tokens=outlook.hidden_tokens[0],
        price_in=table.price_in,
        price_out=table.price_out,
        ttft_s=table.ttft_s,
        tokens_per_s=table.tokens_per_s,
        max_output=table.max_output,
        shared=float(predicted.shared[0]),
        coincidence=float(predicted.coincidence[0]),
    )


def plan_intervals(plan: Plan, forecast: Forecast, *, draws: int = DRAWS) -> Intervals:
    """The intervals of a valid plan whose agents all use backbones of the forecast.

    Raises:
        ValueError: the plan uses a backbone that the forecast lacks.
    """
    names = list(forecast.names)
    designs = Designs.of([plan], names.index, {})
    every = np.arange(draws)
    found, _ = run_designs(_Drawn(forecast), designs, np.zeros(draws, dtype=np.int64), every)
    tail = (1.0 - COVERAGE) / 2
    cost = np.quantile(found.cost_nanodollars / 1e9, [tail, 1.0 - tail])
    latency = np.quantile(found.latency_s, [tail, 1.0 - tail])
    return Intervals((float(cost[0]), float(cost[1])), (float(latency[0]), float(latency[1])))


class _Drawn:
    """Calls whose replies are drawn from a forecast; a query is the number of a draw."""

    def __init__(self, forecast: Forecast) -> None:
        self._forecast = forecast

    @property
    def no_counts(self) -> Provenance:
        return _PROVENANCE

    def speak(
        self,
        query: IntArray,
        backbone: IntArray,
        agent: KeyArray,
        turn: int,
        peers: Sequence[Message],
        caps: IntArray,
        sample: IntArray,
    ) -> tuple[Spoken, Provenance]:
        """As `agentbalance_plugin.core.calls.Calls.speak`; what peers say lengthens the prompt."""
        f = self._forecast
        own = draw_keys(0, query, agent, turn)
        difficulty = normals(draw_keys(0, query, _DIFFICULTY))
        widened = f.log_odds[backbone] * np.sqrt(1.0 + np.pi / 8.0 * f.shared**2)
        chance = 1.0 / (1.0 + np.exp(-widened + f.shared * difficulty))
        right = uniforms(draw_keys(0, own, _RIGHT)) < chance
        others = max(1, round(1.0 / max(f.coincidence, 1e-3)))
        wrong = 1 + np.floor(uniforms(draw_keys(0, own, _WRONG)) * others).astype(np.int64)

        common = normals(draw_keys(0, query, _LENGTH))
        alone = normals(draw_keys(0, own, _LENGTH))
        rest = 1.0 - _SHARED_LENGTH - _LENGTH_BY_DIFFICULTY**2
        deviation = (
            _LENGTH_BY_DIFFICULTY * difficulty
            + np.sqrt(_SHARED_LENGTH) * common
            + np.sqrt(rest) * alone
        )
        visible = np.exp(f.log_tokens[backbone] + _LENGTH_WIDENED * f.sigma * deviation)
        hidden = f.hidden_tokens[backbone]
        cap = np.minimum(caps, f.max_output[backbone])
        cut = visible + hidden > cap
        hidden = np.minimum(hidden, cap)
        visible = np.minimum(visible, cap - hidden)

        prompt = f.prompt_tokens * np.exp(
            _PROMPT_SIGMA * normals(draw_keys(0, query, _PROMPT)) - _PROMPT_SIGMA**2 / 2
        )
        for peer in peers:
            prompt = prompt + np.where(peer.heard, peer.visible_tokens, 0)
        cost = prompt * f.price_in[backbone] + (visible + hidden) * f.price_out[backbone]
        seconds = f.ttft_s[backbone] + (visible + hidden) / f.tokens_per_s[backbone]
        noise = normals(draw_keys(0, own, _TIME))
        spoken = Spoken(
            message=Message(
                heard=np.ones(len(query), dtype=np.bool_),
                backbone=backbone,
                answer=np.where(cut, -1, np.where(right, 0, wrong)),
                correct=right & ~cut,
                visible_tokens=np.rint(visible).astype(np.int64),
            ),
            prompt_tokens=np.rint(prompt).astype(np.int64),
            hidden_tokens=np.rint(hidden).astype(np.int64),
            latency_s=seconds * np.exp(_CALL_SIGMA * noise - _CALL_SIGMA**2 / 2),
            cut=cut,
            cost_nanodollars=np.rint(cost * 1e9).astype(np.int64),
        )
        return spoken, _PROVENANCE
