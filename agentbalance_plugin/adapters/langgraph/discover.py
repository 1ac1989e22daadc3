"""Which nodes of a graph are agents: those that reach a chat model."""

from __future__ import annotations

import dis
import functools
import importlib
import inspect
import sys
import types
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.fallbacks import RunnableWithFallbacks
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from langgraph.types import interrupt

from agentbalance_plugin.adapters.covered import OwnBudget, is_of_a_vendor
from agentbalance_plugin.adapters.langgraph.fit import needs_of, own_options
from agentbalance_plugin.adapters.langgraph.internals import (
    RunnableCallable,
    RunnableSeq,
    get_function_nonlocals,
)
from agentbalance_plugin.adapters.langgraph.models import is_direct
from agentbalance_plugin.team import Agent

_DEEPEST = 16
# Functions that make a chat model, or an agent with one. Only users' own code is searched for the
# making: that LangChain's functions could make some says nothing of a node.
_MAKERS = ("init_chat_model", "create_agent", "create_react_agent")
_FRAMEWORKS = ("langchain", "langgraph", "langsmith")
# Functions that are looked at closely for one node: far more than users write.
_CLOSELY = 300
# Attributes of ordinary objects are followed only so far, near where users keep their models.
_DEEPEST_ATTRIBUTES = 3

AgentsArgument = Mapping[str, Agent | str | None] | Iterable[str] | None
"""What `balance` takes: names of nodes, or a mapping from them to an Agent, a role or None."""


@dataclass
class Reach:
    """What a node reaches.

    Args:
        models: chat models, and what makes them while the node runs: classes and functions.
        beyond: what else calls a vendor, and can't be put on a backbone: completion models and
            SDK clients, or their classes.
        needs: capabilities that they need, by what is bound to them.
        asks: whether it may ask a human: by `interrupt`, or before or after a node of a graph
            inside it.
    """

    models: list[Any] = field(default_factory=list[Any])
    beyond: list[Any] = field(default_factory=list[Any])
    needs: set[str] = field(default_factory=lambda: {"text"})
    asks: bool = False


def reach_of(runnable: Any) -> Reach:
    """What a node's runnable reaches in closures, globals, attributes, sequences, bindings and
    graphs inside it. Direct models do not count."""
    found = Reach()
    home, looked_at = "", 0
    # Kept, so that no other object gets the id of one that was seen.
    seen: dict[int, Any] = {}

    def visit(value: Any, depth: int, attributes: int) -> None:
        nonlocal home, looked_at
        if id(value) in seen or depth > _DEEPEST:
            return
        seen[id(value)] = value
        if isinstance(value, BaseChatModel):
            if not is_direct(value):
                found.models.append(value)
                found.needs |= needs_of(own_options(value))
            return
        if type(value).__name__ == "_ConfigurableModel" or _makes_models(value):
            found.models.append(value)
            return
        if value is interrupt:
            found.asks = True
            return
        if isinstance(value, (Embeddings, OwnBudget)):
            # The former have clients of their own.
            return
        if _calls_a_vendor(value):
            found.beyond.append(value)
            return
        if isinstance(value, ToolNode):
            found.needs.add("tools")
        if isinstance(value, Pregel):
            found.asks |= bool(value.interrupt_before_nodes or value.interrupt_after_nodes)
        if isinstance(value, RunnableBindingBase):
            binding = cast("RunnableBindingBase[Any, Any]", value)
            found.needs |= needs_of(binding.kwargs)
        own = None
        if isinstance(value, (types.FunctionType, types.MethodType)):
            home = home or _package(value)
            looked_at += 1
            own = home if looked_at <= _CLOSELY else None
        if (inner := _parts(value, own)) is not None:
            # A copy: looking at a lazy object may fill the very dictionary it is held in.
            for part in tuple(inner):
                visit(part, depth + 1, attributes)
        elif attributes < _DEEPEST_ATTRIBUTES:
            for part in _attributes(value):
                visit(part, depth + 1, attributes + 1)

    visit(runnable, 0, 0)
    return found


def reaches_of(builder: StateGraph[Any, Any, Any, Any]) -> dict[str, Reach]:
    """What each node of a graph reaches."""
    return {name: reach_of(spec.runnable) for name, spec in builder.nodes.items()}


def kinds_of(found: Iterable[Any]) -> tuple[str, ...]:
    """Their classes, and the names of what makes them, each once."""
    makers = (type, types.FunctionType)
    names = (each.__name__ if isinstance(each, makers) else type(each).__name__ for each in found)
    return tuple(dict.fromkeys(names))


def _makes_models(value: Any) -> bool:
    """Whether it is a class of chat models, or one of the functions that make them."""
    if isinstance(value, type):
        return issubclass(value, BaseChatModel) and not inspect.isabstract(value)
    return (
        isinstance(value, types.FunctionType) and value.__name__ in _MAKERS and _is_framework(value)
    )


def _is_framework(function: types.FunctionType) -> bool:
    return _package(function).startswith(_FRAMEWORKS)


def _package(value: Any) -> str:
    return (getattr(value, "__module__", None) or "").partition(".")[0]


def _calls_a_vendor(value: Any) -> bool:
    """Whether it is a completion model or a client of a vendor's SDK, or the class of one."""
    kind: type = value if isinstance(value, type) else type(value)
    return issubclass(kind, BaseLLM) or is_of_a_vendor(kind)


def agents_of(
    builder: StateGraph[Any, Any, Any, Any], given: AgentsArgument, reaches: Mapping[str, Reach]
) -> tuple[Agent, ...]:
    """The agents of a graph in the order in which its edges reach them.

    Args:
        given: nodes that the user named; None finds them.
        reaches: from `reaches_of`.

    Raises:
        ValueError: a name that is no node, or an Agent under another name.
    """
    named = _named(given, tuple(builder.nodes))
    agents: list[Agent] = []
    for name in in_order(builder):
        spec = builder.nodes[name]
        if named is not None and name not in named:
            continue
        reach = reaches[name]
        if named is None and (spec.is_error_handler or not reach.models):
            continue
        agent = named[name] if named is not None else None
        needs = frozenset(reach.needs)
        if isinstance(agent, Agent):
            agents.append(agent)
        else:
            agents.append(Agent(name, role=agent or _role_of(spec.runnable), needs=needs))
    return tuple(agents)


def in_order(builder: StateGraph[Any, Any, Any, Any]) -> tuple[str, ...]:
    """Nodes by their distance from START over static edges, then in the order they were added."""
    distance = distances(builder)
    return tuple(sorted(builder.nodes, key=lambda name: distance.get(name, len(builder.nodes))))


def distances(builder: StateGraph[Any, Any, Any, Any]) -> dict[str, int]:
    """Node -> static edges on the longest way to it from START, if there is one."""
    edges = static_edges(builder)
    distance = {START: 0}
    for _ in builder.nodes:
        for start, end in edges:
            # Longest path, bounded: a cycle must not go on for ever.
            if start in distance and distance[start] < len(builder.nodes):
                distance[end] = max(distance.get(end, 0), distance[start] + 1)
    return distance


def static_edges(builder: StateGraph[Any, Any, Any, Any]) -> set[tuple[str, str]]:
    """Every unconditional edge, joins taken apart."""
    joins = {(start, end) for starts, end in builder.waiting_edges for start in starts}
    return {*builder.edges, *joins}


def routed_by_code(builder: StateGraph[Any, Any, Any, Any]) -> dict[str, str]:
    """Node -> why its routing is decided while the graph runs."""
    reasons: dict[str, str] = {}
    for source, branches in builder.branches.items():
        for branch in branches.values():
            if source != START:
                reasons.setdefault(source, "has a conditional edge")
            for end in _ends(builder, branch):
                if end in builder.nodes:
                    reasons.setdefault(end, f"is the end of a conditional edge of {source!r}")
    for name, spec in builder.nodes.items():
        if spec.ends:
            reasons.setdefault(name, "routes by Command")
            for end in spec.ends:
                if end in builder.nodes:
                    reasons.setdefault(end, f"is where {name!r} routes by Command")
        if spec.error_handler_node is not None:
            reasons.setdefault(name, "has an error handler")
    return reasons


def lead_straight_on(builder: StateGraph[Any, Any, Any, Any]) -> set[str]:
    """Nodes whose own edges are all static and never lead back to them: what comes after them does
    not depend on what they say, and comes once."""
    edges = static_edges(builder)
    for start, branches in builder.branches.items():
        edges |= {(start, end) for each in branches.values() for end in _ends(builder, each)}
    for name, spec in builder.nodes.items():
        edges |= {(name, end) for end in spec.ends or ()}
    return {
        name
        for name, spec in builder.nodes.items()
        if not (spec.ends or spec.error_handler_node or name in builder.branches)
        and name not in _reached(name, edges)
    }


def _ends(builder: StateGraph[Any, Any, Any, Any], branch: Any) -> Collection[str]:
    """Where a condition may lead: without a list of ends, anywhere."""
    return branch.ends.values() if branch.ends else builder.nodes


def deciding_node(builder: StateGraph[Any, Any, Any, Any], names: Iterable[str]) -> str | None:
    """The one agent after which no other runs, over static edges; None if there are several."""
    agents = set(names)
    last = [name for name in agents if not agents & (_after(builder, name) - {name})]
    return last[0] if len(last) == 1 else None


def agent_edges(
    builder: StateGraph[Any, Any, Any, Any], names: Iterable[str]
) -> tuple[tuple[str, str], ...]:
    """(earlier, later) for every two agents that static edges put in an order."""
    agents = tuple(names)
    return tuple((a, b) for a in agents for b in agents if a != b and b in _after(builder, a))


def _after(builder: StateGraph[Any, Any, Any, Any], name: str) -> set[str]:
    return _reached(name, static_edges(builder))


def _reached(name: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    following: dict[str, set[str]] = {}
    for start, end in edges:
        following.setdefault(start, set()).add(end)
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        found = following.get(waiting.pop(), set()) - reached
        reached |= found
        waiting += found
    return reached


def _named(given: AgentsArgument, nodes: tuple[str, ...]) -> dict[str, Agent | str | None] | None:
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"agents must be a list of node names or a mapping, got {given!r}")
    named: dict[str, Agent | str | None] = {}
    if isinstance(given, Mapping):
        named.update(cast("Mapping[str, Agent | str | None]", given))
    else:
        named.update(dict.fromkeys(given))
    for name, agent in named.items():
        if name not in nodes:
            raise ValueError(f"agents: {name!r} is no node of the graph, which has {list(nodes)}")
        if not isinstance(agent, (Agent, str, type(None))):
            raise ValueError(f"agents: {name!r} must be given an Agent or a role, got {agent!r}")
        if isinstance(agent, Agent) and agent.name != name:
            raise ValueError(
                f"agents: node {name!r} is given an Agent named {agent.name!r}; name it {name!r}"
            )
    return named


def _parts(value: Any, home: str | None) -> Iterable[Any] | None:
    """What is inside a runnable, a function or a container; None for other objects.

    Args:
        home: the node's own package, whose code is looked at closely; None for none.
    """
    known: Any = value
    if isinstance(value, RunnableBindingBase):
        return (known.bound,)
    if isinstance(value, (RunnableSequence, RunnableSeq)):
        return known.steps
    if isinstance(value, RunnableParallel):
        return known.steps__.values()
    if isinstance(value, RunnableWithFallbacks):
        return known.runnables
    if isinstance(value, Pregel):
        return [node.bound for node in known.nodes.values()]
    if isinstance(value, (RunnableLambda, RunnableCallable)):
        return (getattr(known, "func", None), getattr(known, "afunc", None))
    if isinstance(value, types.MethodType):
        methods = _methods(value) if _package(value) == home else ()
        return (value.__self__, value.__func__, *methods)
    if isinstance(value, types.FunctionType):
        # A wrapped function's decorator is looked past there, and defaults are of no interest.
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        named = (*get_function_nonlocals(value), *cells, *defaults)
        if _is_framework(value):
            return [each for each in named if not (_makes_models(each) or isinstance(each, type))]
        if _package(value) != home:
            return named
        named = (*named, *_loaded(value))
        return (*named, *_of_classes(named, home))
    if isinstance(value, functools.partial):
        return (known.func, *known.args, *known.keywords.values())
    if isinstance(value, (list, tuple)):
        return known
    return known.values() if isinstance(value, dict) else None


def _methods(method: types.MethodType) -> Iterable[Any]:
    """Methods of the same object that a method's code names."""
    code = getattr(method.__func__, "__code__", None)
    for name in code.co_names if code is not None else ():
        held = inspect.getattr_static(type(method.__self__), name, None)
        held = getattr(held, "fget", getattr(held, "func", held))
        if isinstance(held, types.FunctionType):
            yield types.MethodType(held, method.__self__)


def _of_classes(named: Iterable[Any], home: str | None) -> Iterable[Any]:
    """The functions of those that are classes of a package."""
    for each in named:
        if isinstance(each, type) and _package(each) == home:
            yield from (
                held for held in vars(each).values() if isinstance(held, types.FunctionType)
            )


def _loaded(function: types.FunctionType) -> Iterable[Any]:
    """The globals that a function's code uses, whether its source is at hand or not, and what it
    imports by name when it runs, of modules that are loaded and LangChain's."""
    module, codes = "", [function.__code__]
    for code in codes:
        codes += [held for held in code.co_consts if isinstance(held, types.CodeType)]
        for step in dis.get_instructions(code):
            if step.opname == "LOAD_GLOBAL":
                yield function.__globals__.get(step.argval)
            elif step.opname == "IMPORT_NAME":
                module = step.argval
            elif step.opname == "IMPORT_FROM":
                if module.startswith(_FRAMEWORKS):
                    with suppress(ImportError):
                        importlib.import_module(module)
                yield getattr(sys.modules.get(module), step.argval, None)


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _attributes(value: Any) -> Iterable[Any]:
    """What an ordinary object holds, and what calling it does."""
    held: dict[str, Any] | None = getattr(value, "__dict__", None)
    if held is None or isinstance(value, (type, types.ModuleType)):
        return ()
    call = getattr(value.__class__, "__dict__", {}).get("__call__")
    bound = types.MethodType(call, value) if isinstance(call, types.FunctionType) else call
    return (*held.values(), bound)


def _role_of(runnable: Any) -> str:
    """The docstring of a node's function."""
    function = getattr(runnable, "func", None) or getattr(runnable, "afunc", None)
    if isinstance(function, (types.FunctionType, types.MethodType)):
        return inspect.getdoc(function) or ""
    return ""
