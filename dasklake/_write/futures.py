"""Futures in graphs and arguments: results on a cluster that the graph names and does not compute.

Dask represents a persisted collection as a graph of futures. Its conversion of graphs drops them, so
that their keys have no task. They are dependencies that the cluster has to hold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dasklake._dask import GraphNode, TaskRef
from dasklake.exceptions import InvalidInputError

Key = Any

#: Largest list, tuple or dict that is searched.
MAX_SEARCHED = 1_000


def is_future(value: object) -> bool:
    """Return whether a value is a future of a cluster."""
    # distributed.Future is a subclass; this module must not need distributed.
    return isinstance(value, TaskRef) and type(value) is not TaskRef


def find_futures(value: Any) -> Iterator[Any]:
    """Yield the futures in an argument; large containers are not searched."""
    if is_future(value):
        yield value
    elif type(value) in (list, tuple, set, dict) and len(value) <= MAX_SEARCHED:
        for element in value.values() if isinstance(value, dict) else value:
            yield from find_futures(element)


def cull_graph(graph: Mapping[Key, GraphNode], keys: Sequence[Key]) -> dict[Key, GraphNode]:
    """Return the tasks that some keys need; keys without a task are allowed."""
    culled: dict[Key, GraphNode] = {}
    stack = list(keys)
    while stack:
        key = stack.pop()
        if key not in culled and key in graph:
            culled[key] = graph[key]
            stack += graph[key].dependencies
    return culled


def check_transform(transform: Callable[..., Any] | None) -> None:
    """Check that a transform binds no futures, which would reach the workers unresolved.

    Raises
    ------
    InvalidInputError
        An argument of a partial function, or a variable of a closure, is a future.
    """
    bound: list[tuple[str, Any]] = []
    while isinstance(transform, functools.partial):
        bound += [(f"argument {i}", value) for i, value in enumerate(transform.args)]
        bound += transform.keywords.items()
        transform = transform.func
    names = getattr(getattr(transform, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(transform, "__closure__", None) or (), strict=False):
        try:
            bound.append((name, cell.cell_contents))
        except ValueError:
            continue  # a variable that has no value yet
    for name, value in bound:
        if next(find_futures(value), None) is not None:
            raise InvalidInputError(
                f"transform must not bind a future, got one in {name!r}. Dask resolves futures in "
                f"arguments only: pass it as transform_kwargs={{{name!r}: future}}."
            )


def refuse_local(keys: set[Key]) -> None:
    """Raise if a local scheduler would need results that only a cluster holds.

    Raises
    ------
    InvalidInputError
        ``keys`` is not empty.
    """
    if keys:
        raise InvalidInputError(
            f"The input or transform_kwargs holds futures of a cluster (such as "
            f"{min(map(repr, keys))}), which a local scheduler cannot read. Write with the client of "
            "that cluster (options=dasklake.WriteOptions(scheduler=client)), or give a collection "
            "that was not persisted."
        )
