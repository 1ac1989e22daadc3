"""The plan and the spend are in the checkpoint: nothing is planned or paid for twice."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from graphs import LARGE, MINI, Always, Assign, Bench, chain_of, speakers
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START
from langgraph.types import Command, interrupt

from agentbalance_plugin import Budget, Catalog, Plan, Policy, Team
from agentbalance_plugin.core.encoder import RecordedEncoder

THREAD: Any = {"configurable": {"thread_id": "one"}}


class NoPlanner:
    """Must not be asked."""

    def plan(self, *_: Any) -> Any:
        raise AssertionError("planned again")


def failing_once(node: Any, *, after: bool) -> Any:
    """A node that breaks the first time, before or after its call."""
    broken = [True]

    async def run(state: Any) -> Any:
        result = await node(state) if after else None
        if broken.pop() if broken else False:
            raise RuntimeError("the node is broken")
        return result or await node(state)

    return run


@pytest.mark.virtual_time
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_crash_is_resumed_on_the_same_plan_and_the_same_books(
    bench: Bench, after: bool, durability: Any
) -> None:
    saver = InMemorySaver()
    builder = bench.chain(critic=failing_once(bench.node("critic"), after=after))
    app = bench.balance(builder, policy=Assign({"writer": LARGE})).compile(checkpointer=saver)
    with pytest.raises(RuntimeError, match="the node is broken"):
        await app.ainvoke(bench.ask(), THREAD, durability=durability)
    assert app.report_of(THREAD).stop_reason == "Failed: RuntimeError: the node is broken"
    assert app.report.spend.nanodollars == bench.billed()

    resumed = bench.balance(builder, policy=NoPlanner()).compile(checkpointer=saver)
    result = await resumed.ainvoke(None, THREAD)
    assert speakers(result) == ["human", "planner", "solver", "critic", "writer"]
    assert [agent for agent, _ in bench.called()] == [
        "planner",
        "solver",
        *(["critic", "critic"] if after else ["critic"]),
        "writer",
    ]
    assert bench.called()[-1] == ("writer", LARGE)
    assert resumed.report.spend.nanodollars == bench.billed()
    assert [agent.status for agent in resumed.report.agents] == ["done"] * 4
    by_agent = {agent.name: agent.spend.calls for agent in resumed.report.agents}
    assert by_agent == {"planner": 1, "solver": 1, "critic": 2 if after else 1, "writer": 1}


@pytest.mark.virtual_time
async def test_a_resumed_run_has_only_what_is_left_of_its_budget(bench: Bench) -> None:
    saver = InMemorySaver()
    budget = Budget(cost_usd=0.00033, latency_s=1000)
    app = bench.balance(bench.chain(), budget=budget).compile(
        checkpointer=saver, interrupt_before=["critic"]
    )
    await app.ainvoke(bench.ask(), THREAD)
    assert app.report.stop_reason == "Waits to be resumed at critic"
    assert not app.report.complete
    await app.ainvoke(None, THREAD)
    assert app.report.budget == budget
    assert app.report.within_budget
    assert app.report.spend.nanodollars == bench.billed() <= budget.nanodollars


@pytest.mark.virtual_time
async def test_a_resumed_run_sets_aside_a_part_of_what_is_left(bench: Bench) -> None:
    solver = failing_once(bench.node("solver"), after=True)
    app = bench.balance(
        bench.chain(("planner", "solver", "writer"), solver=solver), budget=Budget(cost_usd=0.002)
    ).compile(checkpointer=InMemorySaver())
    # Usage that is not reported is booked in full: half of the budget is gone before the crash.
    with pytest.raises(RuntimeError, match="the node is broken"):
        await app.ainvoke({"messages": [("user", f"[[fault:no_usage*2]] {bench.task()}")]}, THREAD)
    assert app.report.spend.nanodollars > 900_000
    result = await app.ainvoke(None, THREAD)
    assert speakers(result) == ["human", "planner", "solver", "writer"]


@pytest.mark.virtual_time
async def test_plans_are_told_how_long_a_thread_has_become(bench: Bench) -> None:
    class Heard(Policy):
        def plan(self, *arguments: Any, **named: Any) -> Plan:
            if arguments[0]:
                asked.append(arguments[5].beside_bytes)
            return super().plan(*arguments, **named)

    asked: list[int] = []
    policy = Heard.load("default", RecordedEncoder(bench.replay.traces))
    app = bench.balance(bench.chain(), policy=policy).compile(checkpointer=InMemorySaver())
    said = 0
    for number in range(3):
        result = await app.ainvoke(bench.ask(number), THREAD)
        assert said <= asked[-1] <= said + 40 * len(result["messages"])
        said = sum(len(message.text) for message in result["messages"])
    await app.ainvoke(bench.ask(3), {"configurable": {"thread_id": "another"}})
    assert asked[0] == 0
    # The other thread is new: of this one's texts only what they took more tokens than usual.
    assert asked[-1] < said / 4


@pytest.mark.virtual_time
async def test_a_second_task_on_a_thread_is_planned_and_budgeted_anew(bench: Bench) -> None:
    planner = Assign({})
    app = bench.balance(bench.chain(), policy=planner).compile(checkpointer=InMemorySaver())
    await app.ainvoke(bench.ask(), THREAD)
    first = app.report.spend.nanodollars
    result = await app.ainvoke(bench.ask(1), THREAD)
    assert [query for query, _ in planner.asked] == [bench.task(0), bench.task(1)]
    assert app.report.spend.nanodollars == bench.billed() - first
    assert speakers(result) == ["human", "planner", "solver", "critic", "writer"] * 2


@pytest.mark.parametrize("mode", ["backbones", "full"])
@pytest.mark.parametrize("way", ["command", START, "__input__"])
async def test_a_second_task_that_comes_as_no_input_is_planned_and_budgeted_anew(
    instant: Bench, mode: str, way: str
) -> None:
    planner = Chain()
    app = instant.balance(instant.chain(("a", "b")), mode=mode, policy=planner).compile(
        checkpointer=InMemorySaver()
    )
    await app.ainvoke(instant.ask(), THREAD)
    for number in (1, 2):
        billed, before = instant.billed(), len((await app.aget_state(THREAD)).values["messages"])
        if way == "command":
            result = await app.ainvoke(Command(update=instant.ask(number), goto="a"), THREAD)
        else:
            await app.aupdate_state(THREAD, instant.ask(number), as_node=way)
            result = await app.ainvoke(None, THREAD)
        assert speakers(result)[before:] == ["human", "a", "b"]
        assert planner.queries == [instant.task(each) for each in range(number + 1)]
        assert app.report.spend.nanodollars == instant.billed() - billed
        assert app.report.complete


@pytest.mark.parametrize("mode", ["backbones", "full"])
@pytest.mark.parametrize("way", ["command", "update", "blocking update"])
async def test_a_second_task_that_enters_behind_the_start_keeps_the_edges(
    instant: Bench, mode: str, way: str
) -> None:
    class OneAgent:
        """Where it may, it drops all but the decider."""

        def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
            kept = team.names if team.fixed_edges is not None else ("c",)
            return Plan(dict.fromkeys(kept, MINI), edges=team.fixed_edges or (), decider="c")

    builder = instant.chain(("a", "b", "c"))
    app = instant.balance(builder, mode=mode, policy=OneAgent()).compile(
        checkpointer=InMemorySaver()
    )
    await app.ainvoke(instant.ask(), THREAD)
    for number in (1, 2):
        billed, before = instant.billed(), len((await app.aget_state(THREAD)).values["messages"])
        if way == "command":
            result = await app.ainvoke(Command(update=instant.ask(number), goto="b"), THREAD)
        else:
            if way == "update":
                await app.aupdate_state(THREAD, instant.ask(number), as_node="a")
            else:
                app.update_state(THREAD, instant.ask(number), as_node="a")
            assert (await app.aget_state(THREAD)).next == ("b",)
            result = await app.ainvoke(None, THREAD)
        assert speakers(result)[before:] == ["human", "b", "c"]
        assert app.report.spend.nanodollars == instant.billed() - billed
        assert app.report.complete
        status = {line.name: line.status for line in app.report.agents}
        assert status == {"a": "skipped", "b": "done", "c": "done"}


async def test_so_does_one_after_a_run_that_had_nothing_to_do(instant: Bench) -> None:
    app = instant.balance(
        instant.chain(("a", "b", "c")), mode="full", policy=Always(Plan({"c": MINI}, decider="c"))
    ).compile(checkpointer=InMemorySaver())
    await app.ainvoke(instant.ask(), THREAD)
    await app.aupdate_state(THREAD, {"messages": [AIMessage("edited")]})
    assert (await app.aget_state(THREAD)).next == ()
    await app.ainvoke(None, THREAD)
    assert app.report.spend.calls == 0
    await app.aupdate_state(THREAD, instant.ask(1), as_node="a")
    assert (await app.aget_state(THREAD)).next == ("b",)


@pytest.mark.parametrize("way", ["command", "update", "blocking update"])
async def test_so_does_one_after_a_task_that_was_ended_by_hand(instant: Bench, way: str) -> None:
    builder = instant.chain(("a", "b", "c"))
    app = instant.balance(builder).compile(checkpointer=InMemorySaver(), interrupt_before=["b"])
    await app.ainvoke(instant.ask(), THREAD)
    by_hand = {"messages": [AIMessage("Answer: 3")]}
    if way == "blocking update":
        app.update_state(THREAD, by_hand, as_node="c")
        app.update_state(THREAD, instant.ask(1), as_node="b")
    else:
        await app.aupdate_state(THREAD, by_hand, as_node="c")
        if way == "update":
            await app.aupdate_state(THREAD, instant.ask(1), as_node="b")
    billed = instant.billed()
    asked = Command(update=instant.ask(1), goto="c") if way == "command" else None
    await app.ainvoke(asked, THREAD)
    assert instant.called()[1:] == [("c", MINI)]
    assert app.report.spend.nanodollars == instant.billed() - billed


async def test_a_task_that_a_command_began_is_resumed_on_its_plan_and_its_books(
    instant: Bench,
) -> None:
    speak, planner = instant.node("b"), Chain()

    async def asks(state: Any) -> Any:
        said = await speak(state)
        return said if len(state["messages"]) < 4 else (said, interrupt("more?"))[0]

    builder = instant.chain(("a", "b"), b=asks)
    app = instant.balance(builder, policy=planner).compile(checkpointer=InMemorySaver())
    await app.ainvoke(instant.ask(), THREAD)
    billed = instant.billed()
    result = await app.ainvoke(Command(update=instant.ask(1), goto="b"), THREAD)
    assert [each.value for each in result["__interrupt__"]] == ["more?"]
    await app.ainvoke(Command(resume="yes"), THREAD)
    assert app.report.spend.nanodollars == instant.billed() - billed
    assert app.report.spend.calls == 2
    assert planner.queries == [instant.task(0), instant.task(1)]


async def test_sqlite_keeps_a_task_for_another_process(instant: Bench, tmp_path: Path) -> None:
    path = str(tmp_path / "threads.db")
    builder = instant.chain(blocking=True)

    def first() -> None:
        with SqliteSaver.from_conn_string(path) as saver:
            app = instant.balance(builder).compile(checkpointer=saver, interrupt_after=["solver"])
            app.invoke(instant.ask(), THREAD)

    def second() -> Any:
        with SqliteSaver.from_conn_string(path) as saver:
            app = instant.balance(builder, policy=NoPlanner()).compile(checkpointer=saver)
            assert app.get_state(THREAD).next == ("critic",)
            return app.invoke(None, THREAD), app.report

    await asyncio.to_thread(first)
    result, report = await asyncio.to_thread(second)
    assert speakers(result)[-1] == "writer"
    assert report.spend.nanodollars == instant.billed()
    assert len(instant.called()) == 4


async def test_the_asynchronous_sqlite_saver_works_as_well(instant: Bench, tmp_path: Path) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        app = instant.balance(instant.chain()).compile(
            checkpointer=saver, interrupt_after=["solver"]
        )
        await app.ainvoke(instant.ask(), THREAD)
        await app.ainvoke(None, THREAD)
        assert app.report.spend.nanodollars == instant.billed()
        assert (await app.aget_state(THREAD)).next == ()


@pytest.mark.virtual_time
async def test_an_interrupt_is_answered_by_a_command(bench: Bench) -> None:
    model = bench.model()

    async def critic(state: Any) -> Any:
        said = interrupt("approve?")
        prompt = [("system", "[[agent:critic]]"), *state["messages"]]
        reply = await model.ainvoke(prompt)
        return {"messages": [AIMessage(f"human said {said}; {reply.content}", name="critic")]}

    app = bench.balance(bench.chain(critic=critic)).compile(checkpointer=InMemorySaver())
    result = await app.ainvoke(bench.ask(), THREAD)
    assert [each.value for each in result["__interrupt__"]] == ["approve?"]
    assert app.report.stop_reason == "Waits to be resumed at critic"
    result = await app.ainvoke(Command(resume="yes"), THREAD)
    assert "human said yes" in result["messages"][3].content
    assert app.report.spend.nanodollars == bench.billed()
    assert app.report.spend.calls == 4


@pytest.mark.virtual_time
async def test_time_travel_takes_the_plan_and_books_of_that_time(bench: Bench) -> None:
    app = bench.balance(bench.chain()).compile(checkpointer=InMemorySaver())
    await app.ainvoke(bench.ask(), THREAD)
    history = [each async for each in app.aget_state_history(THREAD)]
    before_critic = next(each for each in history if each.next == ("critic",))
    edited = await app.aupdate_state(
        before_critic.config, {"messages": [AIMessage("edited", id="edited")]}, as_node="solver"
    )
    result = await app.ainvoke(None, edited)
    assert [m.content for m in result["messages"]].count("edited") == 1
    assert app.report.spend.calls == 4
    assert len(bench.called()) == 6


@pytest.mark.virtual_time
async def test_who_runs_again_after_time_travel_has_a_share(bench: Bench) -> None:
    # Half of it is set aside for the last agent, and the rest would have been for nobody.
    budget, policy = Budget(cost_usd=0.012), Assign({"a": LARGE, "b": LARGE})
    builder = bench.chain(("a", "b"))
    balanced = bench.balance(builder, policy=policy, budget=budget)
    app = balanced.compile(checkpointer=InMemorySaver())
    await app.ainvoke(bench.ask(), THREAD)
    history = [each async for each in app.aget_state_history(THREAD)]
    await app.ainvoke(None, next(each.config for each in history if each.next == ("a",)))
    assert [agent for agent, _ in bench.called()] == ["a", "b", "a", "b"]
    assert app.report.complete


@pytest.mark.virtual_time
async def test_users_see_their_own_state_alone(bench: Bench) -> None:
    app = bench.balance(bench.chain()).compile(checkpointer=InMemorySaver())
    result = await app.ainvoke(bench.ask(), THREAD)
    assert list(result) == ["messages"]
    assert list((await app.aget_state(THREAD)).values) == ["messages"]
    assert app.get_input_jsonschema() == bench.chain().compile().get_input_jsonschema()


async def test_no_key_is_in_a_checkpoint_or_a_report(instant: Bench, tmp_path: Path) -> None:
    path = tmp_path / "threads.db"
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        builder = instant.chain(writer=instant.node("writer"))
        app = instant.balance(builder).compile(checkpointer=saver)
        await app.ainvoke(instant.ask(), THREAD)
    rows = sqlite3.connect(path)
    kept = b"".join(
        value if isinstance(value, bytes) else str(value).encode()
        for table in ("checkpoints", "writes")
        for row in rows.execute(f"select * from {table}")
        for value in row
    )
    rows.close()
    assert MINI.encode() in kept
    assert b"api_key" not in kept
    assert "api_key" not in str(app.report.to_dict())


@pytest.mark.virtual_time
@pytest.mark.parametrize("mode", ["backbones", "full"])
async def test_a_thread_of_the_users_own_graph_goes_on_under_a_budget(
    bench: Bench, mode: str
) -> None:
    saver = InMemorySaver()
    stock = bench.chain().compile(checkpointer=saver, interrupt_before=["critic"])
    await stock.ainvoke(bench.ask(), THREAD)
    app = bench.balance(bench.chain(), mode=mode, policy=Chain()).compile(checkpointer=saver)
    result = await app.ainvoke(None, THREAD)
    assert speakers(result) == ["human", "planner", "solver", "critic", "writer"]
    assert bench.called()[2:] == [("critic", MINI), ("writer", MINI)]
    assert app.report.spend.calls == 2


class Chain:
    """Everyone hears all before."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def plan(self, query: str, team: Team, budget: Budget, catalog: Catalog) -> Plan:
        self.queries.append(query)
        names = team.names
        edges = tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
        return Plan(dict.fromkeys(names, MINI), edges=edges, decider=team.decider)


async def test_crash_after_crash_no_spend_is_lost(instant: Bench) -> None:
    broken = instant.failing("b", 3, RuntimeError("broken"))
    app = instant.balance(instant.chain(("a", "b"), b=broken)).compile(checkpointer=InMemorySaver())
    asked: Any = instant.ask()
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            await app.ainvoke(asked, THREAD)
        assert app.report.spend.nanodollars == instant.billed()
        asked = None
    await app.ainvoke(None, THREAD)
    assert app.report.spend.nanodollars == instant.billed()
    assert app.report.spend.calls == 5


@pytest.mark.parametrize("way", ["edited", "forked"])
@pytest.mark.parametrize("blocking", [True, False])
async def test_no_spend_is_lost_where_a_task_is_resumed_elsewhere(
    instant: Bench, way: str, blocking: bool
) -> None:
    speak = instant.blocking("b")

    def broken(state: Any) -> Any:
        speak(state)
        raise RuntimeError("broken")

    builder = instant.chain(("a", "b"), blocking=True, b=broken)
    budget = Budget(cost_usd=0.0015)
    app = instant.balance(builder, budget=budget).compile(checkpointer=InMemorySaver())

    async def run(asked: Any, config: Any) -> bool:
        """Whether it gets as far as the failure."""
        call: Any = partial(asyncio.to_thread, app.invoke) if blocking else app.ainvoke
        with suppress(RuntimeError):
            await call(asked, config)
            return False
        return True

    assert await run(instant.ask(), THREAD)
    history = [each async for each in app.aget_state_history(THREAD)]
    config = next(each.config for each in history if each.next == ("b",))
    failures = 1
    for number in range(20):
        if way == "edited":
            noted = {"messages": [AIMessage(f"note {number}", name="a")]}
            config = await app.aupdate_state(THREAD, noted, as_node="a")
        if not await run(None, config):
            break
        failures += 1
        assert app.report.spend.nanodollars == instant.billed() <= 1_500_000
    # The budget, and nothing else, put an end to it.
    assert failures > 2
    assert not app.report.complete
    assert instant.billed() <= 1_500_000


class Failing(InMemorySaver):
    gone = False

    def get_tuple(self, config: Any) -> Any:
        if self.gone:
            raise ConnectionError("no database")
        return super().get_tuple(config)


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_run_is_closed_though_its_checkpointer_fails(
    instant: Bench, blocking: bool
) -> None:
    saver, speak = Failing(), instant.blocking("a")

    def last(state: Any) -> Any:
        saver.gone = state["messages"][0].text == instant.task()
        return speak(state)

    async def ask(number: int) -> Any:
        config: Any = {"configurable": {"thread_id": str(number)}}
        if blocking:
            return await asyncio.to_thread(app.invoke, instant.ask(number), config)
        return await app.ainvoke(instant.ask(number), config)

    budget = Budget.average(cost_usd=0.002, max_cost_usd=0.1)
    app = instant.balance(chain_of({"a": last}), budget=budget).compile(checkpointer=saver)
    with pytest.raises(ConnectionError, match="no database"):
        await ask(0)
    first = app.report
    assert (first.stop_reason, first.complete) == ("Failed: ConnectionError: no database", False)
    assert first.spend.nanodollars == instant.billed() > 0
    saver.gone = False
    await ask(1)
    # What the first was allowed and did not spend is there for the next.
    left = first.budget.nanodollars - first.spend.nanodollars
    # A hundredth of the mean pays back what the first found in advance.
    assert app.report.budget.nanodollars == left + 1_980_000
