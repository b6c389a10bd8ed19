"""Who an input is: a digest of what it is made from, equal in every process.

Pickles and Dask's tokens are not: they follow the order of hashes, and keep caches and the number of
the process. So values are walked here: numbers and arrays by their bytes, other objects by what
they are rebuilt from, classes and functions by their name. What people change to mend a job is no
part of it: functions, what all partitions hand to them, and the names of tasks.
"""

from __future__ import annotations

import copyreg
import hashlib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from dask._task_spec import (
    Alias,
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    _execute_subgraph,
    convert_legacy_graph,
)
from dask.core import flatten
from dask.tokenize import tokenize

__all__ = ["digest", "expression_roots", "graph_roots"]

Key = Any

#: Operands of a frame's source that say how it is read, not what.
_NOT_THE_INPUT = {"storage_options", "filesystem", "func", "label", "prefix", "name_prefix", "meta"}

_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, np.ufunc)


def digest(roots: Sequence[Any]) -> str:
    """Return the digest of what an input is made from.

    Parameters
    ----------
    roots : sequence
        What :func:`graph_roots` or :func:`expression_roots` found.

    Raises
    ------
    Exception
        Whatever objects raise that cannot be taken apart.
    """
    whole = _Digest()
    for root in roots:
        try:
            whole.put("json", json.dumps(root).encode())  # most inputs, and much faster
        except (TypeError, ValueError):
            whole.add(root)
    return whole.hexdigest()[:32]


def graph_roots(
    graph: Mapping[Key, GraphNode], keys: Sequence[Key], *, constants: bool = False
) -> list[Any]:
    """Return what the tasks without dependencies hold, in the order in which partitions need them.

    Parameters
    ----------
    graph : mapping
        The graph.
    keys : sequence of key
        The partitions.
    constants : bool, default False
        Whether the plain arguments of other tasks tell inputs apart too, as an array's slices do.

    Raises
    ------
    LookupError
        A partition lies on a cluster, so nothing says what it is made from.
    """
    found: list[Any] = []
    entered: dict[Key, int] = {}
    roots = 0
    arguments = _arguments_of_all(graph, keys)
    for partition, first in enumerate(keys):
        found.append(["partition", partition])
        stack = [first]
        while stack:
            key = stack.pop()
            if key in arguments:
                continue
            if key in entered:
                # By the number of a root, which a task that is put in between does not change.
                found.append(["again", entered[key]])
                continue
            entered[key] = roots
            node = graph[key]
            needs = _needs(node)
            if key in needs:
                raise LookupError(key)  # a future stands for itself
            stack += reversed(needs)
            if not needs:
                roots += 1
            if isinstance(node, DataNode):
                found.append(node.value)
            elif isinstance(node, Task) and (constants or not needs):
                found.append(_Plain(node))
    return found


def _arguments_of_all(graph: Mapping[Key, GraphNode], keys: Sequence[Key]) -> set[Key]:
    """Return what several partitions share beside something of their own.

    It goes with the functions that use it, and may be mended like them; and it may be an index of
    gigabytes.
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
    """Return what the sources of a frame are made from, in the order of its expression.

    Parameters
    ----------
    expr : dask expression
        The frame's expression, as the user built it.
    """
    found: list[Any] = []
    seen: dict[str, int] = {}
    stack = [expr]
    while stack:
        node = stack.pop()
        name = node._name  # noqa: SLF001 # how Dask itself tells expressions apart
        if name in seen:
            found.append(["again", seen[name]])
            continue
        seen[name] = len(found)
        needs = list(node.dependencies())
        stack += reversed(needs)
        if type(node).__name__ == "Partitions":
            found.append(list(node.operand("partitions")))
        elif not needs:
            found.append(_source(node))
    return found


def _source(leaf: Any) -> list[Any]:
    kind = type(leaf).__name__
    parameters = leaf._parameters  # noqa: SLF001 # the names of the operands
    if kind == "FromGraph":
        graph = convert_legacy_graph(dict(leaf.operand("layer")))
        return [kind, *graph_roots(graph, leaf.operand("keys"))]
    if len(parameters) != len(leaf.operands):
        if any(isinstance(each, TaskRef) for each in leaf.operands):
            raise LookupError(kind)  # futures
        return [kind, *leaf.operands]
    named = zip(parameters, leaf.operands, strict=True)
    wanted = [(name, each) for name, each in named if name not in _NOT_THE_INPUT]
    return [kind, *([n, each] for n, each in wanted if n == "_partitions" or n[0] != "_")]


class _Plain:
    """The arguments of a task, without the tasks it needs and without functions."""

    def __init__(self, task: Task) -> None:
        self.task = task


def _arguments(task: Task) -> list[Any]:
    if task.func is _execute_subgraph:  # Task.has_subgraph() is younger than Dask 2025.1
        # Its other arguments are names of tasks.
        return list(task.args[0].values())
    return [*task.args, *task.kwargs.values()]


def _needs(node: GraphNode) -> list[Key]:
    """Return the dependencies of a node in the order of its arguments."""
    if not node.dependencies:
        return []
    found = dict.fromkeys(key for key in _references(node) if key in node.dependencies)
    return [*found, *sorted(node.dependencies - found.keys(), key=repr)]


def _references(value: Any) -> Iterator[Key]:
    if isinstance(value, TaskRef):
        yield value.key
    elif isinstance(value, Alias):
        yield value.target
    elif isinstance(value, Task):
        for each in (*value.args, *value.kwargs.values()):
            yield from _references(each)


class _Digest:
    """Takes values apart, and a digest of the parts."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._open: dict[int, int] = {}

    def hexdigest(self) -> str:
        return self._sha.hexdigest()

    def put(self, kind: str, data: Any = b"") -> None:
        """Take bytes, with what they are and how many."""
        self._sha.update(f"{kind}:{memoryview(data).nbytes}:".encode())
        self._sha.update(data)

    def add(self, value: Any) -> None:
        """Take any value; one that holds itself is taken once."""
        if id(value) in self._open:
            self.put("inside", str(self._open[id(value)]).encode())
            return
        self._open[id(value)] = len(self._open)
        try:
            self._add(value)
        finally:
            del self._open[id(value)]

    def _all(self, kind: str, values: Sequence[Any]) -> None:
        self.put(kind, str(len(values)).encode())
        for each in values:
            self.add(each)

    def _plain(self, value: Any) -> bool:
        """Take a container of plain values at once: item by item, an index would take minutes."""
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            return False
        self.put("json", text.encode())
        return True

    @singledispatchmethod
    def _add(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, _NAMED):
            self.put("named", getattr(value, "__qualname__", value.__name__).encode())
        elif hasattr(kind, "_fs_token"):
            # A file system's own token has the number of the process, its options have secrets.
            self.put("filesystem", kind.__qualname__.encode())
        elif hasattr(kind, "acquire") and hasattr(kind, "release"):
            self.put("lock")
        elif hasattr(kind, "__dask_graph__"):
            graph = convert_legacy_graph(dict(value.__dask_graph__()))
            self._all("collection", graph_roots(graph, list(flatten(value.__dask_keys__()))))
        elif hasattr(kind, "__dask_tokenize__"):
            self.put("token", tokenize(value, ensure_deterministic=True).encode())
        elif kind is object:
            raise TypeError("an object() has no identity but its place in memory")
        else:
            self._rebuilt(value)

    def _rebuilt(self, value: Any) -> None:
        """Take an object as what pickle would rebuild it from."""
        reducer = copyreg.dispatch_table.get(type(value))
        reduced: Any = reducer(value) if reducer else value.__reduce_ex__(4)
        if isinstance(reduced, str):
            self.put("global", reduced.encode())
            return
        # A function, its arguments, the state, and iterators of items and of pairs.
        first, others = list(reduced[:3]), reduced[3:5]
        self._all("object", [*first, *(list(each or ()) for each in others)])

    @_add.register(type(None))
    @_add.register(bool)
    @_add.register(int)
    @_add.register(float)
    @_add.register(complex)
    def _(self, value: Any) -> None:
        if type(value) in (bool, int, float, complex, type(None)):
            self.put(type(value).__name__, repr(value).encode())
        else:
            self._rebuilt(value)

    @_add.register
    def _(self, value: str) -> None:
        self.put("str", value.encode(errors="surrogatepass"))

    @_add.register(bytes)
    @_add.register(bytearray)
    @_add.register(memoryview)
    def _(self, value: Any) -> None:
        self.put("bytes", bytes(value))

    @_add.register(list)
    @_add.register(tuple)
    def _(self, value: Any) -> None:
        if not self._plain(value):
            self._all("sequence", value)

    @_add.register
    def _(self, value: dict) -> None:  # type: ignore[type-arg] # the dispatch takes the class
        if not self._plain(value):
            self._all("dict", [each for pair in value.items() for each in pair])

    @_add.register(set)
    @_add.register(frozenset)
    def _(self, value: Any) -> None:
        # The order of a set is that of its hashes, which differ between processes.
        self._all("set", sorted(digest([[each]]) for each in value))

    @_add.register
    def _(self, value: np.ndarray) -> None:
        self.put("array", f"{value.dtype!s} {value.shape}".encode())
        if isinstance(value, np.ma.MaskedArray):
            self.add(np.ma.getmaskarray(value))
            value = np.ma.getdata(value)
        if value.dtype.kind in "OT":
            self._all("items", value.reshape(-1).tolist())
        elif value.size and value.dtype.itemsize:
            self.put("bytes", np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)

    @_add.register
    def _(self, value: np.generic) -> None:
        self.put(f"scalar {value.dtype!s}", value.tobytes())

    @_add.register(np.dtype)
    @_add.register(pd.api.extensions.ExtensionDtype)
    @_add.register(pa.DataType)
    @_add.register(pa.Schema)
    def _(self, value: Any) -> None:
        self.put("type", str(value).encode())

    @_add.register
    def _(self, value: pd.DataFrame) -> None:
        columns = [value.iloc[:, place] for place in range(value.shape[1])]
        self._all("frame", [value.index, *columns])

    @_add.register(pd.Series)
    @_add.register(pd.Index)
    def _(self, value: Any) -> None:
        self._all("column", [value.name, value.dtype, value.array])
        if isinstance(value, pd.Series) and not isinstance(value.index, pd.RangeIndex):
            self.add(value.index)

    @_add.register
    def _(self, value: pd.RangeIndex) -> None:
        self._all("range", [value.name, value.start, value.stop, value.step])

    @_add.register
    def _(self, value: pd.MultiIndex) -> None:
        self._all("levels", [*value.levels, *value.codes])

    @_add.register
    def _(self, value: pd.api.extensions.ExtensionArray) -> None:
        if isinstance(value, pd.arrays.NumpyExtensionArray):
            self.add(value.to_numpy())
            return
        try:
            self.add(pa.array(value))
        except pa.ArrowException:
            self.add(np.asarray(value, dtype=object))

    @_add.register(pa.Array)
    @_add.register(pa.ChunkedArray)
    def _(self, value: Any) -> None:
        self.add(pa.table({"": value}))

    @_add.register(pa.Table)
    @_add.register(pa.RecordBatch)
    def _(self, value: Any) -> None:
        # As a file: it has neither the cuts nor the offsets of what lies in memory.
        table = value if isinstance(value, pa.Table) else pa.Table.from_batches([value])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
        self.put("table", sink.getvalue())

    @_add.register
    def _(self, value: _Plain) -> None:
        plain = [each for each in _arguments(value.task) if not isinstance(each, _NAMED)]
        self._all("task", [each for each in plain if not isinstance(each, TaskRef)])

    @_add.register
    def _(self, value: Task) -> None:
        self.add(_Plain(value))

    @_add.register
    def _(self, value: DataNode) -> None:
        self.add(value.value)

    @_add.register(TaskRef)
    @_add.register(Alias)
    def _(self, _: Any) -> None:
        self.put("reference")
