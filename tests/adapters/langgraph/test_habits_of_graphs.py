"""What a graph's earlier runs took is known to the plans of the next."""

from __future__ import annotations

import json
import operator
from typing import Annotated, Any

import pytest
from graphs import LARGE, Bench
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

from agentbalance_plugin import Budget
from agentbalance_plugin.adapters.langgraph import BudgetMiddleware

PARTS = 10
SMALL = "Meta-Llama-3.1-8B-Instruct"


class Parts(MessagesState):
    found: Annotated[list[str], operator.add]


def in_parts(bench: Bench) -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(Parts)
    builder.add_node("part", bench.part())
    builder.add_conditional_edges(
        START, lambda _: [Send("part", {"part": n}) for n in range(PARTS)], ["part"]
    )
    return builder


@pytest.mark.virtual_time
async def test_all_parts_of_a_send_are_paid_for_once_their_number_is_known(bench: Bench) -> None:

    def made() -> Any:
        return bench.balance(
            in_parts(bench),
            policy=bench.policy(),
            budget=Budget(cost_usd=0.006),
            backbones=bench.catalog(SMALL, LARGE),
        ).compile()

    app = made()
    found: list[int] = []
    chosen: list[Any] = []
    for _ in range(3):
        result = await app.ainvoke({**bench.ask(), "found": []})
        found.append(len(result["found"]))
        chosen.append(app.report.plan.assignment["part"])
        assert app.report.within_budget
    # One call of the large one is well within the budget, ten are not.
    assert chosen == [LARGE, SMALL, SMALL]
    assert found[0] < PARTS
    assert found[1:] == [PARTS, PARTS]
    assert app.explain(bench.task()).plan.assignment["part"] == SMALL
    fresh = made()
    fresh.learn(json.loads(json.dumps(app.learned)))
    assert len((await fresh.ainvoke({**bench.ask(), "found": []}))["found"]) == PARTS


@tool
def manual(x: int) -> str:
    "A page of the manual."
    return f"page {x} " * 1200


async def test_an_agent_whose_tools_did_not_fit_gets_a_cheaper_backbone(instant: Bench) -> None:
    middleware = BudgetMiddleware(
        budget=Budget(cost_usd=0.012),
        backbones=instant.catalog(SMALL, LARGE),
        policy=instant.policy(),
    )
    agent = create_agent(instant.model(), [manual], middleware=[middleware])
    ask = {"messages": [("user", f'{instant.task()} [[tool:manual {{"x": 1}}]]')]}
    chosen: list[Any] = []
    complete: list[bool] = []
    for _ in range(3):
        await agent.ainvoke(ask)
        plan = middleware.report.plan
        assert plan is not None
        chosen.append(plan.assignment["agent"])
        complete.append(middleware.report.complete)
    assert chosen == [LARGE, SMALL, SMALL]
    assert complete == [False, True, True]
    fresh = BudgetMiddleware(
        budget=Budget(cost_usd=0.012),
        backbones=instant.catalog(SMALL, LARGE),
        policy=instant.policy(),
    )
    fresh.learn(json.loads(json.dumps(middleware.learned)))
    await create_agent(instant.model(), [manual], middleware=[fresh]).ainvoke(ask)
    assert fresh.report.complete
