"""The budget's guarantee: reserve the worst case before a call, settle what it used after."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from agentbalance_plugin.backbone import Backbone
from agentbalance_plugin.budget import NANODOLLARS_PER_USD, Budget, Spend
from agentbalance_plugin.runtime.call import Call, CallDenied, CallRecord, DeadlineReached
from agentbalance_plugin.runtime.clock import Clock
from agentbalance_plugin.runtime.outages import Downtimes, Outages

USEFUL_OUTPUT_TOKENS = 16
"""A call that may answer with fewer tokens than this is denied: it would pay for nothing."""

# Of a prompt, which is bounded by its bytes: text has four and more a token, code about three.
_TOKENS_PER_BYTE = 0.3


@dataclass(slots=True)
class _Share:
    """What only one agent may use, beyond what it had used when it was set aside."""

    nanodollars: int
    tokens: int
    seconds: float
    used_nanodollars: int = 0
    used_tokens: int = 0


@dataclass(slots=True)
class _Use:
    """Settled and held amounts of one agent."""

    spent: Spend
    held_nanodollars: int = 0
    held_tokens: int = 0

    @property
    def nanodollars(self) -> int:
        return self.spent.nanodollars + self.held_nanodollars

    @property
    def tokens(self) -> int:
        return self.spent.tokens + self.held_tokens


_UNUSED = _Use(Spend())


class Meter:
    """Books of one run. Safe to use from several threads and tasks.

    At every moment spent + held is within the budget's caps, so a call that bills no more than the
    cap it was given can't pass them.

    Args:
        budget: the caps.
        clock: what the deadline is measured on; real time by default.
        already: what an earlier part of the same run has spent (a resumed run).
        downtimes: what other runs know of failing endpoints.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        clock: Clock | None = None,
        already: Spend | None = None,
        downtimes: Downtimes | None = None,
    ) -> None:
        self.budget = budget
        self.clock = clock or Clock()
        self.started = self.clock.now()
        already = already or Spend()
        left = None if budget.latency_s is None else budget.latency_s - already.latency_s
        self.deadline = None if left is None else self.started + left
        self.outages = Outages(downtimes or Downtimes(), self.clock)
        self._already = already
        self._lock = threading.Lock()
        self._shares: dict[str, _Share] = {}
        self._uses: dict[str, _Use] = {}
        self._calls: list[CallRecord] = []
        self._denied: dict[str, tuple[int, Backbone]] = {}
        self._open: set[Call] = set()
        self._over = False

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """The settled calls, in the order in which they ended."""
        with self._lock:
            return tuple(self._calls)

    @property
    def denied(self) -> dict[str, tuple[int, Backbone]]:
        """Agents whose last calls the money or tokens had no room for -> prompt bound of the
        largest of these, and whose."""
        with self._lock:
            return dict(self._denied)

    def spend(self, agent: str | None = None) -> Spend:
        """Settled spend of one agent (latency: the sum over its calls) or of the whole run
        (latency: clock seconds since its start)."""
        with self._lock:
            if agent is not None:
                use = self._uses.get(agent)
                return use.spent if use else Spend()
            total = self._already
            for use in self._uses.values():
                total += use.spent
            elapsed = self._already.latency_s + self.clock.now() - self.started
            return Spend(
                total.nanodollars,
                total.prompt_tokens,
                total.completion_tokens,
                total.calls,
                elapsed,
            )

    def spend_by_agent(self) -> dict[str, Spend]:
        """Settled spend of every agent that has called."""
        with self._lock:
            return {agent: use.spent for agent, use in self._uses.items() if use.spent.calls}

    def protect(
        self, agent: str, *, nanodollars: int = 0, tokens: int = 0, seconds: float = 0.0
    ) -> None:
        """Set aside a share that only `agent` may use; its own calls from now on draw on it first.

        Args:
            seconds: how long before the deadline everyone else has to be done.
        """
        with self._lock:
            used = self._uses.get(agent, _UNUSED)
            share = _Share(nanodollars, tokens, seconds, used.nanodollars, used.tokens)
            self._shares[agent] = share

    def admit(self, agent: str) -> None:
        """Give an agent that no share was set aside for an even part of those of the others."""
        with self._lock:
            if agent in self._shares:
                return
            parts = 1 + sum(bool(each.nanodollars or each.tokens) for each in self._shares.values())
            for share in self._shares.values():
                share.nanodollars -= share.nanodollars // parts
                share.tokens -= share.tokens // parts
            # It is given once.
            self._shares[agent] = _Share(0, 0, 0.0)

    def unprotect(self, agent: str) -> None:
        """Give the share of an agent that will not call any more back to the others."""
        with self._lock:
            self._shares.pop(agent, None)

    def left(self) -> tuple[int | None, int | None]:
        """(nano-dollars, tokens) that are neither spent nor held; None where there is no cap."""
        with self._lock:
            return self._left()

    def fits_again(self, call: Call) -> bool:
        """Whether there is room for as much as a settled call had reserved."""
        with self._lock:
            money, tokens = self._free(call.agent)
        cost = call.backbone.cost(call.prompt_bound, call.output_cap)
        return (money is None or cost <= money) and (
            tokens is None or call.prompt_bound + call.output_cap <= tokens
        )

    def seconds_left(self, agent: str | None = None) -> float | None:
        """Clock seconds until `agent`, or the run itself, has to be done (None: no deadline)."""
        if self.deadline is None:
            return None
        with self._lock:
            others = [share.seconds for name, share in self._shares.items() if name != agent]
        kept = 0.0 if agent is None else max(others, default=0.0)
        return self.deadline - self.clock.now() - kept

    def reserve(
        self,
        agent: str,
        backbone: Backbone,
        prompt_bound: int,
        output_cap: int | None = None,
        plan_cap: int | None = None,
    ) -> Call:
        """Hold the worst case of one call: `prompt_bound` tokens in, as many out as affordable.

        Args:
            agent: who calls.
            backbone: whose prices hold.
            prompt_bound: prompt tokens, never fewer than the endpoint will bill.
            output_cap: most output tokens wanted; the backbone's own cap is the other limit.
            plan_cap: most that the plan grants.

        Returns:
            The reservation, to be used as a context manager around the call.

        Raises:
            CallDenied: fewer than `USEFUL_OUTPUT_TOKENS` (or `output_cap`, if that is less) are
                affordable.
            DeadlineReached: the agent's time is up.
        """
        seconds = self.seconds_left(agent)
        with self._lock:
            if self._over:
                raise CallDenied(f"{agent}: the run is over")
            if seconds is not None and seconds <= 0:
                raise DeadlineReached(f"{agent}: no time left before the deadline")
            asked = min(
                max(output_cap or 0, 0) or backbone.max_output_tokens, backbone.max_output_tokens
            )
            if backbone.context_tokens is not None:
                # Endpoints refuse a call whose prompt and cap do not fit together.
                likely = prompt_bound if backbone.tokenizer else prompt_bound * _TOKENS_PER_BYTE
                room = backbone.context_tokens - round(likely)
                asked = min(asked, max(USEFUL_OUTPUT_TOKENS, room))
            cap = wanted = min(asked, plan_cap or asked)
            money, tokens = self._free(agent)
            if money is not None:
                cap = min(cap, _affordable(backbone, prompt_bound, money))
            if tokens is not None:
                cap = min(cap, tokens - prompt_bound)
            if cap < min(wanted, USEFUL_OUTPUT_TOKENS):
                if prompt_bound >= self._denied.get(agent, (0, backbone))[0]:
                    self._denied[agent] = prompt_bound, backbone
                reason = self._denial(agent, backbone, prompt_bound, money, tokens)
                raise CallDenied(reason)
            self._denied.pop(agent, None)
            held = backbone.cost(prompt_bound, cap)
            use = self._uses.setdefault(agent, _Use(Spend()))
            use.held_nanodollars += held
            use.held_tokens += prompt_bound + cap
            call = Call(self, agent, backbone, prompt_bound, cap, lowered=cap < asked)
            self._open.add(call)
            return call

    def close(self) -> None:
        """End the run: calls still open are booked in full, later ones denied.

        A cancelled agent may take a while to unwind, or never; its calls must neither escape the
        books nor go on spending after the run has returned.
        """
        with self._lock:
            self._over = True
            still_open = list(self._open)
        for call in still_open:
            self.close_call(call, None, billed=True)

    def close_call(self, call: Call, usage: tuple[int, int] | None, *, billed: bool) -> None:
        """Settle a reservation, unless that has been done; `Call` is what callers use."""
        with self._lock:
            if call not in self._open:
                return
            self._open.remove(call)
            self._settle(call, usage, billed=billed)

    def _settle(self, call: Call, usage: tuple[int, int] | None, *, billed: bool) -> None:
        held_tokens = call.prompt_bound + call.output_cap
        held = call.backbone.cost(call.prompt_bound, call.output_cap)
        use = self._uses[call.agent]
        use.held_nanodollars -= held
        use.held_tokens -= held_tokens
        if not billed:
            return
        prompt, completion = usage or (0, 0)
        metered = prompt > 0 and completion > 0
        prompt, completion = prompt or call.prompt_bound, completion or call.output_cap
        cost = call.backbone.cost(prompt, completion)
        now = self.clock.now()
        use.spent += Spend(cost, prompt, completion, 1, now - call.started)
        self._calls.append(
            CallRecord(
                agent=call.agent,
                backbone=call.backbone.name,
                prompt_tokens=prompt,
                completion_tokens=completion,
                nanodollars=cost,
                metered=metered,
                overrun=cost > held or prompt + completion > held_tokens,
                cut=metered and completion >= call.output_cap,
                started_s=call.started - self.started,
                ended_s=now - self.started,
            )
        )

    def _left(self) -> tuple[int | None, int | None]:
        money, tokens = self.budget.nanodollars, self.budget.tokens
        uses = self._uses.values()
        if money is not None:
            money -= self._already.nanodollars + sum(use.nanodollars for use in uses)
        if tokens is not None:
            tokens -= self._already.tokens + sum(use.tokens for use in uses)
        return money, tokens

    def _free(self, agent: str) -> tuple[int | None, int | None]:
        """What is left but for the shares of others."""
        money, tokens = self._left()
        for name, share in self._shares.items():
            if name == agent:
                continue
            use = self._uses.get(name, _UNUSED)
            if money is not None:
                drawn = use.nanodollars - share.used_nanodollars
                money -= max(0, share.nanodollars - drawn)
            if tokens is not None:
                tokens -= max(0, share.tokens - (use.tokens - share.used_tokens))
        return money, tokens

    def _denial(
        self,
        agent: str,
        backbone: Backbone,
        prompt_bound: int,
        money: int | None,
        tokens: int | None,
    ) -> str:
        needed = backbone.cost(prompt_bound, USEFUL_OUTPUT_TOKENS)
        if money is not None and money < needed:
            return (
                f"{agent}: a call of {backbone.name} may cost "
                f"{needed / NANODOLLARS_PER_USD:.6f} USD, "
                f"{max(0, money) / NANODOLLARS_PER_USD:.6f} USD are free"
            )
        return (
            f"{agent}: a call of {backbone.name} may take "
            f"{prompt_bound + USEFUL_OUTPUT_TOKENS} tokens, {max(0, tokens or 0)} are free"
        )


def _affordable(backbone: Backbone, prompt_bound: int, nanodollars: int) -> int:
    """Output tokens that `nanodollars` still buy after the prompt."""
    room = nanodollars * 1000 - prompt_bound * backbone.picodollars_in
    if backbone.picodollars_out == 0:
        return backbone.max_output_tokens if room >= 0 else 0
    return room // backbone.picodollars_out
