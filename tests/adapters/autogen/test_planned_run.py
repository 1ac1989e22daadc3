"""Chats that are planned in full, run under a wide budget."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from typing import Any

import pytest
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import SelectSpeakerEvent, TextMessage, ThoughtEvent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import EVENT_LOGGER_NAME, CancellationToken
from autogen_core.logging import LLMCallEvent
from chats import (
    LARGE,
    LLAMA,
    MINI,
    NAMES,
    Bench,
    Echo,
    FixedPlanner,
    cancel_before_start,
    chain,
    texts,
)

from agentbalance_plugin import Catalog, LateGate, Plan, Policy
from agentbalance_plugin.core.encoder import RecordedEncoder

pytestmark = pytest.mark.virtual_time


async def test_a_run_returns_autogens_result_and_a_report_that_the_server_confirms(
    bench: Bench,
) -> None:
    team = bench.wrap(bench.chat())
    result = await team.run(task=bench.task())
    assert isinstance(result, TaskResult)
    assert result.messages[0].source == "user"
    assert bench.simulator.correct(result.messages[-1].to_text()) in (True, False)
    report = team.report
    assert report is team.report_of(result)
    assert report.complete
    assert report.within_budget
    assert report.spend.nanodollars == bench.billed() > 0
    assert report.spend.calls == len(bench.simulator.books.entries)
    assert result.messages[-1].source == report.chosen
    assert {agent.name for agent in report.agents} == set(NAMES)


async def test_only_the_plans_agents_run_and_on_the_plans_backbones(bench: Bench) -> None:
    plan = chain({"planner": MINI, "decider": LLAMA})
    team = bench.wrap(bench.chat(), plan)
    result = await team.run(task=bench.task())
    called = [(entry.agent, entry.backbone) for entry in bench.simulator.books.entries]
    assert called == [("planner", MINI), ("decider", LLAMA)]
    assert [source for source, _ in texts(result.messages)] == ["user", "planner", "decider"]
    assert [agent.status for agent in team.report.agents] == ["done", "dropped", "dropped", "done"]


async def test_an_agent_reads_its_parents_alone(bench: Bench) -> None:
    plan = Plan(
        assignment={"planner": MINI, "solver": MINI, "decider": MINI},
        edges=(("planner", "solver"), ("solver", "decider")),
        decider="decider",
    )
    team = bench.wrap(bench.chat(), plan)
    await team.run(task=bench.task())
    by_agent = {entry.agent: entry for entry in bench.simulator.books.entries}
    alone = by_agent["planner"].prompt_tokens
    for listener, speaker in (("solver", "planner"), ("decider", "solver")):
        heard = by_agent[listener].prompt_tokens - alone
        assert heard == by_agent[speaker].completion_tokens


async def test_agents_without_order_between_them_run_at_once(bench: Bench) -> None:
    plan = Plan(assignment={"planner": MINI, "solver": LARGE}, decision="vote", decider="solver")
    team = bench.wrap(bench.chat(), plan)
    began = asyncio.get_running_loop().time()
    await team.run(task=bench.task())
    took = asyncio.get_running_loop().time() - began
    assert took == pytest.approx(
        max(entry.latency_s for entry in bench.simulator.books.entries), abs=0.01
    )
    assert team.report.spend.latency_s == pytest.approx(took, abs=1e-6)


async def test_a_late_gate_stays_closed_when_those_it_watches_agree(bench: Bench) -> None:
    gate = LateGate(("planner", "solver"), threshold=0.7)
    plan = Plan(
        assignment={"planner": MINI, "solver": LLAMA, "decider": LARGE},
        decision="vote",
        decider="decider",
        late_gates={"decider": gate},
        weights={"planner": 1.9, "solver": 1.9, "decider": 1.9},
    )
    seen: set[str] = set()
    for number in range(12):
        bench.simulator.books.clear()
        team = bench.wrap(bench.chat(), plan)
        result = await team.run(task=bench.task(number, "math_l5"))
        answers = {agent.name: agent.answer for agent in team.report.agents}
        agreed = answers["planner"] == answers["solver"] is not None
        called = {entry.agent for entry in bench.simulator.books.entries}
        assert ("decider" in called) is not agreed
        status = next(a.status for a in team.report.agents if a.name == "decider")
        assert status == ("closed" if agreed else "done")
        assert result.messages[-1].source == team.report.chosen
        seen.add(status)
    assert seen == {"closed", "done"}


async def test_a_race_is_over_when_two_agree_and_the_rest_is_paid_for(bench: Bench) -> None:
    slow = "o1-mini-2024-09-12"
    plan = Plan(
        assignment={"planner": MINI, "solver": LLAMA, "decider": slow},
        decision="vote",
        decider="decider",
        stop_at=0.5,
        weights={"planner": 1.2, "solver": 1.2, "decider": 1.2},
    )
    team = bench.wrap(bench.chat(), plan)
    began = asyncio.get_running_loop().time()
    result = await team.run(task=bench.task())
    took = asyncio.get_running_loop().time() - began
    seconds = {entry.backbone: entry.latency_s for entry in bench.simulator.books.entries}
    assert took == pytest.approx(max(seconds[MINI], seconds[LLAMA]), abs=0.01)
    assert took < seconds[slow] - 1.0
    statuses = {agent.name: agent.status for agent in team.report.agents}
    assert statuses["decider"] == "closed"
    assert team.report.complete
    assert result.messages[-1].source == team.report.chosen
    # Nobody knows what the call that was left has billed: its whole reservation is booked.
    assert team.report.spend.calls == 3
    assert team.report.spend.nanodollars >= bench.billed()
    assert (await team.run(task=bench.task(1))).messages


async def test_the_winner_of_a_vote_is_repeated_as_the_last_message(bench: Bench) -> None:
    plan = Plan(
        assignment={"planner": LARGE, "solver": MINI},
        decision="vote",
        decider="solver",
        weights={"planner": 9.0, "solver": 1.0},
    )
    team = bench.wrap(bench.chat(), plan)
    result = await team.run(task=bench.task())
    last = result.messages[-1]
    assert isinstance(last, TextMessage)
    assert last.source == team.report.chosen == "planner"
    told = [message for message in texts(result.messages) if message[0] == "planner"]
    assert told[0][1] == last.content
    decided = [m for m in result.messages if getattr(m, "metadata", {}).get("agentbalance")]
    assert decided == ([last] if len(told) == 2 else [])


async def test_the_answer_is_last_though_another_agent_had_begun_to_speak(bench: Bench) -> None:
    class Slow(Echo):
        async def on_messages_stream(self, messages, cancellation_token):  # type: ignore[no-untyped-def]
            await asyncio.sleep(1000)
            yield ThoughtEvent(content="Hm.", source=self.name)
            raise RuntimeError("lost the thread")

    chat = RoundRobinGroupChat([Slow("slow"), bench.assistant("decider")], max_turns=2)
    plan = Plan(assignment={"slow": None, "decider": MINI}, decision="vote", decider="decider")
    result = await bench.wrap(chat, plan).run(task=bench.task())
    assert [type(message) for message in result.messages[2:]] == [ThoughtEvent, TextMessage]
    assert result.messages[-1].to_text() == result.messages[1].to_text()


async def test_the_stream_yields_what_run_returns_and_the_result_last(bench: Bench) -> None:
    plan = chain({"planner": MINI, "decider": LLAMA})
    team = bench.wrap(bench.chat(), plan)
    items = [item async for item in team.run_stream(task=bench.task())]
    result = items[-1]
    assert isinstance(result, TaskResult)
    assert list(result.messages) == items[:-1]
    again = await bench.wrap(bench.chat(), plan).run(task=bench.task())
    assert texts(again.messages) == texts(result.messages)


async def test_a_chat_that_tells_who_speaks_next_still_does(bench: Bench) -> None:
    names = ["solver", "decider"]
    chat = bench.chat(names, emit_team_events=True)
    team = bench.wrap(bench.chat(names, emit_team_events=True), mode="backbones")
    told: list[list[tuple[str, str, Any]]] = []
    for each in (chat, team):
        told.append([])
        async for event in each.run_stream(task=bench.task()):
            if not isinstance(event, TaskResult):
                content = event.content if isinstance(event, SelectSpeakerEvent) else None
                told[-1].append((type(event).__name__, event.source, content))
    stock, wrapped = told
    assert wrapped == stock
    assert ("SelectSpeakerEvent", "RoundRobinGroupChatManager", ["decider"]) in wrapped


async def test_the_task_is_left_out_of_the_output_on_request(bench: Bench) -> None:
    team = bench.wrap(bench.chat(), chain({"decider": MINI}))
    result = await team.run(task=bench.task(), output_task_messages=False)
    assert [source for source, _ in texts(result.messages)] == ["decider"]


async def test_tasks_may_be_messages_and_nonsense_is_refused(bench: Bench) -> None:
    team = bench.wrap(bench.chat(), chain({"decider": MINI}))
    message = TextMessage(content=bench.task(), source="user")
    first = await team.run(task=message)
    await team.reset()
    second = await team.run(task=[message])
    assert texts(first.messages) == texts(second.messages)
    for bad in ([], [1], 3):
        with pytest.raises(ValueError, match=r"[Tt]ask"):
            await team.run(task=bad)  # type: ignore[arg-type]
    assert len(bench.simulator.books.entries) == 2


async def test_a_second_run_goes_on_from_the_first_and_reset_forgets_it(bench: Bench) -> None:
    echo = Echo()
    planner = FixedPlanner(chain({"echo": None, "decider": MINI}))
    chat = RoundRobinGroupChat([echo, bench.assistant("decider")], max_turns=2)
    team = bench.wrap(chat, policy=planner)
    await team.run(task=bench.task(0))
    await team.run(task=bench.task(1))
    assert echo.heard == [["user"], ["decider", "user"]]
    await team.reset()
    assert echo.resets == 1
    await team.run(task=bench.task(2))
    assert echo.heard == [["user"]]
    assert [query.partition("]]")[0] for query in planner.queries] == [
        bench.task(number).partition("]]")[0] for number in range(3)
    ]


async def test_the_agents_own_history_goes_on_with_their_chosen_backbone(bench: Bench) -> None:
    chat = bench.chat(("solver", "decider"))
    team = bench.wrap(chat, chain({"decider": MINI}))
    await team.run(task=bench.task(0))
    await team.run(task=bench.task(0))
    # The second time the agent quotes its own first reply: another turn of the same query.
    turns = [entry.answer for entry in bench.simulator.books.entries]
    assert len(turns) == 2
    state = await team.save_state()
    history = state["agent_states"]["decider"]["llm_context"]["messages"]
    assert [message["type"] for message in history] == [
        "UserMessage",
        "AssistantMessage",
        "UserMessage",
        "AssistantMessage",
    ]


async def test_the_users_own_agents_keep_their_model_client(bench: Bench) -> None:
    chat = bench.chat(("solver", "decider"))
    agents = chat._participants
    clients = [agent._model_client for agent in agents]
    team = bench.wrap(chat, chain({"solver": MINI, "decider": MINI}))
    await team.run(task=bench.task())
    assert [agent._model_client for agent in agents] == clients
    # The chat itself still works, unwrapped, on its own backbone.
    await team.reset()
    bench.simulator.books.clear()
    await chat.run(task=bench.task())
    assert {entry.backbone for entry in bench.simulator.books.entries} == {LARGE}


async def test_concurrent_runs_do_not_see_each_other(bench: Bench) -> None:
    plan = chain({"planner": MINI, "solver": LLAMA, "decider": MINI})
    alone = []
    for number in range(3):
        team = bench.wrap(bench.chat(), plan)
        alone.append(texts((await team.run(task=bench.task(number))).messages))
    bench.simulator.books.clear()
    team = bench.wrap(bench.chat(), plan)
    results = await asyncio.gather(*(team.run(task=bench.task(n)) for n in range(3)))
    assert [texts(result.messages) for result in results] == alone
    for number, result in enumerate(results):
        assert team.report_of(result).spend.nanodollars == bench.billed(bench.key(number))
    with pytest.raises(KeyError):
        team.report_of(TaskResult(messages=[]))


async def test_a_cancelled_run_keeps_its_books_and_the_next_run_works(bench: Bench) -> None:
    team = bench.wrap(bench.chat(), chain({"planner": MINI, "solver": LARGE, "decider": MINI}))
    token = CancellationToken()
    seen = 0
    with pytest.raises(asyncio.CancelledError):
        async for item in team.run_stream(task=bench.task(), cancellation_token=token):
            seen += isinstance(item, TextMessage)
            if seen == 2:
                token.cancel()
    report = team.report
    assert not report.complete
    assert report.spend.nanodollars >= bench.simulator.books.entries[0].nanodollars
    result = await team.run(task=bench.task(1))
    assert team.report_of(result).complete


async def test_a_run_that_is_cancelled_before_it_starts_ends_at_once(bench: Bench) -> None:
    team = bench.wrap(bench.chat(("decider",)), chain({"decider": MINI}))
    await cancel_before_start(bench, team)


async def test_a_cancelled_task_cancels_the_run(bench: Bench) -> None:
    team = bench.wrap(bench.chat(), chain({"planner": LARGE, "decider": MINI}))
    running = asyncio.create_task(team.run(task=bench.task()))
    await asyncio.sleep(0.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    # The server answers, and bills, whether or not anybody waits for it.
    assert team.report.spend.calls == len(bench.simulator.books.entries) == 1
    assert team.report.spend.nanodollars >= bench.billed()
    assert (await team.run(task=bench.task())).messages


async def test_a_stream_that_is_left_early_stops_the_run(bench: Bench) -> None:
    team = bench.wrap(bench.chat(), chain({"planner": MINI, "solver": LARGE, "decider": MINI}))
    stream = team.run_stream(task=bench.task())
    async for item in stream:
        if item.source == "planner":  # type: ignore[union-attr]
            break
    await stream.aclose()
    await asyncio.sleep(100)
    assert "decider" not in {entry.agent for entry in bench.simulator.books.entries}
    assert (await team.run(task=bench.task())).messages


async def test_a_report_says_when_prices_alone_decided(bench: Bench) -> None:
    profiled = bench.catalog(MINI, LLAMA)
    bare = Catalog(replace(backbone, profile=None) for backbone in profiled.values())
    for catalog, said in ((profiled, False), (bare, True)):
        team = bench.wrap(bench.chat(["solver", "decider"]), backbones=catalog)
        await team.run(task=bench.task())
        assert ("no backbone has a profile" in team.report.to_text()) == said


async def test_an_agent_that_fails_does_not_stop_the_others(bench: Bench) -> None:
    chat = RoundRobinGroupChat([Echo(fail=True), bench.assistant("decider")], max_turns=2)
    team = bench.wrap(chat, chain({"echo": None, "decider": MINI}))
    result = await team.run(task=bench.task())
    assert result.messages[-1].source == "decider"
    report = team.report
    assert [agent.status for agent in report.agents] == ["failed", "done"]
    assert "the echo is broken" in (result.stop_reason or "")


async def test_when_everyone_fails_the_error_comes_out_and_the_next_run_works(
    bench: Bench,
) -> None:
    echo = Echo(fail=True)
    team = bench.wrap(RoundRobinGroupChat([echo], max_turns=1), chain({"echo": None}))
    with pytest.raises(RuntimeError, match="the echo is broken"):
        await team.run(task="hello")
    echo.fail = False
    assert (await team.run(task="hello")).messages[-1].to_text().startswith("heard")


async def test_pause_holds_back_agents_that_have_not_started(bench: Bench) -> None:
    echo = Echo()
    chat = RoundRobinGroupChat([bench.assistant("solver"), echo], max_turns=2)
    team = bench.wrap(chat, chain({"solver": MINI, "echo": None}))
    running = asyncio.create_task(team.run(task=bench.task()))
    await asyncio.sleep(0.1)
    await team.pause()
    await asyncio.sleep(1000)
    assert not running.done()
    assert echo.heard == []
    assert echo.pauses >= 1
    with pytest.raises(RuntimeError, match="running"):
        await team.reset()
    await team.resume()
    assert (await running).messages[-1].source == "echo"


async def test_pause_reaches_teams_that_are_at_work_alone(bench: Bench) -> None:
    echo = Echo()
    at_work = RoundRobinGroupChat([bench.assistant("solver"), echo], max_turns=2, name="busy")
    waiting = RoundRobinGroupChat([bench.assistant("judge")], max_turns=1, name="later")
    chat = RoundRobinGroupChat([at_work, waiting], max_turns=2)
    team = bench.wrap(chat, chain({"busy": LARGE, "later": MINI}))
    await team.pause()
    await team.resume()
    running = asyncio.create_task(team.run(task=bench.task()))
    await asyncio.sleep(0.5)
    await team.pause()
    assert echo.pauses == 1
    await asyncio.sleep(1000)
    assert not running.done()
    await team.resume()
    result = await asyncio.wait_for(running, 1000)
    assert [source for source, _ in texts(result.messages)][1:] == ["solver", "echo", "judge"]
    await team.pause()
    await team.resume()


@pytest.mark.parametrize("longest_s", [0.0, 1e9])
async def test_what_takes_long_to_plan_is_planned_beside_the_loop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, longest_s: float
) -> None:
    monkeypatch.setattr("agentbalance_plugin.adapters.planning._LONGEST_IN_LOOP_S", longest_s)
    threads: list[int] = []

    class Watched(Policy):
        def plan(self, *arguments: Any, **options: Any) -> Plan:
            threads.append(threading.get_ident())
            return super().plan(*arguments, **options)

    policy = Watched.load("default", RecordedEncoder(bench.replay.traces))
    team = bench.wrap(bench.chat(), policy=policy)
    before = len(threads)
    results = await asyncio.gather(*(team.run(task=bench.task(number)) for number in range(3)))
    assert all(team.report_of(result).complete for result in results)
    in_loop = {thread == threading.get_ident() for thread in threads[before:]}
    assert in_loop == {longest_s > 0}


async def test_events_of_calls_name_the_agent_as_they_do_in_the_chat_itself(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, EVENT_LOGGER_NAME)

    async def callers(team: Any) -> list[str]:
        caplog.clear()
        await team.run(task=bench.task())
        events = [each.msg for each in caplog.records if isinstance(each.msg, LLMCallEvent)]
        return [str(event.kwargs["agent_id"]) for event in events]

    names = ("one", "two")
    ids = await callers(bench.wrap(bench.chat(names), chain(dict.fromkeys(names, MINI))))
    stock = await callers(bench.chat(names, max_turns=2))
    for name, own, theirs in zip(names, ids, stock, strict=True):
        assert [len(each.removeprefix(f"{name}_")) for each in (own, theirs)] == [73, 73]
