"""Analyse a collection as the input of a write: partitions, schema and identity."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
from dask.bag.core import map_chunk, reify, starmap_chunk
from dask.base import is_dask_collection, optimize
from dask.core import flatten

from dasklake._dask import (
    Alias,
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    convert_legacy_graph,
)
from dasklake._schema.schema import Schema, TensorSpec, describe
from dasklake._write.futures import cull_graph, is_future
from dasklake._write.input_id import digest
from dasklake._write.input_roots import expression_roots, graph_roots
from dasklake._write.string_conversion import raise_if_converted
from dasklake.exceptions import InvalidInputError, SchemaError

__all__ = ["Source", "source_of"]

Key = Any


@dataclass(frozen=True)
class Source:
    """The input of a write.

    Attributes
    ----------
    kind : str
        ``"bag"``, ``"dataframe"``, ``"array"`` or ``"arrays"``.
    graph : dict
        The optimised graph.
    parts : list of tuple of key
        For each partition, its key in each collection.
    names : tuple of str
        Names of the columns or arrays.
    lengths : tuple of int or None
        Number of input samples in each partition, if known in advance.
    schema : Schema or None
        Schema inferred from the metadata of the collection.
    roots : callable
        Returns the sources of the input, from which its id is computed.
    futures : dict of key to Future
        The futures that the collection holds. The graph refers to their keys without a task, and
        the cluster keeps their results while they are referenced here.
    """

    kind: str
    graph: dict[Key, GraphNode]
    parts: list[tuple[Key, ...]]
    names: tuple[str, ...]
    lengths: tuple[int, ...] | None
    schema: Schema | None
    roots: Callable[[], Sequence[Any]]
    futures: Mapping[Key, Any] = field(default_factory=dict)

    @property
    def external_keys(self) -> set[Key]:
        """Keys that the graph needs and does not compute: results of futures on a cluster."""
        needs = {key for part in self.parts for key in part}
        needs.update(*(node.dependencies for node in self.graph.values()))
        return needs - self.graph.keys()

    @property
    def inputs(self) -> int | None:
        """Number of input samples, if known."""
        return None if self.lengths is None else sum(self.lengths)

    @property
    def starts(self) -> list[int] | None:
        """Index of each partition's first sample, if known."""
        return None if self.lengths is None else list(accumulate((0, *self.lengths[:-1])))

    @cached_property
    def input_id(self) -> str | None:
        """Digest of the sources of the input; None if it is not deterministic."""
        try:
            return digest(self.roots())
        except Exception:  # noqa: BLE001 # pickling hooks of any class may run
            warnings.warn(
                "The input has no deterministic identity, so a resume can only compare the number "
                "of partitions. Pass input_id=... to identify the input.",
                stacklevel=2,
            )
            return None


def source_of(collection: Any, schema: Schema | None) -> Source:
    """Return the input of a write that a collection describes.

    Parameters
    ----------
    collection : dask Bag, DataFrame, Array, or mapping of str to aligned Arrays
        The input.
    schema : Schema or None
        The schema that the user gave.

    Raises
    ------
    InvalidInputError
        ``collection`` is not of a supported type, or its arrays are not aligned.
    SchemaError
        ``schema`` is None and the metadata do not determine a schema.
    """
    if isinstance(collection, Mapping):
        return _arrays("arrays", dict(collection), schema)
    kind = type(collection).__name__
    if not is_dask_collection(collection):
        raise InvalidInputError(
            f"collection must be a Dask collection, got {kind}. Wrap the data with "
            "dask.bag.from_sequence(), dask.dataframe.from_pandas() or dask.array.from_array()."
        )
    if kind == "Bag":
        return _bag(collection)
    if kind == "Array":
        return _arrays("array", {_only(None, schema): collection}, schema)
    if kind == "Series":
        return _frame(collection.to_frame(name=_only(collection.name, schema)), schema)
    if kind == "DataFrame":
        return _frame(collection, schema)
    raise InvalidInputError(
        f"collection must be a dask Bag, DataFrame, Series or Array, got {kind}."
    )


def _only(name: Any, schema: Schema | None) -> Any:
    """Return the name of the only tensor of a collection that may have no name."""
    if name is not None:
        return name
    return next(iter(schema)) if schema is not None and len(schema) == 1 else "data"


def _bag(bag: Any) -> Source:
    keys = list(flatten(bag.__dask_keys__()))
    raw = dict(bag.__dask_graph__())
    graph = cull_graph(convert_legacy_graph(raw), keys)
    lengths = _lengths(graph, keys)
    return Source(
        kind="bag",
        graph=graph,
        parts=[(key,) for key in keys],
        names=(),
        lengths=lengths,
        schema=None,
        roots=lambda: graph_roots(graph, keys),
        futures=_futures(raw),
    )


def _futures(graph: Mapping[Key, Any]) -> dict[Key, Any]:
    """Return the futures that are values of a graph, which Dask's conversion drops."""
    return {key: value for key, value in graph.items() if is_future(value)}


def _lengths(graph: Mapping[Key, GraphNode], keys: Sequence[Key]) -> tuple[int, ...] | None:
    """Return the samples of each partition, if the graph holds the data they are mapped from."""
    lengths = [_length(graph, key) for key in keys]
    return None if None in lengths else tuple(length for length in lengths if length is not None)


def _length(graph: Mapping[Key, GraphNode], key: Key) -> int | None:
    while True:
        node = graph.get(key)
        if node is None:
            return None  # a future
        if isinstance(node, DataNode):
            return len(node.value) if hasattr(node.value, "__len__") else None
        source = _mapped(node)
        if source is None or source == key:
            return None
        key = source


def _mapped(node: GraphNode) -> Key | None:
    """Return the key of the partition that a task maps one to one, if it does so."""
    if isinstance(node, Alias):
        return node.target
    if isinstance(node, Task) and node.func is reify and isinstance(node.args[0], Task):
        node = node.args[0]
    if not isinstance(node, Task) or node.func not in (map_chunk, starmap_chunk):
        return None
    source = node.args[1]
    if node.func is map_chunk:
        # The bags that are mapped together, and the names of those passed by keyword.
        if not isinstance(source, Task) or len(source.args) != 1 or node.args[2]:
            return None
        source = source.args[0]
    if isinstance(source, Alias):
        return source.target
    return source.key if isinstance(source, TaskRef) else None


def _frame(frame: Any, schema: Schema | None) -> Source:
    named = (*_index_names(frame), *frame.columns)
    _require_distinct_names(named)
    raise_if_converted(frame, schema)
    inferred = _frame_schema(frame) if schema is None else None
    optimised = frame.optimize()
    keys = list(flatten(optimised.__dask_keys__()))
    raw = dict(optimised.__dask_graph__())
    graph = convert_legacy_graph(raw)
    names = tuple(str(name) for name in named)
    lengths = _lengths(graph, keys)
    return Source(
        kind="dataframe",
        graph=dict(graph),
        parts=[(key,) for key in keys],
        names=names,
        lengths=lengths,
        schema=inferred,
        roots=lambda: expression_roots(frame.expr),
        futures=_futures(raw),
    )


def _require_distinct_names(names: Iterable[Any]) -> None:
    """Raise an error if two names are equal as names of tensors, such as 1 and "1"."""
    columns: dict[str, list[Any]] = {}
    for name in names:
        columns.setdefault(str(name), []).append(name)
    same = [", ".join(map(repr, equal)) for equal in columns.values() if len(equal) > 1]
    if same:
        raise SchemaError(
            f"Names of columns and of the index must differ as text, got {'; '.join(same)}. "
            "Rename or drop one of them."
        )


def _index_names(frame: Any) -> list[Any]:
    return [name for name in frame._meta.index.names if name is not None]  # noqa: SLF001 # Dask's documented meta


def _frame_schema(frame: Any) -> Schema:
    meta = frame._meta  # noqa: SLF001 # Dask's documented meta
    named = _index_names(frame)
    meta = meta.reset_index(named) if named else meta
    return _inferred("columns", {str(name): meta[name] for name in meta.columns}, _column_spec)


def _inferred(
    kind: str, columns: Mapping[str, Any], spec_of: Callable[[Any], TensorSpec]
) -> Schema:
    """Return the schema of columns or arrays; the error for unclear ones shows an example."""
    specs, unclear = {}, []
    for name, column in columns.items():
        try:
            specs[name] = spec_of(column)
        except SchemaError:
            unclear.append(name)
    if not unclear:
        return Schema(specs)
    lines = [
        f"    {name!r}: dasklake.TensorSpec(dtype='float32', shape=(None,)),  # edit this line"
        for name in unclear
    ]
    lines += [f"    {name!r}: {_code_of(name, spec)}," for name, spec in specs.items()]
    raise SchemaError(
        f"The metadata do not determine the type of the {kind} {', '.join(map(repr, unclear))}. "
        "Give a schema with these tensors, such as:\n" + "\n".join(["schema = {", *lines, "}"])
    )


def _code_of(name: str, spec: TensorSpec) -> str:
    """Return the code that creates a spec, with all of its class names."""
    try:
        TensorSpec(dtype=spec.dtype, shape=spec.shape)
    except (SchemaError, NotImplementedError):
        # The names of some Arrow types cannot be parsed.
        return f"dasklake.TensorSpec(dtype=frame.dtypes[{name!r}], shape=())"
    call = describe(replace(spec, class_names=None))
    if spec.class_names is not None:
        call = f"{call[:-1]}, class_names={list(spec.class_names)!r})"
    return f"dasklake.{call}"


def _column_spec(column: Any) -> TensorSpec:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        names = list(dtype.categories)
        if "__UNKNOWN_CATEGORIES__" in names or not all(isinstance(name, str) for name in names):
            raise SchemaError("categories are unknown or not strings")
        return TensorSpec("class_label", class_names=tuple(names), shape=())
    if dtype == np.dtype(object):
        raise SchemaError("an object column may hold anything")
    return TensorSpec(dtype=dtype, shape=())


def _arrays(kind: str, arrays: dict[str, Any], schema: Schema | None) -> Source:
    if not arrays or not all(type(a).__name__ == "Array" for a in arrays.values()):
        raise InvalidInputError("A mapping must hold dask Arrays, one for each tensor.")
    first = next(iter(arrays.values()))
    if any(array.ndim == 0 for array in arrays.values()):
        raise InvalidInputError("Arrays must have at least one axis, that of the samples.")
    aligned = {name: _align(name, array, first) for name, array in arrays.items()}
    optimised = dict(zip(aligned, optimize(*aligned.values()), strict=True))
    graph: dict[Key, GraphNode] = {}
    futures: dict[Key, Any] = {}
    for array in aligned.values():
        futures |= _futures(dict(array.__dask_graph__()))
    for array in optimised.values():
        graph |= convert_legacy_graph(dict(array.__dask_graph__()))
    columns = [list(flatten(array.__dask_keys__())) for array in optimised.values()]
    chunks = next(iter(optimised.values())).chunks[0]
    sized = not any(math.isnan(length) for length in chunks)
    return Source(
        kind=kind,
        graph=graph,
        parts=list(zip(*columns, strict=True)),
        names=tuple(aligned),
        lengths=tuple(int(length) for length in chunks) if sized else None,
        schema=_inferred("arrays", aligned, _array_spec) if schema is None else None,
        roots=lambda: [[name, _array_roots(array)] for name, array in arrays.items()],
        futures=futures,
    )


def _array_roots(array: Any) -> list[Any]:
    graph = convert_legacy_graph(dict(array.__dask_graph__()))
    return graph_roots(graph, list(flatten(array.__dask_keys__())), constants=True)


def _align(name: str, array: Any, first: Any) -> Any:
    """Return an array with the sample chunks of the first array, and one chunk along other axes."""
    whole = dict.fromkeys(range(1, array.ndim), -1)
    if any(len(axis) > 1 for axis in array.chunks[1:]):
        warnings.warn(
            f"Array {name!r} has several chunks along other axes than the samples, and is "
            "rechunked.",
            stacklevel=4,
        )
        array = array.rechunk(whole)
    unknown = any(math.isnan(n) for n in (*array.chunks[0], *first.chunks[0]))
    if unknown and len(array.chunks[0]) != len(first.chunks[0]):
        raise InvalidInputError(
            f"Arrays of unknown length must have equally many chunks, got "
            f"{len(array.chunks[0])} for {name!r} and {len(first.chunks[0])} for the first array. "
            "Call compute_chunk_sizes() on both."
        )
    if unknown or array.chunks[0] == first.chunks[0]:
        return array
    if array.shape[0] != first.shape[0]:
        raise InvalidInputError(
            f"Arrays must have equally many samples, got {array.shape[0]} for {name!r} and "
            f"{first.shape[0]} for the first array."
        )
    return array.rechunk({0: first.chunks[0]})


def _array_spec(array: Any) -> TensorSpec:
    shape = tuple(None if math.isnan(n) else int(n) for n in array.shape[1:])
    if array.dtype.kind in "UT" and not shape:
        return TensorSpec("text")
    if array.dtype.kind == "S" and not shape:
        return TensorSpec(dtype="binary")
    return TensorSpec(dtype=array.dtype, shape=shape)
