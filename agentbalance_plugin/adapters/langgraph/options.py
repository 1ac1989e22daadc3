"""What `balance` was asked for, checked before any run, and what a call overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from langchain_core.runnables import RunnableConfig

from agentbalance_plugin.adapters.langgraph.discover import AgentsArgument
from agentbalance_plugin.adapters.langgraph.models import Backbones, Models, models_for
from agentbalance_plugin.adapters.langgraph.planning import QueryReader
from agentbalance_plugin.adapters.planning import Planner, check_affordable, pacer_of, planner_of
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import SETTINGS
from agentbalance_plugin.runtime.answers import extract_answer
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.runtime.pacing import Pacer
from agentbalance_plugin.team import Team

Mode = Literal["auto", "full", "backbones"]
AnswerExtractor = Callable[[str], str | None]

OVERRIDES = "agentbalance"
"""The key of a call's overrides in `config["configurable"]` and in a context."""


@dataclass(frozen=True)
class Settings:
    """The checked arguments of `balance`.

    Args:
        pacers: one for each team and mean budget, shared by all graphs of these settings.
    """

    budget: Budget
    models: Models
    planner: Planner
    mode: Mode
    agents: AgentsArgument
    query: QueryReader | None
    extract: AnswerExtractor
    clock: Clock
    pacers: dict[tuple[Team, Budget], Pacer] = field(default_factory=dict[Any, Pacer])

    @classmethod
    def of(
        cls,
        *,
        budget: Budget,
        backbones: Backbones,
        policy: str | Path | Planner,
        mode: Mode,
        agents: AgentsArgument,
        query: QueryReader | None,
        answer: AnswerExtractor | None,
        clock: Clock | None,
    ) -> Settings:
        """The arguments of `balance`, checked (ValueError naming the one that can't work)."""
        if not isinstance(budget, Budget):
            raise ValueError(f"budget must be a Budget, got {budget!r}")
        if mode not in ("auto", "full", "backbones"):
            raise ValueError(f"mode must be 'auto', 'full' or 'backbones', got {mode!r}")
        for name, function in (("query", query), ("answer", answer)):
            if function is not None and not callable(function):
                raise ValueError(f"{name} must be a function or None, got {function!r}")
        if clock is not None and not isinstance(clock, Clock):
            raise ValueError(f"clock must be a Clock or None, got {clock!r}")
        models = models_for(backbones)
        check_affordable(budget, models.catalog)
        return cls(
            budget,
            models,
            planner_of(policy),
            mode,
            agents,
            query,
            answer or extract_answer,
            clock or Clock(),
        )

    def __deepcopy__(self, memo: Any) -> Settings:
        # A copied graph has the same models and is steered to the same mean.
        return self

    def pacer(self, team: Team, budget: Budget | None = None) -> Pacer | None:
        """What steers the mean; None for a budget of hard caps alone.

        Args:
            budget: that a call brings along, its mean being over all calls that bring the same;
                None for the graph's own.
        """
        budget = budget or self.budget
        key = (team, budget)
        if budget.mean_cost_usd is not None and key not in self.pacers:
            made = pacer_of(self.planner, team, budget, self.models.catalog)
            assert made is not None
            # Another thread may have been faster.
            self.pacers.setdefault(key, made)
        return self.pacers.get(key)

    def knows_pacer(self, team: Team, budget: Budget) -> bool:
        """Whether `pacer` answers at once: a price that suits a mean takes long to find."""
        return budget.mean_cost_usd is None or (team, budget) in self.pacers


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one call has instead of the graph's own."""

    budget: Budget | None = None
    planner: Planner | None = None


def overrides_of(config: RunnableConfig, context: object) -> Overrides:
    """The overrides of a call: `config["configurable"]["agentbalance"]`, else the same key or
    attribute of the context. A mapping of `budget` (a Budget, or its fields as JSON values) and
    `policy`.

    Raises:
        ValueError: an unknown key, or a value that can't work.
    """
    given: Any = (config.get("configurable") or {}).get(OVERRIDES)
    if given is None:
        given = (
            cast("Mapping[str, Any]", context).get(OVERRIDES)
            if isinstance(context, Mapping)
            else getattr(context, OVERRIDES, None)
        )
    if given is None:
        return Overrides()
    if not isinstance(given, Mapping):
        raise ValueError(f"{OVERRIDES} must map 'budget' or 'policy' to a value, got {given!r}")
    known = cast("Mapping[str, Any]", given)
    unknown = sorted(set(known) - {"budget", "policy"})
    if unknown:
        raise ValueError(f"{OVERRIDES}: unknown {unknown}; known are 'budget' and 'policy'")
    policy = known.get("policy")
    planner = _loaded(policy, _written(policy)) if isinstance(policy, (str, Path)) else policy
    return Overrides(_budget(known.get("budget")), None if planner is None else planner_of(planner))


@lru_cache(maxsize=8)
def _loaded(policy: str | Path, written: int) -> Planner:
    """Read once, not by every call that names it, and again when it has been trained anew."""
    return planner_of(policy)


def _written(policy: str | Path) -> int:
    """When a policy's folder was last written; 0 for the one in the package."""
    with suppress(OSError):
        return (Path(policy) / SETTINGS).stat().st_mtime_ns
    return 0


def _budget(given: object) -> Budget | None:
    if given is None or isinstance(given, Budget):
        return given
    if isinstance(given, Mapping):
        try:
            return Budget(**cast("Mapping[str, Any]", given))
        except TypeError as error:
            raise ValueError(f"{OVERRIDES}.budget: {error}") from None
    raise ValueError(f"{OVERRIDES}.budget must be a Budget or its fields, got {given!r}")
