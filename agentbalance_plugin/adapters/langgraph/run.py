"""One run of a balanced graph: its plan, its meter, and how calls find them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import NoReturn, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.errors import GraphBubbleUp
from langgraph.graph import END
from langgraph.runtime import RunControl

from agentbalance_plugin.adapters.langgraph.internals import control_of, namespace_of, node_in
from agentbalance_plugin.adapters.langgraph.models import ChatModel, Models
from agentbalance_plugin.adapters.langgraph.race import Race
from agentbalance_plugin.adapters.langgraph.steps import Steps
from agentbalance_plugin.adapters.planning import Planner
from agentbalance_plugin.backbone import Backbone
from agentbalance_plugin.budget import Budget, Spend
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.call import CallDenied
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.runtime.habits import Habits, Work
from agentbalance_plugin.runtime.meter import Meter
from agentbalance_plugin.runtime.turns import Turns
from agentbalance_plugin.team import Team

_WRAP_UP_S = 0.02
"""Calls end this long before the deadline, so that LangGraph ends their step and makes the answer
of what there is; a few milliseconds on a slow machine."""

_MOST_WRAP_UP = 0.05
"""Of the seconds of a run."""

GRAPH = "graph"
"""In reports, whoever calls from no agent that is known."""


class OutOfBudget(GraphBubbleUp):
    """A call was denied. LangGraph's retries and tool error handlers let it pass."""

    def __init__(self, denial: CallDenied) -> None:
        super().__init__(denial.reason)
        self.denial = denial


def told(stop: OutOfBudget, call: ToolCall) -> ToolMessage:
    """What the call of a tool gives in place of its result, where a model in it was denied."""
    said = f"Stopped: {stop.denial.reason}."
    return ToolMessage(said, tool_call_id=call["id"], name=call["name"], status="error")


@dataclass(frozen=True, slots=True)
class Books:
    """What a run has spent so far, as checkpoints keep it.

    Args:
        total: of the whole run; latency: clock seconds of its parts.
        agents: settled spend by agent.
    """

    total: Spend
    agents: Mapping[str, Spend]


class Run:
    """One run while it lasts. Safe to use from several threads and tasks.

    Args:
        models: the backbones.
        team: the agents.
        budget: of this very run.
        planner: makes the plan, unless there is one.
        clock: what the deadline is measured on.
        namespace: checkpoint namespace of the balanced graph.
        plans_beside: whether an event loop should not wait for a plan.
        price_usd: success that a US dollar must buy; None leaves it to the planner.
        number: identifies the run in its checkpoints.
        plan: of the earlier part of a resumed run.
        steps: in which that plan runs; None where the user's edges hold.
        before: what that part spent.
        stored: whether there are checkpoints to keep the books in.
        habits: of the agents, by the runs before.
    """

    def __init__(
        self,
        *,
        models: Models,
        team: Team,
        budget: Budget,
        planner: Planner,
        clock: Clock,
        namespace: str = "",
        plans_beside: bool = False,
        price_usd: float | None = None,
        number: str | None = None,
        plan: Plan | None = None,
        steps: Steps | None = None,
        before: Books | None = None,
        stored: bool = True,
        habits: Habits | None = None,
    ) -> None:
        self.models = models
        self.team = team
        self.budget = budget
        self.planner = planner
        self.namespace = namespace
        self.plans_beside = plans_beside
        self.price_usd = price_usd
        self.number = number or uuid.uuid4().hex
        self.plan = plan
        self.steps = steps
        self.stored = stored
        self.habits = habits or Habits()
        self.told: Work | None = None
        self.race: Race | None = None
        self.turns = Turns()
        if steps is not None:
            self.lay_out(cast("Plan", plan), steps)
        self.before = before or Books(Spend(), {})
        self.meter = Meter(
            budget, clock=clock, already=self.before.total, downtimes=models.downtimes
        )
        if budget.latency_s is not None:
            # What a step's agents have said is lost if the step itself does not end in time.
            seconds = min(_WRAP_UP_S / clock.scale, _MOST_WRAP_UP * budget.latency_s)
            self.meter.protect(END, seconds=seconds)
        self.planning = threading.Lock()
        self.control = BudgetControl(self)
        self.stopped: CallDenied | None = None
        self.failed: str | None = None
        self.chosen: str | None = None
        self.confidence: float | None = None
        self.ended = False
        self.over: set[str] = set()
        """Agents that an earlier part of the run was done with."""
        self.speakers: set[str] = set()
        self._done: set[str] = set()
        self._skipped: dict[str, str] = {}
        self._parted: set[str] = set()
        self._closed: set[str] = set()
        self._denied: set[str] = set()
        self._denials: dict[str, list[str]] = {}
        self._answers: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def lay_out(self, plan: Plan, steps: Steps) -> None:
        """Let the plan say who runs when."""
        self.plan, self.steps = plan, steps
        self.race = None if plan.stop_at is None else Race(plan)

    def backbone_of(self, agent: str, needs: frozenset[str]) -> Backbone:
        """The planned backbone, or for a caller that was not planned the cheapest able one.

        Raises:
            ValueError: no backbone is able.
        """
        catalog = self.models.catalog
        name = self.plan.assignment.get(agent) if self.plan is not None else None
        if name is not None:
            if agent in self.over:
                # It does run again, from an earlier checkpoint, and others have all the shares.
                self.meter.admit(agent)
            return catalog[name]
        self.meter.admit(agent)
        able = [backbone for backbone in catalog.values() if needs <= backbone.capabilities]
        if not able:
            raise ValueError(
                f"node {agent!r} calls a backbone with {sorted(needs)}, which no backbone has; add "
                "them to the capabilities of the backbones that have them"
            )
        return min(able, key=lambda backbone: backbone.cost(1000, 500))

    def output_cap(self, agent: str) -> int | None:
        return self.plan.output_caps.get(agent) if self.plan is not None else None

    def answer(self, text: str, extract: Callable[[str], str | None]) -> str | None:
        """The answer in a message, looked for once: gates, votes and races all ask for it."""
        if text not in self._answers:
            self._answers[text] = extract(text)
        return self._answers[text]

    @property
    def answers(self) -> tuple[str | None, ...]:
        """Of all messages that were looked at."""
        return tuple(self._answers.values())

    def spoke(self, agent: str) -> None:
        """The agent's node has ended."""
        with self._lock:
            self._done.add(agent)
            if agent not in self._parted:
                self._skipped.pop(agent, None)
        self.meter.unprotect(agent)

    def skip(self, agent: str, reason: str, *, is_part: bool) -> None:
        """The agent's node was left out for want of budget or time.

        Args:
            is_part: others of its name may speak, and do not make up for it.
        """
        with self._lock:
            self._skipped[agent] = reason
            if is_part:
                self._parted.add(agent)
        self.meter.unprotect(agent)
        if self.race is not None:
            self.race.left_out(agent)

    def end_after_step(self, agent: str, denial: CallDenied) -> None:
        """An agent that code routes to was denied: what others of its step say still counts, then
        the run ends."""
        self.stopped = denial
        with self._lock:
            self._denied.add(agent)
        self.control.request_drain(denial.reason)

    def deny(self, agent: str, denial: CallDenied) -> None:
        """A call of the agent was denied, whatever its node makes of that."""
        with self._lock:
            self._denials.setdefault(agent, []).append(denial.reason)

    def fail(self, error: Exception) -> None:
        """An error ends the run; of several the first is told."""
        self.failed = self.failed or f"{type(error).__name__}: {error}"

    def is_denied(self, agent: str) -> bool:
        """Whether the run ends because of this agent."""
        with self._lock:
            return agent in self._denied

    def close(self, agent: str) -> None:
        """The agent is not needed: its late gate stays closed, or the vote is decided."""
        with self._lock:
            self._closed.add(agent)
        self.meter.unprotect(agent)

    @property
    def skipped(self) -> dict[str, str]:
        with self._lock:
            return dict(self._skipped)

    @property
    def done(self) -> set[str]:
        with self._lock:
            return set(self._done)

    @property
    def closed(self) -> set[str]:
        with self._lock:
            return set(self._closed)

    @property
    def denials(self) -> dict[str, list[str]]:
        """Agents whose calls were denied, and why each was."""
        with self._lock:
            return {agent: list(reasons) for agent, reasons in self._denials.items()}

    @property
    def exceeded(self) -> bool:
        """Whether the budget left something undone."""
        return self.stopped is not None or bool(self.skipped) or bool(self.denials)

    def callers(self) -> tuple[str, ...]:
        """The agents, and after them whoever else called."""
        names = dict.fromkeys(self.team.names)
        names.update(dict.fromkeys(self.before.agents))
        names.update(dict.fromkeys(call.agent for call in self.meter.calls))
        names.update(dict.fromkeys(self.denials))
        return tuple(names)

    def spend(self, agent: str) -> Spend:
        """Settled spend of one agent, over all parts of the run."""
        before = self.before.agents.get(agent)
        spent = self.meter.spend(agent)
        return spent if before is None else before + spent

    def books(self) -> Books:
        """Total and by agent, over all parts of the run."""
        agents = {**self.before.agents, **self.meter.spend_by_agent()}
        if self.before.agents:
            agents = {name: self.spend(name) for name in agents}
        return Books(self.meter.spend(), agents)


class BudgetControl(RunControl):
    """Carries a run to every node, subgraph and tool of it; LangGraph hands it on.

    Args:
        run: whose.
        outer: the control of a stock graph that the run is part of.
    """

    __slots__ = ("outer", "run")

    def __init__(self, run: Run, outer: RunControl | None = None) -> None:
        super().__init__()
        self.run = run
        self.outer = outer

    @property
    def drain_requested(self) -> bool:
        return self.drain_reason is not None

    @property
    def drain_reason(self) -> str | None:
        own = self._drain_reason
        return own if own is not None or self.outer is None else self.outer.drain_reason


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a backbone: an agent of a run."""

    run: Run
    agent: str

    def deny(self, denial: CallDenied) -> NoReturn:
        self.run.deny(self.agent, denial)
        raise OutOfBudget(denial) from denial


_calling: ContextVar[Caller | None] = ContextVar("agentbalance_calling", default=None)
_CALLER = "_agentbalance_caller"


class calling:
    """Every chat model call in the block is the caller's, unless its config says whose it is.

    LangGraph leaves the run out of the config of graphs that are called with a thread of their own.
    One block may be entered again and again, but not inside itself.
    """

    __slots__ = ("_caller", "_token")

    _caller: Caller
    _token: Token[Caller | None]

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __enter__(self) -> None:
        self._token = _calling.set(self._caller)

    def __exit__(self, *_: object) -> None:
        _calling.reset(self._token)


def bound_to(model: ChatModel, caller: Caller) -> ChatModel:
    """The same model, whose every call is the caller's; for copies that one run owns."""
    vars(model)[_CALLER] = caller
    return model


def caller_of(config: RunnableConfig | None, model: BaseChatModel | None = None) -> Caller | None:
    """Who makes a call of this model, with this config, or in this context; None outside balanced
    graphs."""
    owner = vars(model).get(_CALLER) if model is not None else None
    if owner is not None:
        return owner
    control = control_of(config)
    if not isinstance(control, BudgetControl):
        # Nothing is changed in it: a copy for each call would take longer than all else here.
        config = var_child_runnable_config.get()
        control = control_of(config)
    if isinstance(control, BudgetControl):
        run = control.run
        return Caller(run, node_in(namespace_of(config), run.namespace) or GRAPH)
    return _calling.get()


def is_running(config: RunnableConfig) -> bool:
    """Whether a config belongs to a run, and not to an update of a state from outside."""
    return isinstance(control_of(config), BudgetControl)


def own_run(config: RunnableConfig, node: str) -> Run | None:
    """The run, if `node` is of the graph that has the run's budget and not of one inside it."""
    control = control_of(config)
    if not isinstance(control, BudgetControl):
        return None
    namespace = namespace_of(config)
    run = control.run
    if not run.namespace:
        # A graph that is nobody's subgraph, by far the most frequent.
        here, _, task = namespace.partition(":")
        return run if here == node and "|" not in task else None
    deeper = namespace.removeprefix(run.namespace).strip("|")
    return run if node_in(namespace, run.namespace) == node and deeper.count(":") == 1 else None
