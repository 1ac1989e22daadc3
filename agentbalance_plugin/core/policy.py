"""The policy: from a query, a team, a budget and a catalog to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import (
    Checkpoint,
    PolicyError,
    load_checkpoint,
    save_checkpoint,
)
from agentbalance_plugin.core.decide import Asked, Decision, decide
from agentbalance_plugin.core.design import Lengths, cascade_plan, is_pipeline
from agentbalance_plugin.core.encoder import Features, HashedEncoder, QueryEncoder
from agentbalance_plugin.core.explanation import explained
from agentbalance_plugin.core.knobs import NO_PAST, Knobs, Past
from agentbalance_plugin.core.known import FRAMING_BYTES, Known, look_at, make_limits
from agentbalance_plugin.core.limits import Limits
from agentbalance_plugin.core.novelty import FAR_DISCOUNT, Novelty
from agentbalance_plugin.core.pipeline import pipeline_plan, pipeline_values
from agentbalance_plugin.core.prediction import Outlook, Roster, embed, look_ahead
from agentbalance_plugin.core.roomy import RoomyCatalogs
from agentbalance_plugin.core.stages.config import PolicyConfig
from agentbalance_plugin.core.stream_price import solve_price
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Team

if TYPE_CHECKING:
    from agentbalance_plugin.core.intervals import Intervals

__all__ = ["Knobs", "Policy", "PolicyConfig", "PolicyError"]

FloatArray = NDArray[np.float64]

_SHIPPED = Path(__file__).resolve().parent.parent / "data" / "policy"
# Success that no team is ahead of a single agent by.
_ALONE = -1.0
# Tasks that are decided together: more only take more memory.
_TOGETHER = 128


class Policy:
    """Plans teams. Deterministic; sees profiles of backbones, never their names.

    Args:
        checkpoint: the trained arrays.
        encoder: of queries, the one that the policy was trained with; hashed n-grams by default.
        config: how each stage decides; as trained by default.
        novelty: how far queries are from the training queries; None: none is far.

    Raises:
        PolicyError: the policy was trained with another encoder.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        encoder: QueryEncoder | None = None,
        config: PolicyConfig | None = None,
        novelty: Novelty | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._encoder: QueryEncoder = encoder or HashedEncoder()
        self._config = config or PolicyConfig()
        self._novelty = novelty
        rows = len(checkpoint.weights.embedding)
        if (self._encoder.name, self._encoder.size) != (checkpoint.encoder, rows):
            raise PolicyError(
                f"encoder: this policy was trained with {checkpoint.encoder!r} of size {rows}, got "
                f"{self._encoder.name!r} of size {self._encoder.size}"
            )
        self._kept: list[Known] = []
        self._roomy = RoomyCatalogs()

    @classmethod
    def load(
        cls,
        source: str | Path = "default",
        encoder: QueryEncoder | None = None,
        config: PolicyConfig | None = None,
    ) -> Policy:
        """A policy from a checkpoint folder; "default" is the one in the package.

        Raises:
            PolicyError: missing, truncated, another schema or encoder, or a pickle.
        """
        folder = _SHIPPED if source == "default" else source
        return cls(load_checkpoint(folder), encoder, config, Novelty.load(folder))

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint into a folder."""
        save_checkpoint(self._checkpoint, folder)
        if self._novelty is not None:
            self._novelty.save(folder)

    def plan(
        self,
        query: str,
        team: Team,
        budget: Budget,
        catalog: Catalog,
        knobs: Knobs | None = None,
        past: Past = NO_PAST,
    ) -> Plan:
        """The plan of most predicted success for the budget.

        Args:
            query: the task's text.
            team: the agents.
            budget: hard caps; with a mean, what cost is worth is worked out from it.
            catalog: the backbones that may be used, profiled or not.
            knobs: overrides.
            past: what earlier runs tell of this one.

        Returns:
            a plan that `plan.validate(team, catalog)` accepts.

        Raises:
            ValueError: no backbone can do what an agent needs. A budget that affords no call is
                refused by the adapters, which know the prompts; here the cheapest plan is made.
        """
        return self._plans([query], team, budget, catalog, [knobs or Knobs()], past)[0]

    def plan_batch(
        self,
        queries: Sequence[str],
        team: Team,
        budget: Budget,
        catalog: Catalog,
        knobs: Knobs | None = None,
    ) -> list[Plan]:
        """`plan` for several queries at once, for much less than planning one by one costs."""
        return self._plans(queries, team, budget, catalog, [knobs or Knobs()])

    def sweep(
        self, query: str, team: Team, budget: Budget, catalog: Catalog, knobs: Sequence[Knobs]
    ) -> list[Plan]:
        """`plan` for several settings of the knobs at once."""
        return self._plans([query], team, budget, catalog, knobs)

    def explain(
        self,
        query: str,
        team: Team,
        budget: Budget,
        catalog: Catalog,
        knobs: Knobs | None = None,
        past: Past = NO_PAST,
    ) -> dict[str, Any]:
        """What every stage found on the way to `plan`; JSON values only."""
        known = self._known(team, self._roomy.of(catalog, query, team, past.beside_bytes))
        view = self._view(known, [query], budget, [knobs or Knobs()], past)
        decision = None if is_pipeline(team) else self._decide(known, view)
        plan = self._made(known, view, 0, decision)
        checkpoint = self._checkpoint
        names = checkpoint.priors.categories
        outlook = view.outlook if decision is None else decision.outlook
        return explained(known, outlook, decision, plan, names, checkpoint.stages)

    def intervals(self, query: str, plan: Plan, team: Team, catalog: Catalog) -> Intervals:
        """Between what the cost and latency of a plan for this query lie, nine times out of ten."""
        # All of the replay comes with it, which planning does without.
        from agentbalance_plugin.core.intervals import forecast_of, plan_intervals

        known = self._known(team, catalog)
        table, role = known.roster.table, known.mean_role
        size = np.array([float(len(query.encode("utf-8", errors="surrogatepass")))])
        features = self._encoder.encode(query)
        vector = embed(self._checkpoint.weights, features)
        distance = self._distance([features])
        kind = known.roster.kind_of([features])
        outlook = look_ahead(self._checkpoint, table, vector, size, distance, role, kind=kind)
        return plan_intervals(plan, forecast_of(outlook, table))

    def price_for(self, team: Team, budget: Budget, catalog: Catalog) -> float:
        """Success per US dollar at which the mean predicted cost over a stream like the training
        queries is the budget's mean; 0 where even free choice spends less, or without a mean."""
        if budget.mean_cost_usd is None:
            return 0.0
        known = self._known(team, catalog)
        if budget not in known.prices:
            known.prices[budget] = self._solve_price(known, budget, budget.mean_cost_usd)
        return known.prices[budget]

    def _solve_price(self, known: Known, budget: Budget, target: float) -> float:
        """On the training queries of the kinds that the catalog was profiled on."""
        checkpoint, roster = self._checkpoint, known.roster
        likely = roster.table.category_prior[checkpoint.anchor_category] == 0.0
        prompts = checkpoint.priors.prompt_tokens[checkpoint.anchor_category[likely]]
        # A stream of a new kind is like no training query.
        distance = None if self._novelty is None else np.full(len(prompts), np.inf)
        vectors = checkpoint.anchors[likely]
        role, kinds = known.mean_role, roster.kinds
        kind = None if kinds is None else kinds.stream(len(prompts))
        outlook = look_ahead(checkpoint, roster.table, vectors, prompts, distance, role, kind=kind)
        agents = known.most
        limits = make_limits(roster, outlook, budget, prompts + FRAMING_BYTES, agents)
        if is_pipeline(known.team):
            found = [
                pipeline_values(known.pipeline, outlook, limits, task)
                for task in range(len(prompts))
            ]
            success = np.array([np.where(f.fits, f.success, -np.inf) for f in found])
            cost = np.array([f.cost_usd for f in found])

            def mean_of_pipelines(price: float) -> float:
                best = (success - price * cost).argmax(axis=1)
                return float(cost[np.arange(len(cost)), best].mean())

            return solve_price(mean_of_pipelines, target)

        def mean_cost(price: float) -> float:
            asked = _asked([Knobs()] * len(prompts), [price] * len(prompts))
            decision = self._decide(known, _View(asked, outlook, limits, None))
            if decision is None:
                return 0.0
            chosen = (np.arange(len(prompts)), decision.best)
            fits = np.isfinite(decision.favourites.worth[chosen])
            cost = decision.favourites.cost_usd[chosen][fits]
            return float(cost.mean()) if len(cost) else 0.0

        return solve_price(mean_cost, target)

    def _plans(
        self,
        queries: Sequence[str],
        team: Team,
        budget: Budget,
        catalog: Catalog,
        knobs: Sequence[Knobs],
        past: Past = NO_PAST,
    ) -> list[Plan]:
        """For each query, for each of the knobs."""
        parts = [self._roomy.of(catalog, query, team, past.beside_bytes) for query in queries]
        if all(part is catalog for part in parts):
            known = self._known(team, catalog)
            return self._plans_with(known, queries, budget, knobs, past)
        return [
            plan
            for query, part in zip(queries, parts, strict=True)
            for plan in self._plans_with(self._known(team, part), [query], budget, knobs, past)
        ]

    def _plans_with(
        self,
        known: Known,
        queries: Sequence[str],
        budget: Budget,
        knobs: Sequence[Knobs],
        past: Past,
    ) -> list[Plan]:
        plans: list[Plan] = []
        together = max(1, _TOGETHER // len(knobs))
        for begin in range(0, len(queries), together):
            some = queries[begin : begin + together]
            view = self._view(known, some, budget, knobs, past)
            decision = None if is_pipeline(known.team) else self._decide(known, view)
            plans += [
                self._made(known, view, row, decision) for row in range(len(view.asked.price_usd))
            ]
        return plans

    def _view(
        self,
        known: Known,
        queries: Sequence[str],
        budget: Budget,
        knobs: Sequence[Knobs],
        past: Past,
    ) -> _View:
        checkpoint, team, roster = self._checkpoint, known.team, known.roster
        sizes = np.array([float(len(q.encode("utf-8", errors="surrogatepass"))) for q in queries])
        features = [self._encoder.encode(query) for query in queries]
        vectors = np.concatenate([embed(checkpoint.weights, each) for each in features])
        distance = self._distance(features)
        role, kind = known.mean_role, roster.kind_of(features)
        outlook = look_ahead(checkpoint, roster.table, vectors, sizes, distance, role, past, kind)
        if len(knobs) > 1:
            outlook, sizes = outlook.repeated(len(knobs)), np.repeat(sizes, len(knobs))
        # Only where it is needed: a pacer gives each run a price, and a budget of its own.
        prices = [
            self.price_for(team, budget, known.roster.catalog)
            if k.price_usd is None
            else k.price_usd
            for k in knobs
        ]
        beside = max(past.beside_bytes, past.longest_bytes)
        size = sizes + FRAMING_BYTES + known.longest_role + beside
        limits = make_limits(roster, outlook, budget, size, known.most, past)
        asked = _asked(list(knobs) * len(queries), prices * len(queries))
        if distance is not None:
            distance = np.repeat(distance, len(knobs))
            asked = asked._replace(lead=np.where(self._is_far(distance), FAR_DISCOUNT, 0.0))
        if not past.comparable:
            asked = asked._replace(lead=np.full_like(asked.lead, _ALONE))
        return _View(asked, outlook, limits, distance, past)

    def _is_far(self, distance: FloatArray) -> NDArray[np.bool_]:
        return distance > (np.inf if self._novelty is None else self._novelty.threshold)

    def _distance(self, features: Sequence[Features]) -> FloatArray | None:
        """[N] of queries from the training queries; None if unknown."""
        if self._novelty is None:
            return None
        return np.array([self._novelty.distance(each) for each in features])

    def _decide(self, known: Known, view: _View) -> Decision | None:
        checkpoint = self._checkpoint
        # Stages that never saw such tasks narrow down alone.
        reach = np.inf if known.roster.table.own_kind else checkpoint.reach
        return decide(
            checkpoint.stages,
            reach,
            known,
            self._config,
            view.outlook,
            view.limits,
            view.asked,
        )

    def _made(self, known: Known, view: _View, row: int, decision: Decision | None) -> Plan:
        team, roster = known.team, known.roster
        outlook, limits = view.outlook, view.limits
        price = float(view.asked.price_usd[row])
        names, shares = roster.kinds_in(outlook, self._checkpoint.priors.categories)
        notes: dict[str, Any] = {
            "difficulty": round(float(outlook.difficulty[row]), 4),
            "price_usd": price,
            "category": names[int(shares[row].argmax())],
            "profiled": known.profiled,
        }
        if view.novelty is not None:
            # JSON has no infinity.
            notes["novelty"] = round(min(float(view.novelty[row]), 1e6), 3)
            notes["far"] = bool(self._is_far(view.novelty[row]))
        choice = None if decision is None else decision.choice(row)
        past = view.past
        if past.lengths or past.length != 1.0 or past.calls != 1.0:
            lengths = {name: round(value, 3) for name, value in past.lengths.items()}
            notes["past"] = {"lengths": lengths, "calls": round(past.calls, 3)}
        lengths = _lengths(roster, outlook, row)
        if decision is not None and choice is not None:
            log_odds = decision.outlook.predicted.log_odds[row]
            caps = np.minimum(
                decision.caps[row], limits.given(row, choice.columns, roster.table.max_output)
            )
            return cascade_plan(team, choice, roster.table.names, log_odds, caps, notes, lengths)
        return pipeline_plan(known.pipeline, outlook, limits, row, price, notes, lengths)

    def _known(self, team: Team, catalog: Catalog) -> Known:
        """Kept for the last few teams and catalogs; catalogs are compared by identity."""
        for known in self._kept:
            if known.roster.catalog is catalog and known.team == team:
                return known
        known = look_at(team, catalog, self._checkpoint, self._encoder, self._config)
        self._kept = [*self._kept[-7:], known]
        return known


@dataclass(frozen=True)
class _View:
    """N tasks: queries, each with every setting of the knobs.

    Args:
        novelty: [N] distance of each query from the training queries; None if unknown.
        past: what earlier runs tell.
    """

    asked: Asked
    outlook: Outlook
    limits: Limits
    novelty: FloatArray | None
    past: Past = NO_PAST


def _lengths(roster: Roster, outlook: Outlook, row: int) -> Lengths:
    mean = np.exp(outlook.log_tokens[row] + outlook.sigma[row] ** 2 / 2).tolist()
    return Lengths(
        prompt=round(float(outlook.prompt_tokens[row]), 1),
        replies={
            backbone.name: round(tokens, 1)
            for backbone, tokens in zip(roster.catalog.values(), mean, strict=True)
            if backbone.reasoning == "no"
        },
    )


def _asked(knobs: Sequence[Knobs], prices: Sequence[float]) -> Asked:
    return Asked(
        np.array(prices, dtype=np.float64),
        np.array([each.second_price for each in knobs]),
        np.array([each.delta for each in knobs]),
        np.array([each.lambda_len for each in knobs]),
        np.zeros(len(prices)),
    )
