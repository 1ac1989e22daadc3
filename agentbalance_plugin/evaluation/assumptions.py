"""What the numbers of a suite rest on, read off its traces and catalog."""

from __future__ import annotations

import numpy as np

from agentbalance_plugin.core.traces import TraceSet

# Replies of fewer tokens hold an answer and next to no reasoning.
_BARE = 50


def assumptions(traces: TraceSet) -> tuple[str, ...]:
    """What the numbers rest on."""
    recorded = traces.correct >= 0
    unread = (traces.answer < 0) & recorded
    hidden = [name for name, b in traces.catalog.items() if any(b.hidden_tokens.values())]
    nominal = [n for n in traces.candidates if traces.catalog[n].price_source == "nominal"]
    measured = 0 if traces.latency_s is None else int((traces.latency_s >= 0).any(axis=0).sum())
    found = [
        "answers are replayed: what an agent says alone was recorded, what it says after reading "
        "others is modelled",
        "a backbone's further samples are modelled (copies resampled)"
        if traces.samples.correct.shape[2] == 1
        else "a backbone's further samples are recorded ones where there are any, else modelled",
        "latency follows nominal speeds with log-normal noise, along the longest path"
        + (f"; measured for {measured} backbones alone" if measured else ""),
        f"prices of {len(nominal)} of {len(traces.candidates)} candidates are nominal, the others "
        "list prices",
        "which operating points count is chosen on val; every method may mix two of them and the "
        "cheapest single backbone, the weight of the mix solved without labels",
    ]
    if traces.reference is not None:
        column = traces.backbones.index(traces.reference)
        length = int(np.median(traces.visible_tokens[recorded[:, column], column]))
        found.append(
            f"budgets follow the reference backbone {traces.reference}, whose recorded replies "
            f"have a median of {length} tokens" + (" (bare answers)" if length < _BARE else "")
        )
    if unread.sum() == recorded.sum():
        found.append("no answers were recorded, only whether they are right: votes never agree")
    else:
        lacking = _answers_missing_when_wrong(traces)
        if lacking:
            found.append(
                f"most wrong answers of {', '.join(lacking)} were recorded without an answer to "
                "compare, so they never agree with each other: votes and cascades are flattered"
            )
    if hidden:
        found.append(f"hidden reasoning tokens of {', '.join(sorted(hidden))} are estimates")
    return tuple(found)


def _answers_missing_when_wrong(traces: TraceSet) -> list[str]:
    """Candidates whose wrong answers can mostly not be compared, unlike their right ones."""
    found: list[str] = []
    for name in traces.candidates:
        column = traces.backbones.index(name)
        correct, missing = traces.correct[:, column], traces.answer[:, column] < 0
        wrong, right = missing[correct == 0], missing[correct == 1]
        if wrong.size and right.size and wrong.mean() > 0.5 > right.mean():
            found.append(name)
    return found
