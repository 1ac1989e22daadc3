"""Reading what endpoints report of the tokens that a call used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

_NO_CALL = 10**12
"""As many tokens as no call has. What they would cost no checkpoint or float could hold."""


def reported(prompt: object, completion: object, total: object = None) -> tuple[int, int]:
    """(prompt tokens, output tokens) of a report, 0 where it gives no usable figure.

    Some endpoints count the tokens of hidden reasoning in the total alone.

    Args:
        prompt, completion, total: tokens, as reported; whatever is no number above zero is none,
            nor is one beyond all reason.
    """
    asked, made, both = _count(prompt), _count(completion), _count(total)
    if asked:
        made = max(made, both - asked)
    elif made:
        asked = max(0, both - made)
    return asked, made


def is_running_total(reports: Sequence[tuple[int, int]]) -> bool:
    """Whether the reports of a stream's chunks, (prompt tokens, output tokens) each, give all that
    was used until then, so that the last one counts instead of their sum.

    A prompt is billed once: a report that gives all of it again gives all of the reply again.
    """
    prompts = {prompt for prompt, _ in reports}
    grows = all(before <= after for (_, before), (_, after) in pairwise(reports))
    return len(prompts) == 1 and 0 not in prompts and grows


def _count(figure: object) -> int:
    if isinstance(figure, bool) or not isinstance(figure, (int, float)):
        return 0
    return math.ceil(figure) if 0 < figure < _NO_CALL else 0
