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
from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from dask.core import flatten
from dask.tokenize import tokenize

from dasklake._codecs.sample import Sample, StoredValue, raw_value
from dasklake._dask import Alias, DataNode, Task, TaskRef, convert_legacy_graph
from dasklake._storage.file_versions import file_versions, folder_versions, local_file_versions
from dasklake._write.input_roots import TaskArguments, graph_roots

_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, np.ufunc)

#: Types of JSON without parts.
_SCALARS = frozenset((str, int, float, bool, type(None)))


def digest(roots: Sequence[Any]) -> str:
    """Return the digest of the sources of an input.

    Parameters
    ----------
    roots : sequence
        Sources returned by :mod:`dasklake._write.input_roots`.

    Raises
    ------
    Exception
        An object in ``roots`` cannot be pickled; any type is possible.
    """
    result = _Digest()
    for root in roots:
        try:
            text = _as_json(root)  # most inputs, and much faster
        except (TypeError, ValueError):
            result.add(root)
        else:
            result.put("json", text)
    return result.hexdigest()[:32]


def _as_json(value: Any) -> bytes:
    if _holds_sample(value):
        raise TypeError("JSON would decode the values of a sample")
    return json.dumps(value).encode()


def _holds_sample(value: Any) -> bool:
    """Return whether a sample of a lake is in some nested containers."""
    if not isinstance(value, list | tuple | dict):
        return False
    if isinstance(value, Sample):
        return True
    parts = value.values() if isinstance(value, dict) else value
    if _SCALARS.issuperset(map(type, parts)):
        return False
    try:
        return any(map(_holds_sample, parts))
    except RecursionError:  # it contains itself, or is too deep for JSON, too
        return False


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
            text = _as_json(value)
        except (TypeError, ValueError, RecursionError):
            return False
        self.put("json", text)
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
        elif kind.__module__.partition(".")[0] == "zarr" and hasattr(value, "store"):
            self._add_zarr(value)
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

    def _add_zarr(self, array: Any) -> None:
        """Add the versions of the files of a Zarr array or group."""
        store, path = array.store, str(array.path)
        root = getattr(store, "root", None) or getattr(store, "path", None)
        if root is None:
            self._rebuilt(array)  # in memory
            return
        # The metadata of the array are among its files. A store may also be one archive.
        versions = local_file_versions([root]) or folder_versions(
            getattr(store, "fs", None), f"{root}/{path}".rstrip("/")
        )
        self._all("zarr", [path, *versions])

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

    @_add.register
    def _(self, value: Sample) -> None:
        # Masks of kilobytes decode to gigabytes.
        self._all("sample", [part for name in value for part in (name, raw_value(value, name))])

    @_add.register
    def _(self, value: StoredValue) -> None:
        if not value.is_unchanged():
            self.add(value.get())
            return
        spec = value.spec
        self._all("stored", [spec.htype, str(spec.dtype), spec.compression, value.stored])

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
    def _(self, value: TaskArguments) -> None:
        self._all("task", [a for a in value.values() if not isinstance(a, (*_NAMED, TaskRef))])

    @_add.register
    def _(self, value: Task) -> None:
        self.add(TaskArguments(value))

    @_add.register
    def _(self, value: DataNode) -> None:
        self.add(value.value)

    @_add.register(TaskRef)
    @_add.register(Alias)
    def _(self, _: Any) -> None:
        self.put("reference")
