"""One call of each of many agents: what a recorded backbone replies, bills and takes.

The elementwise rules that the scalar and the vectorised replay share.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy as shallow_copy
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.core.abilities import abilities
from agentbalance_plugin.core.communication import Influence, Voice, after_reading
from agentbalance_plugin.core.copies import Copies
from agentbalance_plugin.core.outcomes import CopyMode, Provenance
from agentbalance_plugin.core.sampling import (
    KeyArray,
    draw_keys,
    further_keys,
    normals,
    string_key,
    string_keys,
    uniforms,
)
from agentbalance_plugin.core.traces import TraceSet

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

# Latency noise: log-normal with mean 1.
_LATENCY_SIGMA = 0.2
# Where a whole catalog states no speed: a typical hosted backbone.
_TYPICAL_TTFT_S = 0.5
_TYPICAL_TOKENS_PER_S = 60.0

_REPEAT = string_key("copy repeats itself")
_WHICH = string_key("copy takes from")
_READ = string_key("answer after reading")
_LATENCY = string_key("latency")


@dataclass(frozen=True)
class Message:
    """What n readers may hear of one agent, arrays of shape [n].

    Args:
        heard: whether there is a message.
        backbone: the speaker's column; any where there is no message.
        answer: code, -1 for none.
        correct: whether it is right.
        visible_tokens: what the message adds to its reader's prompt.
    """

    heard: BoolArray
    backbone: IntArray
    answer: IntArray
    correct: BoolArray
    visible_tokens: IntArray


@dataclass(frozen=True)
class Spoken:
    """What n calls gave, arrays of shape [n].

    Args:
        message: what others hear; its visible tokens are billed.
        prompt_tokens, hidden_tokens: as billed.
        latency_s: of the call alone.
        cut: ended by the output cap.
        cost_nanodollars: of the call.
    """

    message: Message
    prompt_tokens: IntArray
    hidden_tokens: IntArray
    latency_s: FloatArray
    cut: BoolArray
    cost_nanodollars: IntArray

    @property
    def completion_tokens(self) -> IntArray:
        """Billed output: visible and hidden."""
        return self.message.visible_tokens + self.hidden_tokens


class Calls:
    """Recorded backbones, ready to be called.

    Args:
        traces: what they answer.
        catalog: their prices, speeds and caps.
        seed: of every draw.
        influence: constants of the model of communication.
        copies: whether further copies of a backbone are resampled or answer alike.
        estimate_on: the split for abilities and agreement rates.
    """

    def __init__(
        self,
        traces: TraceSet,
        catalog: Catalog,
        *,
        seed: int,
        influence: Influence,
        copies: CopyMode,
        estimate_on: str,
    ) -> None:
        self._traces = traces
        self._depth = traces.samples.correct.shape[2]
        self._cells = traces.samples.correct[:, :, 0].size
        # Looked up by one position: cell, then [S] times [Q, B] for further samples.
        samples = traces.samples
        self._answer, self._correct, self._prompt, self._visible = (
            np.moveaxis(array, 2, 0).reshape(-1)
            for array in (
                samples.answer,
                samples.correct,
                samples.prompt_tokens,
                samples.visible_tokens,
            )
        )
        self._influence = influence
        self._identical = copies == "identical"
        self.no_counts = Provenance(
            copies=copies, estimated_on=estimate_on if estimate_on in traces.splits else None
        )
        known = abilities(traces, estimate_on)
        self._log_odds = known.log_odds
        self._copies = Copies(traces, known, estimate_on)
        self._query_keys = draw_keys(seed, string_keys(query.key for query in traces.queries))
        self._backbone_keys = string_keys(traces.backbones)
        position = {name: index for index, name in enumerate(traces.benchmarks)}
        self._benchmark = np.array([position[query.benchmark] for query in traces.queries])
        recorded = traces.correct >= 0
        self._mean_prompt = self._means(traces.prompt_tokens, recorded)
        self._mean_visible = self._means(traces.visible_tokens, recorded)
        self._price(catalog)

    def at(self, catalog: Catalog) -> Calls:
        """The same with other prices, speeds and caps; what was recorded is shared, not copied."""
        other = shallow_copy(self)
        other._price(catalog)
        return other

    def _price(self, catalog: Catalog) -> None:
        """Take from a catalog what it says of each backbone."""
        traces = self._traces
        backbones = [catalog[name] for name in traces.backbones]
        self._hidden = np.array(
            [[b.hidden_tokens.get(name, 0) for b in backbones] for name in traces.benchmarks],
            dtype=np.int64,
        )
        self._pico_in = np.array([b.picodollars_in for b in backbones], dtype=np.int64)
        self._pico_out = np.array([b.picodollars_out for b in backbones], dtype=np.int64)
        self._max_output = np.array([b.max_output_tokens for b in backbones], dtype=np.int64)
        ttft = [b.ttft_s for b in backbones]
        speed = [b.tokens_per_s for b in backbones]
        self._ttft = _filled(ttft, _TYPICAL_TTFT_S)
        self._tokens_per_s = _filled(speed, _TYPICAL_TOKENS_PER_S)
        self._speed_unknown = np.array(
            [None in pair for pair in zip(ttft, speed, strict=True)], dtype=np.bool_
        )

    def _means(self, tokens: NDArray[np.int32], recorded: NDArray[np.bool_]) -> IntArray:
        """[benchmarks, B] rounded means; a backbone without a row there has its overall mean."""
        shape = (len(self._traces.benchmarks), tokens.shape[1])
        total, count = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        np.add.at(total, self._benchmark, np.where(recorded, tokens, 0))
        np.add.at(count, self._benchmark, recorded.astype(np.int64))
        overall = total.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
        means = np.where(count > 0, total / np.maximum(count, 1), overall)
        return np.rint(means).astype(np.int64)

    def speak(
        self,
        query: IntArray,
        backbone: IntArray,
        agent: KeyArray,
        turn: int,
        peers: Sequence[Message],
        caps: IntArray,
        sample: IntArray,
    ) -> tuple[Spoken, Provenance]:
        """One call each for n queries.

        Args:
            query, backbone: [n] positions.
            agent: [n] keys of the agents' names.
            turn: how often it spoke before.
            peers: the messages it reads.
            caps: [n] most output tokens, beside the backbone's own cap.
            sample: [n] which sample of the backbone it is; negative: the number of peers of the
                same backbone that it reads.
        """
        cell = query * len(self._max_output) + backbone
        copy = np.maximum(sample, 0)
        for peer in peers:
            copy += (sample < 0) & peer.heard & (peer.backbone == backbone)
        if self._identical:
            copy = np.zeros_like(copy)
        row, answered, resampled = self._recorded(query, backbone, cell, copy)
        missing = self._correct[cell] < 0
        # What each draw is for is mixed once into all of the call's draws.
        keys = draw_keys(0, further_keys(self._keys(query, backbone), agent, turn))
        answer = self._answer[answered].astype(np.int64)
        correct = self._correct[answered] == 1
        influenced = self._read(query, backbone, peers, keys, answer, correct) & ~missing
        answer[missing], correct[missing] = -1, False

        prompt = self._prompt[row].astype(np.int64)
        visible = self._visible[row].astype(np.int64)
        if missing.any():
            benchmark = self._benchmark[query[missing]]
            prompt[missing] = self._mean_prompt[benchmark, backbone[missing]]
            visible[missing] = self._mean_visible[benchmark, backbone[missing]]
        for peer in peers:
            prompt += peer.visible_tokens * peer.heard
        hidden = self._hidden[self._benchmark[query], backbone]
        cap = np.minimum(caps, self._max_output[backbone])
        cut = visible + hidden > cap
        np.minimum(hidden, cap, out=hidden, where=cut)
        np.subtract(cap, hidden, out=visible, where=cut)
        answer[cut], correct[cut] = -1, False

        latency_s, measured = self._latency(query, backbone, visible + hidden, keys)
        measured &= (copy == 0) & ~cut
        if self._traces.latency_s is not None:
            latency_s = np.where(measured, self._traces.latency_s[query, backbone], latency_s)
        pico = prompt * self._pico_in[backbone] + (visible + hidden) * self._pico_out[backbone]
        spoken = Spoken(
            message=Message(
                heard=np.ones(len(query), dtype=np.bool_),
                backbone=backbone,
                answer=answer,
                correct=correct,
                visible_tokens=visible,
            ),
            prompt_tokens=prompt,
            hidden_tokens=hidden,
            latency_s=latency_s,
            cut=cut,
            cost_nanodollars=-(-pico // 1000),
        )
        counts = replace(
            self.no_counts,
            calls=len(query),
            influenced=int(influenced.sum()),
            resampled=int(resampled.sum()),
            missing=int(missing.sum()),
            cut=int(cut.sum()),
            hidden=int((hidden > 0).sum()),
            hidden_tokens=int(hidden.sum()),
            measured=int(measured.sum()),
            speed_unknown=int((self._speed_unknown[backbone] & ~measured).sum()),
        )
        return spoken, counts

    def _keys(self, query: IntArray, backbone: IntArray) -> KeyArray:
        """What each pair's draws are keyed by; made when they are needed, for a table of all pairs
        would be most of what the recorded answers take."""
        return further_keys(self._query_keys[query], self._backbone_keys[backbone])

    def _recorded(
        self, query: IntArray, backbone: IntArray, cell: IntArray, sample: IntArray
    ) -> tuple[IntArray, IntArray, BoolArray]:
        """Rows of the tokens, rows of the answers, and which of those were resampled."""
        resampled = np.zeros(len(query), dtype=np.bool_)
        further = np.flatnonzero(sample)
        if not len(further):
            return cell, cell, resampled
        row, answered = cell.copy(), cell.copy()
        real = np.minimum(sample[further], self._depth - 1)
        there = (sample[further] < self._depth) & (
            self._correct[cell[further] + real * self._cells] >= 0
        )
        row[further[there]] += real[there] * self._cells
        answered[further[there]] = row[further[there]]
        again = further[~there]
        again = again[self._correct[cell[again]] >= 0]
        if len(again):
            # Not keyed by the agent: the same copy of a backbone gives one answer to whoever asks.
            keys = self._keys(query[again], backbone[again])
            keys = draw_keys(0, further_keys(keys, sample[again]))
            taken = self._copies.sources(
                query[again],
                backbone[again],
                uniforms(further_keys(keys, _REPEAT)),
                uniforms(further_keys(keys, _WHICH)),
            )
            answered[again] += taken - backbone[again]
            resampled[again] = True
        return row, answered, resampled

    def _read(
        self,
        query: IntArray,
        backbone: IntArray,
        peers: Sequence[Message],
        keys: KeyArray,
        answer: IntArray,
        correct: BoolArray,
    ) -> BoolArray:
        """Change the answers of those that faced disagreement; [n] which did."""
        faced = np.zeros(len(query), dtype=np.bool_)
        for peer in peers:
            faced |= peer.heard & (peer.answer >= 0) & (peer.answer != answer)
        rows = np.flatnonzero(faced)
        if len(rows):
            category = self._traces.category[query[rows]]
            own = Voice(answer[rows], correct[rows], self._log_odds[category, backbone[rows]])
            voices = [
                Voice(
                    np.where(peer.heard[rows], peer.answer[rows], -1),
                    peer.correct[rows],
                    self._log_odds[category, peer.backbone[rows]],
                )
                for peer in peers
            ]
            answer[rows], correct[rows], _ = after_reading(
                own, voices, further_keys(keys[rows], _READ), self._influence
            )
        return faced

    def _latency(
        self, query: IntArray, backbone: IntArray, tokens: IntArray, keys: KeyArray
    ) -> tuple[FloatArray, BoolArray]:
        """Modelled seconds, and where a measurement exists.

        Args:
            keys: of the calls' draws.
        """
        noise = normals(further_keys(keys, _LATENCY))
        nominal = self._ttft[backbone] + tokens / self._tokens_per_s[backbone]
        modelled = nominal * np.exp(_LATENCY_SIGMA * noise - _LATENCY_SIGMA**2 / 2)
        if self._traces.latency_s is None:
            return modelled, np.zeros(len(query), dtype=np.bool_)
        return modelled, np.isfinite(self._traces.latency_s[query, backbone])


def _filled(values: Sequence[float | None], typical: float) -> FloatArray:
    """Unknown values become the median of the known ones, or what is typical."""
    known = [value for value in values if value is not None]
    default = median(known) if known else typical
    return np.array([default if value is None else value for value in values], dtype=np.float64)
