"""The answers that a folder of recordings has: whole lines, one writer at a time, one model a
backbone."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from agentbalance_plugin.backbone import Catalog
from agentbalance_plugin.core.recording import Question, Recorded, called, read_recorded


@contextmanager
def held(log: Path) -> Generator[TextIO]:
    """The log, made if need be, to append to while no other process does.

    Raises:
        ValueError: another one does.
    """
    with log.open("a", encoding="utf-8") as file:
        # Let go of by the system however the process ends. Windows has none of that kind.
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"{log}: another command records into it; wait for its end, or give --out "
                    "another folder"
                ) from error
        _mend(log, file)
        yield file


def _mend(log: Path, file: TextIO) -> None:
    """Take out a last line that was not written whole, which the next one would continue."""
    content = log.read_bytes()
    if not content.endswith(b"\n"):
        file.truncate(content.rfind(b"\n") + 1)


def known_answers(log: Path, questions: Sequence[Question], catalog: Catalog) -> list[Recorded]:
    """The logged answers of these backbones to these questions, one a pair, as right as the
    questions say now.

    Raises:
        TraceError: a line holds no answer.
        ValueError: a backbone of the catalog is another model now.
    """
    from agentbalance_plugin.adapters.autogen.recording import same_answer

    of = {question.id: question for question in questions}
    found: dict[tuple[str, str], Recorded] = {}
    for each in read_recorded(log):
        if each.backbone not in catalog:
            continue
        now = called(catalog[each.backbone])
        if each.called and each.called != now:
            raise ValueError(
                f"{log}: the answers of backbone {each.backbone!r} are those of {each.called}, but "
                f"the catalog says {now or 'nothing of what is called'}; give it another name in "
                "the catalog, or --out another folder. If both are the same, replace the one by "
                "the other in that file"
            )
        if (question := of.get(each.question)) is not None:
            right = same_answer(question, "", each.answer)
            found[each.question, each.backbone] = replace(each, correct=right)
    return list(found.values())
