"""RoundRobin and Selector chats: the plan says who runs, on what, and who hears whom."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from autogen_agentchat.base import ChatAgent, TerminationCondition
from autogen_agentchat.messages import (
    BaseChatMessage,
    MessageFactory,
)
from autogen_core import CancellationToken

from agentbalance_plugin import team as neutral
from agentbalance_plugin.adapters.autogen.chat_state import TeamStates, load_inside, states_inside
from agentbalance_plugin.adapters.autogen.conversation import (
    STATE,
    Conversation,
    bytes_in,
    images_saved,
    read_state,
)
from agentbalance_plugin.adapters.autogen.halt import Halt, quiet_runtime_log
from agentbalance_plugin.adapters.autogen.passes import Cast, Passes
from agentbalance_plugin.adapters.autogen.rebind import (
    AgentFactory,
    Participant,
    adopt_state,
    at_work,
    hides_errors,
    model_client_of,
    rebind,
    stop_runtimes,
)
from agentbalance_plugin.adapters.autogen.reports import planned_report
from agentbalance_plugin.adapters.autogen.run import Event, Run
from agentbalance_plugin.adapters.autogen.standby import client_for
from agentbalance_plugin.adapters.autogen.termination import (
    can_still_hold,
    fresh_condition,
    reset_copies,
)
from agentbalance_plugin.adapters.autogen.wrapped import (
    Wiring,
    WrappedTeam,
    next_event,
    start_driver,
)
from agentbalance_plugin.adapters.planning import aplan_task, expected_seconds, heard_bytes
from agentbalance_plugin.budget import NANODOLLARS_PER_USD, Budget
from agentbalance_plugin.core.limits import LARGEST_SHARE
from agentbalance_plugin.core.policy import Policy
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.byte_bound import text_bound
from agentbalance_plugin.runtime.report import RunReport
from agentbalance_plugin.runtime.scheduler import Pass

AnswerExtractor = Callable[[str], str | None]


class PlannedTeam(WrappedTeam):
    """Runs each task on a plan of its own, on per-run copies of the agents.

    Concurrent runs start from copies of the state at their start; that of the last to finish stays.

    Args:
        participants: the user's own agents, in their order.
        agent_factory: makes fresh agents by public API; None copies the participants.
        termination: the chat's condition.
        max_turns: the chat's bound; an agent that a pass leaves out counts as having had its turn.
        extract: the answer in a message's text.
        messages: knows the chat's message types.
        announcer: in whose name the chat says who speaks next; None where it does not.
    """

    def __init__(
        self,
        wiring: Wiring,
        *,
        participants: Sequence[Participant],
        agent_factory: AgentFactory | None,
        termination: TerminationCondition | None,
        max_turns: int | None,
        extract: AnswerExtractor,
        messages: MessageFactory,
        announcer: str | None,
    ) -> None:
        super().__init__(wiring)
        self._originals = {participant.name: participant for participant in participants}
        self._agent_factory = agent_factory
        self._termination = termination
        self._passes = 1 if max_turns is None else max(1, max_turns // len(wiring.team.agents))
        self._bounded = max_turns is not None
        self._extract = extract
        self._messages = messages
        self._announcer = announcer
        self._id = str(uuid.uuid4())
        self._conversation = Conversation(self._originals)
        self._teams: dict[str, TeamStates] = {}
        self._running: dict[int, dict[str, Participant]] = {}
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._passed: dict[int, Passes] = {}
        # Edges of the chat's own order, where it may be planned so.
        self._in_order = None
        if isinstance(self._planner, Policy) and len(wiring.team.agents) > 1:
            self._in_order = wiring.team.in_turn
        quiet_runtime_log()

    async def reset(self) -> None:
        """Forget everything said.

        Raises:
            RuntimeError: a run is under way, as with AutoGen's own teams.
        """
        self._refuse_while_running("reset")
        for participant in self._originals.values():
            if isinstance(participant, ChatAgent):
                await participant.on_reset(CancellationToken())
            else:
                await participant.reset()
        if self._termination is not None:
            await self._termination.reset()
        self._conversation.clear()
        self._teams.clear()
        self._forget()

    async def pause(self) -> None:
        """Let no further agent start, and tell those at work to pause."""
        self._unpaused.clear()
        for participant in self._everyone():
            if isinstance(participant, ChatAgent):
                await participant.on_pause(CancellationToken())
            elif at_work(participant):
                await participant.pause()

    async def resume(self) -> None:
        """Go on after `pause`."""
        for participant in self._everyone():
            if isinstance(participant, ChatAgent):
                await participant.on_resume(CancellationToken())
            elif at_work(participant):
                await participant.resume()
        self._unpaused.set()

    async def save_state(self) -> Mapping[str, Any]:
        """The agents' states and what they have not heard yet; JSON values only."""
        return {
            "type": STATE,
            "version": 1,
            "agent_states": {
                name: await participant.save_state()
                for name, participant in self._originals.items()
            },
            "unheard": self._conversation.save(),
            "teams": dict(self._teams),
        }

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `save_state` returned, here or of the chat itself before it was wrapped.

        Raises:
            ValueError: not such a state, or one of other agents.
            RuntimeError: a run is under way.
        """
        self._refuse_while_running("loaded")
        agents, unheard = read_state(state)
        missing = [name for name in self._originals if name not in agents]
        if missing:
            raise ValueError(f"the saved state has no agents {missing}")
        self._conversation.load(unheard, self._messages)
        for name, participant in self._originals.items():
            await participant.load_state(agents[name])
        self._remember(bytes_in(agents), images_saved(state))
        self._teams = dict(state.get("teams") or {})

    async def _events(
        self, run: Run, messages: list[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[Event, None]:
        plan = await self._plan(run, messages)
        conversation = self._conversation.copy()
        condition = fresh_condition(self._termination, alone=not self._running)
        agents: dict[str, Participant] = {}
        self._running[id(run)] = agents
        try:
            await reset_copies(condition, self._termination)
            stop = await condition(messages) if condition is not None and messages else None
            if stop is not None:
                run.stop_reason = stop.content
                return
            conversation.tell(messages)
            queue: asyncio.Queue[Event | None] = asyncio.Queue()
            passes = self._passed[id(run)] = Passes(
                run,
                conversation,
                condition,
                queue,
                token,
                self._answer_of,
                self._announcer,
                self._unpaused,
                self._id,
            )
            cast = await self._cast(plan, run, in_turn=run.in_turn)
            driver = start_driver(self._drive(passes, cast, messages), queue, token)
            try:
                while (event := await next_event(queue, driver)) is not None:
                    yield event
            finally:
                driver.cancel()
        finally:
            self._running.pop(id(run), None)
            for agent in agents.values():
                stop_runtimes(agent)
            # What the user's own condition was told is for the runs that are still under way too.
            if condition is not None and not self._running:
                await condition.reset()
        run.spoke = passes.spoke
        if not self._remembers(run):
            return
        # One that was stopped in the middle could not go on from there.
        self._habits.note_answers(passes.last.answers.values())
        teams = {name: await states_inside(agents[name]) for name in passes.spoke}
        for name, agent in agents.items():
            adopt_state(self._originals[name], agent)
        self._teams.update(teams)
        self._conversation = conversation

    def _remembers(self, run: Run) -> bool:
        # A task that was too long for anyone to be asked would be too long for the next run as
        # well, and for all that follow.
        return bool(run.spoke or run.meter.calls)

    async def _drive(self, passes: Passes, cast: Cast, messages: Sequence[BaseChatMessage]) -> None:
        """Passes until the chat's condition holds, its bound is reached or money is out."""
        run, number = passes.run, 0
        answered: Pass[BaseChatMessage] | None = None
        while True:
            number += 1
            self._protect(run, cast.plan, passes.conversation)
            said = await passes.one(cast)
            result = passes.last
            run.stop_reason = result.stop_reason
            run.exceeded = bool(result.skipped)
            if result.messages:
                answered = result
            elif answered is not None:
                # The pass before has the answer, and was paid for.
                run.stop_reason += f"; the answer is that of pass {number - 1}"
                result.chosen, result.confidence = answered.chosen, answered.confidence
                if result.chosen is not None and said:
                    passes.repeat(answered.messages[result.chosen], said)
            elif result.failed:
                raise next(iter(result.failed.values()))
            goes_on = result.complete and can_still_hold(self._termination, said)
            if not cast.in_turn and (goes_on or passes.stopped is not None):
                self._habits.note_pass(ended=passes.stopped is not None)
            # A condition that is met speaks before the plan's own stop reason.
            if passes.stopped is not None:
                run.stop_reason = passes.stopped
                return
            if not goes_on:
                return
            if self._bounded and number >= self._passes:
                run.stop_reason = f"Maximum number of turns reached after {number} passes."
                return
            if not cast.in_turn:
                cast = await self._whole(run, messages) or cast

    async def _whole(self, run: Run, messages: Sequence[BaseChatMessage]) -> Cast | None:
        """All agents in the chat's order, for the rest of a run: what ends it is not said by those
        who answer the task, it comes of what the agents say to each other.

        None where they stay as they are: there is but one, or the user's own planner chose them.
        """
        if self._in_order is None or run.told is None:
            return None
        query, team, images = super()._read(messages)
        try:
            plan = await aplan_task(
                self._planner,
                query,
                replace(team, fixed_edges=self._in_order),
                _half_of_the_rest(run),
                self._catalog,
                run.price_usd,
                self._past_of(run.told, images),
                beside=True,
            )
        # What was said so far is paid for.
        except ValueError:
            return None
        run.plan = plan
        return await self._cast(plan, run, in_turn=True)

    def _read(self, messages: Sequence[BaseChatMessage]) -> tuple[str, neutral.Team, int]:
        query, team, images = super()._read(messages)
        if self._in_order is not None and not self._habits.one_pass_does:
            team = replace(team, fixed_edges=self._in_order)
        return query, team, images

    async def _cast(self, plan: Plan, run: Run, *, in_turn: bool) -> Cast:
        agents, halts = await self._bind(plan, run)
        self._running[id(run)].update(agents)
        return Cast(plan, agents, halts, in_turn)

    async def _bind(self, plan: Plan, run: Run) -> tuple[dict[str, Participant], dict[str, Halt]]:
        """Copies of the kept agents, each on its planned backbone under the meter, and how those
        that are or hold a team are stopped. Those that spoke in this run already go on."""
        agents: dict[str, Participant] = {}
        halts: dict[str, Halt] = {}
        contexts: dict[int, Any] = {}
        before = self._running[id(run)]
        for name, backbone in plan.assignment.items():
            original = before.get(name) or self._originals[name]
            if hides_errors(original):
                halts[name] = Halt()
            client = None
            if backbone is not None:
                agent, cap = self._team.agent(name), plan.output_caps.get(name)
                halt, asked = halts.get(name), model_client_of(self._originals[name])
                client = client_for(
                    agent, backbone, self._clients, run, cap, halt=halt, asked=asked
                )
            if client is None or self._agent_factory is None:
                agents[name] = twin = rebind(original, client, contexts)
                held = None if name in before else self._teams.get(name)
                await load_inside(twin, held or await states_inside(original))
                continue
            made = self._agent_factory(name, client)
            if made.name != name:
                raise ValueError(f"agent_factory({name!r}, ...) made an agent named {made.name!r}")
            await made.load_state(await original.save_state())
            agents[name] = made
        return agents, halts

    def _protect(self, run: Run, plan: Plan, conversation: Conversation) -> None:
        """Set the decider's money and time aside before anyone calls."""
        decider = plan.decider
        if plan.decision != "agent" or decider is None:
            return
        name = plan.assignment.get(decider)
        if name is None:
            return
        backbone = self._catalog[name]
        cap = plan.output_caps.get(decider, backbone.max_output_tokens)
        waiting = "\n".join(message.to_model_text() for message in conversation.waiting(decider))
        size = text_bound(waiting) + text_bound(self._team.agent(decider).role)
        size += heard_bytes(plan, decider)
        bound = ceil(size * backbone.tokens_per_byte)
        money, tokens = run.meter.left()
        time, seconds = run.meter.seconds_left(), expected_seconds(backbone)
        run.meter.protect(
            decider,
            nanodollars=_share(backbone.cost(bound, cap), money),
            tokens=_share(bound + cap, tokens),
            seconds=0.0 if time is None else min(seconds, LARGEST_SHARE * max(0.0, time)),
        )

    def _answer_of(self, message: BaseChatMessage) -> str | None:
        return self._extract(message.to_model_text())

    def _everyone(self) -> list[Participant]:
        twins = [agent for agents in self._running.values() for agent in agents.values()]
        return [*self._originals.values(), *twins]

    def _refuse_while_running(self, what: str) -> None:
        if self._running:
            raise RuntimeError(f"The group chat is currently running. It can't be {what} now.")

    def _make_report(self, run: Run) -> RunReport:
        passes = self._passed.pop(id(run), None)
        result = Pass[BaseChatMessage]() if passes is None else passes.last
        return planned_report(run, self._team.names, result)


def _half_of_the_rest(run: Run) -> Budget:
    """What the next pass of a run is planned for, and as much again for those after it."""
    money, tokens = run.meter.left()
    seconds = run.meter.seconds_left()
    cost = None if money is None else max(money / 2, 1.0) / NANODOLLARS_PER_USD
    mean = run.budget.mean_cost_usd
    return replace(
        run.budget,
        cost_usd=cost,
        mean_cost_usd=None if mean is None or cost is None else min(mean, cost),
        tokens=None if tokens is None else max(1, tokens // 2),
        latency_s=None if seconds is None else max(seconds / 2, 1e-3),
    )


def _share(worst: int, left: int | None) -> int:
    return 0 if left is None else min(worst, int(left * LARGEST_SHARE))
