"""What a collection is to a write: its partitions, its schema, and who it is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
from dask._task_spec import (
    Alias,
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    convert_legacy_graph,  # the public alias lacks it
)
from dask.bag.core import map_chunk, reify, starmap_chunk
from dask.base import is_dask_collection, optimize
from dask.core import flatten
from dask.optimization import cull

from dasklake._schema.schema import Schema, TensorSpec, describe
from dasklake._write.input_id import digest, expression_roots, graph_roots
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
        For each partition its key in each collection.
    names : tuple of str
        Names of columns or arrays.
    lengths : tuple of int or None
        Input samples of each partition, where they are known beforehand.
    schema : Schema or None
        What the collection's own metadata say.
    roots : callable
        Returns what the input is made from, to tell inputs apart.
    """

    kind: str
    graph: dict[Key, GraphNode]
    parts: list[tuple[Key, ...]]
    names: tuple[str, ...]
    lengths: tuple[int, ...] | None
    schema: Schema | None
    roots: Callable[[], Sequence[Any]]

    @property
    def inputs(self) -> int | None:
        """Number of input samples, where known."""
        return None if self.lengths is None else sum(self.lengths)

    @property
    def starts(self) -> list[int] | None:
        """Place of each partition's first sample, where known."""
        return None if self.lengths is None else list(accumulate((0, *self.lengths[:-1])))

    @cached_property
    def input_id(self) -> str | None:
        """Digest of what the input is made from; None where it is not deterministic."""
        try:
            return digest(self.roots())
        except Exception:  # noqa: BLE001 # taking objects apart runs code of theirs
            warnings.warn(
                "The input has no deterministic identity, so a resume can only compare the number "
                "of partitions. Give input_id=... to name the input.",
                stacklevel=2,
            )
            return None


def source_of(collection: Any, schema: Schema | None) -> Source:
    """Look at a collection as the input of a write.

    Parameters
    ----------
    collection : dask Bag, DataFrame, Array, or mapping of str to aligned Arrays
        The input.
    schema : Schema or None
        What the user wants written.

    Raises
    ------
    InvalidInputError
        The collection cannot be written.
    """
    if isinstance(collection, Mapping):
        return _arrays("arrays", dict(collection), schema)
    kind = type(collection).__name__
    if not is_dask_collection(collection):
        raise InvalidInputError(
            f"to_lake() writes Dask collections, not {kind}. Wrap the data with "
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
        f"to_lake() cannot write a dask {kind}: give a Bag, DataFrame or Array."
    )


def _only(name: Any, schema: Schema | None) -> Any:
    """Return the name of the one tensor of a collection that need not have a name."""
    if name is not None:
        return name
    return next(iter(schema)) if schema is not None and len(schema) == 1 else "data"


def _bag(bag: Any) -> Source:
    keys = list(flatten(bag.__dask_keys__()))
    graph, _ = cull(convert_legacy_graph(dict(bag.__dask_graph__())), keys)
    graph = dict(graph)
    lengths = _lengths(graph, keys)
    return Source(
        kind="bag",
        graph=graph,
        parts=[(key,) for key in keys],
        names=(),
        lengths=lengths,
        schema=None,
        roots=lambda: graph_roots(graph, keys),
    )


def _lengths(graph: Mapping[Key, GraphNode], keys: Sequence[Key]) -> tuple[int, ...] | None:
    """Return the samples of each partition, where the graph holds what they are mapped from."""
    lengths = [_length(graph, key) for key in keys]
    found = tuple(length for length in lengths if length is not None)
    return found if len(found) == len(keys) else None


def _length(graph: Mapping[Key, GraphNode], key: Key) -> int | None:
    while True:
        node = graph[key]
        if isinstance(node, DataNode):
            return len(node.value) if hasattr(node.value, "__len__") else None
        source = _mapped(node)
        if source is None or source == key or source not in graph:
            return None
        key = source


def _mapped(node: GraphNode) -> Key | None:
    """Return the key of the one partition that a task makes as many items from, if it does."""
    if isinstance(node, Alias):
        return node.target
    if isinstance(node, Task) and node.func is reify and isinstance(node.args[0], Task):
        node = node.args[0]
    if not isinstance(node, Task) or node.func not in (map_chunk, starmap_chunk):
        return None
    source = node.args[1]
    if node.func is map_chunk:
        # The bags that are mapped together, and the names of those given by keyword.
        if not isinstance(source, Task) or len(source.args) != 1 or node.args[2]:
            return None
        source = source.args[0]
    if isinstance(source, Alias):
        return source.target
    return source.key if isinstance(source, TaskRef) else None


def _frame(frame: Any, schema: Schema | None) -> Source:
    named = (*_index_names(frame), *frame.columns)
    _refuse_same_names(named)
    raise_if_converted(frame, schema)
    inferred = _frame_schema(frame) if schema is None else None
    optimised = frame.optimize()
    keys = list(flatten(optimised.__dask_keys__()))
    graph = convert_legacy_graph(dict(optimised.__dask_graph__()))
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
    )


def _refuse_same_names(names: Iterable[Any]) -> None:
    """Refuse names that are one as names of tensors, such as 1 and "1"."""
    found: dict[str, list[Any]] = {}
    for name in names:
        found.setdefault(str(name), []).append(name)
    same = [", ".join(map(repr, each)) for each in found.values() if len(each) > 1]
    if same:
        raise SchemaError(
            f"Several columns, or the index and a column, have one name as tensors: "
            f"{'; '.join(same)}. Rename them, or drop one."
        )


def _index_names(frame: Any) -> list[Any]:
    return [name for name in frame._meta.index.names if name is not None]  # noqa: SLF001 # Dask's documented meta


def _frame_schema(frame: Any) -> Schema:
    meta = frame._meta  # noqa: SLF001 # Dask's documented meta
    named = _index_names(frame)
    meta = meta.reset_index(named) if named else meta
    specs, unclear = {}, []
    for name, dtype in meta.dtypes.items():
        try:
            specs[str(name)] = _column_spec(meta[name], dtype)
        except SchemaError:
            unclear.append(str(name))
    if unclear:
        raise SchemaError(_ask("columns", unclear, specs))
    return Schema(specs)


def _ask(what: str, unclear: Sequence[str], specs: Mapping[str, TensorSpec]) -> str:
    """Say which tensors need a spec, with a schema that runs."""
    lines = [
        f"    {name!r}: dasklake.TensorSpec(dtype='float32', shape=(None,)),  # say what it holds"
        for name in unclear
    ]
    known = [f"    {name!r}: {_shown(name, spec)}," for name, spec in specs.items()]
    return (
        f"The metadata do not say what the {what} {', '.join(map(repr, unclear))} hold. "
        "Give a schema with these tensors, such as:\n"
        + "\n".join(["schema = {", *lines, *known, "}"])
    )


def _shown(name: str, spec: TensorSpec) -> str:
    """Write a spec as the call that makes it, with all of its class names."""
    try:
        TensorSpec(dtype=spec.dtype, shape=spec.shape)
    except (SchemaError, NotImplementedError):
        # Some of Arrow's types have a name that nothing reads again.
        return f"dasklake.TensorSpec(dtype=frame.dtypes[{name!r}], shape=())"
    call = describe(replace(spec, class_names=None))
    if spec.class_names is not None:
        call = f"{call[:-1]}, class_names={list(spec.class_names)!r})"
    return f"dasklake.{call}"


def _column_spec(column: Any, dtype: Any) -> TensorSpec:
    if isinstance(dtype, pd.CategoricalDtype):
        names = list(column.cat.categories)
        known = (
            getattr(column.cat, "categories", None) is not None
            and "__UNKNOWN_CATEGORIES__" not in names
        )
        if not known or not all(isinstance(name, str) for name in names):
            raise SchemaError("categories are unknown or not strings")
        return TensorSpec("class_label", class_names=tuple(names), shape=())
    if dtype == np.dtype(object):
        raise SchemaError("an object column may hold anything")
    return TensorSpec(dtype=dtype, shape=())


def _arrays(kind: str, arrays: dict[str, Any], schema: Schema | None) -> Source:
    if not arrays or not all(type(a).__name__ == "Array" for a in arrays.values()):
        raise InvalidInputError("A mapping to write holds dask Arrays, one for each tensor.")
    first = next(iter(arrays.values()))
    if any(array.ndim == 0 for array in arrays.values()):
        raise InvalidInputError("An array needs an axis of samples; a scalar has none.")
    aligned = {name: _align(name, array, first) for name, array in arrays.items()}
    optimised = dict(zip(aligned, optimize(*aligned.values()), strict=True))
    graph: dict[Key, GraphNode] = {}
    for array in optimised.values():
        graph |= convert_legacy_graph(dict(array.__dask_graph__()))
    columns = [list(flatten(array.__dask_keys__())) for array in optimised.values()]
    chunks = next(iter(optimised.values())).chunks[0]
    known = not any(math.isnan(length) for length in chunks)
    return Source(
        kind=kind,
        graph=graph,
        parts=list(zip(*columns, strict=True)),
        names=tuple(aligned),
        lengths=tuple(int(length) for length in chunks) if known else None,
        schema=_array_schema(aligned) if schema is None else None,
        roots=lambda: [[name, _array_roots(array)] for name, array in arrays.items()],
    )


def _array_roots(array: Any) -> list[Any]:
    graph = convert_legacy_graph(dict(array.__dask_graph__()))
    return graph_roots(graph, list(flatten(array.__dask_keys__())), constants=True)


def _array_schema(arrays: Mapping[str, Any]) -> Schema:
    specs, unclear = {}, []
    for name, array in arrays.items():
        try:
            specs[name] = _array_spec(array)
        except SchemaError:
            unclear.append(name)
    if unclear:
        raise SchemaError(_ask("arrays", unclear, specs))
    return Schema(specs)


def _align(name: str, array: Any, first: Any) -> Any:
    """Cut an array along its samples as the first one is, and nowhere else."""
    whole = dict.fromkeys(range(1, array.ndim), -1)
    if any(len(axis) > 1 for axis in array.chunks[1:]):
        warnings.warn(
            f"Array {name!r} is cut along other axes than the samples and is rechunked.",
            stacklevel=4,
        )
        array = array.rechunk(whole)
    unknown = any(math.isnan(n) for n in (*array.chunks[0], *first.chunks[0]))
    if unknown and len(array.chunks[0]) != len(first.chunks[0]):
        raise InvalidInputError(
            f"Array {name!r} has {len(array.chunks[0])} blocks of unknown length, the first array "
            f"{len(first.chunks[0])}. Call compute_chunk_sizes() on both."
        )
    if unknown or array.chunks[0] == first.chunks[0]:
        return array
    if array.shape[0] != first.shape[0]:
        raise InvalidInputError(
            f"Array {name!r} has {array.shape[0]} samples, the first array {first.shape[0]}."
        )
    return array.rechunk({0: first.chunks[0]})


def _array_spec(array: Any) -> TensorSpec:
    shape = tuple(None if math.isnan(n) else int(n) for n in array.shape[1:])
    if array.dtype.kind in "UT" and not shape:
        return TensorSpec("text")
    if array.dtype.kind == "S" and not shape:
        return TensorSpec(dtype="binary")
    return TensorSpec(dtype=array.dtype, shape=shape)
