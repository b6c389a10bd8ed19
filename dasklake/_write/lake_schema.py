"""Find the schema of collections that were read from a lake and not changed since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dasklake._dask import Alias, GraphNode, Task
from dasklake._schema.lake_tensors import LakeTensors
from dasklake._schema.schema import Schema

__all__ = ["schema_of_bag"]

#: Functions of a bag's tasks that select or regroup items, and do not change them.
_SELECTING = {
    *("reify", "filter", "remove", "random_sample", "list", "concat", "split", "getitem"),
    *("take", "safe_take", "_identity_cast"),
}


def schema_of_bag(graph: Mapping[Any, GraphNode], keys: Sequence[Any]) -> Schema | None:
    """Return the schema of the lake whose samples a bag holds, or None if it may hold other items.

    Parameters
    ----------
    graph : mapping
        The graph of the bag.
    keys : sequence of key
        Its partitions.
    """
    schema: Schema | None = None
    stack, visited = list(keys), set(keys)
    while stack:
        node = graph.get(stack.pop())
        tensors = None if node is None else next(_tensors(node), None)
        if tensors is not None:
            if schema is not None and schema != tensors.schema:
                return None
            schema = tensors.schema
        elif node is None or not node.dependencies or not _selects(node):
            return None
        else:
            new = [key for key in node.dependencies if key not in visited]
            visited.update(new)
            stack += new
    return schema


def _tensors(node: Any) -> Iterator[LakeTensors]:
    """Yield the tensors that a task itself reads."""
    for argument in getattr(node, "args", ()):
        if isinstance(argument, LakeTensors):
            yield argument
        elif isinstance(argument, Task):
            yield from _tensors(argument)


def _selects(node: Any) -> bool:
    """Return whether a task, with the tasks in its arguments, only selects items."""
    if isinstance(node, Alias):
        return True
    if not isinstance(node, Task) or getattr(node.func, "__name__", None) not in _SELECTING:
        return False
    return all(_selects(arg) for arg in node.args if isinstance(arg, Task))
