"""Why replies of a recording may count as wrong that are not, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.core.recording import Question, Recorded

# So many questions that none is answered right say more than that these are hard.
_ENOUGH_WRONG = 5
# Characters of a text that is shown as an example.
_SHOWN = 60


def remarks(
    asked: Sequence[Question], known: Sequence[Recorded], catalog: Catalog
) -> Iterator[str]:
    """One sentence or two for each thing that the user may want to mend."""
    unread = [each for each in known if each.answer is None]
    if unread:
        said = next((f" (one ends with {_end(each.said)})" for each in unread if each.said), "")
        yield (
            f"unread: replies in which no answer was found{said}, which count as wrong; "
            "docs/catalog.md says what is read as one"
        )
    for name, backbone in catalog.items():
        most = backbone.max_output_tokens
        full = [
            each
            for each in unread
            if each.backbone == name and each.visible_tokens + each.hidden_tokens >= most
        ]
        if full:
            yield (
                f"{name}: {len(full)} of its unread replies ended at its max_output_tokens of "
                f"{most}; if its endpoint allows more, say so in the catalog, and record it anew "
                "under another name"
            )
    silent = Counter(each.backbone for each in known if not each.metered)
    if silent:
        whose = ", ".join(f"{name} ({count})" for name, count in silent.items())
        yield (
            f"replies of {whose} came without usage: each is booked at the worst that it could "
            "cost, as under a budget, and its tokens are guessed from its length, hidden ones as "
            "none"
        )
    yield from _never_right(asked, known)


def _never_right(asked: Sequence[Question], known: Sequence[Recorded]) -> Iterator[str]:
    """Whose replies were never right, or to which kind of question none was: how answers are
    written is the likely reason."""
    of = {question.id: question for question in asked}
    by_backbone: dict[str, list[Recorded]] = {}
    by_kind: dict[str, list[Recorded]] = {}
    for each in known:
        by_backbone.setdefault(each.backbone, []).append(each)
        by_kind.setdefault(of[each.question].category, []).append(each)
    groups = {
        **{f"no reply of {name} was right": rows for name, rows in by_backbone.items()},
        **{
            f"no reply to a question of category {kind!r} was right": rows
            for kind, rows in by_kind.items()
        },
    }
    groups = {
        what: rows
        for what, rows in groups.items()
        if len({each.question for each in rows}) >= _ENOUGH_WRONG
    }
    if not any(each.correct for each in known):
        groups = {"no reply was right": list(known)}
    for what, rows in groups.items():
        read = next((each for each in rows if each.answer is not None), None)
        if read is None or any(each.correct for each in rows):
            continue
        question = of[read.question]
        yield (
            f"{what}, of {len(rows)}. To {_start(question.text)} the answer is "
            f"{_start(question.answer)}, and {_start(read.answer or '')} was read; if these mean "
            "the same, write answers as replies do: the same command then compares anew, without "
            "asking"
        )


def _start(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _end(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else "…" + text[-_SHOWN:])
