"""Build the graph of a write: one task for each partition, with its exclusive inputs fused.

::

    source ─▶ map ─▶ map ─┐                      ┌────────────────────────┐
                          ├─▶ write(partition) = │ source·map·map·write   │ ─▶ receipt
    job (schema, function,│                      └────────────────────────┘
    arguments) ───────────┘        the job stays a node of its own: each worker fetches it once

``write_partition`` itself runs the inner tasks, so that an error in them is attributed to its
partition under every scheduler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask.bag.core import reify
from dask.base import is_dask_collection
from dask.core import flatten
from dask.delayed import delayed

from dasklake._dask import (
    Dict,
    GraphNode,
    Task,
    TaskRef,
    convert_legacy_graph,
)
from dasklake._write.futures import MAX_SEARCHED, cull_graph, find_futures, is_future
from dasklake._write.job import Deliver, Job, PartMaker, bind
from dasklake._write.partition import write_partition
from dasklake._write.source import Key, Source
from dasklake.exceptions import InvalidInputError


@dataclass(frozen=True, slots=True)
class WriteGraph:
    """The tasks that are submitted to a scheduler.

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

        Shared tasks have the priority of the first partition that needs them.
        """
        priorities: dict[Key, int] = {}
        for key, partition in self.keys.items():
            stack = [key]
            while stack:
                task = stack.pop()
                if task not in priorities and task in self.tasks:
                    priorities[task] = -partition
                    stack += self.tasks[task].dependencies
        return priorities


@dataclass(frozen=True, slots=True)
class Delivery:
    """Names of the write tasks, and the way their outcomes are returned.

    Attributes
    ----------
    name : str
        Prefix of the keys.
    deliver : Deliver or None
        Sends each outcome to the coordinator; None if the tasks return their outcomes.
    local : bool
        Whether a local scheduler runs the tasks. The job is then part of each task, and the keys
        are chosen so that Dask's local order is that of the input.
    begun : key or None
        A task that returns the job, if the run has not begun yet.
    fused : bool
        Whether the write tasks run the tasks that only they need. If not, other collections of the
        same computation share those tasks, and the graph is without them.
    """

    name: str
    deliver: Deliver | None = None
    local: bool = False
    begun: Key | None = None
    fused: bool = True

    def key(self, partition: int, of: int) -> Key:
        """Return the key of a write task."""
        return (self.name, f"{of - partition:012d}" if self.local else partition)


def check_arguments(kwargs: Mapping[str, Any]) -> None:
    """Check that each Dask collection among the arguments of a transform has one partition.

    Raises
    ------
    InvalidInputError
        A collection in ``kwargs`` has several partitions.
    """
    for name, value in kwargs.items():
        for collection in _collections(value):
            parts = len(list(flatten(collection.__dask_keys__())))
            if parts != 1:
                raise InvalidInputError(
                    f"transform_kwargs[{name!r}] must have one partition, got {parts}. Give a "
                    "Delayed, or compute it first."
                )


def is_plain(kwargs: Mapping[str, Any]) -> bool:
    """Return whether no argument of a transform has to be computed by other tasks."""
    return not any(
        next(_collections(value), None) is not None or next(find_futures(value), None) is not None
        for value in kwargs.values()
    )


def argument_futures(kwargs: Mapping[str, Any]) -> dict[Key, Any]:
    """Return the futures among the arguments of a transform, also those of persisted collections."""
    futures = {future.key: future for value in kwargs.values() for future in find_futures(value)}
    for value in kwargs.values():
        for collection in _collections(value):
            graph = dict(collection.__dask_graph__())
            futures |= {task.key: task for task in graph.values() if is_future(task)}
    return futures


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
        The common parameters of the write tasks.
    kwargs : mapping
        Further arguments of the transform; Dask collections among them are computed once.
    partitions : sequence of int
        The partitions to write.
    delivery : Delivery
        Names of the tasks, and the way their outcomes are returned.
    """
    shared, graph = _share(job, kwargs, delivery)
    starts = source.starts
    inputs = [key for i in partitions for key in source.parts[i]]
    upstream = cull_graph(source.graph, inputs) if delivery.fused else {}
    dependents = _dependents(upstream, inputs)
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
    """Return the job, or a reference to its task, and the tasks that it needs."""
    graph: dict[Key, GraphNode] = {}
    refs: dict[str, TaskRef] = {}
    plain: dict[str, Any] = {}
    for name, value in kwargs.items():
        if is_future(value):
            refs[name] = TaskRef(value.key)
            continue
        if next(_collections(value), None) is None and next(find_futures(value), None) is None:
            plain[name] = value
            continue
        collection = value if is_dask_collection(value) else delayed(value)
        graph |= convert_legacy_graph(dict(collection.__dask_graph__()))
        refs[name] = TaskRef(next(flatten(collection.__dask_keys__())))
    if delivery.local and not refs:
        return bind(job, plain, {}), graph
    key = f"{delivery.name}-job"
    begun = job if delivery.begun is None else TaskRef(delivery.begun)
    graph[key] = Task(key, bind, begun, plain, Dict(refs))
    return TaskRef(key), graph


def _collections(value: Any) -> Iterator[Any]:
    """Yield the Dask collections in an argument; large containers are not searched."""
    if is_dask_collection(value):
        yield value
    elif type(value) in (list, tuple, dict) and len(value) <= MAX_SEARCHED:
        for element in value.values() if isinstance(value, dict) else value:
            yield from _collections(element)


def _dependents(graph: Mapping[Key, GraphNode], parts: Iterable[Key]) -> Counter[Key]:
    """Count the tasks that depend on each key, including the write tasks."""
    count = Counter(parts)
    for node in graph.values():
        count.update(node.dependencies)
    return count


def _chain(part: Key, graph: Mapping[Key, GraphNode], dependents: Counter[Key]) -> list[GraphNode]:
    """Return the chain of tasks that only ``part`` needs, in order of execution.

    Shared tasks stay outside and are computed once. Each result in the chain is used once, so a bag's
    intermediate list can stay an iterator.
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
    """Return a task that returns an iterable instead of a list, if Dask would do so too."""
    if isinstance(node, Task) and node.func in (reify, list) and isinstance(node.args[0], Task):
        inner = node.args[0]
        return Task(node.key, inner.func, *inner.args, **inner.kwargs)
    return node
