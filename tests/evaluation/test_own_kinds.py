"""Policies on traces of the user's own kinds of tasks are scored with what tells these apart, as
the catalog that `agentbalance record` writes has it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

import agentbalance_plugin
from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.budget import Budget
from agentbalance_plugin.core.recording import Question, Recorded, write_traces
from agentbalance_plugin.core.task_text import task_text
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.stage_worth import stage_worth
from agentbalance_plugin.evaluation.studies.catalogs import recorded_in_short
from agentbalance_plugin.evaluation.studies.setting import TEAM, Setting

SHIPPED = Path(agentbalance_plugin.__file__).parent / "data" / "policy"
TEXTS = {
    "refund": "A customer asks for the money of order {} back. What is the code of the refund?",
    "lease": "Clause {} of the lease is about sublets. After how many days may it be ended?",
}
# Who is right about which; nobody about both.
KNOWS = {"mini": "refund", "large": "lease"}
PRICES = {"mini": Decimal(1), "large": Decimal(2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    asked = [
        Question(text.format(n), str(n), kind) for kind, text in TEXTS.items() for n in range(20)
    ]
    rows = [
        Recorded(
            q.id, name, q.answer if right else name, right, 60, 100, 0, 0.2, 1.5, 160 * int(price)
        )
        for q in asked
        for name, price in PRICES.items()
        for right in (KNOWS[name] == q.category,)
    ]
    write_traces(
        folder, "tickets", asked, rows, Catalog(Backbone(n, p, p) for n, p in PRICES.items())
    )
    return folder


def test_the_shipped_policy_beside_a_trained_one_tells_kinds_apart(folder: Path) -> None:
    traces = TraceSet.load(folder, suite="tickets")
    found = stage_worth(SHIPPED, [traces], lambda done, total: None)
    assert found["shipped"][0] > 90.0


def test_studies_of_ones_own_traces_tell_kinds_apart(folder: Path) -> None:
    setting = Setting.of("tickets", folder=folder)
    queries = setting.traces.split("test").queries
    for catalog in (setting.catalog, recorded_in_short(setting.traces, 20)):
        for query in queries:
            text = task_text(query, setting.replay)
            plan = setting.policy.plan(text, TEAM, Budget(cost_usd=1.0), catalog)
            [name] = {*plan.assignment.values()}
            assert query.category == f"tickets/{KNOWS[str(name)]}"
