"""What is said beside the numbers is read off the traces."""

from __future__ import annotations

import pytest

from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.evaluation.assumptions import assumptions


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("reasoning", "hidden reasoning tokens of o1-mini-2024-09-12 are estimates"),
        ("mmlu_pro", "prices of 9 of 14 candidates are nominal"),
        ("mmlu_pro", "gemini-1.5-pro-002, whose recorded replies have a median of 36 tokens (bare"),
        ("mmlu", "measured for 10 backbones alone"),
        ("gpqa_diamond", "claude-3-haiku-20240307 were recorded without an answer to compare"),
        ("gpqa_diamond", "further samples are recorded ones where there are any"),
        ("humaneval", "no answers were recorded, only whether they are right"),
    ],
)
def test_the_weak_spots_of_a_suite_are_named(suite: str, said: str) -> None:
    assert said in "; ".join(assumptions(TraceSet.shipped(suite)))
