"""Real frameworks over HTTP against the vectorised replay of the very same plans."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.cli.framework_runs import Mean, pick_queries, run_queries
from agentbalance_plugin.cli.plugin_results import Endpoint
from agentbalance_plugin.core.encoder import RecordedEncoder
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.core.reference import reference_plan
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.simulator.server import Simulator
from agentbalance_plugin.team import Team

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ROLES = ("planner", "solver", "critic", "decider")


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Thrifty:
    """The policy at a price that makes it plan cascades."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        return self.policy.plan(query, team, budget, catalog, Knobs(price_usd=5.0))


def endpoint(simulator: Simulator, replay: Replay) -> Endpoint:
    traces = replay.traces
    assert traces.reference is not None
    return Endpoint(
        base_url=simulator.base_url,
        reference=traces.reference,
        catalog=simulator.serving(traces.profiled_candidates()),
        policy=Policy.load("default", RecordedEncoder(traces)),
    )


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("module", "system", "suite"),
    [
        ("plugin_pat1_autogen", "round robin", "reasoning"),
        ("plugin_pat1_langgraph", "debate", "reasoning"),
        ("plugin_pat1_autogen", "debate", "gpqa_diamond"),
        ("plugin_pat1_langgraph", "chain", "humaneval"),
    ],
)
async def test_a_balanced_run_is_the_replay_of_its_plan(
    module: str, system: str, suite: str
) -> None:
    replay = Replay(TraceSet.shipped(suite))
    queries = pick_queries(replay.traces, 24, seed=1)
    chat = example(module).SYSTEMS[system]
    async with Simulator(replay) as simulator:
        there = endpoint(simulator, replay)
        # So wide that the meter never lowers a cap: the replay knows the plan's own caps alone.
        ask = chat.balanced(replace(there, policy=Thrifty(there.policy)), Budget(cost_usd=10.0))
        runs = await run_queries(ask, queries, replay, simulator)
        await chat.close()
        entries = list(simulator.books.entries)
    plans = [run.report.plan for run in runs if run.report is not None and run.report.plan]
    assert len(plans) == len(runs)
    rows = np.array([replay.traces.index(run.query) for run in runs])
    found = replay.evaluate_pairs(rows, plans)
    assert [run.right for run in runs] == found.correct.tolist()
    assert [run.nanodollars for run in runs] == found.cost_nanodollars.tolist()
    assert [run.tokens for run in runs] == (found.prompt_tokens + found.completion_tokens).tolist()
    answers = []
    for run in runs:
        assert run.report is not None
        said = [e for e in entries if e.query == run.query and e.agent == run.report.chosen]
        answers.append(said[-1].answer)
    assert answers == found.answer.tolist()
    assert not any(run.violates for run in runs)
    assert max(len(plan.assignment) for plan in plans) > 1


@pytest.mark.virtual_time
async def test_the_chat_as_written_is_the_replay_of_the_reference_plan(replay: Replay) -> None:
    queries = pick_queries(replay.traces, 8, seed=0)
    chat = example("plugin_pat1_autogen").SYSTEMS["round robin"]
    async with Simulator(replay) as simulator:
        runs = await run_queries(
            chat.stock(endpoint(simulator, replay)), queries, replay, simulator
        )
        await chat.close()
    rows = [replay.traces.index(run.query) for run in runs]
    assert replay.traces.reference is not None
    found = replay.evaluate(rows, reference_plan(replay.traces.reference, ROLES))
    assert [run.right for run in runs] == found.correct.tolist()
    assert [run.nanodollars for run in runs] == found.cost_nanodollars.tolist()


@pytest.mark.virtual_time
async def test_a_run_that_raises_is_a_wrong_answer(replay: Replay) -> None:
    async def fails(task: str) -> Any:
        raise RuntimeError("no")

    async with Simulator(replay) as simulator:
        runs = await run_queries(fails, pick_queries(replay.traces, 2, 0), replay, simulator)
    assert [(run.right, run.error) for run in runs] == [(False, "RuntimeError: no")] * 2


def test_intervals_hold_the_mean_and_more_queries_than_there_are_is_an_error(
    replay: Replay,
) -> None:
    mean = Mean.of([0.0, 1.0] * 50)
    assert mean.low < mean.value == 0.5 < mean.high
    with pytest.raises(ValueError, match="to test on"):
        pick_queries(replay.traces, 10**6, 0)
