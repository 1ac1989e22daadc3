"""Recording answers of live backbones: labelled questions in, a trace folder out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.core.suites import Suite, read_suites, suites_text
from agentbalance_plugin.core.trace_files import TraceError, check_present, fields_of
from agentbalance_plugin.core.whole_files import put
from agentbalance_plugin.extras import require

_DELIMITERS = {".csv": ",", ".tsv": "\t"}

# Of ten questions; which are which hangs on the question alone, so more of them move none.
_SPLITS = ("train",) * 6 + ("val",) * 2 + ("test",) * 2


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose right answer is known.

    Args:
        text: as the policy and the backbones read it.
        answer: the right one.
        category: kind of question; empty for none.
    """

    text: str
    answer: str
    category: str = ""

    @property
    def id(self) -> str:
        """Known by its text: a question that was changed is another one."""
        return self._digest[:16]

    @property
    def split(self) -> str:
        """train, val or test."""
        return _SPLITS[int(self._digest, 16) % len(_SPLITS)]

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.text.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A reply to a question.

    Args:
        question: its id.
        backbone: who was asked.
        answer: what the reply says the answer is; None where it says none that can be compared.
        correct: whether that is right.
        prompt_tokens: as billed.
        visible_tokens, hidden_tokens: completion tokens of the reply, and those before it.
        first_s: seconds to the first token; None where the reply came in one piece.
        total_s: seconds to the last.
        nanodollars: what it cost.
        called: what was asked, as `called` says of the backbone.
        said: the end of a reply in which no answer was found; empty where one was.
        metered: whether the endpoint told what it billed; else tokens are guessed.
    """

    question: str
    backbone: str
    answer: str | None
    correct: bool
    prompt_tokens: int
    visible_tokens: int
    hidden_tokens: int
    first_s: float | None
    total_s: float
    nanodollars: int
    called: str = ""
    said: str = ""
    metered: bool = True

    def to_json(self) -> str:
        """One line, which `read_recorded` reads."""
        return json.dumps(asdict(self), ensure_ascii=False)


def called(backbone: Backbone) -> str:
    """The model that its calls reach, and where; empty where a client of the user's own knows."""
    endpoint = backbone.endpoint
    if endpoint is None:
        return ""
    model, where = endpoint.model, _address(endpoint.base_url)
    if endpoint.component is not None:
        given: Any = endpoint.component.get("config")
        config = cast("dict[str, Any]", given if isinstance(given, dict) else {})
        model = config.get("azure_deployment") or config.get("model")
        address = _address(config.get("azure_endpoint") or config.get("base_url"))
        where = f"{endpoint.component.get('provider')} {address}".rstrip()
    return f"{model} at {where}" if where else str(model)


def _address(url: Any) -> str:
    """Without what may hold a key."""
    parts = urlsplit(str(url or ""))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a .jsonl, .csv or .tsv file with the fields question, answer and, where
    there are kinds of questions, category.

    Raises:
        TraceError: naming file, line, field and value.
    """
    path = Path(path)
    if not path.is_file():
        raise TraceError(f"{path}: no such file of questions")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: can't be read as UTF-8 text: {error}") from error
    found: dict[str, Question] = {}
    delimiter = _DELIMITERS.get(path.suffix.lower())
    rows = _json_rows(path, text) if delimiter is None else _table_rows(path, text, delimiter)
    for where, row in rows:
        question = _question(where, row)
        if question.id in found:
            raise TraceError(f"{where}: this question is in the file twice: {question.text[:60]!r}")
        found[question.id] = question
    if not found:
        raise TraceError(f"{path}: holds no questions")
    return list(found.values())


def in_turns(questions: Sequence[Question]) -> list[Question]:
    """The same questions in an order that hangs on their texts alone, one of each category in
    turn, so that any first few of them are of all kinds."""
    kinds: dict[str, list[Question]] = {}
    for question in sorted(questions, key=lambda q: q.id):
        kinds.setdefault(question.category, []).append(question)
    placed = [(place, kind, q) for kind, qs in kinds.items() for place, q in enumerate(qs)]
    return [question for _, _, question in sorted(placed, key=lambda each: each[:2])]


def read_recorded(path: str | Path) -> list[Recorded]:
    """The lines that `Recorded.to_json` made; a last one that was not written whole is left out.

    Raises:
        TraceError: naming the line.
    """
    path = Path(path)
    if not path.is_file():
        return []
    names = [field.name for field in fields(Recorded)]
    lines = path.read_text(encoding="utf-8").split("\n")
    found: list[Recorded] = []
    # What follows the last line break was not written whole.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry: Any = json.loads(line)
            found.append(Recorded(**{name: entry[name] for name in names if name in entry}))
        except (ValueError, TypeError) as error:
            raise TraceError(f"{path}, line {number}: no recorded answer: {error!r}") from error
    return found


def write_traces(
    folder: Path,
    benchmark: str,
    questions: Sequence[Question],
    recorded: Sequence[Recorded],
    catalog: Catalog,
) -> None:
    """A benchmark of a trace folder, and a suite of that name, as `TraceSet.load` reads them.

    Other suites that the folder has stay, with their backbones. The suite's reference is the
    dearest backbone that was asked nearly everything.

    Args:
        folder: created if need be; a benchmark and a suite of that name are replaced.
        questions: those that were asked.
        recorded: their answers.
        catalog: every backbone that gave one.

    Raises:
        TraceError, CatalogError: the folder has a suites.yaml or catalog.csv that can't be read.
    """
    suites = read_suites(folder / "suites.yaml")
    known = _with_earlier(folder / "catalog.csv", catalog)
    place = folder / "traces" / benchmark
    place.mkdir(parents=True, exist_ok=True)
    lines = (
        {"query_id": q.id, "question": q.text, "category": q.category, "split": q.split}
        for q in questions
    )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (place / "queries.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    pyarrow = require("pyarrow", extra="simulator")
    columns = {
        "query_id": [r.question for r in recorded],
        "backbone": [r.backbone for r in recorded],
        "sample": [0] * len(recorded),
        "answer": pyarrow.array([r.answer for r in recorded], type=pyarrow.string()),
        "correct": [int(r.correct) for r in recorded],
        "prompt_tokens": [r.prompt_tokens for r in recorded],
        "completion_tokens": [r.visible_tokens for r in recorded],
        "latency_s": [r.total_s for r in recorded],
    }
    parquet = require("pyarrow.parquet", extra="simulator")
    parquet.write_table(pyarrow.table(columns), place / "responses.parquet")
    suites[benchmark] = Suite((benchmark,), _reference(recorded), tuple(catalog), ())
    put(folder / "catalog.csv", _catalog_text(known))
    put(folder / "suites.yaml", suites_text(suites))


def _with_earlier(path: Path, catalog: Catalog) -> Catalog:
    """With the backbones, and the hidden tokens of other benchmarks, that a file has already."""
    found: dict[str, Backbone] = dict(Catalog.load(path)) if path.is_file() else {}
    for name, backbone in catalog.items():
        before: Mapping[str, int] = found[name].hidden_tokens if name in found else {}
        found[name] = replace(backbone, hidden_tokens={**before, **backbone.hidden_tokens})
    return Catalog(found.values())


def _reference(recorded: Sequence[Recorded]) -> str:
    bills: dict[str, list[int]] = {}
    for each in recorded:
        bills.setdefault(each.backbone, []).append(each.nanodollars)
    enough = 0.9 * max(map(len, bills.values()))
    return max((b for b in bills if len(bills[b]) >= enough), key=lambda b: fmean(bills[b]))


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # Not at every line break of Unicode's: JSON's strings may hold most of them as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, fields_of(where, line)


def _table_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # Strictly: a quote that is never closed would take the rest of the file for one question.
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
    whole = 1
    try:
        for row in reader:
            where, whole = f"{path}, line {reader.line_num}", reader.line_num
            if None in row:
                raise TraceError(
                    f"{where}: more cells than the header has columns; put texts that hold "
                    f"{delimiter!r} into double quotes, or write the questions as .jsonl"
                )
            yield where, row
    except csv.Error as error:
        raise TraceError(
            f"{path}, the row after line {whole}: can't be read: {error}; close every double "
            "quote, or write the questions as .jsonl, whose texts may be of any length"
        ) from error


def _question(where: str, row: Mapping[str, Any]) -> Question:
    check_present(where, row, ("question", "answer"))
    category = row.get("category")
    for field in ("question", "answer", "category"):
        if isinstance(value := row.get(field), (list, dict)):
            raise TraceError(f"{where}: {field} must be one text or number, got {value!r}")
    return Question(
        str(row["question"]), str(row["answer"]), "" if category is None else str(category)
    )


def _catalog_text(catalog: Catalog) -> str:
    """Figures alone: how backbones are called stays in the user's own catalog."""
    benchmarks = sorted({name for backbone in catalog.values() for name in backbone.hidden_tokens})
    rows = [_catalog_row(backbone, benchmarks) for backbone in catalog.values()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _catalog_row(backbone: Backbone, benchmarks: Sequence[str]) -> dict[str, object]:
    return {
        "backbone": backbone.name,
        "price_in_usd_per_mtok": backbone.price_in_usd_per_mtok,
        "price_out_usd_per_mtok": backbone.price_out_usd_per_mtok,
        "ttft_s": backbone.ttft_s,
        "tokens_per_s": backbone.tokens_per_s,
        "params_b": backbone.params_b,
        "reasoning": backbone.reasoning,
        **{f"hidden_reasoning_tokens_{b}": backbone.hidden_tokens.get(b, 0) for b in benchmarks},
        "capabilities": " ".join(sorted(backbone.capabilities)),
        "max_output_tokens": backbone.max_output_tokens,
        "context_tokens": backbone.context_tokens,
        "price_source": backbone.price_source,
        "speed_source": backbone.speed_source,
    }
