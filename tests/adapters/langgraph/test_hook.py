"""The compile hook: graphs are balanced where they are compiled, without a change to the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from graphs import LARGE, LLAMA, MINI, WIDE, Assign, Bench, chain_of
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph

from agentbalance_plugin import Budget
from agentbalance_plugin.adapters.langgraph import balanced, install, uninstall
from agentbalance_plugin.adapters.langgraph.builder import stock_compile
from agentbalance_plugin.adapters.langgraph.graph import BalancedGraph


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """A test that fails must not leave the hook to the others."""
    yield
    while StateGraph.compile is not stock_compile:
        uninstall()


async def test_graphs_compiled_in_the_block_are_balanced_and_later_ones_not(
    instant: Bench,
) -> None:
    with balanced(
        budget=WIDE, backbones=instant.catalog(), policy=Assign({"b": LLAMA}), mode="backbones"
    ):
        app: Any = instant.chain(("a", "b")).compile(checkpointer=InMemorySaver())
    stock = instant.chain(("c",)).compile()
    assert StateGraph.compile is stock_compile
    await app.ainvoke(instant.ask(), {"configurable": {"thread_id": "one"}})
    await stock.ainvoke(instant.ask())
    assert instant.called() == [("a", MINI), ("b", LLAMA), ("c", LARGE)]
    assert app.report.spend.calls == 2


async def test_agents_of_create_agent_are_left_whole(instant: Bench) -> None:
    planner = Assign({"solver": LLAMA, "model": MINI})
    with balanced(budget=WIDE, backbones=instant.catalog(), policy=planner, mode="backbones"):
        agent: Any = create_agent(instant.model(), [])
        app: Any = chain_of({"solver": agent}).compile()
    await app.ainvoke(instant.ask())
    await agent.ainvoke(instant.ask())
    assert [backbone for _, backbone in instant.called()] == [LLAMA, MINI]
    assert app.report.spend.calls == agent.report.spend.calls == 1


async def test_pass_through_changes_nothing(instant: Bench) -> None:
    builder = instant.chain(("a",))
    with balanced(policy=None):
        app = builder.compile()
    assert not isinstance(app, BalancedGraph)
    assert type(app) is type(builder.compile())
    await app.ainvoke(instant.ask())
    assert instant.called() == [("a", LARGE)]


async def test_graphs_without_agents_compile_as_before(instant: Bench) -> None:
    def nothing(state: MessagesState) -> Any:
        return {}

    with balanced(budget=WIDE, backbones=instant.catalog(), policy=Assign({})):
        app = chain_of({"a": nothing}).compile()
    assert not isinstance(app, BalancedGraph)


async def test_installs_nest_and_uninstall_goes_back(instant: Bench) -> None:
    catalog = instant.catalog()
    install(budget=WIDE, backbones=catalog, policy=Assign({"a": LLAMA}), mode="backbones")
    install(policy=None)
    assert not isinstance(instant.chain(("a",)).compile(), BalancedGraph)
    uninstall()
    assert isinstance(instant.chain(("a",)).compile(), BalancedGraph)
    uninstall()
    with pytest.raises(RuntimeError, match="not installed"):
        uninstall()


def test_a_policy_needs_a_budget() -> None:
    with pytest.raises(ValueError, match="a policy needs a budget"):
        install()
    assert StateGraph.compile is stock_compile


async def test_a_block_that_fails_uninstalls(instant: Bench) -> None:
    with pytest.raises(KeyError):
        with balanced(budget=Budget(tokens=1000), backbones=instant.catalog(), policy=Assign({})):
            raise KeyError("x")
    assert StateGraph.compile is stock_compile
