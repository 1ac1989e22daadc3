"""The learned policy as a method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.kinds import candidates_of
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.core.reference import REFERENCE_AGENTS
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.evaluation.kept_trials import traces_digest
from agentbalance_plugin.evaluation.trials import (
    Chosen,
    Family,
    Fitted,
    Known,
    Trial,
    integers,
    play,
)
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Agent, Team

IntArray = NDArray[np.int64]
Load = Callable[[str | Path, RecordedEncoder], Policy]


@dataclass(frozen=True)
class Occasion:
    """What a plan was made for.

    Args:
        query: its key.
        price: success that a unit of spend had to buy.
        known: what may be learnt from.
    """

    query: str
    price: float
    known: Known


PlanChange = Callable[[Plan, Occasion], Plan]

# Ties on one axis go to what is better on the other: success that a mean call's cost must buy.
_SLIGHT = 1e-6


class PolicyMethod:
    """A learned policy on a team of four, at each price of a unit of spend.

    Args:
        source: "default" or a policy folder; several folders are trainings with several seeds,
            seed k of a study taking the k-th.
        name: in tables; None: "agentbalance", with the folder where it is not the default.
        change: applied to each plan, for ablations.
        samples: agent -> which sample of its backbone it gives, for changed plans that use a
            backbone twice.
        load: (source, encoder) -> policy, for ablations of the policy itself.
        family: "ablation" for changed ones.
        planned: plans made so far, shared by methods that differ in `change` alone; None: its own.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path] = "default",
        *,
        name: str | None = None,
        change: PlanChange | None = None,
        samples: Mapping[str, int] | None = None,
        load: Load = Policy.load,
        family: Family = "agentbalance",
        planned: dict[object, list[list[Plan]]] | None = None,
    ) -> None:
        sources = [source] if isinstance(source, str | Path) else list(source)
        self._sources = sources
        self._change = change
        self._samples = dict(samples or {})
        self._load = load
        self.family: Family = family
        shown = "" if sources == ["default"] else f" ({', '.join(Path(s).name for s in sources)})"
        self.name = name or f"agentbalance{shown}"
        # Loaded now, so that a bad path is said before hours of work; the digest tells trials of
        # one policy from those of another.
        for each in sources:
            Policy.load(each)
        self._planned = {} if planned is None else planned
        self.grid: Mapping[str, Any] = {"policy": [policy_digest(each) for each in sources]}

    def fit(self, known: Known) -> Fitted:
        """Nothing is learned but the profiles of the candidates; the policy is as it is."""
        source = self._sources[known.seed % len(self._sources)]
        catalog = candidates_of(known.traces)
        agents = tuple(Agent(name) for name in REFERENCE_AGENTS)
        team = Team(agents, decider=REFERENCE_AGENTS[-1])
        # No caps: neither measure has any.
        budget = Budget(cost_usd=1e6)
        if known.axis == "cost":
            knobs = [Knobs(price_usd=price) for price in known.prices.tolist()]
        else:
            slight = _SLIGHT / max(float(known.singles.cost_usd.mean()), 1e-12)
            knobs = [Knobs(price_usd=slight, second_price=price) for price in known.prices.tolist()]

        def points(replay: Replay, positions: IntArray) -> Trial:
            # Plans do not hang on the seed of the replay, and take longer than it.
            asked = (source, tuple(knobs), traces_digest(replay.traces), positions.tobytes())
            if asked not in self._planned:
                policy = self._load(source, RecordedEncoder(replay.traces))
                self._planned[asked] = [
                    policy.sweep(task_text(query, replay), team, budget, catalog, knobs)
                    for query in (replay.traces.queries[n] for n in integers(positions))
                ]
            plans = [plan for swept in self._planned[asked] for plan in swept]
            if self._change is not None:
                keys = [replay.traces.queries[n].key for n in integers(positions)]
                prices = known.prices.tolist()
                plans = [
                    self._change(
                        plan,
                        Occasion(keys[number // len(knobs)], prices[number % len(knobs)], known),
                    )
                    for number, plan in enumerate(plans)
                ]
            which = np.arange(len(plans)).reshape(len(positions), len(knobs)).T
            return play(replay, positions, Chosen(plans, which, self._samples))

        return points


def policy_digest(source: str | Path) -> str:
    """Short digest of a policy's files."""
    shipped = Path(__file__).resolve().parent.parent / "data" / "policy"
    folder = shipped if source == "default" else Path(source)
    found = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]
