"""Agent representation: role, assigned backbone and query, aware of the other agents.

One layer of attention over the agents (Vaswani et al., arXiv 1706.03762) with a residual path.
"""

from __future__ import annotations

from typing import Literal

from agentbalance_plugin.core.stages.arrays import Array, Scene, StageWeights, namespace

Awareness = Literal["learned", "off", "fixed"]


def agent_vectors(
    weights: StageWeights,
    scene: Scene,
    agents: Array,
    backbone: Array,
    awareness: Awareness = "learned",
) -> Array:
    """[N, S, A, H] a vector per agent; invariant to the order of the other agents.

    Args:
        agents: [N, A, X], `Heads.agents`.
        backbone: [N, S, A, B] mask of the assigned one.
        awareness: "off": an agent knows nothing of the others; "fixed": it sees their mean.
    """
    xp = namespace(backbone)
    of_backbone = scene.backbones @ weights.backbone
    assigned = backbone @ of_backbone[:, None]
    own = xp.tanh((agents @ weights.agent)[:, None] + assigned)
    if awareness == "off":
        return own
    said = own @ weights.att_value
    if awareness == "fixed":
        return own + xp.mean(said, axis=2, keepdims=True)
    asks, answers = own @ weights.att_query, own @ weights.att_key
    scores = asks @ xp.permute_dims(answers, (0, 1, 3, 2)) / own.shape[-1] ** 0.5
    raised = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    attention = raised / xp.sum(raised, axis=-1, keepdims=True)
    return own + attention @ said
