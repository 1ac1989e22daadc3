"""The replay against the plain loop that it is measured with."""

from __future__ import annotations

from agentbalance_plugin.cli.benches.replay import check_outcomes


def test_the_measured_loop_makes_the_very_outcomes_of_the_replay() -> None:
    check_outcomes(pairs=60, seed=2)
