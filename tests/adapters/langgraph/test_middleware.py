"""A budget for an agent of `create_agent`, in one line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from graphs import LARGE, LLAMA, MINI, WIDE, Assign, Bench, chain_of
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from agentbalance_plugin import Budget, BudgetExceeded
from agentbalance_plugin.adapters.langgraph import BudgetMiddleware

THREAD: Any = {"configurable": {"thread_id": "one"}}


@tool
def add(x: int) -> str:
    "Adds one."
    return str(x + 1)


def made(bench: Bench, budget: Budget = WIDE, **more: Any) -> BudgetMiddleware:
    more.setdefault("policy", Assign({"agent": LLAMA}))
    return BudgetMiddleware(budget=budget, backbones=bench.catalog(), **more)


def task(bench: Bench, call: str = "") -> Any:
    return {"messages": [("user", bench.task() + call)]}


async def test_every_call_of_the_agent_is_on_its_backbone_and_in_the_books(
    instant: Bench,
) -> None:
    middleware = made(instant)
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    await agent.ainvoke(task(instant, '[[tool:add {"x": 1}]]'))
    assert [backbone for _, backbone in instant.called()] == [LLAMA, LLAMA]
    assert middleware.report.spend.nanodollars == instant.billed()
    assert middleware.report.complete
    await asyncio.to_thread(agent.invoke, task(instant))
    assert middleware.report.spend.calls == 1


async def test_models_inside_tools_are_in_the_budget(instant: Bench) -> None:
    inside = instant.model()

    @tool
    def ask(x: int) -> str:
        "Asks another."
        return inside.invoke("[[agent:inside]] hello").text

    middleware = made(instant)
    agent = create_agent(instant.model(), [ask], middleware=[middleware])
    await agent.ainvoke(task(instant, '[[tool:ask {"x": 1}]]'))
    assert LARGE not in [backbone for _, backbone in instant.called()]
    assert middleware.report.spend.nanodollars == instant.billed()
    assert [agent.name for agent in middleware.report.agents] == ["agent", "ask"]


async def test_out_of_budget_the_agent_says_so(instant: Bench) -> None:
    middleware = made(instant, Budget(cost_usd=0.00004), policy=Assign({"agent": LARGE}))
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    result = await agent.ainvoke(task(instant))
    assert result["messages"][-1].content.startswith("Stopped: agent: a call of gpt-4o")
    assert not middleware.report.complete
    assert instant.called() == []


async def test_raise_carries_the_report(instant: Bench) -> None:
    budget = Budget(cost_usd=0.00004, on_exceeded="raise")
    middleware = made(instant, budget, policy=Assign({"agent": LARGE}))
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    with pytest.raises(BudgetExceeded) as caught:
        await agent.ainvoke(task(instant))
    assert caught.value.report.spend.calls == 0


async def test_a_resumed_agent_goes_on_with_its_books_in_another_process(instant: Bench) -> None:
    @tool
    def approve(x: int) -> str:
        "Asks a person."
        return interrupt("approve?")

    saver = InMemorySaver()
    first, second = made(instant), made(instant, policy=Assign({"agent": MINI}))
    asked = task(instant, '[[tool:approve {"x": 1}]]')
    agent = create_agent(instant.model(), [approve], middleware=[first], checkpointer=saver)
    result = await agent.ainvoke(asked, THREAD)
    assert [each.value for each in result["__interrupt__"]] == ["approve?"]
    again = create_agent(instant.model(), [approve], middleware=[second], checkpointer=saver)
    await again.ainvoke(Command(resume="yes"), THREAD)
    assert [backbone for _, backbone in instant.called()] == [LLAMA, LLAMA]
    assert second.report_of(THREAD).spend.nanodollars == instant.billed()
    assert second.report.spend.calls == 2


async def test_inside_a_balanced_graph_the_agent_is_part_of_its_run(instant: Bench) -> None:
    middleware = made(instant)
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    app = instant.balance(chain_of({"solver": agent}), policy=Assign({"solver": MINI})).compile()
    await app.ainvoke(task(instant))
    assert [backbone for _, backbone in instant.called()] == [MINI]
    assert app.report.spend.calls == 1
    with pytest.raises(RuntimeError, match="no run has ended"):
        _ = middleware.report


async def test_concurrent_agents_have_a_budget_each(instant: Bench) -> None:
    middleware = made(instant)
    agent = create_agent(instant.model(), [add], middleware=[middleware])
    configs: list[Any] = [{"configurable": {"thread_id": str(n)}} for n in range(3)]
    await asyncio.gather(*(agent.ainvoke(instant.ask(n), c) for n, c in enumerate(configs)))
    for number, config in enumerate(configs):
        billed = instant.simulator.books.spend(instant.key(number)).nanodollars
        assert middleware.report_of(config).spend.nanodollars == billed


def test_what_it_can_not_do_is_refused(instant: Bench) -> None:
    with pytest.raises(ValueError, match="takes hard caps"):
        made(instant, Budget.average(cost_usd=0.1, max_cost_usd=1))
    with pytest.raises(ValueError, match="needs: no backbone has"):
        made(instant, needs=frozenset({"vision"}))
