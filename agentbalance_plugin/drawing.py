"""Plans as pictures that need nothing but text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentbalance_plugin.plan import Plan


def mermaid(plan: Plan) -> str:
    """A Mermaid flowchart: messages as arrows, late gates dashed, the decision as a stadium."""
    ids = {name: f"n{number}" for number, name in enumerate(plan.assignment)}
    lines = ["flowchart LR", "    task([task])"]
    for name, backbone in plan.assignment.items():
        label = _escape(name) + (f"<br/>{_escape(backbone)}" if backbone else "")
        shape = f'{{{{"{label}"}}}}' if name in plan.late_gates else f'["{label}"]'
        lines.append(f"    {ids[name]}{shape}")
    lines.append("    answer([answer])" if plan.decision == "agent" else "    answer([vote])")
    for name in plan.assignment:
        if not plan.waits_for(name):
            lines.append(f"    task --> {ids[name]}")
    for speaker, listener in plan.edges:
        lines.append(f"    {ids[speaker]} --> {ids[listener]}")
    for name, gate in plan.late_gates.items():
        for watched in gate.watches:
            lines.append(
                f'    {ids[watched]} -. "agreement < {gate.threshold:.2f}" .-> {ids[name]}'
            )
    for name in _deciding(plan):
        lines.append(f"    {ids[name]} --> answer")
    return "\n".join(lines)


def text_tree(plan: Plan) -> str:
    """A text tree with the decision at the root; an agent seen before is not unfolded again."""
    if plan.decision == "vote":
        head = "vote"
    else:
        head = f"answer of {plan.decider}" if plan.decider else "answer"
    if plan.stop_at is not None:
        head += f", over at agreement {plan.stop_at:.2f}"
    if plan.expected is not None:
        expected = plan.expected
        head += (
            f"   (expected: {expected.success:.0%} right, {expected.cost_usd:.6f} USD, "
            f"{expected.latency_s:.1f} s)"
        )
    lines = [head]
    seen: set[str] = set()

    def walk(names: tuple[str, ...], indent: str) -> None:
        for position, name in enumerate(names):
            last = position == len(names) - 1
            lines.append(f"{indent}{'└─ ' if last else '├─ '}{_label(plan, name)}")
            if name not in seen:
                seen.add(name)
                walk(plan.waits_for(name), indent + ("   " if last else "│  "))

    walk(_deciding(plan), "")
    return "\n".join(lines)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as lines, their columns below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _deciding(plan: Plan) -> tuple[str, ...]:
    """The agents whose messages make the decision."""
    if plan.decision == "agent" and plan.decider is not None:
        return (plan.decider,)
    return tuple(plan.assignment)


def _label(plan: Plan, name: str) -> str:
    backbone = plan.assignment[name]
    label = name + (f" on {backbone}" if backbone else "")
    gate = plan.late_gates.get(name)
    if gate is not None:
        label += f"   only if {' and '.join(gate.watches)} agree less than {gate.threshold:.2f}"
    return label


def _escape(text: str) -> str:
    return re.sub(r'["<>{}\[\]|#;`]', lambda found: f"#{ord(found.group())};", text)
