"""The graph of a write: one task for each partition, with all that only it needs inside.

::

    source ─▶ map ─▶ map ─┐                      ┌────────────────────────┐
                          ├─▶ write(partition) = │ source·map·map·write   │ ─▶ receipt
    job (schema, function,│                      └────────────────────────┘
    arguments) ───────────┘        the job stays a node of its own: each worker fetches it once

The inner tasks are run by ``write_partition`` itself, not before it, so that an error in them is
known by its partition under every scheduler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask._task_spec import (  # the public alias lacks these two
    Dict,
    GraphNode,
    Task,
    TaskRef,
    convert_legacy_graph,
)
from dask.bag.core import reify
from dask.base import is_dask_collection
from dask.core import flatten
from dask.delayed import delayed
from dask.optimization import cull

from dasklake._write.input import Key, Source
from dasklake._write.partition import Deliver, Job, PartMaker, bind, write_partition
from dasklake.exceptions import InvalidInputError

__all__ = ["Delivery", "WriteGraph", "check_arguments", "write_graph"]

#: Lists, tuples and dicts of up to so many elements may hold Delayed values as arguments.
_NESTED = 1_000


@dataclass(frozen=True, slots=True)
class WriteGraph:
    """What goes to a scheduler.

    Attributes
    ----------
    tasks : dict
        The graph.
    keys : dict of key to int
        The write tasks and their partitions.
    """

    tasks: dict[Key, GraphNode]
    keys: dict[Key, int]

    def priorities(self) -> dict[Key, int]:
        """Return a priority for each task, so that partitions are written in the input's order.

        What several partitions need has the priority of the first of them.
        """
        found: dict[Key, int] = {}
        for key, partition in self.keys.items():
            stack = [key]
            while stack:
                each = stack.pop()
                if each not in found and each in self.tasks:
                    found[each] = -partition
                    stack += self.tasks[each].dependencies
        return found


@dataclass(frozen=True, slots=True)
class Delivery:
    """How tasks are named, and how their outcomes come back.

    Attributes
    ----------
    name : str
        Prefix of the keys.
    deliver : Deliver or None
        Takes each outcome to the coordinator; None where results do.
    local : bool
        Whether a local scheduler runs the tasks: the job is then no node of its own, and keys
        are such that Dask's local order is the input's.
    begun : key or None
        A task that makes the job, where the run has not begun yet.
    """

    name: str
    deliver: Deliver | None = None
    local: bool = False
    begun: Key | None = None

    def key(self, partition: int, of: int) -> Key:
        """Return the key of a write task."""
        return (self.name, f"{of - partition:012d}" if self.local else partition)


def check_arguments(kwargs: Mapping[str, Any]) -> None:
    """Check that each Dask value among the arguments of a transform is one value.

    Raises
    ------
    InvalidInputError
        One has several partitions.
    """
    for name, value in kwargs.items():
        for collection in _collections(value):
            parts = len(list(flatten(collection.__dask_keys__())))
            if parts != 1:
                raise InvalidInputError(
                    f"transform_kwargs[{name!r}] has {parts} partitions. Give a Delayed, or "
                    "compute it first."
                )


def write_graph(
    source: Source,
    job: Job,
    kwargs: Mapping[str, Any],
    partitions: Sequence[int],
    delivery: Delivery,
) -> WriteGraph:
    """Build the graph that writes some partitions of a source.

    Parameters
    ----------
    source : Source
        The input.
    job : Job
        What all write tasks share.
    kwargs : mapping
        Further arguments of the transform; Dask values among them are computed once.
    partitions : sequence of int
        Which partitions to write.
    delivery : Delivery
        How tasks are named, and how their outcomes come back.
    """
    shared, graph = _share(job, kwargs, delivery)
    starts = source.starts
    wanted = [key for i in partitions for key in source.parts[i]]
    upstream, _ = cull(source.graph, wanted)
    upstream = dict(upstream)
    dependents = _dependents(upstream, wanted)
    keys: dict[Key, int] = {}
    fused: set[Key] = set()
    for i in partitions:
        key = delivery.key(i, len(source.parts))
        parts = source.parts[i]
        start = None if starts is None else starts[i]
        chains = [_chain(part, upstream, dependents) for part in parts]
        makers = tuple(
            PartMaker(part, Task.fuse(*chain) if chain else None)
            for part, chain in zip(parts, chains, strict=True)
        )
        refs = Dict({need: TaskRef(need) for maker in makers for need in maker.needs})
        graph[key] = Task(key, write_partition, shared, i, start, delivery.deliver, makers, refs)
        fused |= {node.key for chain in chains for node in chain}
        keys[key] = i
    upstream = {key: node for key, node in upstream.items() if key not in fused}
    return WriteGraph({**upstream, **graph}, keys)


def _share(
    job: Job, kwargs: Mapping[str, Any], delivery: Delivery
) -> tuple[Job | TaskRef, dict[Key, GraphNode]]:
    """Return the job as all write tasks take it, and the nodes that make it."""
    graph: dict[Key, GraphNode] = {}
    refs: dict[str, TaskRef] = {}
    plain: dict[str, Any] = {}
    for name, value in kwargs.items():
        if next(_collections(value), None) is None:
            plain[name] = value
            continue
        whole = value if is_dask_collection(value) else delayed(value)
        graph |= convert_legacy_graph(dict(whole.__dask_graph__()))
        refs[name] = TaskRef(next(flatten(whole.__dask_keys__())))
    if delivery.local and not refs:
        return bind(job, plain, {}), graph
    key = f"{delivery.name}-job"
    begun = job if delivery.begun is None else TaskRef(delivery.begun)
    graph[key] = Task(key, bind, begun, plain, Dict(refs))
    return TaskRef(key), graph


def _collections(value: Any) -> Iterator[Any]:
    """Yield the Dask values in an argument; large lists are data and not looked into."""
    if is_dask_collection(value):
        yield value
    elif type(value) in (list, tuple, dict) and len(value) <= _NESTED:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _collections(each)


def _dependents(graph: Mapping[Key, GraphNode], parts: Iterable[Key]) -> Counter[Key]:
    """Count the tasks that need each key; a write task needs its parts."""
    count = Counter(parts)
    for node in graph.values():
        count.update(node.dependencies)
    return count


def _chain(part: Key, graph: Mapping[Key, GraphNode], dependents: Counter[Key]) -> list[GraphNode]:
    """Return the tasks that only lead to ``part``, the first one first.

    What others need too stays outside and is computed once. Each task of the chain hands its
    result to one other, so a list that a bag would build in between is left an iterator.
    """
    chain: list[GraphNode] = []
    key = part
    while key in graph and dependents[key] == 1 and not graph[key].block_fusion:
        node = graph[key]
        chain.insert(0, _lazy(node))
        if len(node.dependencies) != 1:
            break
        (key,) = node.dependencies
    return chain


def _lazy(node: GraphNode) -> GraphNode:
    if isinstance(node, Task) and node.func is reify and isinstance(node.args[0], Task):
        inner = node.args[0]
        return Task(node.key, inner.func, *inner.args, **inner.kwargs)
    return node
