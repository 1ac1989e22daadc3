"""RoundRobin and Selector chats: the plan says who runs, on what, and who hears whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from math import ceil
from typing import Any

from autogen_agentchat.base import ChatAgent, Response, Team, TerminationCondition
from autogen_agentchat.messages import (
    BaseChatMessage,
    MessageFactory,
    ModelClientStreamingChunkEvent,
    SelectSpeakerEvent,
)
from autogen_core import CancellationToken

from agentbalance_plugin.adapters.autogen.chat_state import TeamStates, load_inside, states_inside
from agentbalance_plugin.adapters.autogen.conversation import (
    STATE,
    Conversation,
    bytes_in,
    read_state,
)
from agentbalance_plugin.adapters.autogen.halt import Halt, quiet_runtime_log
from agentbalance_plugin.adapters.autogen.rebind import (
    AgentFactory,
    Participant,
    adopt_state,
    at_work,
    hides_errors,
    model_client_of,
    rebind,
)
from agentbalance_plugin.adapters.autogen.reports import planned_report
from agentbalance_plugin.adapters.autogen.standby import client_for
from agentbalance_plugin.adapters.autogen.termination import (
    can_still_hold,
    fresh_condition,
    reset_copies,
)
from agentbalance_plugin.adapters.autogen.turn import denial_of, take_turn
from agentbalance_plugin.adapters.autogen.wrapped import (
    Event,
    Run,
    Wiring,
    WrappedTeam,
    next_event,
    start_driver,
)
from agentbalance_plugin.adapters.planning import expected_seconds, heard_bytes
from agentbalance_plugin.core.limits import LARGEST_SHARE
from agentbalance_plugin.plan import Plan
from agentbalance_plugin.runtime.byte_bound import text_bound
from agentbalance_plugin.runtime.report import RunReport
from agentbalance_plugin.runtime.scheduler import Pass, run_pass

AnswerExtractor = Callable[[str], str | None]


@dataclass(frozen=True)
class _Stage:
    """What the passes of one run work with.

    Args:
        agents: per-run copies.
        halts: how those that hide errors are stopped.
        queue: of what happens, for the run's stream; None ends it.
    """

    run: Run
    plan: Plan
    agents: Mapping[str, Participant]
    halts: Mapping[str, Halt]
    conversation: Conversation
    queue: asyncio.Queue[Event | None]
    token: CancellationToken


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
        self._conversation = Conversation(self._originals)
        self._teams: dict[str, TeamStates] = {}
        self._running: dict[int, dict[str, Participant]] = {}
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._passed: dict[int, Pass[BaseChatMessage]] = {}
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
        self._beside_bytes = 0

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
        self._beside_bytes = bytes_in(agents)
        self._teams = dict(state.get("teams") or {})

    async def _events(
        self, run: Run, messages: list[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[Event, None]:
        plan = await self._plan(run, messages)
        conversation = self._conversation.copy()
        condition = fresh_condition(self._termination, alone=not self._running)
        self._running[id(run)] = {}
        try:
            await reset_copies(condition, self._termination)
            stop = await condition(messages) if condition is not None and messages else None
            if stop is not None:
                run.stop_reason = stop.content
                return
            conversation.tell(messages)
            agents, halts = await self._bind(plan, run)
            self._running[id(run)] = agents
            queue: asyncio.Queue[Event | None] = asyncio.Queue()
            stage = _Stage(run, plan, agents, halts, conversation, queue, token)
            driver = start_driver(self._drive(stage, condition), queue, token)
            try:
                while (event := await next_event(queue, driver)) is not None:
                    yield event
            finally:
                driver.cancel()
        finally:
            self._running.pop(id(run), None)
            # What the user's own condition was told is for the runs that are still under way too.
            if condition is not None and not self._running:
                await condition.reset()
        # One that was stopped in the middle could not go on from there.
        last = self._passed[id(run)]
        self._habits.note_answers(last.answers.values())
        spoke = {name: agent for name, agent in agents.items() if name in last.messages}
        teams = {name: await states_inside(agent) for name, agent in spoke.items()}
        for name, agent in agents.items():
            adopt_state(self._originals[name], agent)
        self._teams.update(teams)
        self._conversation = conversation

    async def _drive(self, stage: _Stage, condition: TerminationCondition | None) -> None:
        """Passes until the chat's condition holds, its bound is reached or money is out."""
        run = stage.run
        number = 0
        answered: Pass[BaseChatMessage] | None = None
        while True:
            number += 1
            result, said = await self._pass(stage)
            run.stop_reason = result.stop_reason
            run.exceeded = bool(result.skipped)
            if result.messages:
                answered = result
            elif answered is not None:
                # The pass before has the answer, and was paid for.
                run.stop_reason += f"; the answer is that of pass {number - 1}"
                result.chosen, result.confidence = answered.chosen, answered.confidence
                if result.chosen is not None and said:
                    self._repeat(answered.messages[result.chosen], said, stage.queue)
            elif result.failed:
                raise next(iter(result.failed.values()))
            # A condition that is met speaks before the plan's own stop reason.
            stop = await condition(said) if condition is not None and said else None
            if stop is not None:
                run.stop_reason = stop.content
                return
            if not (result.complete and can_still_hold(self._termination, said)):
                return
            if self._bounded and number >= self._passes:
                run.stop_reason = f"Maximum number of turns reached after {number} passes."
                return

    async def _pass(self, stage: _Stage) -> tuple[Pass[BaseChatMessage], list[Event]]:
        """One pass, and what was said in it in order, the answer last."""
        run, plan, conversation, queue = stage.run, stage.plan, stage.conversation, stage.queue
        said: list[Event] = []
        spoken: dict[str, list[BaseChatMessage]] = {}
        self._protect(run, plan, conversation)

        async def speak(name: str, heard: tuple[str, ...]) -> BaseChatMessage:
            await self._unpaused.wait()
            if self._announcer is not None:
                queue.put_nowait(SelectSpeakerEvent(content=[name], source=self._announcer))
            inbox = conversation.collect(name)
            for parent in heard:
                inbox += spoken[parent]
            message: BaseChatMessage | None = None
            own: list[BaseChatMessage] = []
            denied = len(run.denials)
            halt = stage.halts.get(name)
            token = stage.token if halt is None else halt.begin()
            stream = take_turn(stage.agents[name], inbox, token)
            if halt is not None:
                stream = halt.guard(stream)
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, Response):
                        message = event.chat_message
                        continue
                    said.append(event)
                    queue.put_nowait(event)
                    if isinstance(event, BaseChatMessage):
                        own.append(event)
            if message is None:
                raise RuntimeError(f"agent {name!r} gave no response")
            if not any(each is message for each in said):
                said.append(message)
                queue.put_nowait(message)
            if (hidden := denial_of(run.denials[denied:], name)) is not None:
                # It caught what its model client raised, and what it says is most likely that it
                # could not answer.
                raise hidden
            # Of an agent others hear the answer alone, of a team every message.
            spoken[name] = own if isinstance(stage.agents[name], Team) else [message]
            return message

        result = await run_pass(plan, speak, self._answer_of, run.meter)
        self._passed[id(run)] = result
        if result.chosen is not None:
            answer = result.messages[result.chosen]
            if not _is_last(answer, said):
                answer = self._repeat(answer, said, queue)
            heard = {result.chosen} | {n for n in spoken if result.chosen in plan.parents(n)}
            conversation.tell([answer], except_for=heard)
        return result, said

    def _repeat(
        self, answer: BaseChatMessage, said: list[Event], queue: asyncio.Queue[Event | None]
    ) -> BaseChatMessage:
        """Say the answer again: users read the last message as the answer."""
        answer = answer.model_copy(
            update={"metadata": {**answer.metadata, "agentbalance": "decision"}}
        )
        said.append(answer)
        queue.put_nowait(answer)
        return answer

    async def _bind(self, plan: Plan, run: Run) -> tuple[dict[str, Participant], dict[str, Halt]]:
        """Copies of the kept agents, each on its planned backbone under the meter, and how those
        that are or hold a team are stopped."""
        agents: dict[str, Participant] = {}
        halts: dict[str, Halt] = {}
        for name, backbone in plan.assignment.items():
            original = self._originals[name]
            if backbone is None:
                agents[name] = original
                continue
            if hides_errors(original):
                halts[name] = Halt()
            agent, cap, halt = self._team.agent(name), plan.output_caps.get(name), halts.get(name)
            asked = model_client_of(original)
            client = client_for(agent, backbone, self._clients, run, cap, halt=halt, asked=asked)
            if self._agent_factory is None:
                agents[name] = twin = rebind(original, client)
                await load_inside(twin, self._teams.get(name) or await states_inside(original))
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
        result = self._passed.pop(id(run), None) or Pass[BaseChatMessage]()
        return planned_report(run, self._team.names, result)


def _is_last(answer: BaseChatMessage, said: Sequence[Event]) -> bool:
    """Whether the answer is the last of what goes into the result."""
    kept = [event for event in said if not isinstance(event, ModelClientStreamingChunkEvent)]
    return bool(kept) and kept[-1] is answer


def _share(worst: int, left: int | None) -> int:
    return 0 if left is None else min(worst, int(left * LARGEST_SHARE))
