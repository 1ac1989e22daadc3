"""What a balanced graph keeps in its checkpoints: the plan, the budget and the spend of a task.

Channels that no user code sees, with JSON values only.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.graph import START

from agentbalance_plugin.adapters.langgraph.run import Books, Run
from agentbalance_plugin.adapters.langgraph.steps import Steps
from agentbalance_plugin.budget import Budget, Spend
from agentbalance_plugin.plan import Expected, LateGate, Plan

TASK = "agentbalance_task"
SPEND = "agentbalance_spend"
AUTHORS = "agentbalance_authors"

NO_TASK: dict[str, Any] = {}
"""In the task channel or among a checkpoint's writes: what goes on there is a new task."""

_entering: ContextVar[bool] = ContextVar("agentbalance_entering", default=False)


@contextmanager
def entering(anew: bool) -> Generator[None]:
    """While a thread's state is updated from outside of a run.

    Args:
        anew: whether the task before is over, so that no plan of it holds.
    """
    token = _entering.set(anew)
    try:
        yield
    finally:
        _entering.reset(token)


def enters_anew() -> bool:
    """Whether a state is updated of a thread whose task is over."""
    return _entering.get()


def furthest(old: Any, new: Any) -> Any:
    """The reducer of the spend channel.

    Books only grow within a run, so of two parallel writes the one with more calls is later.
    """
    if not old or old["run"] != new["run"]:
        return new
    return max(old, new, key=_progress)


def signed(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """The reducer of the authors channel (message id -> agent); nothing starts a new task."""
    return {**old, **new} if new else {}


def _progress(books: Mapping[str, Any]) -> tuple[int, int, float]:
    total = books["total"]
    return total["calls"], total["nanodollars"], total["latency_s"]


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task of an earlier run that is to be resumed.

    Args:
        number: of its run.
        mode: how its graph was laid out.
        steps: of its plan; None where the user's edges hold.
        due: nodes that were at work, or to be, when it ended.
        left_here: whether the part of it that ran last left its books at this checkpoint.
    """

    number: str
    mode: str
    plan: Plan
    steps: Steps | None
    budget: Budget
    books: Books
    due: tuple[str, ...]
    left_here: bool = True


def task_value(run: Run, mode: str) -> dict[str, Any]:
    """What goes into the task channel."""
    assert run.plan is not None
    budget = {name: value for name, value in asdict(run.budget).items() if value is not None}
    plan = run.plan.to_dict()
    steps = None if run.steps is None else dict(run.steps)
    task = {"version": 1, "run": run.number, "mode": mode, "plan": plan, "budget": budget}
    return {**task, "steps": steps}


def spend_value(run: Run, due: Sequence[str] = (), *, over: bool = False) -> dict[str, Any]:
    """What goes into the spend channel.

    Args:
        due: nodes that are at work, or to be, as the run ends.
        over: whether nothing of the task is left to be done.
    """
    books = run.books()
    return {
        "due": list(due),
        "over": over,
        "run": run.number,
        "total": _spend(books.total),
        "agents": {name: _spend(spend) for name, spend in books.agents.items() if spend.calls},
    }


def _spend(spend: Spend) -> dict[str, Any]:
    # By hand: this is written after every node, and `asdict` takes ten times as long.
    return {
        "nanodollars": spend.nanodollars,
        "prompt_tokens": spend.prompt_tokens,
        "completion_tokens": spend.completion_tokens,
        "calls": spend.calls,
        "latency_s": spend.latency_s,
    }


def stored_task(saved: CheckpointTuple | None) -> StoredTask | None:
    """The task that a checkpoint is in the middle of; None if it holds none.

    What a run leaves behind as it ends is among the checkpoint's writes, not in its channels.

    Raises:
        ValueError: the checkpoint was written by a version with another format.
    """
    if saved is None:
        return None
    values = saved.checkpoint["channel_values"]
    if START in values:
        # What was asked has not entered the graph: a new task, though channels hold the last one.
        return None
    spends, left = spends_in(saved), _written(saved, SPEND)
    written = _written(saved, TASK)
    tasks = [each for each in written if each]
    kept, spent = values.get(TASK), values.get(SPEND)
    over = {each["run"] for each in spends if each.get("over")}
    # Whichever run came to its end here: an older task in the channel is not what it left.
    anew = bool(over) or NO_TASK in written
    if kept and not anew and (not spent or spent["run"] == kept["run"]):
        # The channel has no task of a run that did not pass START.
        tasks.append(kept)
    task = next((each for each in tasks if each["run"] not in over), None)
    if task is None:
        return None
    left_here = any(each["run"] == task["run"] for each in left)
    return replace(task_from(task, spends), left_here=left_here)


def begins(saved: CheckpointTuple, number: str) -> bool:
    """Whether a task entered the graph at a checkpoint.

    Args:
        number: of its run.
    """
    entered = START in saved.checkpoint["channel_values"]
    return entered and any(each.get("run") == number for each in _written(saved, TASK))


def checkpoint_id(config: RunnableConfig) -> str | None:
    """At which checkpoint of its thread a config is; None leaves it to the thread."""
    return (config.get("configurable") or {}).get("checkpoint_id")


def spends_in(saved: CheckpointTuple) -> list[Any]:
    """The `spend_value`s of a checkpoint: in its channel, and left behind by runs that ended."""
    kept = saved.checkpoint["channel_values"].get(SPEND)
    return ([kept] if kept else []) + _written(saved, SPEND)


def with_books(task: StoredTask, spends: Iterable[Any]) -> StoredTask:
    """The task with the furthest of its books and of these."""
    own = [_books(each) for each in spends]
    return replace(task, books=max([task.books, *own], key=lambda books: books.total.calls))


def _written(saved: CheckpointTuple, channel: str) -> list[Any]:
    return [value for _, name, value in saved.pending_writes or () if name == channel]


def task_from(task: Mapping[str, Any], spends: Iterable[Any]) -> StoredTask:
    """The task that `task_value` wrote, with the furthest of its `spend_value`s (ValueError: it
    was written by a version with another format)."""
    if task.get("version") != 1:
        raise ValueError(
            f"the checkpoint holds a plan of format {task.get('version')!r}, this version reads 1"
        )
    own = [each for each in spends if each and each["run"] == task["run"]]
    books = max(own, key=_progress, default=None)
    plan, budget = plan_from_dict(task["plan"]), Budget(**task["budget"])
    due: Iterable[str] = () if books is None else books.get("due", ())
    mode, steps = task["mode"], task["steps"]
    return StoredTask(task["run"], mode, plan, steps, budget, _books(books), tuple(due))


def plan_from_dict(stored: Mapping[str, Any]) -> Plan:
    """The plan that `Plan.to_dict` wrote."""
    known = {field.name for field in fields(Plan)}
    values = {name: value for name, value in stored.items() if name in known}
    values["edges"] = tuple((speaker, listener) for speaker, listener in stored["edges"])
    values["late_gates"] = {
        name: LateGate(tuple(gate["watches"]), gate["threshold"])
        for name, gate in stored["late_gates"].items()
    }
    if stored["expected"] is not None:
        values["expected"] = Expected(**stored["expected"])
    return Plan(**values)


def _books(stored: Mapping[str, Any] | None) -> Books:
    if stored is None:
        return Books(Spend(), {})
    agents = cast("Mapping[str, Any]", stored["agents"])
    return Books(Spend(**stored["total"]), {name: Spend(**spend) for name, spend in agents.items()})
