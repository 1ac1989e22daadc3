"""How long plans run against how long they have to, with latencies that are known.

Virtual time shows what the order of the calls costs and nothing else. Some AutoGen runs are
repeated in real time, where everything between the calls counts as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from rich.console import Console

from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.benches.measure import Findings, Ratio
from agentbalance_plugin.cli.progress import counting
from agentbalance_plugin.extras import require
from agentbalance_plugin.plan import LateGate, Plan
from agentbalance_plugin.simulator.virtual_time import run_virtual
from agentbalance_plugin.team import Team

_NAMES = tuple(f"agent_{number + 1}" for number in range(8))
_BACKBONES = [Backbone(f"backbone of {name}", Decimal("0.1"), Decimal("0.1")) for name in _NAMES]
_BUDGET = Budget(cost_usd=1.0)
_BAR = 1.02
_IN_REAL_TIME = 20


@dataclass(frozen=True)
class Case:
    """A plan whose every call's latency and answer is known.

    Args:
        seconds, answers: per agent of the plan.
    """

    plan: Plan
    seconds: dict[str, float]
    answers: dict[str, str]

    @property
    def running(self) -> list[str]:
        """The agents that run once the late gates are resolved, in an order they can run in."""
        runs: list[str] = []
        for name in self.plan.order:
            gate = self.plan.late_gates.get(name)
            if gate is not None:
                voters = [watched for watched in gate.watches if watched in runs]
                answers = [self.answers[voter] for voter in voters]
                _, confidence = leading_answer(answers, [self.plan.weight(v) for v in voters])
                if confidence >= gate.threshold:
                    continue
            runs.append(name)
        return runs

    @property
    def critical_path(self) -> float:
        """Seconds until the last agent is done if each starts when those it waits for are."""
        runs, ends = set(self.running), dict[str, float]()
        for name in self.plan.order:
            start = max((ends[before] for before in self.plan.waits_for(name)), default=0.0)
            ends[name] = start + (self.seconds[name] if name in runs else 0.0)
        return max(ends.values())

    @property
    def level_makespan(self) -> float:
        """Seconds if each agent waits for everyone that is fewer hops deep."""
        depth: dict[str, int] = {}
        for name in self.plan.order:
            depth[name] = 1 + max((depth[b] for b in self.plan.waits_for(name)), default=0)
        slowest: dict[int, float] = {}
        for name in self.running:
            slowest[depth[name]] = max(slowest.get(depth[name], 0.0), self.seconds[name])
        return sum(slowest.values())


def random_case(rng: np.random.Generator) -> Case:
    """Two to eight agents, any edges among them, a late gate or two, 0.05 to 0.4 s a call."""
    kept = [name for name in _NAMES[:-1] if rng.random() < 0.7] or [_NAMES[0]]
    names = [*kept, _NAMES[-1]]
    edges = [pair for pair in combinations(names, 2) if rng.random() < 0.3]
    # Whoever is heard by nobody reaches the decider.
    speaking = {speaker for speaker, _ in edges}
    edges += [(name, names[-1]) for name in kept if name not in speaking]
    gates: dict[str, LateGate] = {}
    for place, name in enumerate(names[2:], start=2):
        if rng.random() < 0.25:
            gates[name] = LateGate(tuple(names[:place][:2]), 0.7)
    plan = Plan(
        assignment={name: f"backbone of {name}" for name in names},
        edges=tuple(edges),
        decider=names[-1],
        late_gates=gates,
        hop_limit=len(names),
    )
    return Case(
        plan,
        {name: float(rng.uniform(0.05, 0.4)) for name in names},
        {name: str(rng.choice(["A", "B"])) for name in names},
    )


class _Stage:
    """What planner and clients look at: the case that runs now."""

    def __init__(self) -> None:
        self.case: Case | None = None

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        assert self.case is not None
        return self.case.plan

    async def reply(self, backbone: str) -> str:
        assert self.case is not None
        name = backbone.removeprefix("backbone of ")
        await asyncio.sleep(self.case.seconds[name])
        return f"Answer: {self.case.answers[name]}"


def bench_schedule(*, plans: int, seed: int, console: Console) -> Findings:
    """Random plans through both adapters."""
    rng = np.random.default_rng(seed)
    cases = [random_case(rng) for _ in range(plans)]
    found = Findings("schedule")
    with counting(console) as progress:

        def track(title: str, some: list[Case]) -> Any:
            return progress.track(some, description=title)

        autogen = run_virtual(_makespans(_autogen, track("AutoGen", cases)))
        langgraph = run_virtual(_makespans(_langgraph, track("LangGraph", cases)))
        real = asyncio.run(_makespans(_autogen, track("AutoGen, real time", cases[:_IN_REAL_TIME])))
    critical = [case.critical_path for case in cases]
    levels = [case.level_makespan for case in cases]
    found.compare("AutoGen / critical path", autogen, critical, bar=_BAR)
    found.ratios["AutoGen / critical path, the worst plan"] = _worst(autogen, critical)
    found.compare("LangGraph / level-makespan", langgraph, levels, bar=_BAR)
    found.ratios["LangGraph / level-makespan, the worst plan"] = _worst(langgraph, levels)
    found.compare("AutoGen / critical path, real time", real, critical[: len(real)], bar=_BAR)
    found.compare("level-makespan / critical path", levels, critical)
    found.notes.append(
        f"{plans} random plans of 2 to 8 agents, 0.05 to 0.4 s a call, in virtual time; "
        f"{len(real)} of them again in real time, where what the machine does besides counts too."
    )
    return found


def _worst(took: list[float], least: list[float]) -> Ratio:
    return Ratio([max(a / b for a, b in zip(took, least, strict=True))], bar=_BAR)


async def _makespans(
    runner: Callable[[_Stage], Callable[[], Awaitable[object]]], cases: Any
) -> list[float]:
    stage = _Stage()
    run = runner(stage)
    found: list[float] = []
    for case in cases:
        stage.case = case
        began = asyncio.get_running_loop().time()
        await run()
        found.append(asyncio.get_running_loop().time() - began)
    return found


def _autogen(stage: _Stage) -> Callable[[], Awaitable[object]]:
    from agentbalance_plugin.adapters.autogen import wrap_groupchat

    agents: Any = require("autogen_agentchat.agents", extra="autogen")
    teams: Any = require("autogen_agentchat.teams", extra="autogen")
    models: Any = require("autogen_core.models", extra="autogen")
    replays: Any = require("autogen_ext.models.replay", extra="autogen")

    class Sleeper(replays.ReplayChatCompletionClient):
        def __init__(self, backbone: str) -> None:
            super().__init__([])
            self.backbone = backbone

        async def create(self, *args: Any, **options: Any) -> Any:
            return models.CreateResult(
                finish_reason="stop",
                content=await stage.reply(self.backbone),
                usage=models.RequestUsage(prompt_tokens=10, completion_tokens=5),
                cached=False,
            )

    ready: Any = [(backbone, Sleeper(backbone.name)) for backbone in _BACKBONES]
    chat = teams.RoundRobinGroupChat(
        [agents.AssistantAgent(name, ready[0][1]) for name in _NAMES], max_turns=len(_NAMES)
    )
    team = wrap_groupchat(chat, budget=_BUDGET, backbones=ready, policy=stage)
    return lambda: team.run(task="Which one?")


def _langgraph(stage: _Stage) -> Callable[[], Awaitable[object]]:
    from agentbalance_plugin.adapters.langgraph import balance

    graphs: Any = require("langgraph.graph", extra="langgraph")
    language_models: Any = require("langchain_core.language_models", extra="langgraph")
    messages: Any = require("langchain_core.messages", extra="langgraph")
    outputs: Any = require("langchain_core.outputs", extra="langgraph")

    class Sleeper(language_models.BaseChatModel):
        backbone: str

        @property
        def _llm_type(self) -> str:
            return "sleeper"

        def _generate(self, *args: Any, **options: Any) -> Any:
            raise NotImplementedError

        async def _agenerate(self, *args: Any, **options: Any) -> Any:
            usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
            reply = messages.AIMessage(await stage.reply(self.backbone), usage_metadata=usage)
            return outputs.ChatResult(generations=[outputs.ChatGeneration(message=reply)])

    ready: Any = [(backbone, Sleeper(backbone=backbone.name)) for backbone in _BACKBONES]
    model = ready[0][1]

    def agent(name: str) -> Any:
        async def node(state: Any) -> dict[str, Any]:
            reply = await model.ainvoke(state["messages"])
            return {"messages": [messages.AIMessage(reply.content, name=name)]}

        return node

    builder = graphs.StateGraph(graphs.MessagesState)
    for name in _NAMES:
        builder.add_node(name, agent(name))
    for before, after in pairwise([graphs.START, *_NAMES, graphs.END]):
        builder.add_edge(before, after)
    app = balance(
        builder, budget=_BUDGET, backbones=ready, policy=stage, agents=list(_NAMES)
    ).compile()
    return lambda: app.ainvoke({"messages": [("user", "Which one?")]})
