"""Team outcomes a second: the vectorised replay against a plain loop that makes the same ones."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from itertools import combinations

import numpy as np
from rich.console import Console

from agentbalance_plugin.cli.benches.measure import Figure, Findings, Ratio, in_turns, timed
from agentbalance_plugin.cli.benches.plain_loop import PlainLoop, PlainOutcome
from agentbalance_plugin.core.replay import Replay
from agentbalance_plugin.core.traces import TraceSet
from agentbalance_plugin.plan import LateGate, Plan

_NAMES = ("first", "second", "third", "fourth")
_PLANS = 40
_LOOPED = 400
_MEMORY_PLANS = (2_000, 20_000)
_MEMORY_QUERIES = 40

_Draw = np.random.Generator


def bench_replay(*, rounds: int, seed: int, console: Console) -> Findings:
    """Every kind of team, and memory with ten times the plans."""
    traces = TraceSet.shipped("reasoning")
    # The loop takes every answer to be recorded.
    complete = np.flatnonzero((traces.correct >= 0).all(axis=1))
    replay, loop = Replay(traces, seed=seed), PlainLoop(traces, seed)
    found = Findings("replay")
    rng = np.random.default_rng(seed)
    for kind, make in _KINDS.items():
        plans = [make(rng, traces) for _ in range(_PLANS)]
        pairs = [
            (int(rng.choice(complete)), plans[int(rng.integers(_PLANS))]) for _ in range(_LOOPED)
        ]
        _check(replay, loop, pairs)
        measured = in_turns(
            {
                "replay": lambda plans=plans: timed(lambda: replay.evaluate(complete, plans)),
                "loop": lambda pairs=pairs: timed(
                    lambda: [loop.outcome(query, plan) for query, plan in pairs]
                ),
            },
            rounds,
            console,
            title=kind,
            seed=seed,
        )
        rates = {
            name: [count / span.busy for span in measured[name]]
            for name, count in (("replay", len(complete) * _PLANS), ("loop", _LOOPED))
        }
        for name, values in rates.items():
            found.figures[f"{kind}, {name}"] = Figure(values, "teams/s")
        found.compare(
            f"{kind}: replay / loop", rates["replay"], rates["loop"], bar=10, better="above"
        )
    _memory(found, replay, complete, rng)
    found.notes.append(
        "Teams a second of processor time, one thread; plans of four agents but for the single "
        "one. The loop's outcomes were compared with the replay's and are the same."
    )
    return found


def check_outcomes(pairs: int, seed: int) -> None:
    """Compare some outcomes of every kind of team (AssertionError: they differ)."""
    traces = TraceSet.shipped("reasoning")
    complete = np.flatnonzero((traces.correct >= 0).all(axis=1))
    replay, loop = Replay(traces, seed=seed), PlainLoop(traces, seed)
    rng = np.random.default_rng(seed)
    for make in _KINDS.values():
        _check(replay, loop, [(int(rng.choice(complete)), make(rng, traces)) for _ in range(pairs)])


def _check(replay: Replay, loop: PlainLoop, pairs: list[tuple[int, Plan]]) -> None:
    outcomes = replay.evaluate_pairs([query for query, _ in pairs], [plan for _, plan in pairs])
    for row, (query, plan) in enumerate(pairs):
        plain = loop.outcome(query, plan)
        for field in fields(PlainOutcome):
            ours, theirs = getattr(outcomes, field.name)[row], getattr(plain, field.name)
            if not np.isclose(ours, theirs, rtol=1e-9, atol=0):
                raise AssertionError(f"{field.name} of {plan} on query {query}: {ours}, {theirs}")


def _memory(found: Findings, replay: Replay, queries: np.ndarray, rng: _Draw) -> None:
    """What a replay holds besides its results, for some plans and for ten times as many."""
    held: list[float] = []
    some = queries[:_MEMORY_QUERIES]
    for count in _MEMORY_PLANS:
        plans = [_debate(rng, replay.traces) for _ in range(count)]
        replay.evaluate(some[:1], plans)
        tracemalloc.start()
        outcomes = replay.evaluate(some, plans)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del outcomes
        held.append((peak - kept) / 1e6)
        found.figures[f"memory besides the results, {count:,} plans"] = Figure([held[-1]], "MB")
    found.ratios[f"memory, {_MEMORY_PLANS[1]:,} / {_MEMORY_PLANS[0]:,} plans"] = Ratio(
        [held[1] / held[0]], bar=1.1
    )


def _some(rng: _Draw, traces: TraceSet, *, repeats: bool) -> dict[str, str | None]:
    chosen = rng.choice(traces.candidates, size=len(_NAMES), replace=repeats)
    return dict(zip(_NAMES, chosen.tolist(), strict=True))


def _weights(rng: _Draw) -> dict[str, float]:
    return {name: float(rng.uniform(0.2, 3.0)) for name in _NAMES}


def _single(rng: _Draw, traces: TraceSet) -> Plan:
    return Plan({_NAMES[0]: str(rng.choice(traces.candidates))}, decider=_NAMES[0])


def _cascade(rng: _Draw, traces: TraceSet) -> Plan:
    gates = {"third": LateGate(_NAMES[:2], 0.8), "fourth": LateGate(_NAMES[:3], 0.7)}
    return Plan(
        _some(rng, traces, repeats=False),
        decision="vote",
        decider="fourth",
        late_gates=gates,
        weights=_weights(rng),
        output_caps=dict.fromkeys(_NAMES, 1024),
        hop_limit=3,
    )


def _race(rng: _Draw, traces: TraceSet) -> Plan:
    return Plan(
        _some(rng, traces, repeats=False),
        decision="vote",
        decider="fourth",
        stop_at=0.8,
        weights=_weights(rng),
        hop_limit=1,
    )


def _debate(rng: _Draw, traces: TraceSet) -> Plan:
    edges = tuple(combinations(_NAMES, 2))
    return Plan(_some(rng, traces, repeats=True), edges=edges, decider="fourth")


def _gated_decider(rng: _Draw, traces: TraceSet) -> Plan:
    return Plan(
        _some(rng, traces, repeats=True),
        edges=tuple((name, "fourth") for name in _NAMES[:3]),
        decider="fourth",
        late_gates={"fourth": LateGate(_NAMES[:3], 0.9)},
        weights=_weights(rng),
    )


_KINDS: dict[str, Callable[[_Draw, TraceSet], Plan]] = {
    "single agent": _single,
    "cascade with two late gates": _cascade,
    "vote that stops early": _race,
    "chain in which all hear all": _debate,
    "three heard by a late-gated decider": _gated_decider,
}
