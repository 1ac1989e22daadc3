from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plain_replay import Outcome, PlainBackbones, execute, plain_outcome
from trace_folder import Row, row, write_benchmark, write_catalog

from agentbalance_plugin.agreement import leading_answer
from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.core.communication import FIRST_NEW_ANSWER, Influence
from agentbalance_plugin.core.reference import reference_budgets, reference_plan
from agentbalance_plugin.core.replay import Outcomes, PeerReply, Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import LateGate, Plan

AGENTS = ("ada", "ben", "cleo", "dan", "eve")


def random_plan(rng: random.Random, backbones: tuple[str, ...]) -> Plan:
    names = AGENTS[: rng.randint(1, 5)]
    assignment: dict[str, str | None] = {name: rng.choice(backbones) for name in names}
    if rng.random() < 0.15:
        assignment[rng.choice(names)] = None
    order = list(names)
    rng.shuffle(order)
    pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    weights = {name: rng.choice([0.5, 1.0, 2.0]) for name in names if rng.random() < 0.7}
    gates: dict[str, LateGate] = {}
    for place, name in enumerate(order):
        if place and rng.random() < 0.35:
            watches = tuple(rng.sample(order[:place], rng.randint(1, place)))
            threshold = rng.uniform(0.3, 1.0)
            if rng.random() < 0.4:
                # Exactly the confidence of full agreement: the gate then stays closed.
                voices = [weights.get(watched, 1.0) for watched in watches]
                threshold = leading_answer([1] * len(watches), voices)[1]
            gates[name] = LateGate(watches, threshold)
    votes = rng.random() < 0.4
    if rng.random() < 0.25:
        return Plan(
            assignment=assignment,
            decision="vote",
            decider=rng.choice([None, *names]),
            stop_at=rng.uniform(0.2, 0.95),
            weights=weights,
        )
    return Plan(
        assignment=assignment,
        edges=tuple(pair for pair in pairs if rng.random() < 0.5),
        decision="vote" if votes else "agent",
        decider=rng.choice([None, *names]) if votes else rng.choice(names),
        late_gates=gates,
        weights=weights,
        output_caps={name: rng.randint(100, 900) for name in names if rng.random() < 0.3},
    )


def at(outcomes: Outcomes, *index: int) -> Outcome:
    return Outcome(
        correct=bool(outcomes.correct[index]),
        answer=int(outcomes.answer[index]),
        cost_nanodollars=int(outcomes.cost_nanodollars[index]),
        latency_s=pytest.approx(float(outcomes.latency_s[index]), rel=1e-9),
        prompt_tokens=int(outcomes.prompt_tokens[index]),
        completion_tokens=int(outcomes.completion_tokens[index]),
        calls=int(outcomes.calls[index]),
        hops=int(outcomes.hops[index]),
    )


@pytest.mark.parametrize("copies", ["resampled", "identical"])
def test_evaluate_follows_the_plain_rules(traces: TraceSet, copies: str) -> None:
    rng = random.Random(11)
    plans = [random_plan(rng, traces.backbones) for _ in range(40)]
    queries = rng.sample(range(len(traces.queries)), 20)
    samples = {"ben": 1, "dan": 2}
    replay = Replay(traces, seed=5, copies=copies)  # type: ignore[arg-type]
    outcomes = replay.evaluate(queries, plans, samples=samples)
    plain = PlainBackbones(traces, 5, copies)
    for i, query in enumerate(queries):
        for j, plan in enumerate(plans):
            expected = plain_outcome(plain, traces.queries[query].key, plan, samples)
            assert at(outcomes, i, j) == expected, (traces.queries[query].key, plan)
    assert outcomes.provenance.influenced > 100
    assert outcomes.provenance.cut > 100
    assert outcomes.provenance.missing > 10
    assert (outcomes.provenance.resampled > 100) == (copies == "resampled")


def test_replies_step_by_step_agree_with_evaluate(traces: TraceSet) -> None:
    rng = random.Random(2)
    replay = Replay(traces, seed=1)
    plans = [random_plan(rng, traces.backbones) for _ in range(25)]
    queries = rng.sample(range(len(traces.queries)), 10)
    outcomes = replay.evaluate(queries, plans)
    for i, query in enumerate(queries):
        key = traces.queries[query].key
        for j, plan in enumerate(plans):
            stepwise = execute(
                plan,
                lambda agent, backbone, peers, cap, key=key: replay.reply(
                    key, backbone, agent=agent, peers=peers, output_cap=cap
                ),
            )
            assert at(outcomes, i, j) == stepwise


def test_nothing_depends_on_order_or_company(traces: TraceSet) -> None:
    rng = random.Random(3)
    plans = [random_plan(rng, traces.backbones) for _ in range(12)]
    queries = np.arange(len(traces.queries))
    together = Replay(traces, seed=9).evaluate(queries, plans)
    shuffled = np.random.default_rng(0).permutation(queries)
    again = Replay(traces, seed=9).evaluate(shuffled, plans[::-1])
    for field in ("correct", "answer", "cost_nanodollars", "latency_s", "calls", "hops"):
        left = getattr(together, field)[shuffled][:, ::-1]
        assert np.array_equal(left, getattr(again, field)), field
    alone = Replay(traces, seed=9).evaluate([4], plans[7])
    assert at(alone, 0) == at(together, 4, 7)
    assert together.provenance == again.provenance
    other_seed = Replay(traces, seed=10).evaluate(queries, plans)
    assert not np.array_equal(together.latency_s, other_seed.latency_s)
    pairs = Replay(traces, seed=9).evaluate_pairs([4, 9, 4], [plans[7], plans[2], plans[0]])
    for place, (query, plan) in enumerate([(4, 7), (9, 2), (4, 0)]):
        assert at(pairs, place) == at(together, query, plan)
    with pytest.raises(ValueError, match="2 queries but 1 plans"):
        Replay(traces).evaluate_pairs([1, 2], plans[:1])


# A hand-written folder, for rules that are easiest to see on single numbers.

HAND = [
    row("1", "a", "x", 1, prompt_tokens=100, completion_tokens=40),
    row("1", "b", "y", 0, prompt_tokens=90, completion_tokens=60),
    row("1", "c", "y", 0, prompt_tokens=80, completion_tokens=20),
    row("2", "a", "x", 1, prompt_tokens=300, completion_tokens=10),
    row("2", "b", "x", 1, prompt_tokens=200, completion_tokens=30),
    row("2", "c", None, 0, prompt_tokens=10, completion_tokens=20),
    row("3", "a", None, 1, prompt_tokens=50, completion_tokens=5),
    row("3", "b", None, 0, prompt_tokens=50, completion_tokens=5),
]


@pytest.fixture
def hand(tmp_path: Path) -> TraceSet:
    write_catalog(
        tmp_path,
        ["a,1,2,1,10,100,50", "b,2.5,10,2,20,0,", "c,0.000101,0.0005,3,30,0,"],
        "backbone,price_in_usd_per_mtok,price_out_usd_per_mtok,ttft_s,tokens_per_s,"
        "hidden_reasoning_tokens_other,max_output_tokens",
    )
    queries: list[Row] = [{"query_id": str(n), "split": "eval"} for n in (1, 2, 3)]
    write_benchmark(tmp_path, "bench", queries, HAND)
    return TraceSet.load(tmp_path)


SURE = Influence(own=1e6)
SWAYED = Influence(own=-1e6, new=-1e9)


def test_prompts_grow_by_the_visible_tokens_that_are_read(hand: TraceSet) -> None:
    chain = Plan(
        assignment={"p": "a", "q": "b", "r": "c"},
        edges=(("p", "q"), ("p", "r"), ("q", "r")),
        decider="r",
    )
    outcomes = Replay(hand, influence=SURE).evaluate([0], chain)
    assert outcomes.prompt_tokens[0] == 100 + (90 + 40) + (80 + 40 + 60)
    assert outcomes.completion_tokens[0] == 40 + 60 + 20
    # c bills 180 * 0.101 + 20 * 0.5 = 28.18 nano-dollars, rounded up.
    assert outcomes.cost_nanodollars[0] == (100_000 + 80_000) + (130 * 2500 + 600_000) + 29
    assert outcomes.cost_usd[0] == outcomes.cost_nanodollars[0] / 1e9
    assert (outcomes.calls[0], outcomes.hops[0]) == (3, 3)
    assert not outcomes.correct[0]


def test_latency_is_the_longest_path(hand: TraceSet) -> None:
    replay = Replay(hand)
    seconds = {
        agent: replay.reply("bench/1", backbone, agent=agent).latency_s
        for agent, backbone in {"p": "a", "q": "b"}.items()
    }
    parallel = replay.evaluate([0], Plan(assignment={"p": "a", "q": "b"}, decision="vote"))
    assert parallel.latency_s[0] == max(seconds.values())
    assert parallel.hops[0] == 1
    chain = Plan(assignment={"p": "a", "q": "b"}, edges=(("p", "q"),), decider="q")
    assert replay.evaluate([0], chain).latency_s[0] == pytest.approx(sum(seconds.values()))
    noise = [
        replay.reply("bench/1", "b", agent=f"agent {number}").latency_s / (2 + 60 / 20)
        for number in range(2000)
    ]
    assert np.mean(noise) == pytest.approx(1, abs=0.02)
    assert np.std(np.log(noise)) == pytest.approx(0.2, abs=0.01)


def test_measured_latency_is_used_as_it_is(tmp_path: Path) -> None:
    write_catalog(tmp_path, ["a,1,2,1,10", "b,1,2,1,10"])
    rows = [row("1", "a", "x", 1, latency_s=0.25), row("1", "b", "x", 1, latency_s=None)]
    write_benchmark(tmp_path, "bench", [{"query_id": "1", "split": "train"}], rows)
    replay = Replay(TraceSet.load(tmp_path))
    assert replay.reply("bench/1", "a", agent="p").latency_s == 0.25
    assert replay.reply("bench/1", "a", agent="p", output_cap=5).latency_s != 0.25
    outcomes = replay.evaluate([0], Plan(assignment={"p": "a", "q": "b"}, decision="vote"))
    assert outcomes.provenance.measured == 1


def test_the_output_cap_ends_a_call_without_an_answer(hand: TraceSet) -> None:
    replay = Replay(hand)
    whole = replay.reply("bench/1", "a", agent="p", output_cap=40)
    assert (whole.finish, whole.answer, whole.correct) == ("stop", 0, True)
    cut = replay.reply("bench/1", "a", agent="p", output_cap=39)
    assert (cut.finish, cut.answer, cut.correct) == ("length", -1, False)
    assert (cut.visible_tokens, cut.completion_tokens) == (39, 39)
    thinking = Catalog([replace(hand.catalog["a"], hidden_tokens={"bench": 30})])
    replay = Replay(hand, thinking)
    own_cap = replay.reply("bench/1", "a", agent="p")
    assert (own_cap.visible_tokens, own_cap.hidden_tokens, own_cap.finish) == (20, 30, "length")
    tiny = replay.reply("bench/1", "a", agent="p", output_cap=8)
    assert (tiny.visible_tokens, tiny.hidden_tokens) == (0, 8)
    fits = replay.reply("bench/2", "a", agent="p")
    assert (fits.completion_tokens, fits.finish) == (40, "stop")
    outcomes = replay.evaluate([0, 1], Plan(assignment={"p": "a"}, decider="p"))
    assert outcomes.provenance.cut == 1
    assert (outcomes.provenance.hidden, outcomes.provenance.hidden_tokens) == (2, 60)
    assert "60 hidden reasoning tokens" in outcomes.provenance.describe()


def test_a_missing_row_is_wrong_at_mean_tokens(hand: TraceSet) -> None:
    replay = Replay(hand, influence=SWAYED)
    peer = PeerReply("a", 0, True, 7)
    reply = replay.reply("bench/3", "c", agent="p", peers=[peer])
    assert (reply.answer, reply.correct, reply.finish) == (-1, False, "stop")
    assert (reply.prompt_tokens, reply.visible_tokens) == (45 + 7, 20)
    outcomes = replay.evaluate([1, 2], Plan(assignment={"p": "c"}, decider="p"))
    assert outcomes.provenance.missing == 1
    assert outcomes.calls.tolist() == [1, 1]
    assert not outcomes.correct.any()


@pytest.mark.parametrize(
    ("weights", "correct"), [({}, False), ({"p": 2.5}, True), ({"p": 2.0}, True)]
)
def test_votes_are_weighted_and_ties_go_to_the_first(
    hand: TraceSet, weights: dict[str, float], correct: bool
) -> None:
    plan = Plan(assignment={"p": "a", "q": "b", "r": "c"}, decision="vote", weights=weights)
    assert Replay(hand).evaluate([0], plan).correct[0] == correct


def test_a_vote_without_answers_emits_the_decider_or_the_most_reliable(hand: TraceSet) -> None:
    replay = Replay(hand)
    pair = {"p": "a", "q": "b"}
    for plan, correct in (
        (Plan(assignment=pair, decision="vote"), False),
        (Plan(assignment=pair, decision="vote", decider="p"), True),
        (Plan(assignment=pair, decision="vote", weights={"p": 1.5}), True),
    ):
        outcomes = replay.evaluate([2], plan)
        assert (outcomes.correct[0], outcomes.answer[0]) == (correct, -1)


def test_a_late_gated_decider_leaves_the_decision_to_the_vote(hand: TraceSet) -> None:
    agreed = leading_answer([1, 1], [1.0, 1.0])[1]
    for threshold, runs in ((agreed, [True, False]), (math.nextafter(agreed, 1), [True, True])):
        plan = Plan(
            assignment={"p": "a", "q": "b", "d": "c"},
            decider="d",
            late_gates={"d": LateGate(("p", "q"), threshold)},
        )
        outcomes = Replay(hand).evaluate([0, 1], plan)
        assert (outcomes.calls == 3).tolist() == runs
        assert (outcomes.hops == 2).tolist() == runs
        # Query 1: a and b differ, c decides wrongly. Query 2: both are right, c has no answer.
        assert outcomes.correct.tolist() == [False, not runs[1]]


def test_watching_passes_no_message(hand: TraceSet) -> None:
    plan = Plan(
        assignment={"p": "a", "q": "b"}, decider="q", late_gates={"q": LateGate(("p",), 1.0)}
    )
    outcomes = Replay(hand).evaluate([0], plan)
    assert outcomes.prompt_tokens[0] == 100 + 90
    assert outcomes.provenance.influenced == 0


def test_reading_changes_minds_only_where_there_is_disagreement(hand: TraceSet) -> None:
    swayed = Replay(hand, influence=SWAYED)
    right = PeerReply("a", 0, True, 40)
    assert swayed.reply("bench/1", "b", agent="p", peers=[right]).correct
    assert not Replay(hand, influence=SURE).reply("bench/1", "b", agent="p", peers=[right]).correct
    inventive = Replay(hand, influence=Influence(new=1e6))
    new = [
        inventive.reply("bench/1", "b", agent=agent, peers=[right]).answer for agent in ("p", "q")
    ]
    assert min(new) >= FIRST_NEW_ANSWER
    assert new[0] != new[1]
    agreeing = inventive.reply("bench/1", "b", agent="p", peers=[PeerReply("c", 1, False, 20)])
    silent = inventive.reply("bench/1", "b", agent="p", peers=[PeerReply("c", -1, False, 20)])
    assert agreeing.answer == silent.answer == 1


def test_influence_draws_with_the_stated_probabilities(traces: TraceSet) -> None:
    replay = Replay(traces, influence=Influence(0.5, 0.4, -1.0, count=0.0, right=0.0))
    plain = PlainBackbones(traces, 0)
    key = next(
        query.key
        for index, query in enumerate(traces.queries)
        if traces.answer[index, traces.backbones.index("big")] >= 0
    )
    category = traces.queries[traces.index(key)].category
    own = replay.reply(key, "big", agent="x").answer
    peers = [PeerReply("mid2", 900, True, 1), PeerReply("small", own, False, 1)]
    utilities = np.array(
        [
            0.5 + 0.4 * (plain.log_odds(category, "big") + plain.log_odds(category, "small")),
            0.4 * plain.log_odds(category, "mid2"),
            -1.0,
        ]
    )
    expected = np.exp(utilities) / np.exp(utilities).sum()
    turns = 1500
    said = np.array(
        [replay.reply(key, "big", agent="x", turn=n, peers=peers).answer for n in range(turns)]
    )
    found = [(said == own).mean(), (said == 900).mean(), (said >= FIRST_NEW_ANSWER).mean()]
    assert found == pytest.approx(expected.tolist(), abs=0.04)


def test_copies_repeat_themselves_as_often_as_similar_backbones_agree(traces: TraceSet) -> None:
    plain = PlainBackbones(traces, 0)
    replay = Replay(traces)
    row = next(i for i in range(len(traces.queries)) if (traces.correct[i] >= 0).all())
    query = traces.queries[row]
    similar, repeats = plain.near(query.category, "big")
    own = traces.answer[row, traces.backbones.index("big")]
    theirs = [traces.answer[row, traces.backbones.index(name)] for name in similar]
    answers = np.array(
        [replay.reply(query.key, "big", agent="p", sample=k).answer for k in range(1, 1501)]
    )
    alike = repeats + (1 - repeats) * np.mean([their == own for their in theirs])
    assert (answers == own).mean() == pytest.approx(alike, abs=0.04)
    assert set(answers) == {own, *theirs}
    identical = Replay(traces, copies="identical")
    assert identical.reply(query.key, "big", agent="p", sample=7).answer == own


def test_real_samples_are_preferred_to_resampling(traces: TraceSet) -> None:
    column = traces.backbones.index("mid")
    row = next(
        i for i in range(len(traces.queries)) if (traces.samples.correct[i, column] >= 0).all()
    )
    replay = Replay(traces)
    for sample in range(3):
        reply = replay.reply(traces.queries[row].key, "mid", agent="p", sample=sample)
        assert reply.answer == traces.samples.answer[row, column, sample]
        assert reply.visible_tokens == traces.samples.visible_tokens[row, column, sample]
    pair = Plan(assignment={"p": "mid", "q": "mid"}, decision="vote")
    assert replay.evaluate([row], pair, samples={"q": 2}).provenance.resampled == 0


def test_a_reader_is_the_next_sample_of_its_backbone(traces: TraceSet) -> None:
    replay = Replay(traces, influence=SURE)
    peers = [PeerReply("small", 0, True, 1), PeerReply("big", 0, True, 1)] * 2
    for query in traces.queries[:20]:
        read = replay.reply(query.key, "big", agent="p", peers=peers)
        second = replay.reply(query.key, "big", agent="p", sample=2)
        # Nothing but an answer of one's own makes one sure.
        if second.answer >= 0:
            assert (read.answer, read.correct) == (second.answer, second.correct)


def test_without_the_training_split_sources_count_alike(hand: TraceSet) -> None:
    replay = Replay(hand)
    outcomes = replay.evaluate([0], reference_plan("b"))
    assert outcomes.provenance.estimated_on is None
    assert "no split" in outcomes.provenance.describe()
    peers = [PeerReply("a", 0, True, 1)]
    said = [
        replay.reply("bench/1", "b", agent="p", turn=turn, peers=peers).answer
        for turn in range(1500)
    ]
    expected = math.exp(1.0) / (math.exp(1.0) + math.exp(1.3) + math.exp(-0.28))
    assert np.mean([answer == 1 for answer in said]) == pytest.approx(expected, abs=0.04)


def test_at_other_prices_and_speeds_it_is_as_if_made_anew(traces: TraceSet) -> None:
    rng = random.Random(3)
    plans = [random_plan(rng, traces.backbones) for _ in range(10)]
    queries = rng.sample(range(len(traces.queries)), 10)
    replay = Replay(traces, seed=5)
    before = replay.evaluate(queries, plans)
    other = Catalog(
        replace(
            backbone,
            price_in_usd_per_mtok=3 * backbone.price_in_usd_per_mtok,
            tokens_per_s=20.0,
            hidden_tokens=dict.fromkeys(traces.benchmarks, 70),
            max_output_tokens=400,
        )
        for backbone in traces.catalog.values()
    )
    for shared, anew in ((replay.at(other), Replay(traces, other, seed=5)), (replay, replay)):
        found, wanted = shared.evaluate(queries, plans), anew.evaluate(queries, plans)
        for name in ("correct", "cost_nanodollars", "latency_s", "completion_tokens"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert (found.cost_nanodollars == before.cost_nanodollars).all()
    few = other.subset([traces.backbones[0]])
    assert replay.at(few).catalog[traces.backbones[0]].tokens_per_s == 20.0
    rest = traces.backbones[1]
    assert replay.at(few).catalog[rest] == traces.catalog[rest]


def test_unknown_names_are_errors(traces: TraceSet) -> None:
    replay = Replay(traces)
    with pytest.raises(KeyError, match="no recorded backbone 'gpt-9'; there are small"):
        replay.evaluate([0], Plan(assignment={"p": "gpt-9"}, decider="p"))
    with pytest.raises(KeyError, match="no query 'sums/x'"):
        replay.reply("sums/x", "big", agent="p")
    with pytest.raises(ValueError, match="copies must be"):
        Replay(traces, copies="none")  # type: ignore[arg-type]


def test_reference_chat_and_budgets(traces: TraceSet) -> None:
    plan = reference_plan("big", ["w", "x", "y", "z"])
    assert plan.parents("z") == ("w", "x", "y")
    assert (plan.decider, plan.depth) == ("z", 4)
    replay = Replay(traces, copies="identical")
    test = traces.positions("test")
    # Copies that answer alike never disagree, so the chat is as good as one call.
    single = replay.evaluate(test, Plan(assignment={"a": "big"}, decider="a"))
    assert np.array_equal(replay.evaluate(test, plan).correct, single.correct)
    budgets = reference_budgets(traces, "test")
    assert budgets.cost_usd[2] == pytest.approx(4 * single.cost_usd.mean())
    assert budgets.cost_usd[:2] == pytest.approx(
        [0.1 * budgets.cost_usd[2], 0.3 * budgets.cost_usd[2]]
    )
    assert budgets.latency_s[2] == pytest.approx(2 * single.latency_s.mean(), rel=0.1)
    assert budgets.latency_s[:2] == pytest.approx(
        [0.5 * budgets.latency_s[2], 0.75 * budgets.latency_s[2]]
    )
    with pytest.raises(ValueError, match="no reference backbone"):
        reference_budgets(traces.subset(["mid"]))
