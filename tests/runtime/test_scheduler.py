from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agentbalance_plugin import Budget, LateGate, Meter, Plan
from agentbalance_plugin.runtime.call import CallDenied
from agentbalance_plugin.runtime.scheduler import Pass, run_pass

pytestmark = pytest.mark.virtual_time


class Stage:
    """Agents that take `seconds` and say `lines`; an exception instead of a line is raised."""

    def __init__(self, **lines: tuple[float, str | Exception]) -> None:
        self.lines = lines
        self.log: list[tuple[str, float, tuple[str, ...]]] = []

    async def speak(self, agent: str, heard: tuple[str, ...]) -> str:
        self.log.append((agent, asyncio.get_running_loop().time(), heard))
        seconds, line = self.lines[agent]
        await asyncio.sleep(seconds)
        if isinstance(line, Exception):
            raise line
        return line


def extract(line: str) -> str | None:
    return line.removeprefix("=") if line.startswith("=") else None


async def play(
    plan: Plan,
    stage: Stage,
    latency_s: float = 100,
    extract: Callable[[str], str | None] = extract,
) -> tuple[Pass[str], float]:
    begin = asyncio.get_running_loop().time()
    result = await run_pass(plan, stage.speak, extract, Meter(Budget(latency_s=latency_s)))
    elapsed = asyncio.get_running_loop().time() - begin
    stage.log = [(agent, start - begin, heard) for agent, start, heard in stage.log]
    return result, elapsed


def kept(*names: str) -> dict[str, str | None]:
    return dict.fromkeys(names, "b")


async def test_agents_start_when_their_parents_are_done_and_hear_only_them() -> None:
    plan = Plan(kept("a", "b", "c", "d"), (("a", "c"), ("b", "d"), ("c", "d")), decider="d")
    stage = Stage(a=(1, "=1"), b=(5, "=2"), c=(2, "=3"), d=(1, "=4"))
    result, elapsed = await play(plan, stage)
    assert elapsed == pytest.approx(6)  # the critical path b -> d
    assert {agent: (start, heard) for agent, start, heard in stage.log} == {
        "a": (pytest.approx(0), ()),
        "b": (pytest.approx(0), ()),
        "c": (pytest.approx(1), ("a",)),
        "d": (pytest.approx(5), ("b", "c")),
    }
    assert (result.chosen, result.complete, result.stop_reason) == ("d", True, "Plan complete")
    assert list(result.messages) == ["a", "c", "b", "d"]


CASCADE = Plan(
    kept("a", "b", "c"),
    decision="vote",
    late_gates={"c": LateGate(("a", "b"), 0.9)},
    weights={"a": 2.0, "b": 2.0, "c": 3.0},
    hop_limit=2,
)


async def test_a_late_gate_stays_closed_on_agreement() -> None:
    result, elapsed = await play(CASCADE, Stage(a=(1, "=1"), b=(2, "=1"), c=(9, "=2")))
    assert elapsed == pytest.approx(2)
    assert (result.chosen, result.closed, result.complete) == ("a", ["c"], True)
    assert result.confidence == pytest.approx(0.982, abs=1e-3)


async def test_a_late_gate_opens_on_disagreement() -> None:
    result, elapsed = await play(CASCADE, Stage(a=(1, "=1"), b=(2, "=2"), c=(9, "=2")))
    assert elapsed == pytest.approx(11)
    assert (result.chosen, result.closed) == ("b", [])
    result, _ = await play(CASCADE, Stage(a=(1, "hm"), b=(2, "hm"), c=(9, "well")))
    assert result.chosen == "c"  # nothing to compare: the most reliable speaker


async def test_watching_passes_no_message() -> None:
    stage = Stage(a=(1, "=1"), b=(2, "=2"), c=(9, "=2"))
    await play(CASCADE, stage)
    assert stage.log[-1][2] == ()


async def test_a_closed_decider_leaves_the_decision_to_the_vote() -> None:
    plan = Plan(
        kept("a", "b", "d"),
        (("a", "d"), ("b", "d")),
        decider="d",
        late_gates={"d": LateGate(("a", "b"), 0.8)},
        weights={"a": 2.0, "b": 2.0},
    )
    result, _ = await play(plan, Stage(a=(1, "=1"), b=(1, "=1"), d=(1, "=9")))
    assert (result.chosen, result.complete) == ("a", True)
    result, _ = await play(plan, Stage(a=(1, "=1"), b=(1, "=2"), d=(1, "=9")))
    assert result.chosen == "d"


async def test_the_deadline_cancels_and_keeps_what_was_said() -> None:
    plan = Plan(kept("a", "b", "d"), (("a", "d"), ("b", "d")), decider="d")
    result, elapsed = await play(plan, Stage(a=(1, "=1"), b=(50, "=2"), d=(1, "=3")), latency_s=10)
    assert elapsed == pytest.approx(10)
    assert result.messages == {"a": "=1"}
    assert (result.chosen, result.complete) == ("a", False)
    assert result.stop_reason.startswith("Budget exhausted: Best answer so far, by a")
    assert set(result.skipped) == {"b", "d"}


async def test_an_agent_that_ignores_its_cancellation_does_not_hold_the_run() -> None:
    release = asyncio.Event()

    async def speak(agent: str, heard: tuple[str, ...]) -> str:
        while not release.is_set():
            try:
                await asyncio.wait_for(release.wait(), 1000)
            except asyncio.CancelledError:
                continue
        return "=late"

    begin = asyncio.get_running_loop().time()
    result = await run_pass(
        Plan(kept("a"), decider="a"), speak, extract, Meter(Budget(latency_s=3))
    )
    assert asyncio.get_running_loop().time() - begin == pytest.approx(3)
    assert result.messages == {}
    release.set()
    await asyncio.sleep(1)
    assert result.messages == {}


async def test_a_failing_agent_does_not_stop_the_others() -> None:
    plan = Plan(kept("a", "b", "d"), (("a", "d"), ("b", "d")), decider="d")
    stage = Stage(a=(1, ValueError("boom")), b=(1, "=2"), d=(1, "=3"))
    result, _ = await play(plan, stage)
    assert str(result.failed["a"]) == "boom"
    assert stage.log[-1] == ("d", pytest.approx(1), ("b",))
    assert (result.chosen, result.complete) == ("d", False)
    assert "a failed: boom" in result.stop_reason


async def test_a_denied_call_skips_its_agent() -> None:
    plan = Plan(kept("a", "d"), (("a", "d"),), decider="d", weights={"a": 1.0})
    result, _ = await play(plan, Stage(a=(1, "=1"), d=(0, CallDenied("too dear"))))
    assert result.skipped == {"d": "too dear"}
    assert (result.chosen, result.complete) == ("a", False)
    assert "d skipped: too dear" in result.stop_reason


async def test_a_failing_extractor_loses_no_message() -> None:
    def broken(line: str) -> str | None:
        raise RuntimeError("no")

    result, _ = await play(Plan(kept("a"), decider="a"), Stage(a=(1, "=1")), extract=broken)
    assert result.messages == {"a": "=1"}
    assert result.chosen == "a"
    assert "a failed: no" in result.stop_reason


async def test_nobody_spoke() -> None:
    result, _ = await play(Plan(kept("a"), decider="a"), Stage(a=(0, CallDenied("poor"))))
    assert (result.chosen, result.complete) == (None, False)
    assert result.stop_reason.startswith("Budget exhausted: No answer")


async def test_cancelling_the_run_cancels_the_agents() -> None:
    cancelled: list[str] = []

    async def speak(agent: str, heard: tuple[str, ...]) -> str:
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            cancelled.append(agent)
            raise
        return "never"

    plan = Plan(kept("a", "b"), (("a", "b"),), decider="b")
    run = asyncio.create_task(run_pass(plan, speak, extract, Meter(Budget(latency_s=99))))
    await asyncio.sleep(1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.sleep(0)
    assert cancelled == ["a"]


def race(stop_at: float, *names: str) -> Plan:
    weights = dict.fromkeys(names, 1.2)
    return Plan(kept(*names), decision="vote", decider=names[-1], stop_at=stop_at, weights=weights)


# Between the confidence in two of three that agree and that in one of three that differ.
AGREED = 0.5


async def test_a_decided_vote_does_not_wait_for_the_others() -> None:
    stage = Stage(a=(2, "=1"), b=(1, "=1"), c=(9, "=2"))
    result, elapsed = await play(race(AGREED, "a", "b", "c"), stage)
    assert elapsed == pytest.approx(2)
    assert result.messages.keys() == {"a", "b"}
    assert result.closed == ["c"]
    assert result.chosen in ("a", "b")
    assert result.complete
    assert result.stop_reason == "Plan complete"


async def test_a_vote_that_is_not_decided_waits_for_all() -> None:
    stage = Stage(a=(2, "=1"), b=(1, "=2"), c=(9, "=2"))
    result, elapsed = await play(race(AGREED, "a", "b", "c"), stage)
    assert elapsed == pytest.approx(9)
    assert result.chosen in ("b", "c")
    assert result.closed == []


async def test_agents_that_fail_do_not_count_against_a_decision() -> None:
    stage = Stage(a=(1, RuntimeError("broken")), b=(2, "=1"), c=(3, "=1"), d=(9, "=2"))
    result, elapsed = await play(race(AGREED, "a", "b", "c", "d"), stage)
    assert elapsed == pytest.approx(3)
    assert result.closed == ["d"]
    assert result.failed.keys() == {"a"}


async def test_the_deadline_ends_a_vote_that_is_not_decided() -> None:
    stage = Stage(a=(1, "=1"), b=(50, "=1"), c=(60, "=2"))
    result, elapsed = await play(race(AGREED, "a", "b", "c"), stage, latency_s=10)
    assert elapsed == pytest.approx(10)
    assert result.chosen == "a"
    assert result.skipped.keys() == {"b", "c"}
