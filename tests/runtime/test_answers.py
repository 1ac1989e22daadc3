from __future__ import annotations

import pytest

from agentbalance_plugin.runtime.answers import extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So it is.\nAnswer: 42.", "42"),
        ("**Final Answer:** $1,234.50", "1234.5"),
        ("Answer: 1\nno, wait\nfinal answer: 2", "2"),
        ("> answer : (b)", "B"),
        ("Answer: \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("first \\boxed{3}, then \\boxed{{a}+b}", "{a}+b"),
        ("Answer: 7 and \\boxed{8}", "7 and \\boxed{8}".replace("7 and \\boxed{8}", "8")),
        ("(c)", "C"),
        ("D.", "D"),
        ('{"reasoning": "x", "answer": 3.0}', "3"),
        ('```json\n{"answer": "yes"}\n```', "yes"),
        ("-1,000.00", "-1000"),
        ("0.50", "0.5"),
        ("Answer: [1,  2]", "[1, 2]"),
        ("Answer: C++", "C++"),
        ("Answer: A-", "A-"),
        ("Answer: $42$", "42"),
        ("Answer: \\(42\\)", "42"),
        ("Answer: $b$", "B"),
        ("Answer:", None),
        ("I think it is 7", None),
        ("An answer: none", None),
        ("\\boxed{unclosed", None),
        ('{"answer": null}', None),
        ("{not json}", None),
        ("", None),
    ],
)
def test_first_rule_that_matches_wins(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("one", "other"), [("1,000", "1000.0"), ("$5", "5"), (".5", "0.50"), ("-0", "0"), ("007", "7")]
)
def test_numbers_that_mean_the_same_are_equal(one: str, other: str) -> None:
    assert extract_answer(f"Answer: {one}") == extract_answer(other)
