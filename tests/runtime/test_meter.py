from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbalance_plugin import Backbone, Budget, Meter, Spend
from agentbalance_plugin.runtime.call import CallDenied, DeadlineReached
from agentbalance_plugin.runtime.meter import USEFUL_OUTPUT_TOKENS

# 1 nano-dollar per prompt token, 2 per completion token.
CHEAP = Backbone("cheap", Decimal("0.001"), Decimal("0.002"), max_output_tokens=1000)
DEAR = Backbone("dear", Decimal("0.1"), Decimal("0.2"), max_output_tokens=1000)


def nano(amount: int) -> Budget:
    return Budget(cost_usd=amount * 1e-9)


def test_a_call_holds_its_worst_case_and_settles_what_it_used() -> None:
    meter = Meter(nano(3000))
    with meter.reserve("a", CHEAP, 100) as call:
        assert call.output_cap == 1000
        # 100 + 2,000 are held: 900 are left, 400 of which are for the prompt.
        with meter.reserve("b", CHEAP, 400) as other:
            assert other.output_cap == 250
            other.settle(10, 20)
        call.settle(90, 40)
    assert meter.spend().nanodollars == 90 + 80 + 10 + 40
    assert meter.spend("a") == Spend(170, 90, 40, 1, meter.spend("a").latency_s)
    assert [record.metered for record in meter.calls] == [True, True]


def test_the_callers_own_cap_is_never_raised() -> None:
    meter = Meter(nano(10**6))
    assert meter.reserve("a", CHEAP, 10, output_cap=7).output_cap == 7
    assert meter.reserve("a", CHEAP, 10, output_cap=5000).output_cap == 1000


def test_the_cap_leaves_room_for_the_prompt_in_the_context() -> None:
    small = replace(CHEAP, context_tokens=1500)
    meter = Meter(nano(10**6))
    assert meter.reserve("a", small, 1000).output_cap == 1000
    # Two thousand bytes are at most some six hundred tokens.
    assert meter.reserve("a", small, 2000).output_cap == 900
    # The endpoint may still take it; if not, it says so at no cost.
    assert meter.reserve("a", small, 9000).output_cap == USEFUL_OUTPUT_TOKENS


@pytest.mark.parametrize("usage", [None, (0, 0)])
def test_unreported_usage_books_the_whole_reservation(usage: tuple[int, int] | None) -> None:
    meter = Meter(nano(3000))
    with meter.reserve("a", CHEAP, 100) as call:
        if usage is not None:
            call.settle(*usage)
    (record,) = meter.calls
    assert (record.nanodollars, record.metered) == (2100, False)
    assert meter.spend().nanodollars == 2100


@pytest.mark.parametrize(("usage", "booked"), [((90, 0), 90 + 2000), ((0, 40), 100 + 80)])
def test_usage_that_is_reported_in_part_is_booked_in_full_for_the_rest(
    usage: tuple[int, int], booked: int
) -> None:
    meter = Meter(nano(3000))
    with meter.reserve("a", CHEAP, 100) as call:
        call.settle(*usage)
    (record,) = meter.calls
    assert (record.nanodollars, record.metered, record.overrun) == (booked, False, False)
    assert not record.cut


def test_a_refused_call_costs_nothing_and_frees_its_hold() -> None:
    meter = Meter(nano(2100))
    with meter.reserve("a", CHEAP, 100) as call:
        call.release()
    assert meter.calls == ()
    assert meter.reserve("a", CHEAP, 100).output_cap == 1000


def test_below_a_useful_minimum_a_call_is_denied_with_figures() -> None:
    meter = Meter(nano(100 + 2 * USEFUL_OUTPUT_TOKENS - 1))
    with pytest.raises(CallDenied, match=r"a: a call of cheap may cost 0\.000000 USD"):
        meter.reserve("a", CHEAP, 100)
    assert meter.reserve("a", CHEAP, 99).output_cap == USEFUL_OUTPUT_TOKENS
    assert Meter(nano(102)).reserve("a", CHEAP, 100, output_cap=1).output_cap == 1


def test_the_deciders_share_is_its_own_until_given_back() -> None:
    meter = Meter(nano(3000))
    meter.protect("decider", nanodollars=2500)
    assert meter.reserve("a", CHEAP, 100).output_cap == 200
    with meter.reserve("decider", CHEAP, 100) as call:
        assert call.output_cap == 1000  # 2,100 of its share
        call.settle(100, 100)
    with pytest.raises(CallDenied):
        meter.reserve("b", CHEAP, 100)
    meter.unprotect("decider")
    assert meter.reserve("b", CHEAP, 100).output_cap == 1000


def test_a_share_is_of_what_comes_after_it() -> None:
    meter = Meter(Budget(cost_usd=3000e-9, tokens=3000))
    with meter.reserve("decider", CHEAP, 100) as call:
        assert meter.left() == (900, 1900)
        call.settle(100, 100)
    assert meter.left() == (2700, 2800)
    meter.protect("decider", nanodollars=1000, tokens=2700)
    # What the decider used before does not count as drawn.
    with pytest.raises(CallDenied, match="tokens, 100 are free"):
        meter.reserve("a", CHEAP, 100)
    meter.protect("decider", nanodollars=1000, tokens=1000)
    assert meter.reserve("a", CHEAP, 100).output_cap == 800
    assert Meter(Budget(latency_s=1)).left() == (None, None)


def test_tokens_are_capped_unweighted() -> None:
    meter = Meter(Budget(tokens=500))
    meter.protect("decider", tokens=200)
    with meter.reserve("a", DEAR, 100) as call:
        assert call.output_cap == 200
        call.settle(100, 150)
    with pytest.raises(CallDenied, match=r"may take 116 tokens, 50 are free"):
        meter.reserve("a", CHEAP, 100)
    assert meter.reserve("decider", CHEAP, 100).output_cap == 150


def test_an_endpoint_that_bills_past_its_cap_is_booked_and_flagged() -> None:
    meter = Meter(nano(1000))
    with meter.reserve("a", CHEAP, 100) as call:
        call.settle(100, 2000)
    assert meter.calls[0].overrun
    assert meter.spend().nanodollars == 4100
    with pytest.raises(CallDenied):
        meter.reserve("a", CHEAP, 1)


def test_free_output_is_limited_by_the_prompt_alone() -> None:
    free_out = Backbone("f", Decimal("0.001"), Decimal(0), max_output_tokens=50)
    assert Meter(nano(100)).reserve("a", free_out, 100).output_cap == 50
    with pytest.raises(CallDenied):
        Meter(nano(100)).reserve("a", free_out, 101)


def test_a_resumed_run_goes_on_from_what_was_spent() -> None:
    meter = Meter(nano(3000), already=Spend(nanodollars=2800, prompt_tokens=1, calls=2))
    assert meter.reserve("a", CHEAP, 100).output_cap == 50
    assert meter.spend().calls == 2


def test_closing_books_open_calls_in_full_and_denies_later_ones() -> None:
    meter = Meter(nano(3000))
    call = meter.reserve("a", CHEAP, 100)
    meter.close()
    assert meter.spend().nanodollars == 2100
    with call:
        call.settle(1, 1)  # the straggler unwinds
    assert meter.spend().nanodollars == 2100
    with pytest.raises(CallDenied, match="the run is over"):
        meter.reserve("b", CHEAP, 1)


@pytest.mark.virtual_time
async def test_the_deadline_ends_a_call_and_denies_the_next() -> None:
    meter = Meter(Budget(latency_s=10))
    meter.protect("decider", seconds=4)
    with pytest.raises(DeadlineReached):
        with meter.reserve("a", CHEAP, 1) as call:
            async with call.in_time():
                await asyncio.sleep(60)
    assert meter.spend().latency_s == pytest.approx(6)
    with pytest.raises(DeadlineReached):
        meter.reserve("a", CHEAP, 1)
    with meter.reserve("decider", CHEAP, 1) as call:
        async with call.in_time():
            await asyncio.sleep(3.9)
        call.settle(1, 1)
    assert meter.spend("decider").latency_s == pytest.approx(3.9)
    assert meter.calls[-1].ended_s == pytest.approx(9.9)


@pytest.mark.virtual_time
async def test_a_call_that_raises_a_timeout_of_its_own_is_not_late() -> None:
    meter = Meter(Budget(latency_s=10))
    with pytest.raises(TimeoutError, match="the endpoint's"):
        with meter.reserve("a", CHEAP, 1) as call:
            async with call.in_time():
                raise TimeoutError("the endpoint's")


@given(
    cap=st.integers(100, 20_000),
    calls=st.lists(
        st.tuples(
            st.sampled_from("abd"),
            st.booleans(),
            st.integers(0, 400),
            st.integers(1, 1500),
            st.sampled_from(["settle", "lost", "refused", "open"]),
            st.floats(0, 1),
        ),
        max_size=30,
    ),
)
@settings(deadline=None)
def test_whatever_is_called_the_cap_holds(
    cap: int, calls: list[tuple[str, bool, int, int, str, float]]
) -> None:
    meter = Meter(nano(cap))
    meter.protect("d", nanodollars=cap // 3)
    for agent, dear, prompt, wanted, end, share in calls:
        try:
            call = meter.reserve(agent, DEAR if dear else CHEAP, prompt, wanted)
        except CallDenied:
            continue
        if end == "settle":
            call.settle(int(prompt * share), int(call.output_cap * share))
        elif end == "refused":
            call.release()
        elif end == "lost":
            call.__exit__(None, None, None)
        assert meter.spend().nanodollars <= cap
        others = sum(meter.spend(name).nanodollars for name in "ab")
        assert others <= cap - cap // 3
    meter.close()
    assert meter.spend().nanodollars <= cap


def test_the_cap_holds_over_threads() -> None:
    meter = Meter(nano(50_000))

    def work(name: str) -> None:
        for _ in range(200):
            try:
                with meter.reserve(name, CHEAP, 10, output_cap=20) as call:
                    call.settle(10, 20)
            except CallDenied:
                return

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.spend().nanodollars == meter.spend().calls * 50
    assert meter.spend().nanodollars <= 50_000
    assert meter.spend().calls > 990


def test_who_nothing_was_set_aside_for_gets_an_even_part_once() -> None:
    meter = Meter(Budget(tokens=900))
    meter.protect("a", tokens=600)
    meter.protect("b", tokens=300)
    with pytest.raises(CallDenied):
        meter.reserve("new", CHEAP, 10)
    for _ in range(2):
        meter.admit("new")
    with meter.reserve("new", CHEAP, 10) as call:
        # A third of either share.
        assert call.output_cap == 290
        call.settle(10, 1)
    assert meter.reserve("a", CHEAP, 10).output_cap == 900 - 11 - 200 - 10
