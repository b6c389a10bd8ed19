"""Find the sources of an input in its graph or expression, in the order of its partitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dasklake._dask import (
    Alias,
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    convert_legacy_graph,
    is_fused,
)
from dasklake._storage.file_versions import file_versions, local_file_versions

Key = Any

#: Operands of a frame's source that do not change the data it reads.
_NOT_THE_INPUT = {"storage_options", "filesystem", "func", "label", "prefix", "name_prefix", "meta"}


def graph_roots(
    graph: Mapping[Key, GraphNode], keys: Sequence[Key], *, constants: bool = False
) -> list[Any]:
    """Return the data of tasks without dependencies, in the order in which partitions need them.

    Parameters
    ----------
    graph : mapping
        The graph.
    keys : sequence of key
        The partitions.
    constants : bool, default False
        Whether to include the plain arguments of other tasks, such as the slices of an array.

    Raises
    ------
    LookupError
        A partition in ``graph`` is a future, so its sources are unknown.
    """
    roots: list[Any] = []
    visited: dict[Key, int] = {}
    leaves = 0
    arguments = _shared_arguments(graph, keys)
    for partition, first in enumerate(keys):
        roots.append(["partition", partition])
        stack = [first]
        while stack:
            key = stack.pop()
            if key in arguments:
                continue
            if key in visited:
                # Numbered by leaves, so that an additional task in between changes nothing.
                roots.append(["again", visited[key]])
                continue
            visited[key] = leaves
            node = graph[key]
            needs = _needs(node)
            if key in needs:
                raise LookupError(key)  # a future refers to itself
            stack += reversed(needs)
            if not needs:
                leaves += 1
            if isinstance(node, DataNode):
                roots.append(node.value)
            elif isinstance(node, Task) and (constants or not needs):
                roots.append(TaskArguments(node))
    return roots


def _shared_arguments(graph: Mapping[Key, GraphNode], keys: Sequence[Key]) -> set[Key]:
    """Return the keys of leaves that several partitions share, if each also has its own leaf.

    They are arguments of functions, may be fixed like functions, and may have gigabytes.
    """
    owner: dict[Key, int] = {}
    shared: set[Key] = set()
    for partition, first in enumerate(keys):
        stack = [first]
        while stack:
            key = stack.pop()
            if owner.get(key) == partition or key in shared:
                continue
            if owner.setdefault(key, partition) != partition:
                shared.add(key)
            stack += graph[key].dependencies - {key}
    leaves = [key for key in owner if not graph[key].dependencies]
    own = {owner[key] for key in leaves if key not in shared}
    return shared.intersection(leaves) if len(own) == len(keys) else set()


def expression_roots(expr: Any) -> list[Any]:
    """Return the operands of the sources of a frame, in the order of its expression.

    Parameters
    ----------
    expr : dask expression
        The frame's expression, as the user built it.
    """
    roots: list[Any] = []
    seen: dict[str, int] = {}
    stack = [expr]
    while stack:
        node = stack.pop()
        name = node._name  # noqa: SLF001 # Dask's identity of expressions
        if name in seen:
            roots.append(["again", seen[name]])
            continue
        seen[name] = len(roots)
        needs = list(node.dependencies())
        stack += reversed(needs)
        if type(node).__name__ == "Partitions":
            roots.append(list(node.operand("partitions")))
        elif not needs:
            roots.append(_source(node))
    return roots


def _source(leaf: Any) -> list[Any]:
    kind = type(leaf).__name__
    parameters = leaf._parameters  # noqa: SLF001 # the names of the operands
    files = _parquet_files(leaf)
    if files is not None:
        return [kind, files, *_operands(leaf)]
    if kind == "FromGraph":
        graph = convert_legacy_graph(dict(leaf.operand("layer")))
        return [kind, *graph_roots(graph, leaf.operand("keys"))]
    if len(parameters) != len(leaf.operands):
        if any(isinstance(operand, TaskRef) for operand in leaf.operands):
            raise LookupError(kind)  # futures
        return [kind, *leaf.operands]
    return [kind, *_operands(leaf)]


def _operands(leaf: Any) -> list[Any]:
    return [
        [name, operand]
        for name, operand in zip(leaf._parameters, leaf.operands, strict=True)  # noqa: SLF001 # the names of the operands
        if name not in _NOT_THE_INPUT and (name == "_partitions" or name[0] != "_")
    ] + _mapped_files(leaf)


def _mapped_files(leaf: Any) -> list[list[Any]]:
    """Return the versions of the files that the arguments of ``from_map`` name."""
    if not type(leaf).__name__.startswith("FromMap"):
        return []
    iterables, kwargs = leaf.operand("iterables"), leaf.operand("kwargs") or {}
    if "fs" in kwargs and "engine" in kwargs:  # ORC: files with the numbers of their stripes
        paths = sorted({path for part in iterables[0] for path, _ in part})
        return [["files", file_versions(kwargs["fs"], paths)]]
    files = local_file_versions([iterables, list(leaf.operand("args") or ()), dict(kwargs)])
    return [["files", files]] if files else []


def _parquet_files(leaf: Any) -> list[list[str]] | None:
    """Return the versions of the files of a Parquet source; None for other sources."""
    if not type(leaf).__name__.startswith("ReadParquet"):
        return None
    info = leaf._dataset_info  # noqa: SLF001 # the expression's only list of files
    if "ds" in info:
        return file_versions(info["fs"], list(info["ds"].files))
    return file_versions(
        leaf.fs, [getattr(part, "fragment", part).path for part in info["fragments"]]
    )


class TaskArguments:
    """The arguments of a task, of which references and functions do not count as input."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def values(self) -> list[Any]:
        """Return all arguments, and the versions of the local files that they name."""
        if is_fused(self.task):
            # The other arguments are names of tasks.
            return list(self.task.args[0].values())
        values = [*self.task.args, *self.task.kwargs.values()]
        files = local_file_versions(_plain(values))
        return [*values, files] if files else values


def _plain(value: Any) -> Any:
    """Return arguments with the values of nested nodes."""
    if isinstance(value, DataNode):
        return _plain(value.value)
    if isinstance(value, Task):
        return _plain([*value.args, *value.kwargs.values()])
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def _needs(node: GraphNode) -> list[Key]:
    """Return the dependencies of a node in the order of its arguments."""
    if not node.dependencies:
        return []
    ordered = dict.fromkeys(key for key in _references(node) if key in node.dependencies)
    return [*ordered, *sorted(node.dependencies - ordered.keys(), key=repr)]


def _references(value: Any) -> Iterator[Key]:
    if isinstance(value, TaskRef):
        yield value.key
    elif isinstance(value, Alias):
        yield value.target
    elif isinstance(value, Task):
        for argument in (*value.args, *value.kwargs.values()):
            yield from _references(argument)
