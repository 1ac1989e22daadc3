"""What a plan may be told beside the task, the team, the budget and the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Knobs:
    """Overrides of what the policy would choose by itself.

    Args:
        price_usd: success that a US dollar must buy (the multiplier of cost); None: what meets the
            budget's mean, or nothing for a budget of hard caps alone.
        second_price: success that a second must buy (the multiplier of latency).
        delta: offset towards stronger (+) or weaker (-) pools, in success per pool.
        lambda_len: success that each further hop must buy.
    """

    price_usd: float | None = None
    second_price: float = 0.0
    delta: float = 0.0
    lambda_len: float = 0.0


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier runs tell of the next one.

    Args:
        beside_bytes: UTF-8 bytes that prompts hold beside the task and an agent's role: what was
            said before, documents.
        comparable: whether agents give answers that can be compared. Where they do not, nothing is
            gained by asking several of them: a vote takes the message of the last, so that a plan
            of one agent is made where the team allows it.
        longest_bytes: the same of the longest prompt of an agent's turn.
        lengths: backbone -> how many times as long its replies are as the task and its profile say.
        length: the same of backbones that are not in `lengths`.
        calls: prompts that a turn of an agent sends, of `beside_bytes` each.
        replies: output tokens of a turn, in replies of `length`.
        image_tokens: that the task's images may be billed as, at most.
    """

    beside_bytes: int = 0
    comparable: bool = True
    longest_bytes: int = 0
    lengths: Mapping[str, float] = field(default_factory=dict[str, float])
    length: float = 1.0
    calls: float = 1.0
    replies: float = 1.0
    image_tokens: int = 0


NO_PAST = Past()
