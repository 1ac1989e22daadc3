"""All baselines by short name."""

from __future__ import annotations

from collections.abc import Sequence

from agentbalance_plugin.evaluation.baselines.agentdropout import AgentDropout
from agentbalance_plugin.evaluation.baselines.agentprune import AgentPrune
from agentbalance_plugin.evaluation.baselines.bamas import Bamas
from agentbalance_plugin.evaluation.baselines.category import CategoryTable
from agentbalance_plugin.evaluation.baselines.frugal import FrugalGPT
from agentbalance_plugin.evaluation.baselines.gdesigner import GDesigner
from agentbalance_plugin.evaluation.baselines.homogeneous import (
    ChatAsWritten,
    Homogeneous,
    LlmDebate,
    SelfConsistency,
    TeamMethod,
    Where,
)
from agentbalance_plugin.evaluation.baselines.knn import KnnRouter
from agentbalance_plugin.evaluation.baselines.logistic import LogisticRouter
from agentbalance_plugin.evaluation.baselines.masrouter import MasRouter
from agentbalance_plugin.evaluation.baselines.oracle import Oracle
from agentbalance_plugin.evaluation.baselines.plan_table import PlanTable
from agentbalance_plugin.evaluation.baselines.profile_router import ProfileRouter
from agentbalance_plugin.evaluation.baselines.single import BestSingle, MixOfSingles
from agentbalance_plugin.evaluation.baselines.static_team import StaticTeam
from agentbalance_plugin.evaluation.baselines.vote_cascade import VoteCascade
from agentbalance_plugin.evaluation.trials import Method

_TEAMS: dict[str, TeamMethod] = {
    "chat": ChatAsWritten(),
    "self-consistency": SelfConsistency(),
    "debate": LlmDebate(),
    "agentprune": AgentPrune(),
    "agentdropout": AgentDropout(),
    "g-designer": GDesigner(),
}
_WHERE: tuple[Where, Where] = ("reference", "best")

_BASELINES: dict[str, Method] = {
    "single": BestSingle(),
    "mix": MixOfSingles(),
    "category": CategoryTable(),
    "knn": KnnRouter(),
    "logistic": LogisticRouter(),
    "profile": ProfileRouter(),
    "plan-table": PlanTable(),
    "votes": VoteCascade(),
    "frugal": FrugalGPT(),
    "static": StaticTeam(),
    "bamas": Bamas(),
    "masrouter": MasRouter(),
    **{
        f"{name}-{where}": Homogeneous(team, where)
        for name, team in _TEAMS.items()
        for where in _WHERE
    },
    "oracle": Oracle(),
}


def baselines(names: Sequence[str] = ("all",)) -> list[Method]:
    """Baselines by their short names; "all" of them, "none", or a list.

    Raises:
        ValueError: an unknown name, listing those that exist.
    """
    if list(names) == ["none"]:
        return []
    chosen = list(_BASELINES) if list(names) == ["all"] else list(dict.fromkeys(names))
    for name in chosen:
        if name not in _BASELINES:
            raise ValueError(
                f"baselines: no {name!r}; there are all, none, {', '.join(_BASELINES)}"
            )
    return [_BASELINES[name] for name in chosen]
