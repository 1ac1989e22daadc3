"""Replay: teams of recorded backbones, evaluated without a single live call.

Exact: recorded answers of agents that read nobody, tokens, prices, prompt growth, votes, late
gates. Modelled, and counted in `Outcomes.provenance`: answers given after reading peers, further
samples of one backbone, latency, hidden reasoning tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy as shallow_copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.core.calls import Calls, Message
from agentbalance_plugin.core.communication import Influence
from agentbalance_plugin.core.outcomes import CopyMode, Outcomes, Provenance
from agentbalance_plugin.core.sampling import string_key
from agentbalance_plugin.core.team_replay import Designs, Results, run_designs
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import Plan

__all__ = ["Influence", "Outcomes", "PeerReply", "Provenance", "Replay", "Reply"]

IntArray = NDArray[np.int64]

# Rows worked on at once: what fits in the processor's cache is also what bounds memory.
_CHUNK = 16_384
_PLANS_AT_ONCE = 1024

_NO_CAP = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class PeerReply:
    """A message that an agent reads: who said it, and what is in it.

    Args:
        backbone: of the speaker.
        answer: code; -1 for none.
        correct: whether it is right.
        visible_tokens: that its reader pays for.
    """

    backbone: str
    answer: int
    correct: bool
    visible_tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """One simulated reply.

    Args:
        backbone: who replied.
        answer: code of the answer; -1 for none.
        correct: whether it is right.
        prompt_tokens, visible_tokens, hidden_tokens: as billed.
        latency_s: of this call.
        finish: "length" when the output cap ended it, else "stop".
        cost_nanodollars: what the call costs.
    """

    backbone: str
    answer: int
    correct: bool
    prompt_tokens: int
    visible_tokens: int
    hidden_tokens: int
    latency_s: float
    finish: Literal["stop", "length"]
    cost_nanodollars: int

    @property
    def completion_tokens(self) -> int:
        """Billed output: visible and hidden."""
        return self.visible_tokens + self.hidden_tokens

    def as_peer(self) -> PeerReply:
        """How other agents read it."""
        return PeerReply(self.backbone, self.answer, self.correct, self.visible_tokens)


class Replay:
    """Recorded backbones that answer as agents of a team.

    Args:
        traces: all splits, as abilities are estimated on one and plans evaluated on another.
        catalog: entries that replace those of the traces (prices, speeds, caps); backbones it does
            not name keep theirs.
        seed: of every draw. Draws are keyed by seed, query, backbone, agent name and turn, so no
            result depends on the order of evaluation.
        copies: "resampled": a backbone's second copy may answer differently, by the rule in
            `agentbalance_plugin.core.copies` (real repeated samples are used where recorded);
            "identical": it answers alike.
        influence: constants of `agentbalance_plugin.core.communication`.
        estimate_on: the split that abilities and agreement are estimated on. Traces without it are
            replayed with abilities unknown, and the provenance says so.
    """

    def __init__(
        self,
        traces: TraceSet,
        catalog: Catalog | None = None,
        seed: int = 0,
        *,
        copies: CopyMode = "resampled",
        influence: Influence | None = None,
        estimate_on: str = "train",
    ) -> None:
        if copies not in ("resampled", "identical"):
            raise ValueError(f"copies must be 'resampled' or 'identical', got {copies!r}")
        entries = {**traces.catalog, **(catalog or {})}
        self.traces = traces
        self.catalog = Catalog(entries[name] for name in traces.backbones)
        self._columns = {name: column for column, name in enumerate(traces.backbones)}
        self._calls = Calls(
            traces,
            self.catalog,
            seed=seed,
            influence=influence or Influence(),
            copies=copies,
            estimate_on=estimate_on,
        )

    def at(self, catalog: Catalog) -> Replay:
        """The same backbones at other prices and speeds; what was recorded is shared, not copied.

        Args:
            catalog: entries that replace those there are.
        """
        other = shallow_copy(self)
        entries = {**self.catalog, **catalog}
        other.catalog = Catalog(entries[name] for name in self.traces.backbones)
        other._calls = self._calls.at(other.catalog)
        return other

    def reply(
        self,
        query_key: str,
        backbone: str,
        *,
        agent: str,
        turn: int = 0,
        sample: int | None = None,
        peers: Sequence[PeerReply] = (),
        output_cap: int | None = None,
    ) -> Reply:
        """What one call of a backbone gives.

        Args:
            query_key: "benchmark/query_id".
            backbone: its name.
            agent: name of the agent that calls; keys the draws.
            turn: how often the agent spoke before.
            sample: which sample of the backbone to give (0: the recorded row); None: the number of
                peers of the same backbone that are read.
            peers: the messages read.
            output_cap: most output tokens, hidden ones included, beside the backbone's own cap.

        Raises:
            KeyError: unknown query or backbone.
        """
        query = np.array([self.traces.index(query_key)], dtype=np.int64)
        spoken, _ = self._calls.speak(
            query,
            np.array([self._column(backbone)], dtype=np.int64),
            np.array([string_key(agent)], dtype=np.uint64),
            turn,
            [self._message(peer) for peer in peers],
            np.array([_NO_CAP if output_cap is None else output_cap], dtype=np.int64),
            np.array([-1 if sample is None else sample], dtype=np.int64),
        )
        return Reply(
            backbone=backbone,
            answer=int(spoken.message.answer[0]),
            correct=bool(spoken.message.correct[0]),
            prompt_tokens=int(spoken.prompt_tokens[0]),
            visible_tokens=int(spoken.message.visible_tokens[0]),
            hidden_tokens=int(spoken.hidden_tokens[0]),
            latency_s=float(spoken.latency_s[0]),
            finish="length" if spoken.cut[0] else "stop",
            cost_nanodollars=int(spoken.cost_nanodollars[0]),
        )

    def evaluate(
        self,
        queries: Sequence[int] | IntArray,
        plans: Plan | Sequence[Plan],
        *,
        samples: Mapping[str, int] | None = None,
    ) -> Outcomes:
        """Every plan on every query.

        Args:
            queries: [N] positions in `traces.queries`.
            plans: one plan (results of shape [N]) or P of them ([N, P]).
            samples: agent -> which sample of its backbone it gives; others follow the rule of
                `reply`. Agents of one backbone that do not hear each other answer alike without it.

        Raises:
            KeyError: a plan uses a backbone the traces lack.
            PlanError: a plan has a cycle.
        """
        positions = np.asarray(queries, dtype=np.int64)
        several = [plans] if isinstance(plans, Plan) else list(plans)
        width = max(1, len(several))

        def pairs(group: IntArray) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
            # Worked out chunk by chunk: lists of all pairs would grow with the plans.
            for begin in range(0, len(positions) * len(group), _CHUNK):
                end = min(begin + _CHUNK, len(positions) * len(group))
                query, member = np.divmod(np.arange(begin, end), len(group))
                yield query * width + group[member], positions[query], member

        flat = self._run(several, len(positions) * len(several), pairs, samples or {})
        if isinstance(plans, Plan):
            return flat
        return _reshaped(flat, (len(positions), len(several)))

    def evaluate_pairs(
        self,
        queries: Sequence[int] | IntArray,
        plans: Sequence[Plan],
        which: Sequence[int] | IntArray | None = None,
        *,
        samples: Mapping[str, int] | None = None,
    ) -> Outcomes:
        """One plan per query: results of shape [N].

        Args:
            queries: [N] positions in `traces.queries`.
            plans: the plans.
            which: [N] position in `plans` of each query's plan; None: plan i is for query i.
            samples: as in `evaluate`.
        """
        positions = np.asarray(queries, dtype=np.int64)
        chosen = np.arange(len(plans)) if which is None else np.asarray(which, dtype=np.int64)
        if len(chosen) != len(positions):
            raise ValueError(f"{len(positions)} queries but {len(chosen)} plans for them")

        def pairs(group: IntArray) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
            member = np.full(len(plans), -1, dtype=np.int64)
            member[group] = np.arange(len(group))
            rows = np.flatnonzero(member[chosen] >= 0)
            for begin in range(0, len(rows), _CHUNK):
                part = rows[begin : begin + _CHUNK]
                yield part, positions[part], member[chosen[part]]

        return self._run(plans, len(positions), pairs, samples or {})

    def _run(
        self,
        plans: Sequence[Plan],
        count: int,
        pairs: Callable[[IntArray], Iterator[tuple[IntArray, IntArray, IntArray]]],
        samples: Mapping[str, int],
    ) -> Outcomes:
        """Some plans of one size after the other, each chunk by chunk.

        Args:
            count: results.
            pairs: for some of the plans, given by their positions: chunks of (rows of the
                results, queries, which of these plans).
        """
        agents = np.array([len(plan.assignment) for plan in plans], dtype=np.int64)
        results = Results.empty(count)
        provenance = self._calls.no_counts
        for size in np.unique(agents):
            same = np.flatnonzero(agents == size)
            for begin in range(0, len(same), _PLANS_AT_ONCE):
                group = same[begin : begin + _PLANS_AT_ONCE]
                some = [plans[int(position)] for position in group]
                designs = Designs.of(some, self._column, samples)
                for rows, queries, which in pairs(group):
                    found, counts = run_designs(self._calls, designs, which, queries)
                    results.store(rows, found)
                    provenance += counts
        return Outcomes(
            correct=results.correct,
            answer=results.answer,
            cost_nanodollars=results.cost_nanodollars,
            latency_s=results.latency_s,
            prompt_tokens=results.prompt_tokens,
            completion_tokens=results.completion_tokens,
            calls=results.calls,
            hops=results.hops,
            provenance=provenance,
        )

    def _column(self, backbone: str) -> int:
        try:
            return self._columns[backbone]
        except KeyError:
            raise KeyError(
                f"no recorded backbone {backbone!r}; there are {', '.join(self._columns)}"
            ) from None

    def _message(self, peer: PeerReply) -> Message:
        return Message(
            heard=np.ones(1, dtype=np.bool_),
            backbone=np.array([self._column(peer.backbone)], dtype=np.int64),
            answer=np.array([peer.answer], dtype=np.int64),
            correct=np.array([peer.correct], dtype=np.bool_),
            visible_tokens=np.array([peer.visible_tokens], dtype=np.int64),
        )


def _reshaped(flat: Outcomes, shape: tuple[int, int]) -> Outcomes:
    return Outcomes(
        correct=flat.correct.reshape(shape),
        answer=flat.answer.reshape(shape),
        cost_nanodollars=flat.cost_nanodollars.reshape(shape),
        latency_s=flat.latency_s.reshape(shape),
        prompt_tokens=flat.prompt_tokens.reshape(shape),
        completion_tokens=flat.completion_tokens.reshape(shape),
        calls=flat.calls.reshape(shape),
        hops=flat.hops.reshape(shape),
        provenance=flat.provenance,
    )
