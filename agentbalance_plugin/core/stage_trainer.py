"""The second half of a training: the stages, by imitation and then by policy gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.checkpoint import Checkpoint
from agentbalance_plugin.core.encoder import QueryEncoder
from agentbalance_plugin.core.episodes import COST_BUDGETS, TIME_BUDGETS, Course
from agentbalance_plugin.core.policy_gradient import (
    Duals,
    Lesson,
    Outcome,
    episode_of,
    imitation,
    initial_weights,
    reinforcement,
    surrogate,
)
from agentbalance_plugin.core.stages.arrays import SHAPES, StageWeights
from agentbalance_plugin.core.validation import REACHES, Validation, validate_stages

IntArray = NDArray[np.int64]
Phase = Literal["imitation", "gradient"]
PHASES: tuple[Phase, Phase] = ("imitation", "gradient")


@dataclass(frozen=True)
class StageConfig:
    """Everything that can be tuned about the stages' training.

    Args:
        imitation_steps, gradient_steps: of each phase.
        imitation_rate, gradient_rate: of Adam.
        imitation_tasks, gradient_tasks: queries per step.
        samples: designs drawn for each query, at least 8.
        entropy: bonus for staying undecided.
        dual_rate: of the multipliers' ascent.
        check_every: steps between validations; after each the state is kept.
        val_queries: of each suite, at most.
    """

    imitation_steps: int = 1000
    gradient_steps: int = 300
    imitation_rate: float = 5e-3
    gradient_rate: float = 5e-4
    imitation_tasks: int = 48
    gradient_tasks: int = 32
    samples: int = 8
    entropy: float = 2e-3
    dual_rate: float = 0.05
    check_every: int = 100
    val_queries: int = 150


class Report(NamedTuple):
    """After a step, and before the first.

    Args:
        step: from 0, which has a validation and nothing else.
        scalars: by name; histograms: by name, values.
        validation: where one was made.
    """

    phase: Phase
    step: int
    of: int
    scalars: Mapping[str, float]
    histograms: Mapping[str, NDArray[np.float64]]
    validation: Validation | None


@dataclass
class StageState:
    """Where the training stands.

    Args:
        phase, step: steps done in this phase.
        worth: the best realised worth on validation so far; reach: position in `REACHES`.
        now, best: current and best weights; moments: of Adam, by "number.name".
    """

    phase: Phase
    step: int
    worth: float
    reach: int
    now: dict[str, Any]
    best: dict[str, Any]
    moments: dict[str, Any]
    duals: Duals


class StageTrainer:
    """Trains the stages of a checkpoint whose network is already trained.

    Every step draws with a generator of its own, so a training that goes on from a state does
    the same as one that was never interrupted.

    Args:
        torch: the module.
        checkpoint: with a trained network; its stages are ignored.
        encoder: of roles.
        courses: one per suite.
        train, val: positions of the queries of each course.
        seed: of all draws.
    """

    def __init__(
        self,
        torch: Any,
        checkpoint: Checkpoint,
        encoder: QueryEncoder,
        courses: Sequence[Course],
        train: Sequence[IntArray],
        val: Sequence[IntArray],
        config: StageConfig,
        seed: int,
    ) -> None:
        self._torch = torch
        self._checkpoint = checkpoint
        self._encoder = encoder
        self._courses = courses
        self._train = train
        self._config = config
        self._seed = seed
        self._val = [_spread(rows, config.val_queries) for rows in val]
        first = initial_weights(np.random.default_rng([seed, 2]))
        self._weights = StageWeights(
            **{
                name: torch.tensor(getattr(first, name), dtype=torch.float32, requires_grad=True)
                for name in SHAPES
            }
        )

    def initial(self) -> StageState:
        """Before the first step."""
        now = self._copy()
        return StageState(
            "imitation", 0, -np.inf, 0, now, now, {}, Duals.initial(len(self._courses))
        )

    def run(
        self,
        state: StageState,
        keep: Callable[[StageState], None],
        report: Callable[[Report], None],
    ) -> Checkpoint:
        """Go on from a state to the end.

        Args:
            keep: called after each validation with the state.
            report: called before the first step and after each.

        Returns:
            the checkpoint with the stages, and the reach, that did best on validation queries.
        """
        if not np.isfinite(state.worth):
            # For comparison alone: untrained stages are never kept.
            untrained, of = self._validate(), self._config.imitation_steps
            report(Report(state.phase, 0, of, {}, {}, untrained))
        for phase in PHASES[PHASES.index(state.phase) :]:
            if phase != state.phase:
                # The gradient fine-tunes the best of what imitation found.
                state = replace(state, phase=phase, step=0, now=state.best, moments={})
            state = self._phase(state, keep, report)
        return replace(
            self._checkpoint,
            stages=_stage_weights(state.best),
            reach=REACHES[state.reach],
        )

    def _phase(
        self,
        state: StageState,
        keep: Callable[[StageState], None],
        report: Callable[[Report], None],
    ) -> StageState:
        config, imitating = self._config, state.phase == "imitation"
        steps = config.imitation_steps if imitating else config.gradient_steps
        rate = config.imitation_rate if imitating else config.gradient_rate
        parameters = [getattr(self._weights, name) for name in SHAPES]
        optimizer = self._torch.optim.Adam(parameters, lr=rate)
        self._restore(state, optimizer)
        duals = state.duals
        for step in range(state.step + 1, steps + 1):
            # The rate falls to a tenth, so that the last steps settle.
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.1 ** (step / steps)
            scalars, histograms = self._step(state.phase, step, optimizer, duals)
            validation = None
            if step % config.check_every == 0 or step == steps:
                validation = self._validate()
                worth = validation.worth[validation.best]
                best, reach = state.best, state.reach
                if worth > state.worth + 1e-6:
                    best, reach = self._copy(), validation.best
                state = StageState(
                    state.phase,
                    step,
                    max(worth, state.worth),
                    reach,
                    self._copy(),
                    best,
                    _moments(optimizer),
                    duals,
                )
                keep(state)
            report(Report(state.phase, step, steps, scalars, histograms, validation))
        return state

    def _step(
        self, phase: Phase, step: int, optimizer: Any, duals: Duals
    ) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
        config = self._config
        rng = np.random.default_rng([self._seed, PHASES.index(phase), step])
        tasks = config.imitation_tasks if phase == "imitation" else config.gradient_tasks
        suite, episode = episode_of(
            self._courses, self._train, self._checkpoint, self._encoder, duals, tasks, rng
        )
        optimizer.zero_grad()
        outcome: Outcome | None = None
        if phase == "imitation":
            lesson = imitation(episode, rng)
        else:
            lesson, outcome = reinforcement(self._numpy(), episode, config.samples, rng)
        objective, log_probs = surrogate(self._torch, self._weights, lesson)
        if outcome is not None:
            fixed = log_probs.detach()
            centred = fixed - fixed.mean(dim=1, keepdim=True)
            objective = objective - config.entropy * (centred * log_probs).mean()
        (-objective).backward()
        self._torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        scalars = {"log_probability": float(log_probs.detach().mean())}
        if outcome is not None:
            scalars["reward"] = outcome.reward
            duals.ascend(suite, episode, outcome, config.dual_rate)
            scalars |= _against_budget(
                suite,
                episode.cost_budget,
                outcome.cost_usd / episode.cost_unit,
                COST_BUDGETS,
                duals.cost[suite],
                "cost",
            )
            scalars |= _against_budget(
                suite,
                episode.time_budget,
                outcome.latency_s / episode.time_unit,
                TIME_BUDGETS,
                duals.time[suite],
                "latency",
            )
        return scalars, _histograms(lesson)

    def _validate(self) -> Validation:
        checkpoint = replace(self._checkpoint, stages=self._numpy())
        return validate_stages(checkpoint, self._encoder, self._courses, self._val)

    def _numpy(self) -> StageWeights:
        return _stage_weights(self._copy())

    def _copy(self) -> dict[str, Any]:
        return {name: getattr(self._weights, name).detach().clone() for name in SHAPES}

    def _restore(self, state: StageState, optimizer: Any) -> None:
        with self._torch.no_grad():
            for name in SHAPES:
                getattr(self._weights, name).copy_(state.now[name])
        moments: dict[int, dict[str, Any]] = {}
        for key, value in state.moments.items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _spread(rows: IntArray, most: int) -> IntArray:
    """At most so many, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _stage_weights(tensors: Mapping[str, Any]) -> StageWeights:
    return StageWeights(
        **{name: tensors[name].detach().numpy().astype(np.float64) for name in SHAPES}
    )


def _moments(optimizer: Any) -> dict[str, Any]:
    return {
        f"{number}.{name}": value.detach().clone()
        for number, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def _against_budget(
    suite: int,
    which: IntArray,
    spent: NDArray[np.float64],
    budgets: Sequence[float],
    multipliers: NDArray[np.float64],
    axis: str,
) -> dict[str, float]:
    """Spend over budget, and the multiplier, of each budget that came up."""
    found: dict[str, float] = {}
    for number, budget in enumerate(budgets):
        rows = which == number
        if rows.any():
            name = f"suite_{suite}/budget_{budget:g}"
            found[f"{axis}_over_budget/{name}"] = float(spent[rows].mean()) / budget
            found[f"lambda_{axis}/{name}"] = float(np.exp(multipliers[number]))
    return found


def _histograms(lesson: Lesson) -> dict[str, NDArray[np.float64]]:
    designs = lesson.designs
    return {
        "pool": designs.pool.argmax(axis=-1).reshape(-1).astype(np.float64),
        "agents_kept": designs.kept.sum(axis=-1).reshape(-1),
        "hop_limit": designs.hops.argmax(axis=-1).reshape(-1) + 1.0,
        "edges": designs.edge.sum(axis=(-2, -1)).reshape(-1),
        "late_gates": designs.late.sum(axis=-1).reshape(-1),
    }
