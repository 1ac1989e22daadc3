"""An agent's client for one run: nothing is sent that the budget could not pay."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from autogen import ConversableAgent, OpenAIWrapper
from autogen.oai.client import OpenAIClient
from autogen.oai.client_utils import merge_config_with_tools

from agentbalance_plugin.adapters.ag2.endpoints import Clients
from agentbalance_plugin.adapters.ag2.internals import WrapperOf
from agentbalance_plugin.adapters.ag2.prompt_bound import prompt_bound
from agentbalance_plugin.adapters.ag2.run import Run
from agentbalance_plugin.adapters.ag2.settings import OUTPUT_CAPS, fit, settings_of
from agentbalance_plugin.adapters.covered import check_covered, without_price
from agentbalance_plugin.adapters.in_time import result_of, start
from agentbalance_plugin.budget import NANODOLLARS_PER_USD
from agentbalance_plugin.runtime.call import Call, CallDenied
from agentbalance_plugin.runtime.failures import (
    MAX_RETRIES,
    NoReply,
    outage,
    pause_before_retry,
)
from agentbalance_plugin.runtime.tokenizers import measure_of
from agentbalance_plugin.runtime.usage import reported

Result = TypeVar("Result")

_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(frozen=True)
class Caller:
    """Who calls in a run.

    Args:
        name: of the agent, in plans and reports.
        backbones: its own and, in order, those that answer where its endpoint fails.
        clients: of the backbones.
        run: that pays.
    """

    name: str
    backbones: Sequence[str]
    clients: Clients
    run: Run


class BudgetWrapper(WrapperOf):
    """What an agent has as its `client` for the time of a run.

    AG2's caches are not asked: they would keep a reply that the budget has cut short.

    Args:
        caller: on whose backbones it calls.
        agent: whose llm_config says what goes along with each call, tools that are registered
            during the run included.
        own: the agent's own client, where the usage is added up; None if it has none.
    """

    def __init__(self, caller: Caller, agent: ConversableAgent, own: OpenAIWrapper | None) -> None:
        self._agent = agent
        self._own = own
        shape = settings_of(agent).get("response_format")
        super().__init__(BudgetClient(caller, shape), caller.backbones[0])

    def create(self, **config: Any) -> Any:
        """As AG2's (CallDenied: the budget has no room; DeadlineReached: time is up)."""
        merged = merge_config_with_tools(config, settings_of(self._agent))
        return super().create(**{**merged, "cache": None, "cache_seed": None})

    @property
    def total_usage_summary(self) -> Any:
        return None if self._own is None else self._own.total_usage_summary

    @total_usage_summary.setter
    def total_usage_summary(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, summary: Any
    ) -> None:
        if self._own is not None:
            self._own.total_usage_summary = summary

    @property
    def actual_usage_summary(self) -> Any:
        return None if self._own is None else self._own.actual_usage_summary

    @actual_usage_summary.setter
    def actual_usage_summary(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, summary: Any
    ) -> None:
        if self._own is not None:
            self._own.actual_usage_summary = summary


class BudgetClient:
    """AG2's clients of a caller's backbones under the meter, as a model client of AG2's protocol.

    Every call reserves its worst case first, is sent with the affordable cap on output tokens, and
    settles with the usage that comes back. Retries of the SDK are off; temporary errors are retried
    here.

    Args:
        caller: who calls.
        shape: the response_format of its replies; None for text.
    """

    def __init__(self, caller: Caller, shape: Any) -> None:
        self._caller = caller
        self._shape = shape

    def create(self, params: dict[str, Any]) -> Any:
        """The reply (CallDenied, DeadlineReached; else the SDK's own errors)."""
        check_covered(params, "leave it out")
        free = without_price(params)
        outages, (*_, last) = self._caller.run.meter.outages, self._caller.backbones
        for name in self._caller.backbones:
            if name in outages and name != last:
                continue
            try:
                return self._asked(name, free)
            except CallDenied as denied:
                self._caller.run.denials.append(denied)
                raise
            except Exception as error:
                fault = outage(error)
                if fault is None or name == last:
                    raise
                outages.note(self._caller.name, name, fault)
        raise AssertionError("the last backbone answers or raises")

    def message_retrieval(self, response: Any) -> Any:
        return self._at(self._caller.backbones[0]).message_retrieval(response)

    def cost(self, response: Any) -> float:
        """US dollars, at the prices of the backbone that answered."""
        return response.cost

    @staticmethod
    def get_usage(response: Any) -> dict[str, Any]:
        return OpenAIClient.get_usage(response)

    def _at(self, name: str) -> OpenAIClient:
        """AG2's client of a backbone, for replies of this shape."""
        client = copy.copy(self._caller.clients(name))
        client.response_format = self._shape
        return client

    def _asked(self, name: str, params: Mapping[str, Any]) -> Any:
        caller, clients = self._caller, self._caller.clients
        meter, turns, backbone = caller.run.meter, caller.run.turns, clients.catalog[name]
        sent = {**fit(params, backbone), **clients.sent(name)}
        caps = [sent.pop(cap, None) for cap in OUTPUT_CAPS] + [clients.asked_cap(name)]
        wanted = min((int(cap) for cap in caps if cap), default=None)
        bound = prompt_bound(sent, measure=measure_of(backbone))
        reserve = partial(meter.reserve, caller.name, backbone, bound, wanted)
        for attempt in range(MAX_RETRIES + 1):
            while isinstance(call := turns.take(reserve, None, streamed=False), Future):
                call.result()
            with turns.under_way(call, None, streamed=False):
                capped = {**sent, clients.cap_name(name): call.output_cap}
                try:
                    reply = self._in_time(call, partial(self._at(name).create, capped))
                    self._settle(call, reply)
                    return reply
                except Exception as error:
                    pause = pause_before_retry(meter, call, error, attempt)
            time.sleep(pause * meter.clock.scale)
        raise AssertionError("the last attempt returns or raises")

    def _settle(self, call: Call, reply: Any) -> None:
        choices: Any = getattr(reply, "choices", None)
        if not choices:
            # An error where it should be, or a page of some gateway.
            raise NoReply(f"{call.backbone.name}: no choices in {type(reply).__name__}")
        prompt, output = reported(*(getattr(reply.usage, name, None) for name in _USAGE))
        call.settle(prompt, output)
        reply.cost = call.backbone.cost(prompt, output) / NANODOLLARS_PER_USD
        said = choices[0].message
        # Half of an object, or of a tool's arguments, is of no use.
        whole = self._shape is not None or said.tool_calls or said.function_call
        if call.lowered and choices[0].finish_reason == "length" and whole:
            raise call.cut_short()

    def _in_time(self, call: Call, work: Callable[[], Result]) -> Result:
        """`work()`, given up at the deadline (DeadlineReached)."""
        meter = self._caller.run.meter
        left = meter.seconds_left(self._caller.name)
        if left is None:
            return work()
        return result_of(start(work), left * meter.clock.scale, call.late)
