"""The policy: from a query, a team, a budget and a catalog to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.checkpoint import (
    Checkpoint,
    PolicyError,
    load_checkpoint,
    save_checkpoint,
)
from agentbalance_plugin.core.design import cascade_plan, is_pipeline, must_run, slot_agents
from agentbalance_plugin.core.encoder import HashedEncoder, QueryEncoder
from agentbalance_plugin.core.intervals import Forecast, Intervals, plan_intervals
from agentbalance_plugin.core.limits import USEFUL_TOKENS, Limits
from agentbalance_plugin.core.novelty import FAR_DISCOUNT, Novelty
from agentbalance_plugin.core.pacing_price import solve_price
from agentbalance_plugin.core.pipeline import pipeline_plan, pipeline_values
from agentbalance_plugin.core.prediction import Outlook, Roster, embed, look_ahead, make_roster
from agentbalance_plugin.core.profiles import ProfileTable
from agentbalance_plugin.core.search import (
    Appraised,
    Choice,
    Objective,
    appraise,
    best_choices,
    candidates,
    races,
    with_cascades_of_four,
)
from agentbalance_plugin.core.teamwork import Members
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.team import Agent, Team

__all__ = ["Knobs", "Policy", "PolicyError"]

FloatArray = NDArray[np.float64]

_SHIPPED = Path(__file__).resolve().parent.parent / "data" / "policy"

# What an endpoint wraps around a task: roles, separators, the question's own framing.
_FRAMING_BYTES = 160
# Output caps leave room for all but one in a hundred replies, where the budget has that room, and
# for half more hidden tokens than were estimated.
_CAP_DEVIATIONS = 2.33
_HIDDEN_MARGIN = 1.5
# What a call that is over has taken: seldom more than this many means.
_LIKELY = 1.5
_NOTHING = np.empty(0)


@dataclass(frozen=True, slots=True)
class Knobs:
    """Overrides of what the policy would choose by itself.

    Args:
        price_usd: success that a US dollar must buy (the multiplier of cost); None: what meets the
            budget's mean, or nothing for a budget of hard caps alone.
        second_price: success that a second must buy (the multiplier of latency).
        delta: offset towards stronger (+) or weaker (-) pools, in success per pool.
        lambda_len: success that each further hop must buy.
    """

    price_usd: float | None = None
    second_price: float = 0.0
    delta: float = 0.0
    lambda_len: float = 0.0


class Policy:
    """Plans teams. Deterministic; sees profiles of backbones, never their names.

    Args:
        checkpoint: the trained arrays.
        encoder: of queries, the one that the policy was trained with; hashed n-grams by default.
        novelty: how far queries are from the training queries; None: none is far.

    Raises:
        PolicyError: the policy was trained with another encoder.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        encoder: QueryEncoder | None = None,
        novelty: Novelty | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._novelty = novelty
        self._encoder: QueryEncoder = encoder or HashedEncoder()
        rows = len(checkpoint.weights.embedding)
        if (self._encoder.name, self._encoder.size) != (checkpoint.encoder, rows):
            raise PolicyError(
                f"encoder: this policy was trained with {checkpoint.encoder!r} of size {rows}, got "
                f"{self._encoder.name!r} of size {self._encoder.size}"
            )
        self._kept: list[_Known] = []

    @classmethod
    def load(cls, source: str | Path = "default", encoder: QueryEncoder | None = None) -> Policy:
        """A policy from a checkpoint folder; "default" is the one in the package.

        Raises:
            PolicyError: missing, truncated, another schema or encoder, or a pickle.
        """
        folder = _SHIPPED if source == "default" else source
        return cls(load_checkpoint(folder), encoder, Novelty.load(folder))

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
    ) -> Plan:
        """The plan of most predicted success for the budget.

        Args:
            query: the task's text.
            team: the agents.
            budget: hard caps; with a mean, what cost is worth is worked out from it.
            catalog: the backbones that may be used, profiled or not.
            knobs: overrides.

        Returns:
            a plan that `plan.validate(team, catalog)` accepts.

        Raises:
            ValueError: no backbone can do what an agent needs, or the budget affords no call.
        """
        return self._decide(query, team, budget, catalog, [knobs or Knobs()]).plans[0]

    def sweep(
        self, query: str, team: Team, budget: Budget, catalog: Catalog, knobs: Sequence[Knobs]
    ) -> list[Plan]:
        """`plan` for several settings of the knobs at once, for little more than one costs."""
        return self._decide(query, team, budget, catalog, knobs).plans

    def explain(
        self,
        query: str,
        team: Team,
        budget: Budget,
        catalog: Catalog,
        knobs: Knobs | None = None,
    ) -> dict[str, Any]:
        """What every stage found on the way to `plan`; JSON values only."""
        decision = self._decide(query, team, budget, catalog, [knobs or Knobs()])
        plan, choice = decision.plans[0], decision.choices[0]
        roster, outlook = decision.roster, decision.outlook
        names = list(catalog)
        success = 1.0 / (1.0 + np.exp(-outlook.predicted.log_odds[0]))
        categories = self._checkpoint.priors.categories
        top = np.argsort(-outlook.category[0])[:3].tolist()
        explained: dict[str, Any] = {
            "difficulty": float(outlook.difficulty[0]),
            "categories": {categories[c]: float(outlook.category[0, c]) for c in top},
            "pools": _pools(roster, names),
            "backbones": {
                name: {
                    "success": float(success[b]),
                    "cost_usd": float(outlook.predicted.cost_usd[0, b]),
                    "latency_s": float(outlook.predicted.latency_s[0, b]),
                }
                for b, name in enumerate(names)
            },
            "plan": plan.to_dict(),
        }
        if choice is not None:
            explained["considered"] = choice.considered
            explained["worth"] = choice.worth
            explained["runners_up"] = [
                {"family": family, "backbones": [names[b] for b in columns], "worth": worth}
                for family, columns, worth in choice.runners_up
            ]
        return explained

    def intervals(self, query: str, plan: Plan, team: Team, catalog: Catalog) -> Intervals:
        """Between what the cost and latency of a plan for this query lie, nine times out of ten."""
        table = self._known(team, catalog).roster.table
        size = np.array([float(len(query.encode("utf-8", errors="surrogatepass")))])
        vector = embed(self._checkpoint.weights, self._encoder.encode(query))
        return plan_intervals(
            plan, _forecast(look_ahead(self._checkpoint, table, vector, size), table)
        )

    def price_for(self, team: Team, budget: Budget, catalog: Catalog) -> float:
        """Success per US dollar at which the mean predicted cost over a stream like the training
        queries is the budget's mean; 0 where even free choice spends less, or without a mean."""
        if budget.mean_cost_usd is None:
            return 0.0
        known = self._known(team, catalog)
        if budget not in known.prices:
            known.prices[budget] = self._solve_price(known, budget, budget.mean_cost_usd)
        return known.prices[budget]

    def _solve_price(self, known: _Known, budget: Budget, target: float) -> float:
        """On the training queries of the kinds that the catalog was profiled on."""
        checkpoint, team, roster = self._checkpoint, known.team, known.roster
        likely = roster.table.category_prior[checkpoint.anchor_category] == 0.0
        prompts = checkpoint.priors.prompt_tokens[checkpoint.anchor_category[likely]]
        success: list[FloatArray] = []
        cost: list[FloatArray] = []
        views: list[tuple[Outlook, Limits]] = []
        appraised: list[list[Appraised]] = []
        for vector, prompt in zip(checkpoint.anchors[likely], prompts.tolist(), strict=True):
            outlook = look_ahead(checkpoint, roster.table, vector[None], np.array([prompt]))
            limits = _limits(roster, outlook, budget, prompt + _FRAMING_BYTES, len(team.agents))
            views.append((outlook, limits))
            if is_pipeline(team):
                found = pipeline_values(team, roster, outlook, limits)
                fits = found.worst_usd <= limits.cost_usd
                success.append(np.where(fits, found.success, -np.inf))
                cost.append(found.cost_usd)
            else:
                groups = [appraise(outlook.predicted, m, limits) for m in known.candidates]
                appraised.append(groups)
                success.append(np.concatenate([_NOTHING, *(g.success for g in groups)]))
                cost.append(np.concatenate([_NOTHING, *(g.value.cost_usd[0] for g in groups)]))
        if not any(np.isfinite(each).any() for each in success):
            return 0.0
        price = solve_price(success, cost, target)
        if is_pipeline(team) or len(team.agents) < 4:
            return price
        # Cascades of four begin like the cascades of three that are best at about this price.
        objective = replace(known.free, price_usd=price)
        for row, (outlook, limits) in enumerate(views):
            longer = with_cascades_of_four(
                outlook.predicted,
                appraised[row],
                known.seats,
                limits,
                [objective],
                roster.columns.tolist(),
            )[-1]
            success[row] = np.concatenate([success[row], longer.success])
            cost[row] = np.concatenate([cost[row], longer.value.cost_usd[0]])
        return solve_price(success, cost, target)

    def _decide(
        self, query: str, team: Team, budget: Budget, catalog: Catalog, knobs: Sequence[Knobs]
    ) -> _Decision:
        known = self._known(team, catalog)
        roster = known.roster
        text_bytes = float(len(query.encode("utf-8", errors="surrogatepass")))
        features = self._encoder.encode(query)
        vector = embed(self._checkpoint.weights, features)
        outlook = look_ahead(self._checkpoint, roster.table, vector, np.array([text_bytes]))
        # Only where it is needed: a pacer gives each run a price, and a budget of its own.
        prices = [
            self.price_for(team, budget, catalog) if each.price_usd is None else each.price_usd
            for each in knobs
        ]
        bound = text_bytes + _FRAMING_BYTES + max(len(agent.role.encode()) for agent in team.agents)
        limits = _limits(roster, outlook, budget, bound, len(team.agents))
        notes: list[dict[str, Any]] = [
            {
                "difficulty": round(float(outlook.difficulty[0]), 4),
                "price_usd": price,
                "category": self._checkpoint.priors.categories[int(outlook.category[0].argmax())],
            }
            for price in prices
        ]
        far = self._novelty is not None and self._novelty.note(features, notes)
        choices: list[Choice | None] = [None] * len(knobs)
        if not is_pipeline(team):
            # Races only pay where time does.
            hasty = budget.latency_s is not None or any(each.second_price > 0 for each in knobs)

            def best(shortlist: Sequence[Members]) -> list[Choice | None]:
                return best_choices(
                    outlook.predicted,
                    shortlist,
                    known.seats,
                    limits,
                    [_objective(each, p, roster) for each, p in zip(knobs, prices, strict=True)],
                    roster.columns.tolist(),
                )

            shortlist = [*known.candidates, *known.races] if hasty else known.candidates
            choices = best(shortlist)
            if far:
                several = [each for each in shortlist if each.family != "single"]
                choices = [_not_alone(*pair) for pair in zip(choices, best(several), strict=True)]
        fixed = team if is_pipeline(team) else must_run(team)
        log_odds = outlook.predicted.log_odds[0]
        plans = [
            cascade_plan(team, choice, roster.table.names, log_odds, limits.caps, note)
            if choice is not None
            else pipeline_plan(fixed, roster, outlook, limits, price, note)
            for choice, price, note in zip(choices, prices, notes, strict=True)
        ]
        return _Decision(plans, choices, roster, outlook)

    def _known(self, team: Team, catalog: Catalog) -> _Known:
        """Kept for the last few teams and catalogs; catalogs are compared by identity."""
        for known in self._kept:
            if known.roster.catalog is catalog and known.team == team:
                return known
        known = self._look_at(team, catalog)
        self._kept = [*self._kept[-7:], known]
        return known

    def _look_at(self, team: Team, catalog: Catalog) -> _Known:
        seats = [
            np.array([_fits(agent, name, b) for name, b in catalog.items()])
            for agent in slot_agents(team)
        ]
        usable = [seat for seat in seats if seat.any()]
        if not usable:
            raise ValueError(f"no backbone of the catalog {list(catalog)} fits any of the agents")
        roster = make_roster(catalog, self._checkpoint, usable)
        # The decider takes part in every plan, pinned or not.
        least = len(must_run(team).agents) if team.decider is not None else 1
        found = candidates(roster.columns.tolist(), seats, least, len(team.agents))
        speed = np.exp(roster.table.log_tokens).mean(axis=0) / roster.table.tokens_per_s
        fastest = sorted(roster.columns.tolist(), key=(speed + roster.table.ttft_s).__getitem__)
        hasty = races(fastest, seats, least, len(team.agents))
        free = Objective(0.0, 0.0, 0.0, np.zeros(len(catalog)))
        return _Known(team, roster, seats, found, hasty, free, {})


@dataclass(frozen=True)
class _Known:
    """What is worked out once per team and catalog.

    Args:
        seats: per slot, [B] whether its agent may use a backbone.
        candidates: without the cascades of four.
        races: candidates for budgets with a deadline.
        free: the objective without prices.
        prices: of the mean budgets asked for so far.
    """

    team: Team
    roster: Roster
    seats: list[NDArray[np.bool_]]
    candidates: list[Members]
    races: list[Members]
    free: Objective
    prices: dict[Budget, float]


@dataclass(frozen=True)
class _Decision:
    """Plans for each of several knobs, and what they were made from."""

    plans: list[Plan]
    choices: list[Choice | None]
    roster: Roster
    outlook: Outlook


def _not_alone(choice: Choice | None, several: Choice | None) -> Choice | None:
    """Agents whose agreement decides, rather than one that is trusted on an unfamiliar query."""
    if choice is None or choice.family != "single" or several is None:
        return choice
    return several if several.worth >= choice.worth - FAR_DISCOUNT else choice


def _objective(knobs: Knobs, price_usd: float, roster: Roster) -> Objective:
    strength = knobs.delta * roster.pool.astype(np.float64)
    return Objective(price_usd, knobs.second_price, knobs.lambda_len, strength)


def _fits(agent: Agent, name: str, backbone: Backbone) -> bool:
    able = agent.needs <= backbone.capabilities
    return agent.calls_backbone and able and agent.backbone in (None, name)


def _limits(roster: Roster, outlook: Outlook, budget: Budget, bound: float, agents: int) -> Limits:
    table = roster.table
    sigma, hidden, log_tokens = outlook.sigma[0], outlook.hidden_tokens[0], outlook.log_tokens[0]
    visible = np.exp(log_tokens + _CAP_DEVIATIONS * sigma) + USEFUL_TOKENS
    caps = np.minimum(np.ceil(visible + _HIDDEN_MARGIN * hidden), table.max_output)
    # A budget with room for the longest replies there are need not cut any.
    full = bound * table.price_in + table.max_output * table.price_out
    roomy = agents * full <= (np.inf if budget.cost_usd is None else budget.cost_usd)
    if budget.tokens is not None:
        roomy &= agents * (bound + table.max_output) <= budget.tokens
    caps = np.where(roomy, table.max_output, caps)
    mean_tokens = outlook.prompt_tokens[0] + hidden + np.exp(log_tokens + sigma**2 / 2)
    return Limits(
        cost_usd=budget.cost_usd if budget.cost_usd is not None else np.inf,
        tokens=float(budget.tokens) if budget.tokens is not None else np.inf,
        latency_s=budget.latency_s if budget.latency_s is not None else np.inf,
        prompt_bound=bound,
        price_in=table.price_in,
        price_out=table.price_out,
        caps=caps,
        likely_usd=_LIKELY * outlook.predicted.cost_usd[0],
        likely_tokens=_LIKELY * mean_tokens,
        log_tokens=log_tokens,
        sigma=float(sigma),
        hidden_tokens=hidden,
    )


def _forecast(outlook: Outlook, table: ProfileTable) -> Forecast:
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


def _pools(roster: Roster, names: list[str]) -> Mapping[str, list[str]]:
    kept = roster.columns.tolist()
    return {
        str(pool): [names[b] for b in kept if roster.pool[b] == pool]
        for pool in sorted({int(roster.pool[b]) for b in kept})
    }
