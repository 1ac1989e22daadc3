"""Published and simple alternatives, written from their papers; one module each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentbalance_plugin.evaluation.trials import Method

__all__ = ["baselines"]


def _table() -> dict[str, Callable[[], Method]]:
    from agentbalance_plugin.evaluation.baselines.category import CategoryTable
    from agentbalance_plugin.evaluation.baselines.knn import KnnRouter
    from agentbalance_plugin.evaluation.baselines.logistic import LogisticRouter
    from agentbalance_plugin.evaluation.baselines.oracle import Oracle
    from agentbalance_plugin.evaluation.baselines.plan_table import PlanTable
    from agentbalance_plugin.evaluation.baselines.profile_router import ProfileRouter
    from agentbalance_plugin.evaluation.baselines.single import BestSingle, MixOfSingles

    return {
        "single": BestSingle,
        "mix": MixOfSingles,
        "category": CategoryTable,
        "knn": KnnRouter,
        "logistic": LogisticRouter,
        "profile": ProfileRouter,
        "plan-table": PlanTable,
        "oracle": Oracle,
    }


def baselines(names: Sequence[str] = ("all",)) -> list[Method]:
    """Baselines by their short names; "all" of them, "none", or a list.

    Raises:
        ValueError: an unknown name, listing those that exist.
    """
    table = _table()
    if list(names) == ["none"]:
        return []
    chosen = list(table) if list(names) == ["all"] else list(dict.fromkeys(names))
    for name in chosen:
        if name not in table:
            raise ValueError(f"baselines: no {name!r}; there are all, none, {', '.join(table)}")
    return [table[name]() for name in chosen]
