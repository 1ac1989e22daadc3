"""Switches of the stages, one field each: what an ablation turns off."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Mode = Literal["learned", "random", "off", "fixed"]
MODES: tuple[Mode, ...] = ("learned", "random", "off", "fixed")


@dataclass(frozen=True)
class PolicyConfig:
    """How each stage decides; "learned" everywhere is the policy as trained.

    Draws of "random" stages are keyed by the query's vector and `seed`.

    Args:
        pools: which backbones are kept and how they are grouped. random: any, as many as no other
            beats, in any pool; off: one pool of all of them, beaten ones too; fixed: those that no
            other beats, in equal thirds by price.
        selection: which pool is the strongest that is drawn on. random: any; off: all are open;
            fixed: always the middle one.
        matching: which backbones agents get. random: one at random for each agent; off: all that
            are open, none preferred; fixed: the likeliest one for all agents.
        representation: what an agent's vector holds. random: noise; off: nothing of the other
            agents; fixed: their mean in place of attention.
        gating: how many agents take part. random: any number; off: as many as can; fixed: three.
        hops: the hop limit. random: any; off: none; fixed: two.
        topology: edges. random: those of any family that is open; off: none, so that all agents
            start at once; fixed: as many as the hop limit allows.
        late_gates: which agents wait for disagreement and which votes stop early. random: any
            choice of the open families with and without them; off: none; fixed: wherever there
            can be.
        seed: of random stages.

    Raises:
        ValueError: a mode that does not exist, naming the field.
    """

    pools: Mode = "learned"
    selection: Mode = "learned"
    matching: Mode = "learned"
    representation: Mode = "learned"
    gating: Mode = "learned"
    hops: Mode = "learned"
    topology: Mode = "learned"
    late_gates: Mode = "learned"
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            mode = getattr(self, field.name)
            if field.name != "seed" and mode not in MODES:
                raise ValueError(f"PolicyConfig.{field.name} must be one of {MODES}, got {mode!r}")


STAGES: tuple[str, ...] = tuple(f.name for f in fields(PolicyConfig) if f.name != "seed")
"""Fields of `PolicyConfig` that name a stage."""
