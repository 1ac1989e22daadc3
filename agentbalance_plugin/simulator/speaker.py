"""From a chat request to a reply of a recorded backbone, and the text it is sent as."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from agentbalance_plugin.core.encoder import QUERY_MARKER
from agentbalance_plugin.core.replay import PeerReply, Replay, Reply
from agentbalance_plugin.core.task_text import filler
from agentbalance_plugin.simulator.item_response import ItemResponse

_AGENT_MARKER = re.compile(r"\[\[agent:([^\[\]]+)\]\]")
_REPLY_MARKER = re.compile(r"\[\[reply:([0-9a-f]{16})\]\]")
_TOOL_MARKER = re.compile(r"\[\[tool:(\w+)\s*(\{.*?\})?\]\]")
# Replies are remembered so that later requests can quote them; a server may run for weeks.
_REMEMBERED = 200_000


class RequestError(ValueError):
    """A request that an OpenAI endpoint would refuse; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Spoken:
    """A reply and how it is sent.

    Args:
        query: key of the query; empty for one that was never recorded.
        reply: figures of the reply.
        content: its text; None for a tool call.
        tool_call: (name, JSON arguments) instead of a text.
    """

    query: str
    agent: str
    reply: Reply
    content: str | None
    tool_call: tuple[str, str] | None = None

    @property
    def finish(self) -> str:
        return "tool_calls" if self.tool_call else self.reply.finish


@dataclass(frozen=True, slots=True)
class _Remembered:
    topic: str
    agent: str
    peer: PeerReply


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a request says, whatever its wording.

    Args:
        backbone: the model asked for.
        system: all system messages.
        user: each user message.
        texts: each message of any role.
        output_cap: the most output tokens; None for no cap of its own.
        sample: its seed.
        tools: names of the functions that may be called.
    """

    backbone: str
    system: str
    user: tuple[str, ...]
    texts: tuple[str, ...]
    output_cap: int | None
    sample: int | None
    tools: tuple[str, ...]
    has_tool_result: bool


class Speaker:
    """Answers requests from recorded traces.

    The query is the first `[[query:<benchmark>/<id>]]` marker or exact question text in the user
    messages; the agent is named by `[[agent:NAME]]` in the system message, else told apart by a
    digest of it. Earlier replies are recognised by the id in them: those of other agents are the
    peers, the agent's own count its turns. Draws are keyed by seed, query, backbone, agent and
    turn, never by the order of arrival.

    Args:
        replay: of the recorded backbones.
        seed: of the answers to unknown queries.
    """

    def __init__(self, replay: Replay, seed: int = 0) -> None:
        self.replay = replay
        self._unknown = ItemResponse(replay.traces, seed)
        self._by_text = {q.question: q.key for q in replay.traces.queries if q.question}
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

    def speak(self, request: ChatRequest) -> Spoken:
        """Answer one request (RequestError for a backbone that is not recorded)."""
        if request.backbone not in self.replay.catalog:
            raise RequestError(404, f"The model `{request.backbone}` does not exist")
        agent = _agent_of(request.system)
        query = self._query_of(request.user)
        # A question that was never recorded is known by the first thing a user says.
        topic = query or _digest(*request.user[:1])
        quoted = [
            (reply_id, self._remembered[reply_id])
            for reply_id in dict.fromkeys(_REPLY_MARKER.findall("\n".join(request.texts)))
            if reply_id in self._remembered
        ]
        own = [item for _, item in quoted if item.agent == agent and item.topic == topic]
        peers = [
            (i, item.peer) for i, item in quoted if item.agent != agent and item.topic == topic
        ]
        turn = len(own)
        reply = self._reply(request, query, agent, turn, [peer for _, peer in peers])
        if called := _tool_call(request):
            return Spoken(query, agent, replace(reply, answer=-1, correct=False), None, called)
        reply_id = _digest(
            topic, request.backbone, agent, turn, request.sample,
            request.output_cap, *(i for i, _ in peers),
        )  # fmt: skip
        self._remembered[reply_id] = _Remembered(topic, agent, reply.as_peer())
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return Spoken(query, agent, reply, _text(reply, reply_id))

    def correct(self, text: str) -> bool:
        """Whether the last reply quoted in a text is right; False if it quotes none."""
        found = _REPLY_MARKER.findall(text)
        item = self._remembered.get(found[-1]) if found else None
        return item is not None and item.peer.correct

    def _query_of(self, user: Sequence[str]) -> str:
        marker = QUERY_MARKER.search("\n".join(user))
        if marker is not None:
            try:
                self.replay.traces.index(marker[1])
            except KeyError:
                return ""
            return marker[1]
        return next((self._by_text[t.strip()] for t in user if t.strip() in self._by_text), "")

    def _reply(
        self, request: ChatRequest, query: str, agent: str, turn: int, peers: Sequence[PeerReply]
    ) -> Reply:
        if query:
            return self.replay.reply(
                query,
                request.backbone,
                agent=agent,
                turn=turn,
                sample=request.sample,
                peers=peers,
                output_cap=request.output_cap,
            )
        backbone = self.replay.catalog[request.backbone]
        question = "".join(request.user[:1])
        answer, correct = self._unknown.answer(question, request.backbone, agent, turn)
        visible, hidden = self._unknown.tokens(request.backbone)
        cap = min(request.output_cap or backbone.max_output_tokens, backbone.max_output_tokens)
        cut = visible + hidden > cap
        if cut:
            hidden = min(hidden, cap)
            visible, answer, correct = cap - hidden, -1, False
        # Four bytes a token is typical of English, and never more tokens than bytes.
        prompt = max(1, sum(len(text.encode()) for text in request.texts) // 4)
        speed = backbone.tokens_per_s or 60.0
        return Reply(
            backbone=request.backbone,
            answer=answer,
            correct=correct,
            prompt_tokens=prompt,
            visible_tokens=visible,
            hidden_tokens=hidden,
            latency_s=(backbone.ttft_s or 0.5) + (visible + hidden) / speed,
            finish="length" if cut else "stop",
            cost_nanodollars=backbone.cost(prompt, visible + hidden),
        )


def read_request(body: dict[str, Any]) -> ChatRequest:
    """A request body, checked (RequestError if an endpoint would refuse it)."""
    messages = body.get("messages")
    model = body.get("model")
    if not isinstance(model, str):
        raise RequestError(400, "you must provide a model parameter")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "'messages' must be a list with at least one message")
    said: list[tuple[str, str]] = []
    for message in cast("list[Any]", messages):
        known = _object(message, "each message")
        role = known.get("role")
        if not isinstance(role, str):
            raise RequestError(400, f"each message must have a role, got {role!r}")
        said.append(("system" if role == "developer" else role, _content(known.get("content"))))
    tools = [
        _object(_object(tool, "each tool").get("function") or {}, "each tool's 'function'")
        for tool in _list(body.get("tools") or [], "'tools'")
    ]
    return ChatRequest(
        backbone=model,
        system="\n".join(text for role, text in said if role == "system"),
        user=tuple(text for role, text in said if role == "user"),
        texts=tuple(text for _, text in said),
        output_cap=_whole(body, "max_completion_tokens", 1) or _whole(body, "max_tokens", 1),
        sample=_whole(body, "seed", 0),
        tools=tuple(str(tool.get("name")) for tool in tools),
        has_tool_result=any(role == "tool" for role, _ in said),
    )


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(400, f"{what} must be an object, got {value!r}")
    return cast("dict[str, Any]", value)


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError(400, f"{what} must be a list, got {value!r}")
    return cast("list[Any]", value)


def _whole(body: dict[str, Any], field: str, least: int) -> int | None:
    value = body.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        if field != "seed" and isinstance(value, int) and value >= 2**63:
            # A cap beyond all bounds caps nothing.
            return 2**62
        raise RequestError(400, f"'{field}' must be an integer of at least {least}, got {value!r}")
    return value


def _content(content: Any) -> str:
    if isinstance(content, list):
        parts = [_object(part, "each content part") for part in cast("list[Any]", content)]
        return "\n".join(str(part.get("text", "")) for part in parts)
    return content if isinstance(content, str) else ""


def _agent_of(system: str) -> str:
    marker = _AGENT_MARKER.search(system)
    return marker[1] if marker else _digest(system)


def _tool_call(request: ChatRequest) -> tuple[str, str] | None:
    """The tool call that `[[tool:NAME {...}]]` in the task asks for, once."""
    found = _TOOL_MARKER.search("\n".join(request.user))
    if found is None or request.has_tool_result or found[1] not in request.tools:
        return None
    arguments = found[2] or "{}"
    try:
        json.loads(arguments)
    except ValueError:
        raise RequestError(400, f"the tool marker's arguments are no JSON: {arguments}") from None
    return found[1], arguments


def _text(reply: Reply, reply_id: str) -> str:
    """Filler of the reply's visible length, its id and, if it has one, its answer."""
    tail = f"[[reply:{reply_id}]]"
    if reply.answer >= 0:
        tail += f"\nAnswer: {reply.answer}"
    return filler(reply.visible_tokens - len(tail) - 1) + "\n" + tail


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
