"""MasRouter: one controller picks collaboration mode, roles and an LLM for each role, per query.

Yue et al., "MasRouter: Learning to route LLMs for multi-agent systems" (arXiv 2502.11133). A
cascade of three: the mode given the query, the roles given the mode, the LLMs given both; trained
by policy gradient on success less a price of cost. The log-probability of a design is the sum of
those of its categorical choices, so it is never above 0. Roles have no recorded effect, so their
choice only decides how many agents there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.baselines.bamas import softmax
from agentbalance_plugin.evaluation.baselines.library import weights_of
from agentbalance_plugin.evaluation.baselines.rates import log_odds
from agentbalance_plugin.evaluation.features import LatentText
from agentbalance_plugin.evaluation.trials import Chosen, Family, Fitted, Known, Trial, play
from agentbalance_plugin.plan import Plan

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

MODES = ("single", "chain", "vote", "debate")
SEATS = 3

# The second copy of a backbone is another sample; an agent that speaks again is not.
_SAMPLES = {
    f"agent_{seat}" + (f"_copy{copy}" if copy else "") + again: copy
    for seat in range(1, SEATS + 1)
    for copy in range(seat)
    for again in ("", "_again")
}

_STEPS = 120
_BATCH = 40
_DRAWS = 8
_RATE = 40.0
_WARM = 1.5
_ENTROPY = 0.002


@dataclass
class Controller:
    """Linear in the query's features F.

    Args:
        mode: [F, modes] logits of the collaboration mode.
        size: [F, modes, sizes] logits of how many roles there are, 2 to `SEATS`.
        llm: [F, modes, seats, B] logits of each role's backbone.
    """

    mode: FloatArray
    size: FloatArray
    llm: FloatArray

    @classmethod
    def blank(cls, features: int, start: FloatArray) -> Controller:
        """Uniform over modes and sizes; backbones by a starting logit, which is the intercept's."""
        llm = np.zeros((features, len(MODES), SEATS, len(start)))
        llm[0] = start
        return cls(
            np.zeros((features, len(MODES))), np.zeros((features, len(MODES), SEATS - 1)), llm
        )

    def probabilities(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """[N, modes], [N, modes, sizes], [N, modes, seats, B]."""
        return (
            softmax(x @ self.mode),
            softmax(np.einsum("nf,fms->nms", x, self.size)),
            softmax(np.einsum("nf,fmsb->nmsb", x, self.llm)),
        )

    def log_probability(self, x: FloatArray, designs: IntArray) -> FloatArray:
        """[N] of designs; never above 0.

        Args:
            designs: [N, 2 + SEATS] mode, size, a backbone per seat; seats beyond the size and the
                size of a single are not choices and count for nothing.
        """
        mode, size, llm = self.probabilities(x)
        each = np.arange(len(x))
        m, s = designs[:, 0], designs[:, 1]
        total = np.log(mode[each, m])
        total += np.where(m > 0, np.log(size[each, m, s]), 0.0)
        for seat in range(SEATS):
            chosen = np.log(llm[each, m, seat, designs[:, 2 + seat]])
            total += np.where(seat < seats_of(designs), chosen, 0.0)
        return total

    def sample(self, x: FloatArray, rng: np.random.Generator) -> IntArray:
        """[N, 2 + SEATS] designs drawn."""
        mode, size, llm = self.probabilities(x)
        each = np.arange(len(x))
        m = _draw(mode, rng)
        seats = [_draw(llm[each, m, seat], rng) for seat in range(SEATS)]
        return np.column_stack([m, _draw(size[each, m], rng), *seats])

    def likeliest(self, x: FloatArray) -> IntArray:
        """[N, 2 + SEATS] the likeliest choice at each step."""
        mode, size, llm = self.probabilities(x)
        each = np.arange(len(x))
        m = mode.argmax(axis=1)
        seats = [llm[each, m, seat].argmax(axis=1) for seat in range(SEATS)]
        return np.column_stack([m, size[each, m].argmax(axis=1), *seats])

    def climb(self, x: FloatArray, designs: IntArray, gain: FloatArray, rate: float) -> None:
        """One step along gain-weighted gradients of the log-probability, and of entropy."""
        mode, size, llm = self.probabilities(x)
        each = np.arange(len(x))
        m, s = designs[:, 0], designs[:, 1]
        weighted = x * gain[:, None] / len(x)
        taken = np.zeros_like(mode)
        taken[each, m] = 1.0
        surprise = mode * (-np.log(mode) + (mode * np.log(mode)).sum(axis=1, keepdims=True))
        self.mode += rate * (weighted.T @ (taken - mode) + _ENTROPY * x.T @ surprise / len(x))
        step = -size[each, m]
        step[each, s] += 1.0
        step[m == 0] = 0.0
        for number in range(len(MODES)):
            rows = m == number
            self.size[:, number] += rate * weighted[rows].T @ step[rows]
            for seat in range(SEATS):
                here = rows & (seat < seats_of(designs))
                towards = -llm[here, number, seat]
                towards[np.arange(len(towards)), designs[here, 2 + seat]] += 1.0
                self.llm[:, number, seat] += rate * weighted[here].T @ towards


class MasRouter:
    """One controller per price of cost."""

    name = "MasRouter"
    family: Family = "static"
    grid: Mapping[str, Any] = {"prices": [8], "modes": list(MODES), "latent_dimensions": [12]}

    def fit(self, known: Known) -> Fitted:
        text = LatentText.of(known.traces, known.train, self.grid["latent_dimensions"][0])
        inputs = _Inputs(known, text)
        x = inputs.of(known.traces, known.train)
        right = known.singles.right.mean(axis=1)
        spend = known.singles.spend(known.axis).mean(axis=1)
        rungs = np.linspace(3, len(known.prices) - 8, self.grid["prices"][0]).astype(np.int64)
        prices = known.prices[rungs]
        builder = _Builder(known.traces.candidates, weights_of(known))
        rng = np.random.default_rng(known.seed)
        controllers: list[Controller] = []
        for price in prices.tolist():
            start = _WARM * (log_odds(right) - price * spend / 0.25)
            controller = Controller.blank(x.shape[1], np.maximum(start, start.max() - 4.0))
            for step in range(_STEPS):
                rows = rng.integers(0, len(x), _BATCH).repeat(_DRAWS)
                designs = controller.sample(x[rows], rng)
                found = play(known.replay, known.train[rows], builder.chosen(designs[None]))
                reward = found.right[0] - price * found.spend(known.axis)[0]
                groups = reward.reshape(_BATCH, _DRAWS)
                others = (groups.sum(axis=1, keepdims=True) - groups) / (_DRAWS - 1)
                gain = (groups - others).reshape(-1)
                controller.climb(x[rows], designs, gain, _RATE * (1.0 - step / _STEPS))
            controllers.append(controller)

        def points(replay: Replay, positions: IntArray) -> Trial:
            here = inputs.of(replay.traces, positions)
            designs = np.stack([controller.likeliest(here) for controller in controllers])
            return play(replay, positions, builder.chosen(designs))

        return points


class _Inputs:
    """An intercept, the category, and the text's latent vector."""

    def __init__(self, known: Known, text: LatentText) -> None:
        self._text = text
        self._row = {name: n for n, name in enumerate(known.traces.categories)}

    def of(self, traces: TraceSet, positions: IntArray) -> FloatArray:
        """[N, F]"""
        kinds = np.array([self._row.get(name, len(self._row)) for name in traces.categories])
        category = np.eye(len(self._row) + 1)[kinds[traces.category[positions]]][:, :-1]
        return np.column_stack(
            [np.ones(len(positions)), category, self._text.vectors(traces, positions)]
        )


@dataclass
class _Builder:
    """Plans of designs, each made once."""

    names: tuple[str, ...]
    weights: dict[str, float]
    plans: list[Plan] = field(default_factory=list[Plan])
    places: dict[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])

    def chosen(self, designs: IntArray) -> Chosen:
        """Of [P, N, 2 + SEATS] designs."""
        flat = designs.reshape(-1, designs.shape[2])
        seats = seats_of(flat)
        used = np.where(np.arange(SEATS) < seats[:, None], flat[:, 2:], -1)
        keys, back = np.unique(np.column_stack([flat[:, :1], used]), axis=0, return_inverse=True)
        places = np.array([self._place(tuple(key)) for key in keys.tolist()])
        return Chosen(self.plans, places[back.reshape(-1)].reshape(designs.shape[:2]), _SAMPLES)

    def _place(self, key: tuple[int, ...]) -> int:
        if key not in self.places:
            self.places[key] = len(self.plans)
            self.plans.append(self._plan(key[0], [self.names[b] for b in key[1:] if b >= 0]))
        return self.places[key]

    def _plan(self, mode: int, backbones: list[str]) -> Plan:
        agents = [
            f"agent_{seat}" + (f"_copy{copy}" if copy else "")
            for seat, copy in enumerate(copies(backbones), start=1)
        ]
        assignment = dict(zip(agents, backbones, strict=True))
        weights = {agent: self.weights[name] for agent, name in assignment.items()}
        if MODES[mode] == "vote":
            return Plan(assignment=assignment, decision="vote", weights=weights)
        if MODES[mode] == "debate":
            second = {f"{agent}_again": name for agent, name in assignment.items()}
            edges = tuple((a, f"{b}_again") for a in agents for b in agents if a != b)
            again = {f"{agent}_again": weight for agent, weight in weights.items()}
            return Plan(
                assignment={**assignment, **second},
                edges=edges,
                decision="vote",
                # Only the last round counts.
                weights={**dict.fromkeys(agents, 1e-3), **again},
            )
        return Plan(assignment=assignment, edges=tuple(combinations(agents, 2)), decider=agents[-1])


def copies(backbones: Sequence[str]) -> list[int]:
    """How often each was there before."""
    return [list(backbones[:place]).count(name) for place, name in enumerate(backbones)]


def seats_of(designs: IntArray) -> IntArray:
    """[N] agents of designs: one for a single, else the size chosen."""
    return np.where(designs[:, 0] == 0, 1, designs[:, 1] + 2)


def _draw(probabilities: FloatArray, rng: np.random.Generator) -> IntArray:
    """[N] one option of each row."""
    edges = probabilities.cumsum(axis=1)
    draws = rng.random((len(edges), 1)) * edges[:, -1:]
    return (draws >= edges).sum(axis=1).astype(np.int64)
