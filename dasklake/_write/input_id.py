"""Compute the identity of an input: a digest of its sources that is equal in every process.

Pickles and Dask's tokens differ between processes: they depend on the order of hashes, on caches and
on process ids. Here values are traversed: numbers and arrays by their bytes, other objects by the
arguments that rebuild them, classes and functions by name, and files by their paths, sizes and etags or
times, so that a file that was rewritten is another input. Parts that users change to fix a job do
not count: functions, the arguments shared by all partitions, and the names of tasks.
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
from dask.core import flatten
from dask.tokenize import tokenize

from dasklake._dask import (
    Alias,
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    convert_legacy_graph,
    is_fused,
)
from dasklake._storage.file_versions import file_versions

Key = Any

#: Operands of a frame's source that do not change the data it reads.
_NOT_THE_INPUT = {"storage_options", "filesystem", "func", "label", "prefix", "name_prefix", "meta"}

_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, np.ufunc)


def digest(roots: Sequence[Any]) -> str:
    """Return the digest of the sources of an input.

    Parameters
    ----------
    roots : sequence
        Sources returned by :func:`graph_roots` or :func:`expression_roots`.

    Raises
    ------
    Exception
        An object in ``roots`` cannot be pickled; any type is possible.
    """
    result = _Digest()
    for root in roots:
        try:
            result.put("json", json.dumps(root).encode())  # most inputs, and much faster
        except (TypeError, ValueError):
            result.add(root)
    return result.hexdigest()[:32]


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
                roots.append(_TaskArguments(node))
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
    ]


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


class _TaskArguments:
    """The arguments of a task without references to other tasks and without functions."""

    def __init__(self, task: Task) -> None:
        self.task = task


def _arguments(task: Task) -> list[Any]:
    if is_fused(task):
        # The other arguments are names of tasks.
        return list(task.args[0].values())
    return [*task.args, *task.kwargs.values()]


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


class _Digest:
    """Traverse values, and compute a digest of their parts."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._open: dict[int, int] = {}
        self._files: dict[tuple[int, str], tuple[int, Any]] = {}

    def hexdigest(self) -> str:
        self._add_versions()
        return self._sha.hexdigest()

    def put(self, kind: str, data: Any = b"") -> None:
        """Add bytes, preceded by their kind and length."""
        self._sha.update(f"{kind}:{memoryview(data).nbytes}:".encode())
        self._sha.update(data)

    def add(self, value: Any) -> None:
        """Add any value; a value that contains itself is added once."""
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
        for value in values:
            self.add(value)

    def _put_json(self, value: Any) -> bool:
        """Add a container as JSON if possible: adding its items one by one may take minutes."""
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
            # The token of a file system has the process id, and its options hold secrets.
            self.put("filesystem", kind.__qualname__.encode())
        elif hasattr(value, "path") and hasattr(type(getattr(value, "fs", None)), "_fs_token"):
            self._add_file(value)
        elif hasattr(kind, "acquire") and hasattr(kind, "release"):
            self.put("lock")
        elif hasattr(kind, "__dask_graph__"):
            graph = convert_legacy_graph(dict(value.__dask_graph__()))
            self._all("collection", graph_roots(graph, list(flatten(value.__dask_keys__()))))
        elif hasattr(kind, "__dask_tokenize__"):
            self.put("token", tokenize(value, ensure_deterministic=True).encode())
        elif kind is object:
            raise TypeError("an object() is identified only by its memory address")
        else:
            self._rebuilt(value)

    def _add_file(self, file: Any) -> None:
        """Add an fsspec file: how it is opened, and later its version."""
        number = self._files.setdefault((id(file.fs), file.path), (len(self._files), file.fs))[0]
        names = ("mode", "compression", "encoding", "errors", "newline")
        opened = [getattr(file, name, None) for name in names]
        self._all("file", [type(file.fs).__qualname__, number, *opened])

    def _add_versions(self) -> None:
        """Add the versions of all files, which are looked up in parallel."""
        paths: dict[int, tuple[Any, list[str]]] = {}
        for (identity, path), (_, filesystem) in self._files.items():
            paths.setdefault(identity, (filesystem, []))[1].append(path)
        self._files = {}
        for filesystem, names in paths.values():
            self.add(file_versions(filesystem, names))

    def _rebuilt(self, value: Any) -> None:
        """Add the values from which pickle would rebuild an object."""
        reducer = copyreg.dispatch_table.get(type(value))
        reduced: Any = reducer(value) if reducer else value.__reduce_ex__(4)
        if isinstance(reduced, str):
            self.put("global", reduced.encode())
            return
        # A function, its arguments, the state, and iterators of items and of pairs.
        self._all("object", [*reduced[:3], *(list(items or ()) for items in reduced[3:5])])

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
        if not self._put_json(value):
            self._all("sequence", value)

    @_add.register
    def _(self, value: dict) -> None:  # type: ignore[type-arg] # the dispatch takes the class
        if not self._put_json(value):
            self._all("dict", [part for pair in value.items() for part in pair])

    @_add.register(set)
    @_add.register(frozenset)
    def _(self, value: Any) -> None:
        # The order of a set is that of its hashes, which differ between processes.
        self._all("set", sorted(digest([[element]]) for element in value))

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
        columns = [value.iloc[:, column] for column in range(value.shape[1])]
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
        # Serialized, because chunks and offsets in memory may differ for equal tables.
        table = value if isinstance(value, pa.Table) else pa.Table.from_batches([value])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
        self.put("table", sink.getvalue())

    @_add.register
    def _(self, value: _TaskArguments) -> None:
        arguments = _arguments(value.task)
        self._all("task", [a for a in arguments if not isinstance(a, (*_NAMED, TaskRef))])

    @_add.register
    def _(self, value: Task) -> None:
        self.add(_TaskArguments(value))

    @_add.register
    def _(self, value: DataNode) -> None:
        self.add(value.value)

    @_add.register(TaskRef)
    @_add.register(Alias)
    def _(self, _: Any) -> None:
        self.put("reference")
