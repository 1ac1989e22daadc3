"""A task that is too long for a backbone's context is planned without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentbalance_plugin import Agent, Budget, Catalog, Policy, Team
from agentbalance_plugin.core.roomy import RoomyCatalogs
from agentbalance_plugin.core.traces import TraceSet

MINI, LLAMA, LARGE = "gpt-4o-mini-2024-07-18", "Meta-Llama-3.1-70B-Instruct", "gpt-4o-2024-08-06"
TEAM = Team((Agent("solver"), Agent("checker"), Agent("decider")), "decider")
LONG = "How many pens are 3 and 4? " * 1500


@pytest.fixture(scope="module")
def catalog(shipped: TraceSet) -> Catalog:
    """Two with eight thousand tokens of context, one with a hundred and twenty-eight thousand."""
    found = shipped.profiled_candidates().subset((MINI, LLAMA, LARGE))
    rooms = {MINI: 8_192, LLAMA: 8_192, LARGE: 128_000}
    return Catalog(replace(b, context_tokens=rooms[name]) for name, b in found.items())


def test_long_tasks_are_planned_on_backbones_that_have_room(catalog: Catalog) -> None:
    policy, budget = Policy.load(), Budget(cost_usd=5.0)
    short, long = policy.plan_batch(["What is 3 + 4?", LONG], TEAM, budget, catalog)
    assert set(short.assignment.values()) - {LARGE}
    assert set(long.assignment.values()) == {LARGE}
    long.validate(TEAM, catalog)
    assert policy.plan(LONG, TEAM, budget, catalog) == long
    assert policy.explain(LONG, TEAM, budget, catalog)["plan"]["assignment"] == dict(
        long.assignment
    )


def test_plans_of_short_tasks_do_not_hang_on_contexts(catalog: Catalog) -> None:
    policy, budget = Policy.load(), Budget(cost_usd=0.01)
    bare = Catalog(replace(backbone, context_tokens=None) for backbone in catalog.values())
    text = "What is 17 * 23?"
    assert policy.plan(text, TEAM, budget, catalog) == policy.plan(text, TEAM, budget, bare)


def test_a_part_is_made_once_and_an_unknown_context_is_roomy(catalog: Catalog) -> None:
    roomy = RoomyCatalogs()
    assert roomy.of(catalog, "short", TEAM) is catalog
    part = roomy.of(catalog, LONG, TEAM)
    assert list(part) == [LARGE]
    assert roomy.of(catalog, LONG, TEAM) is part
    unknown = Catalog([replace(catalog[MINI], context_tokens=None), catalog[LLAMA]])
    assert list(roomy.of(unknown, LONG, TEAM)) == [MINI]


def test_where_none_has_room_the_roomiest_is_taken(catalog: Catalog) -> None:
    assert list(RoomyCatalogs().of(catalog, LONG * 100, TEAM)) == [LARGE]


def test_an_agent_whose_only_backbone_is_small_keeps_it(catalog: Catalog) -> None:
    able = replace(catalog[MINI], capabilities=frozenset({"text", "vision"}))
    mixed = Catalog([able, catalog[LARGE]])
    team = Team((Agent("eye", needs=frozenset({"text", "vision"})), Agent("decider")), "decider")
    assert RoomyCatalogs().of(mixed, LONG, team) is mixed
    pinned = Team((Agent("solver", backbone=MINI), Agent("decider")), "decider")
    assert RoomyCatalogs().of(catalog, LONG, pinned) is catalog
