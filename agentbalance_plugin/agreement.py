"""How much the answers of several agents agree.

The one definition shared by the scheduler (late gates, votes), the replay and the policy.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence


def leading_answer(
    answers: Sequence[Hashable | None], weights: Sequence[float]
) -> tuple[int | None, float]:
    """The answer with the most weight behind it, and how sure the voters make it.

    Each distinct answer collects the weights of the agents that gave it; a weight is the log-odds
    that this agent is right. The confidence is the posterior of the leading answer with "none of
    these" at log-odds 0: exp(u) / (1 + sum of exp(u')). One voter that is right with probability p
    thus gives p; two who agree give more, two who differ less. A missing answer (None) agrees with
    nothing: it counts like an answer that nobody else gave, and never leads.

    Args:
        answers: one per agent, None where there is none.
        weights: log-odds per agent, same length.

    Returns:
        (index of the first agent, in the given order, that holds the leading answer, confidence in
        [0, 1)); (None, 0.0) when nobody answered. Ties go to the answer given first.
    """
    totals: dict[Hashable, float] = {}
    first: dict[Hashable, int] = {}
    missing: list[float] = []
    for index, (answer, weight) in enumerate(zip(answers, weights, strict=True)):
        if answer is None:
            missing.append(weight)
            continue
        totals[answer] = totals.get(answer, 0.0) + weight
        first.setdefault(answer, index)
    if not totals:
        return None, 0.0
    leader = max(totals, key=lambda answer: (totals[answer], -first[answer]))
    others = [*totals.values(), *missing]
    top = max(0.0, *others)
    norm = math.exp(-top) + sum(math.exp(total - top) for total in others)
    return first[leader], math.exp(totals[leader] - top) / norm
