"""From a drawn design to a Plan for the user's own agents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.design import agreement_threshold
from agentbalance_plugin.core.stages.arrays import Designs
from agentbalance_plugin.core.teamwork import vote_weights
from agentbalance_plugin.plan import LateGate, Plan
from agentbalance_plugin.team import Agent

FloatArray = NDArray[np.float64]


def drawn_plans(
    designs: Designs,
    slots: Sequence[Agent],
    names: Sequence[str],
    log_odds: FloatArray,
    caps: FloatArray,
) -> list[Plan]:
    """[N * S] plans, those of one task after each other.

    Args:
        designs: of N tasks, S each.
        slots: [A] the agents in the designs' order, the decider last.
        names: [B] of the backbones.
        log_odds: [N, B] predicted.
        caps: [N, B] output tokens of a call.
    """
    weights = vote_weights(log_odds)
    columns = designs.backbone.argmax(axis=-1)
    hops = designs.hops.argmax(axis=-1) + 1
    return [
        _plan(designs, n, s, slots, names, columns[n, s], weights[n], caps[n], int(hops[n, s]))
        for n in range(columns.shape[0])
        for s in range(columns.shape[1])
    ]


def _plan(
    designs: Designs,
    n: int,
    s: int,
    slots: Sequence[Agent],
    names: Sequence[str],
    columns: NDArray[np.int64],
    weights: FloatArray,
    caps: FloatArray,
    hops: int,
) -> Plan:
    kept: list[int] = np.flatnonzero(designs.kept[n, s]).tolist()
    edge, late = designs.edge[n, s], designs.late[n, s]
    value = {a: float(weights[columns[a]]) for a in kept}
    edges: list[tuple[str, str]] = []
    gates: dict[str, LateGate] = {}
    for agent in kept:
        speakers: list[int] = np.flatnonzero(edge[:, agent]).tolist()
        if speakers and late[agent]:
            strict = bool(designs.strict[n, s, agent])
            threshold = agreement_threshold([value[a] for a in speakers], everyone=strict)
            gates[slots[agent].name] = LateGate(tuple(slots[a].name for a in speakers), threshold)
        else:
            edges += [(slots[a].name, slots[agent].name) for a in speakers]
    decider = len(slots) - 1
    # A decider that reads others decides; one that does not is one voice among several.
    decides = len(kept) == 1 or bool(edge[:, decider].any() and not late[decider])
    if decides:
        # Whoever nobody hears or watches is heard by the decider.
        heard = {a for a in kept if edge[a].any()}
        loose = [a for a in kept if a != decider and a not in heard]
        edges += [(slots[a].name, slots[decider].name) for a in loose]
    stop_at = None
    if designs.race[n, s] and not decides and not edges and not gates:
        stop_at = agreement_threshold([value[a] for a in kept])
    return Plan(
        assignment={slots[a].name: str(names[int(columns[a])]) for a in kept},
        edges=tuple(edges),
        decision="agent" if decides else "vote",
        decider=slots[decider].name,
        late_gates=gates,
        stop_at=stop_at,
        weights={slots[a].name: value[a] for a in kept} if len(kept) > 1 else {},
        output_caps={slots[a].name: int(caps[columns[a]]) for a in kept},
        hop_limit=max(hops + 1, len(kept)),
    )
