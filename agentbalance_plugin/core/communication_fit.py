"""Fits the model of communication to recorded agents before and after they read others.

`python -m agentbalance_plugin.core.communication_fit --data DIR` prints the tables of
docs/replay.md. A reading is one answer that an agent gave after it read others. Questions, never
readings, are held out and resampled, as the readings of one question depend on each other.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table as Printed

from agentbalance_plugin.extras import require

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

_FOLDS = 10
_RESAMPLES = 1000
_SEED = 0
# Pseudo-answers behind the rate of a group of sources, as in `agentbalance_plugin.core.abilities`.
_SHRINKAGE = 8.0
# Ties constants that the readings can't tell apart to zero; far below what moves the others.
_RIDGE = 1e-3

# The constants before these fits, from the readings of the third file.
BEFORE = {"own": 0.7, "source": 0.53, "new": -2.0}

# Terms per candidate, one constant each; those of `keep` and `plurality` are their smoothing.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "keep": ("own",),
    "plurality": ("leader",),
    "log-odds": ("own", "source", "new"),
    "log-odds, right": ("own", "source", "new", "right"),
    "count": ("own", "count", "new"),
    "count, right, no own": ("count", "new", "right"),
    "count, right": ("own", "count", "new", "right"),
    "count, right if offered": ("own", "count", "new", "offered_right"),
    "count, log-odds, right": ("own", "count", "new", "right", "source"),
    "count, plurality, right": ("own", "count", "new", "right", "leader"),
    "count, right, group size": ("own", "count", "new", "right", "own_size", "new_size"),
}
CHOSEN = "count, right"
_HEADER = "candidate|log-likelihood|less that of '{0}'|accuracy|less that of '{0}'"


@dataclass(frozen=True)
class Source:
    """Someone's answer, None for none; a group (a category, a role) shares a rate of right ones."""

    answer: str | None
    right: bool
    group: str


@dataclass(frozen=True)
class Reading:
    """What an agent would say before reading, what it read, and what it then said."""

    question: str
    own: Source
    peers: tuple[Source, ...]
    said: Source


@dataclass(frozen=True)
class Study:
    """All readings of one file, and (question, source) before any reading, for the rates."""

    name: str
    readings: Sequence[Reading]
    alone: Sequence[tuple[str, Source]]


@dataclass(frozen=True)
class Table:
    """n readings with a differing answer and K options each: own, others', something new, padding.

    Args:
        study: [n] name.
        question: [n] study and name.
        fold: [n] of the question.
        voices: [n] how many answers were at hand, the reader's included.
        state: [n] of the own answer: 1 right, 0 wrong, -1 none.
        offered: [n, K] which options exist.
        chosen: [n] option taken; an answer that nobody had given, or none, is something new.
        terms: name -> [n, K] what the constant of that name multiplies.
    """

    study: NDArray[np.str_]
    question: NDArray[np.str_]
    fold: IntArray
    voices: IntArray
    state: IntArray
    offered: BoolArray
    chosen: IntArray
    terms: Mapping[str, FloatArray]


# One run's answers by (round, agent), and those of them that the agent read in that round (its own
# earlier answer first); None where the row is no reading.
_Said = Mapping[tuple[int, Any], Source]


def _mmlu_heard(said: _Said, number: int, agent: Any) -> list[Source] | None:
    """Every agent read all answers of the round before, its own among them, unmarked."""
    others = [s for (n, a), s in said.items() if n == number - 1 and a != agent]
    return [said[number - 1, agent], *others] if number > 0 else None


def _math_heard(said: _Said, number: int, agent: Any) -> list[Source] | None:
    """The last round, in which two agents read each other one after the other.

    The file names no answers that were read. Its prompt tokens show that each agent got the others'
    latest replies without its own, so the second reader got what the first had just said. Round 1
    is left out: agents that it read are missing, and which ones are depends on its answers.
    """
    if number != 2:
        return None
    return [said[1, 0], said[1, 1]] if agent == 0 else [said[1, 1], said[2, 0]]


def _agentdropout_heard(said: _Said, number: int, agent: Any) -> list[Source] | None:
    """Round 2 of agents that spoke in both rounds; everyone's first answers count as read."""
    others = [s for (n, a), s in said.items() if n == 1 and a != agent]
    return [said[1, agent], *others] if number == 2 and (1, agent) in said else None


# Name -> file, columns that tell runs apart (question first), column of the group, who was heard.
FILES: dict[str, tuple[str, tuple[str, ...], str, Callable[..., list[Source] | None]]] = {
    "mmlu": ("mas_dylan_mmlu.parquet", ("question_id", "n_agents"), "category", _mmlu_heard),
    "math": ("mas_dylan_math.parquet", ("question_id",), "category", _math_heard),
    "agentdropout": ("mas_agentdropout.parquet", ("question_id",), "role", _agentdropout_heard),
}


def read_study(folder: Path, name: str) -> Study:
    """The readings of one of the files in a folder."""
    file, run, group, heard = FILES[name]
    parquet = require("pyarrow.parquet", extra="train")
    rows: list[dict[str, Any]] = parquet.read_table(folder / file).to_pylist()
    runs: dict[tuple[Any, ...], dict[tuple[int, Any], Source]] = {}
    for row in rows:
        if not row.get("dropped"):
            source = Source(row["answer"] or None, bool(row["correct"]), row[group])
            cells = runs.setdefault(tuple(row[column] for column in run), {})
            cells[row["round"], row["agent"]] = source
    readings: list[Reading] = []
    alone: list[tuple[str, Source]] = []
    for (question, *_), said in runs.items():
        first = min(number for number, _ in said)
        alone += [(question, source) for (number, _), source in said.items() if number == first]
        for (number, agent), source in said.items():
            known = heard(said, number, agent)
            if known is not None:
                readings.append(Reading(question, known[0], tuple(known[1:]), source))
    return Study(name, readings, alone)


def _differs(reading: Reading) -> bool:
    return any(peer.answer not in (None, reading.own.answer) for peer in reading.peers)


def tabulate(studies: Sequence[Study]) -> Table:
    """The readings that face a differing answer, with log-odds from the other folds' questions."""
    questions = sorted({(s.name, question) for s in studies for question, _ in s.alone})
    shuffled = np.random.default_rng(_SEED).permutation(len(questions)).tolist()
    fold = {question: at % _FOLDS for question, at in zip(questions, shuffled, strict=True)}
    kept = [(i, r) for i, s in enumerate(studies) for r in s.readings if _differs(r)]
    width = 2 + max(len({p.answer for p in r.peers} - {None, r.own.answer}) for _, r in kept)
    named = ("own", "count", "source", "new", "offered_right", "leader")
    terms = {name: np.zeros((len(kept), width)) for name in named}
    offered = np.zeros((len(kept), width), dtype=np.bool_)
    where = [(studies[study].name, reading.question) for study, reading in kept]
    folds = [fold[key] for key in where]
    voices = np.zeros(len(kept), dtype=np.int64)
    chosen = np.zeros(len(kept), dtype=np.int64)
    rates = [_log_odds(study, fold) for study in studies]
    for row, (study, reading) in enumerate(kept):
        said = [s for s in (reading.own, *reading.peers) if s.answer is not None]
        options = list(dict.fromkeys(s.answer for s in said))
        counts = Counter(s.answer for s in said)
        leaders = {o for o in options if counts[o] == max(counts.values())}
        leaders = leaders & {reading.own.answer} or leaders
        new = len(options)
        voices[row] = len(said)
        offered[row, : new + 1] = True
        terms["new"][row, new] = 1
        chosen[row] = (*options, reading.said.answer).index(reading.said.answer)
        for column, option in enumerate(options):
            terms["own"][row, column] = option == reading.own.answer
            terms["count"][row, column] = counts[option]
            terms["leader"][row, column] = option in leaders
        for source in said:
            column = options.index(source.answer)
            terms["source"][row, column] += rates[study][folds[row], source.group]
            terms["offered_right"][row, column] = source.right
    unsaid = ~terms["offered_right"].any(axis=1, keepdims=True)
    terms["right"] = terms["offered_right"] + terms["new"] * unsaid
    terms["own_size"] = terms["own"] * (voices[:, None] - 2)
    terms["new_size"] = terms["new"] * (voices[:, None] - 2)
    return Table(
        study=np.array([name for name, _ in where]),
        question=np.array([" ".join(key) for key in where]),
        fold=np.array(folds, dtype=np.int64),
        voices=voices,
        state=np.array([-1 if r.own.answer is None else r.own.right for _, r in kept]),
        offered=offered,
        chosen=chosen,
        terms=terms,
    )


def _log_odds(study: Study, fold: Mapping[tuple[str, str], int]) -> dict[tuple[int, str], float]:
    """(fold, group) -> log-odds of a source being right, by the questions outside the fold."""
    right, answered = Counter[tuple[int, str]](), Counter[tuple[int, str]]()
    for question, source in study.alone:
        for outside in set(range(_FOLDS)) - {fold[study.name, question]}:
            for group in ("", source.group):
                right[outside, group] += source.right
                answered[outside, group] += 1
    found: dict[tuple[int, str], float] = {}
    for outside in range(_FOLDS):
        overall = (right[outside, ""] + 1) / (answered[outside, ""] + 2)
        for group in {source.group for _, source in study.alone}:
            hits = right[outside, group] + _SHRINKAGE * overall
            rate = hits / (answered[outside, group] + _SHRINKAGE)
            found[outside, group] = float(np.log(rate / (1 - rate)))
    return found


def probabilities(
    table: Table, constants: Mapping[str, float], rows: BoolArray | IntArray | slice = slice(None)
) -> FloatArray:
    """[rows, K] of each option, by the constants of the terms."""
    utility = sum(constant * table.terms[name][rows] for name, constant in constants.items())
    utility = np.where(table.offered[rows], utility, -np.inf)
    weight = np.exp(utility - utility.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def fit(
    table: Table, terms: Sequence[str], rows: BoolArray, weight: FloatArray | None = None
) -> dict[str, float]:
    """Term -> constant of the largest likelihood of some [n] rows with [n] weights, by Newton."""
    at = np.flatnonzero(rows)
    values = np.stack([table.terms[name][at] for name in terms], axis=-1)
    taken = values[np.arange(len(at)), table.chosen[at]]
    scale = np.ones(len(at)) if weight is None else weight[at]
    ridge = _RIDGE * np.eye(len(terms))
    constants: FloatArray = np.zeros(len(terms))
    for _ in range(50):
        p = probabilities(table, dict(zip(terms, constants.tolist(), strict=True)), at)
        mean: FloatArray = (p[:, :, None] * values).sum(axis=1)
        away = (values - mean[:, None]) * np.sqrt(p * scale[:, None])[:, :, None]
        flat = away.reshape(-1, len(terms))
        slope: FloatArray = (taken - mean).T @ scale - ridge @ constants
        step = np.asarray(np.linalg.solve(flat.T @ flat + ridge, slope), dtype=np.float64)
        constants = constants + step
        if np.abs(step).max() < 1e-8:
            break
    return dict(zip(terms, constants.tolist(), strict=True))


def held_out(table: Table, terms: Sequence[str], rows: BoolArray) -> FloatArray:
    """[n, K] probabilities by constants from the other folds of the rows; nan elsewhere."""
    p = np.full(table.offered.shape, np.nan)
    for fold in range(_FOLDS):
        test = rows & (table.fold == fold)
        p[test] = probabilities(table, fit(table, terms, rows & ~test), test)
    return p


def scores(table: Table, p: FloatArray) -> FloatArray:
    """[n, 2] log-likelihood of what was said, and whether it was likeliest (ties share a hit)."""
    each = np.arange(len(p))
    top = p >= p.max(axis=1, keepdims=True) - 1e-12
    hit = top[each, table.chosen] / np.maximum(top.sum(axis=1), 1)
    return np.stack([np.log(p[each, table.chosen]), hit], axis=1)


def intervals(table: Table, values: FloatArray, rows: BoolArray) -> FloatArray:
    """[2, V] bounds of the 95 % interval of the means of [n, V] values, questions resampled."""
    _, code = np.unique(table.question[rows], return_inverse=True)
    count = np.bincount(code).astype(np.float64)
    sums = np.zeros((len(count), values.shape[1]))
    np.add.at(sums, code, values[rows])
    draws = resamples(len(count))
    return np.percentile((draws @ sums) / (draws @ count)[:, None], [2.5, 97.5], axis=0)


def resamples(questions: int) -> FloatArray:
    """[resamples, questions] how often each question is drawn."""
    chances = np.full(questions, 1 / questions)
    random = np.random.default_rng(_SEED)
    return random.multinomial(questions, chances, _RESAMPLES).astype(np.float64)


def _kinds(table: Table, p: FloatArray) -> FloatArray:
    """[n, 4] probability of keeping, of taking a leading or another answer, of something new."""
    most = np.where(table.offered, table.terms["count"], 0).max(axis=1, keepdims=True)
    own, new = table.terms["own"] > 0, table.terms["new"] > 0
    leads = ~own & ~new & (table.terms["count"] == most)
    return np.stack([(p * kind).sum(1) for kind in (own, leads, ~own & ~new & ~leads, new)], 1)


def _show(title: str, header: str, rows: Sequence[Sequence[object]]) -> None:
    printed = Printed(*header.split("|"), title=title, title_justify="left")
    for row in rows:
        printed.add_row(*map(str, row))
    Console(width=150).print(printed)


def _means(table: Table, values: FloatArray, base: FloatArray, rows: BoolArray) -> list[object]:
    """Means of [n, 2] scores, and how far they are from those of `base`."""
    bounds = [(values - base)[rows].mean(axis=0), *intervals(table, values - base, rows)]
    gaps = [f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" for mean, low, high in np.transpose(bounds)]
    log_likelihood, hits = values[rows].mean(axis=0)
    return [f"{log_likelihood:.4f}", gaps[0], f"{hits:.1%}", gaps[1]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Fit how agents answer after reading others.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the mas_*.parquet")
    folder: Path = parser.parse_args(arguments).data
    table = tabulate(studies := [read_study(folder, name) for name in track(FILES, "Reading")])
    part = {name: table.study == name for name in FILES}
    test, both = part["agentdropout"], part["mmlu"] | part["math"]
    fitted = {"mmlu": part["mmlu"], "math": part["math"], "both": both}
    rows: list[Sequence[object]] = []
    for study in studies:
        facing = [x for x in study.readings if _differs(x)]
        same = [x for x in study.readings if not _differs(x) and x.own.answer is not None]
        kept = sum(x.said.answer == x.own.answer for x in same)
        lost = [x for x in facing if not any(source.right for source in (x.own, *x.peers))]
        new = [x.said for x in lost if x.said.answer not in {y.answer for y in (x.own, *x.peers)}]
        right, questions = sum(x.right for x in new), len({x.question for x in facing})
        rows.append((study.name, len(facing), questions, len(new), right, len(same), kept))
    columns = "file|facing others|questions|new, none right|of these right|no other answer|kept"
    _show("Readings", columns, rows)
    likely = {name: np.full(table.offered.shape, np.nan) for name in CANDIDATES}
    for name, terms in track(CANDIDATES.items(), "Fitting"):
        for chosen in (part["mmlu"], part["math"]):
            likely[name][chosen] = held_out(table, terms, chosen)[chosen]
    likely["before"] = probabilities(table, BEFORE)
    likely[f"{CHOSEN}; one set"] = held_out(table, CANDIDATES[CHOSEN], both)
    found = {name: scores(table, p) for name, p in likely.items()}
    best = max(CANDIDATES, key=lambda name: float(found[name][both, 0].mean()))
    for name, chosen in fitted.items():
        rows = [(other, *_means(table, found[other], found[best], chosen)) for other in found]
        _show(f"Held out, {name}", _HEADER.format(best), rows)
    constants = {name: fit(table, CANDIDATES[CHOSEN], rows) for name, rows in fitted.items()}
    rows = []
    for name, chosen in fitted.items():
        known, code = np.unique(np.where(chosen, table.question, "~"), return_inverse=True)
        draws = [
            list(fit(table, CANDIDATES[CHOSEN], chosen, np.append(draw, 0)[code]).values())
            for draw in track(resamples(len(known) - 1), f"Resampling {name}")
        ]
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        spans = zip(constants[name].values(), low, high, strict=True)
        rows.append((name, *(f"{c:.2f} [{a:.2f}, {b:.2f}]" for c, a, b in spans)))
    _show(f"Constants of '{CHOSEN}'", "fitted on|" + "|".join(CANDIDATES[CHOSEN]), rows)
    checks = {f"{CHOSEN}; {name}": p for name, p in constants.items()}
    for name in ("keep", "plurality", "log-odds", "log-odds, right", "count, log-odds, right"):
        checks[f"{name}; mmlu"] = fit(table, CANDIDATES[name], part["mmlu"])
    checks["before"] = BEFORE
    tested = {name: scores(table, probabilities(table, c)) for name, c in checks.items()}
    best, base = f"{CHOSEN}; mmlu", tested[f"{CHOSEN}; mmlu"]
    rows = [(name, *_means(table, each, base, test)) for name, each in tested.items()]
    _show("Check: agentdropout", _HEADER.format(best), rows)
    likely[CHOSEN][test] = probabilities(table, constants["mmlu"], test)
    real = _kinds(table, np.eye(table.offered.shape[1])[table.chosen])
    modelled, rows = _kinds(table, likely[CHOSEN]), []
    for name, chosen in part.items():
        for voices in np.unique(table.voices[chosen]):
            for state, word in ((1, "right"), (0, "wrong"), (-1, "none")):
                at = np.flatnonzero(chosen & (table.voices == voices) & (table.state == state))
                pairs = zip(real[at].sum(axis=0), modelled[at].sum(axis=0), strict=True)
                shares = [f"{a / len(at):.1%} / {b / len(at):.1%}" for a, b in pairs if len(at)]
                rows += [(name, voices, word, len(at), *shares)] if len(at) else []
    columns = "file|answers at hand|own|readings|keeps|leading|other|new"
    _show("Real / modelled, held out (leading: given most often, ties included)", columns, rows)


if __name__ == "__main__":
    main()
