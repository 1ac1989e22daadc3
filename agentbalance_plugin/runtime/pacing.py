"""Steering the mean cost of a stream of tasks to its target."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace

from agentbalance_plugin.budget import NANODOLLARS_PER_USD, Budget, usd_to_nanodollars


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one task may spend.

    Args:
        budget: with the hard cap of this very task.
        price_usd: success probability that a US dollar must buy for it to be spent (the dual
            variable of the mean cost), for the policy.
        number: identifies the ticket to `Pacer.settle`.
    """

    budget: Budget
    price_usd: float
    number: int


class Pacer:
    """A controller of the price, with a bucket of money behind it.

    Every task adds the target to the bucket and takes its hard cap out of it; what it did not
    spend goes back. The first finds one target more in it, which the first hundred pay back. n
    tasks are thus never allowed more than (n + 1) times the target together, and from a hundred on
    n times, whatever they ask for and however many run at once. The price steers inside that:
    it rises when the bucket is low, so that a hard task finds enough in it, and it drifts until
    the mean meets the target.

    Args:
        budget: made by `Budget.average`.
        price_usd: where the price starts: the policy's own estimate for this target.

    Raises:
        ValueError: the budget has no mean, or the price is no number.
    """

    # Both chosen on replayed validation streams; halving or doubling them changes little.
    _PROPORTIONAL = 1.0
    _DRIFT = 0.03
    # Half a cap kept in hand lets the next hard task use the strongest backbone.
    _RESERVE = 0.5
    # Tasks that pay the advance back.
    _PAY_BACK = 100

    def __init__(self, budget: Budget, *, price_usd: float) -> None:
        if budget.mean_cost_usd is None or budget.cost_usd is None:
            raise ValueError("Pacer needs a budget made by Budget.average(...)")
        if not (math.isfinite(price_usd) and price_usd >= 0):
            raise ValueError(f"Pacer.price_usd must be a number of at least 0, got {price_usd}")
        self.budget = budget
        self._target = usd_to_nanodollars(budget.mean_cost_usd)
        self._cap = usd_to_nanodollars(budget.cost_usd)
        # A price of 0 could never be raised by factors: a tenth of a success per dollar instead.
        self._base_price = max(price_usd, 0.1)
        # In advance, so that the first task is not starved.
        self._bucket = self._target
        self._held: dict[int, int] = {}
        self._started = 0
        self._lock = threading.Lock()

    @property
    def price_usd(self) -> float:
        """Success probability that a US dollar must buy for it to be spent."""
        level = (self._bucket + sum(self._held.values())) / self._cap - self._RESERVE
        return self._base_price * math.exp(-self._PROPORTIONAL * max(-1.0, min(1.0, level)))

    @property
    def base_price_usd(self) -> float:
        """Where the price has drifted to, whatever is in the bucket."""
        return self._base_price

    def go_on_from(self, base_price_usd: float) -> None:
        """Steer from where another pacer of this mean has drifted to."""
        with self._lock:
            self._base_price = base_price_usd

    def start(self) -> Ticket:
        """The budget of the next task; pass it to `settle` when the task has ended."""
        with self._lock:
            price = self.price_usd
            self._bucket += self._target - self._paid_back(self._started)
            cap = max(1, min(self._cap, self._bucket))
            self._bucket -= cap
            number = self._started
            self._started += 1
            self._held[number] = cap
            budget = replace(
                self.budget,
                cost_usd=cap / NANODOLLARS_PER_USD,
                mean_cost_usd=min(self._target, cap) / NANODOLLARS_PER_USD,
            )
            return Ticket(budget, price, number)

    def _paid_back(self, number: int) -> int:
        """By a task, of the advance: in whole nanodollars that add up to it."""
        if number >= self._PAY_BACK:
            return 0
        advance, parts = self._target, self._PAY_BACK
        return advance * (number + 1) // parts - advance * number // parts

    def settle(self, ticket: Ticket, nanodollars: int) -> None:
        """Book what the task spent; call it once for every ticket, failed tasks' too."""
        with self._lock:
            self._bucket += self._held.pop(ticket.number) - nanodollars
            # A task may cost many times the target but none less than nothing: bound that side.
            error = min(nanodollars / self._target - 1.0, 3.0)
            self._base_price *= math.exp(self._DRIFT * error)
