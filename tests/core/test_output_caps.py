from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_policy import backbone, random_checkpoint, shipped_catalog

from agentbalance_plugin.backbone import Backbone, Catalog, Endpoint, Profile
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.known import FRAMING_BYTES
from agentbalance_plugin.core.output_caps import with_caps
from agentbalance_plugin.core.policy import Knobs, Policy
from agentbalance_plugin.core.prediction import Outlook, look_ahead
from agentbalance_plugin.core.profiles import ProfileTable
from agentbalance_plugin.core.reply_cuts import reply_cuts
from agentbalance_plugin.team import Agent, Team

CUTS = dict.fromkeys(("sums", "logic"), ((2.0, 0.98, 0.7), (1.2, 0.9, 0.55)))


def wordy(name: str, cuts: object = CUTS, **more: object) -> Backbone:
    profile = Profile(
        successes={"sums/easy": 80.0},
        trials={"sums/easy": 100.0},
        visible_tokens={"sums/easy": 400.0},
        prompt_tokens={"sums/easy": 100.0},
        cuts=cuts,  # type: ignore[arg-type]
    )
    return replace(backbone(name), profile=profile, **more)  # type: ignore[arg-type]


def outlook_of(*backbones: Backbone) -> tuple[Outlook, ProfileTable]:
    checkpoint = random_checkpoint()
    table = ProfileTable.of(Catalog(backbones), checkpoint.priors)
    vector = np.zeros((1, checkpoint.anchors.shape[1]), dtype=np.float32)
    return look_ahead(checkpoint, table, vector, np.array([400.0])), table


def capped(
    price: float, second: float, *backbones: Backbone
) -> tuple[Outlook, Outlook, np.ndarray]:
    before, table = outlook_of(*backbones)
    after, caps = with_caps(before, table, np.array([price]), np.array([second]))
    return before, after, caps


def test_free_replies_are_not_cut() -> None:
    before, after, caps = capped(0.0, 0.0, wordy("a"))
    assert np.isinf(caps).all()
    assert after is before


@pytest.mark.parametrize(("price", "second"), [(300.0, 0.0), (0.0, 0.05)])
def test_a_price_buys_shorter_replies_and_never_a_call_of_less_worth(
    price: float, second: float
) -> None:
    before, after, caps = capped(price, second, wordy("a"))
    assert np.isfinite(caps).all()

    def worth(outlook: Outlook) -> float:
        found = outlook.predicted
        success = 1.0 / (1.0 + np.exp(-found.log_odds))
        return float((success - price * found.cost_usd - second * found.latency_s)[0, 0])

    assert worth(after) > worth(before)
    assert after.predicted.log_odds < before.predicted.log_odds
    assert after.predicted.cost_usd < before.predicted.cost_usd
    assert after.predicted.latency_s < before.predicted.latency_s


def test_caps_never_grow_with_the_price() -> None:
    caps = [float(capped(price, 0.0, wordy("a"))[2][0, 0]) for price in (0, 10, 100, 1e3, 1e5)]
    assert caps == sorted(caps, reverse=True)
    assert np.isinf(caps[0])
    assert np.isfinite(caps[-1])


def test_backbones_that_reason_or_are_unknown_are_left_whole() -> None:
    _, _, caps = capped(1e4, 0.0, wordy("a", reasoning="yes"), wordy("b", cuts={}), backbone("c"))
    assert np.isinf(caps).all()


def test_plans_carry_the_caps_and_say_what_they_expect_under_them() -> None:
    policy = Policy(random_checkpoint())
    team = Team((Agent("solver"),), decider="solver")
    catalog = Catalog([wordy("a", max_output_tokens=100_000)])
    budget = Budget(cost_usd=10.0)
    free, dear = (
        policy.plan("2 + 2?", team, budget, catalog, Knobs(price_usd=price)) for price in (0, 1e5)
    )
    assert dear.output_caps["solver"] < free.output_caps["solver"]
    assert free.expected is not None
    assert dear.expected is not None
    assert dear.expected.cost_usd < free.expected.cost_usd
    assert dear.expected.success < free.expected.success


def test_a_budget_with_room_for_the_plans_own_longest_replies_cuts_none() -> None:
    """However many agents more the team has, and however short a reply is expected to be."""
    policy = Policy(random_checkpoint())
    team = Team(tuple(Agent(name) for name in ("one", "two", "solver")), decider="solver")
    more = {"reasoning": "yes", "hidden_tokens": {"sums": 900}, "max_output_tokens": 100_000}
    thinker = wordy("a", cuts={}, **more)
    # What the meter would hold for one call of the shortest prompt, and of one a little longer.
    least, most = (thinker.cost(size, thinker.max_output_tokens) / 1e9 for size in (5, 400))
    seen: set[bool] = set()
    for money in np.linspace(0.3, 3.5, 9) * most:
        plan = policy.plan("2 + 2?", team, Budget(cost_usd=money), Catalog([thinker]))
        whole = set(plan.output_caps.values()) == {thinker.max_output_tokens}
        if 0.9 * money > most * len(plan.assignment):
            assert whole
        if money < least * len(plan.assignment):
            assert max(plan.output_caps.values()) < thinker.max_output_tokens
        seen.add(whole)
    assert seen == {True, False}


@pytest.mark.parametrize("money", [0.002, 0.004, 0.02, 0.3])
@pytest.mark.parametrize(
    "task", ["What is 17 * 23?", "Write a short poem about the sea.", "Translate: good morning"]
)
def test_agents_may_write_as_long_as_the_budget_affords(task: str, money: float) -> None:
    """Whatever was recorded of such tasks: agents may be asked for more than a letter."""
    policy, team = Policy.load(), Team(tuple(Agent(name) for name in "abc"), decider="c")
    endpoint = Endpoint(model="m", base_url="http://127.0.0.1:9/v1")
    candidates = shipped_catalog().subset(
        ["gpt-4o-mini-2024-07-18", "gemini-1.5-flash", "gpt-4o-2024-08-06"]
    )
    catalog = Catalog(
        replace(each, endpoint=endpoint, profile=replace(each.profile or Profile(), cuts={}))
        for each in candidates.values()
    )
    plan = policy.plan(task, team, Budget(cost_usd=money), catalog)
    prompt = len(task.encode()) + FRAMING_BYTES
    worst = 0
    for agent, backbone_name in plan.assignment.items():
        assert backbone_name is not None
        worst += catalog[backbone_name].cost(prompt, plan.output_caps[agent])
    assert worst <= money * 1e9
    whole = set(plan.output_caps.values()) == {4096}
    assert whole or worst > 0.85 * money * 1e9
    assert min(plan.output_caps.values()) > 100


def cuts_of(tokens: np.ndarray, correct: np.ndarray) -> object:
    """Of queries that are all of one category."""
    of_query = np.zeros(len(tokens), dtype=np.int64)
    return reply_cuts(["sums/easy"], of_query, np.array([tokens.mean()]), tokens, correct)


def test_the_longest_replies_tell_where_to_cut() -> None:
    rng = np.random.default_rng(0)
    tokens = np.full(400, 100) + rng.integers(0, 20, size=400)
    correct = np.ones(400, dtype=np.int64)
    # One in fifteen never comes to an end and is wrong.
    tokens[::15], correct[::15] = 4000, 0
    found = cuts_of(tokens[:, None], correct[:, None])
    # A cap that leaves 95 of 100 whole would cut none of them: it is not worth a thought.
    multiple, right, kept = found["sums"][0]
    assert 100 < multiple * tokens.mean() < 130
    assert right > 0.97
    assert kept < 0.35


def test_a_few_answers_say_nothing_of_the_longest() -> None:
    tokens, correct = np.arange(1, 51)[:, None], np.ones((50, 1), dtype=np.int64)
    assert cuts_of(tokens, correct) == {}
    # Where all are as long as each other there is nothing to cut.
    assert cuts_of(np.ones((200, 1), dtype=np.int64), np.ones((200, 1), dtype=np.int64)) == {}


def test_cuts_that_make_no_sense_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"profile cuts of 'sums'.*\(0\.5, 1\.2, 0\.4\)"):
        Profile(cuts={"sums": ((0.5, 1.2, 0.4),)})
