"""Analyse a collection as the input of a write: partitions, schema and identity."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

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
    new_collection,
)
from dasklake._schema.lake_tensors import schema_of_some
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._write.column_hints import (
    array_hint,
    column_hint,
    converted_array,
    converted_column,
    unclear_types,
)
from dasklake._write.column_specs import column_spec, ordered_categories
from dasklake._write.frame_index import (
    Certainty,
    Level,
    check_column_names,
    levels_of,
)
from dasklake._write.futures import cull_graph, is_future
from dasklake._write.input_roots import expression_roots, graph_roots
from dasklake._write.known_values import values_of_array, values_of_column
from dasklake._write.lake_schema import (
    LakeColumn,
    copied_columns,
    lake_frame,
    refuse_moved_links,
    schema_of_bag,
)
from dasklake._write.source import Key, Source
from dasklake._write.string_conversion import raise_if_converted
from dasklake.exceptions import InvalidInputError, SchemaError


def source_of(collection: Any, schema: Schema | None, *, transformed: bool = False) -> Source:
    """Return the input of a write that a collection describes.

    Parameters
    ----------
    collection : dask Bag, DataFrame, Series, Array, or mapping of str to aligned Arrays
        The input.
    schema : Schema or None
        The schema that the user gave.
    transformed : bool, default False
        Whether a function makes the samples from the rows of a frame.

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
        return _bag(collection, transformed=transformed)
    if kind == "Array":
        return _arrays("array", {_only_tensor(schema) or "data": collection}, schema)
    if kind == "Series":
        name = _name_of_series(collection, schema)
        return _frame(collection.to_frame(name=name), schema, transformed=transformed)
    if kind == "DataFrame":
        return _frame(collection, schema, transformed=transformed)
    raise InvalidInputError(
        f"collection must be a dask Bag, DataFrame, Series or Array, got {kind}."
    )


def _only_tensor(schema: Schema | None) -> str | None:
    """Return the only tensor of a schema, or the only one that is not an index; else None."""
    if schema is None:
        return None
    names = [name for name, spec in schema.items() if len(schema) == 1 or not spec.index]
    return names[0] if len(names) == 1 else None


def _name_of_series(series: Any, schema: Schema | None) -> str:
    """Return the name of the tensor that a Series becomes.

    Raises
    ------
    InvalidInputError
        The Series has no name that a tensor can have, and ``schema`` does not have only one tensor.
    """
    if isinstance(series.name, str):
        return series.name
    name = None if series.name is not None else _only_tensor(schema)
    if name is None:
        raise InvalidInputError(
            f"A Series must have a name, which becomes that of its tensor, got {series.name!r}. Use "
            "series.rename('x')."
        )
    return name


def _bag(bag: Any, *, transformed: bool) -> Source:
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
        schema=None if transformed else schema_of_bag(graph, keys),
        roots=lambda: graph_roots(graph, keys),
        futures=_futures(raw),
        collections=(bag,),
    )


def is_without_iterators(bag: Source) -> bool:
    """Return whether other collections can share the tasks of a bag.

    A task may return an iterator, which only one of the others can consume. A write checks the
    partitions that it takes, but not the tasks before them.
    """
    last = {key for (key,) in bag.parts}
    for key, node in bag.graph.items():
        if isinstance(node, DataNode | Alias):
            continue
        func = getattr(node, "func", None)
        if func in (reify, list) or (key in last and not inspect.isgeneratorfunction(func)):
            continue
        return False
    return True


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


def _frame(frame: Any, schema: Schema | None, *, transformed: bool) -> Source:
    if not len(frame.columns) and frame._meta.index.names == [None]:  # noqa: SLF001 # Dask's documented meta
        raise InvalidInputError("The frame has no columns. Select at least one.")
    check_column_names(frame)
    levels = levels_of(frame)
    raise_if_converted(frame, schema, index=not transformed)
    meta = {name: frame._meta[name] for name in frame.columns}  # noqa: SLF001 # Dask's documented meta
    inferred = None
    lake = None if transformed else lake_frame(frame.expr)
    if lake is not None and schema is None:
        refuse_moved_links(lake, {name: column.dtype for name, column in meta.items()})
    if schema is None:
        least = Certainty.DATA if transformed else Certainty.POSITIONAL
        stored = [level for level in levels if level.stored(least)]
        inferred = _frame_schema(frame.expr, meta, stored, {} if lake is None else lake.columns)
    read = frame
    moved: frozenset[str] = frozenset()
    if lake is not None:
        copied = copied_columns(lake.columns, schema)
        if lake.moved:
            moved = frozenset(copied)
        else:
            tensors = {lake.columns[name].tensor for name in copied}
            read = new_collection(lake.with_stored(tensors))
    optimised = read.optimize()
    keys = list(flatten(optimised.__dask_keys__()))
    raw = dict(optimised.__dask_graph__())
    graph = convert_legacy_graph(raw)
    lengths = _lengths(graph, keys)
    return Source(
        kind="dataframe",
        graph=dict(graph),
        parts=[(key,) for key in keys],
        names=tuple(frame.columns),
        lengths=lengths,
        schema=inferred,
        roots=lambda: expression_roots(frame.expr),
        futures=_futures(raw),
        levels=levels,
        lake_columns=moved,
        categories=ordered_categories(meta),
        # If Dask joins partitions of the source, their number depends on the other collections.
        collections=(read,) if read.npartitions == len(keys) else (),
    )


def _frame_schema(
    expr: Any,
    columns: Mapping[str, Any],
    levels: Iterable[Level],
    lake: Mapping[str, LakeColumn],
) -> Schema:
    """Return the schema of a frame: its index, its columns, and those that come from a lake."""
    roles = {level.tensor: level.role for level in levels}
    stored = {level.tensor: level.column for level in levels} | dict(columns)
    specs, problems = _specs({n: c for n, c in stored.items() if n not in lake}, column_spec)
    if problems:
        dtypes = {name: stored[name].dtype for name in problems}
        hints = {
            name: column_hint(dtypes[name], values_of_column(expr, name), level=name in roles)
            for name in problems
        }
        conversions = {n: converted_column(n, h, level=n in roles) for n, h in hints.items()}
        raise unclear_types("columns", specs, problems, hints, conversions, roles)
    specs = {name: lake[name].spec if name in lake else specs[name] for name in stored}
    # Explicit, because a missing compression means the default of the htype.
    specs = {
        name: replace(spec, index=roles.get(name, False), compression=spec.compression or "none")
        for name, spec in specs.items()
    }
    return schema_of_some(specs)


def _specs(
    columns: Mapping[str, Any], spec_of: Callable[[Any], TensorSpec]
) -> tuple[dict[str, TensorSpec], dict[str, SchemaError]]:
    """Return the specs of columns or arrays, and the problems of those without a clear one."""
    specs, problems = {}, {}
    for name, column in columns.items():
        try:
            specs[name] = spec_of(column)
        except SchemaError as error:
            problems[name] = error
    return specs, problems


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
        schema=_array_schema(kind, arrays) if schema is None else None,
        roots=lambda: [[name, _array_roots(array)] for name, array in arrays.items()],
        futures=futures,
        collections=tuple(aligned.values()),
    )


def _array_schema(kind: str, arrays: Mapping[str, Any]) -> Schema:
    specs, problems = _specs(arrays, _array_spec)
    if problems:
        hints = {
            name: array_hint(array.dtype, _sample_shape(array), values_of_array(array))
            for name, array in arrays.items()
            if name in problems
        }
        conversions = {
            name: converted_array(kind if kind == "array" else f"arrays[{name!r}]", hint)
            for name, hint in hints.items()
        }
        raise unclear_types("arrays", specs, problems, hints, conversions, {})
    return Schema(specs)


def _sample_shape(array: Any) -> tuple[int | None, ...]:
    return tuple(None if math.isnan(n) else int(n) for n in array.shape[1:])


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
    shape = _sample_shape(array)
    if array.dtype.kind == "V":
        if array.dtype.names is None:
            raise InvalidInputError(
                f"An array must have numbers, times or strings, got dtype {array.dtype}. Convert it."
            )
        raise InvalidInputError(
            f"An array must have one value per element, got the fields {list(array.dtype.names)}. Write "
            "an array for each field: {name: array[name] for name in array.dtype.names}."
        )
    if array.dtype.kind in "UT" and not shape:
        return TensorSpec("text")
    if array.dtype.kind == "S" and not shape:
        return TensorSpec(dtype="binary")
    return TensorSpec(dtype=array.dtype, shape=shape)
