"""What a folder of recordings has is graded anew, of one model a backbone, and written by one."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from agentbalance_plugin import Backbone, Catalog
from agentbalance_plugin.backbone import Endpoint
from agentbalance_plugin.cli.answer_log import held, known_answers
from agentbalance_plugin.core.recording import Question, Recorded, called

ASKED = Question("1 + 1?", "2")
MINI = Backbone(
    "mini",
    price_in_usd_per_mtok=Decimal(1),
    price_out_usd_per_mtok=Decimal(1),
    endpoint=Endpoint(model="small-1", base_url="http://127.0.0.1:1/v1"),
)
ANSWER = Recorded(ASKED.id, "mini", "2", True, 20, 30, 0, 0.2, 1.5, 10, called(MINI))


def written(folder: Path, *answers: Recorded) -> Path:
    log = folder / "answers.jsonl"
    log.write_text("".join(answer.to_json() + "\n" for answer in answers))
    return log


def test_known_answers_are_as_right_as_the_questions_say_now(tmp_path: Path) -> None:
    others = replace(ANSWER, backbone="gone"), replace(ANSWER, question="another")
    log = written(tmp_path, *others, ANSWER, ANSWER)
    catalog = Catalog([MINI])
    assert known_answers(log, [ASKED], catalog) == [ANSWER]
    mended = replace(ASKED, answer="two")
    assert known_answers(log, [mended], catalog) == [replace(ANSWER, correct=False)]


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(model="small-2", base_url="http://127.0.0.1:1/v1"),
        Endpoint(model="small-1", base_url="http://127.0.0.1:2/v1"),
        Endpoint(model="small-1"),
    ],
)
def test_answers_of_another_model_are_not_taken_for_a_backbones(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    log = written(tmp_path, ANSWER)
    catalog = Catalog([replace(MINI, endpoint=endpoint)])
    with pytest.raises(ValueError, match=r"'mini' are those of small-1 at http://127\.0\.0\.1:1"):
        # Of other questions too: their profiles are one.
        known_answers(log, [Question("another", "1")], catalog)
    # The log of a client of the user's own does not tell.
    log = written(tmp_path, replace(ANSWER, called=""))
    assert len(known_answers(log, [ASKED], catalog)) == 1


def test_what_is_called_is_told_without_keys() -> None:
    def of(**fields: object) -> str:
        return called(replace(MINI, endpoint=Endpoint(**fields)))  # pyright: ignore[reportArgumentType]

    assert of(model="m") == "m"
    assert (
        of(model="m", base_url="https://me:secret@a.b:8/v1?key=secret") == "m at https://a.b:8/v1"
    )
    config = {"model": "m", "azure_deployment": "d", "azure_endpoint": "https://x/", "api_key": "k"}
    assert of(component={"provider": "a.Client", "config": config}) == "d at a.Client https://x/"
    assert of(component={"provider": "a.Client", "config": {"model": "m"}}) == "m at a.Client"
    # Refused elsewhere.
    assert of(component={"provider": "a.Client", "config": ["m"]}) == "None at a.Client"
    assert called(replace(MINI, endpoint=None)) == ""


def test_one_command_at_a_time_writes_whole_lines(tmp_path: Path) -> None:
    log = written(tmp_path, ANSWER)
    log.write_text(log.read_text() + ANSWER.to_json()[:9])
    with held(log) as file:
        assert log.read_text() == ANSWER.to_json() + "\n"
        with pytest.raises(ValueError, match="another command records into it"), held(log):
            pass
        file.write(ANSWER.to_json() + "\n")
    with held(log):
        assert log.read_text() == 2 * (ANSWER.to_json() + "\n")
