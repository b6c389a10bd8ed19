"""What a collection is to a write: its partitions, its schema, and who it is."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
from dask._task_spec import convert_legacy_graph  # the public alias lacks it
from dask.base import is_dask_collection, optimize
from dask.core import flatten
from dask.optimization import cull
from dask.task_spec import DataNode, GraphNode, Task
from dask.tokenize import TokenizationError, tokenize

from dasklake._model.schema import Schema, TensorSpec
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
    roots : list
        What the input is made from, to tell inputs apart.
    """

    kind: str
    graph: dict[Key, GraphNode]
    parts: list[tuple[Key, ...]]
    names: tuple[str, ...]
    lengths: tuple[int, ...] | None
    schema: Schema | None
    roots: Sequence[Any]

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
        sha = hashlib.sha256()
        try:
            for root in self.roots:
                sha.update(_digest(root))
        except (TokenizationError, RuntimeError):
            warnings.warn(
                "The input has no deterministic identity, so a resume can only compare the number "
                "of partitions. Give input_id=... to name the input.",
                stacklevel=2,
            )
            return None
        return sha.hexdigest()[:32]


def _digest(root: Any) -> bytes:
    try:
        return json.dumps(root).encode()
    except (TypeError, ValueError):
        return tokenize(root, ensure_deterministic=True).encode()


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
        return _arrays("arrays", dict(collection))
    kind = type(collection).__name__
    if not is_dask_collection(collection):
        raise InvalidInputError(
            f"to_lake() writes Dask collections, not {kind}. Wrap the data with "
            "dask.bag.from_sequence(), dask.dataframe.from_pandas() or dask.array.from_array()."
        )
    if kind == "Bag":
        return _bag(collection)
    if kind == "Array":
        name = next(iter(schema)) if schema is not None and len(schema) == 1 else "data"
        return _arrays("array", {name: collection})
    if kind == "Series":
        return _frame(collection.to_frame(), schema)
    if kind == "DataFrame":
        return _frame(collection, schema)
    raise InvalidInputError(
        f"to_lake() cannot write a dask {kind}: give a Bag, DataFrame or Array."
    )


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
        roots=_roots(graph),
    )


def _lengths(graph: Mapping[Key, GraphNode], keys: Sequence[Key]) -> tuple[int, ...] | None:
    """Return the samples of each partition, where the graph holds the partitions themselves."""
    nodes = [graph[key] for key in keys]
    lengths = [
        len(node.value)
        for node in nodes
        if isinstance(node, DataNode) and hasattr(node.value, "__len__")
    ]
    return tuple(lengths) if len(lengths) == len(nodes) else None


def _roots(graph: Mapping[Key, GraphNode]) -> list[Any]:
    """Return what the tasks without dependencies hold, in the order of their partitions."""
    found = []
    for key, node in graph.items():
        if node.dependencies:
            continue
        place = key[1:] if isinstance(key, tuple) else ()
        if isinstance(node, DataNode):
            found.append((place, [list(place), node.value]))
        elif isinstance(node, Task):
            # The function is left out: people resume after mending it.
            found.append((place, [list(place), list(node.args), dict(node.kwargs)]))
    return [root for _, root in sorted(found, key=lambda pair: repr(pair[0]).zfill(32))]


def _frame(frame: Any, schema: Schema | None) -> Source:
    _refuse_converted(frame, schema)
    inferred = _frame_schema(frame) if schema is None else None
    leaves = [leaf for leaf in frame.expr.walk() if not leaf.dependencies()]
    optimised = frame.optimize()
    keys = list(flatten(optimised.__dask_keys__()))
    graph = convert_legacy_graph(dict(optimised.__dask_graph__()))
    names = tuple(str(name) for name in (*_index_names(frame), *frame.columns))
    lengths = _lengths(graph, keys)
    return Source(
        kind="dataframe",
        graph=dict(graph),
        parts=[(key,) for key in keys],
        names=names,
        lengths=lengths,
        schema=inferred,
        roots=[_leaf(leaf) for leaf in leaves],
    )


def _leaf(leaf: Any) -> list[Any]:
    """Return what a source of a frame is made from, without its functions."""
    return [type(leaf).__name__, *(o for o in leaf.operands if not callable(o))]


def _index_names(frame: Any) -> list[Any]:
    return [name for name in frame._meta.index.names if name is not None]  # noqa: SLF001 # Dask's documented meta


def _refuse_converted(frame: Any, schema: Schema | None) -> None:
    """Refuse columns of arrays that Dask has turned into strings without a word."""
    damaged: set[str] = set()
    for node in frame.expr.walk():
        if type(node).__name__ == "FromPandas" and node.pyarrow_strings_enabled:
            before = node.operand("frame")
        elif type(node).__name__ == "ArrowStringConversion":
            before = node.frame._meta  # noqa: SLF001 # Dask's documented meta
        else:
            continue
        damaged |= {str(n) for n, dtype in before.dtypes.items() if dtype == np.dtype(object)}
    meant = {
        n for n, spec in (schema or {}).items() if spec.numpy_dtype is None and not spec.linked
    }
    found = sorted(damaged & set(map(str, frame.columns)) - meant)
    if found:
        raise InvalidInputError(
            f"Dask has turned the object columns {', '.join(map(repr, found))} into strings, so "
            "their values are lost. Build the frame under "
            "dask.config.set({'dataframe.convert-string': False}), or declare them as text in "
            "the schema if strings are meant."
        )


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
        lines = [f"    {name!r}: dasklake.TensorSpec(...)," for name in unclear]
        raise SchemaError(
            f"The metadata do not say what the columns {', '.join(map(repr, unclear))} hold. "
            "Give a schema with these tensors, such as:\n"
            + "\n".join(["schema = {", *lines, *_known(specs), "}"])
        )
    return Schema(specs)


def _known(specs: Mapping[str, TensorSpec]) -> list[str]:
    return [f"    {name!r}: dasklake.TensorSpec(dtype={s.dtype!r})," for name, s in specs.items()]


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


def _arrays(kind: str, arrays: dict[str, Any]) -> Source:
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
        schema=Schema({name: _array_spec(array) for name, array in aligned.items()}),
        roots=[root for array in arrays.values() for root in _array_roots(array)],
    )


def _array_roots(array: Any) -> list[Any]:
    return _roots(convert_legacy_graph(dict(array.__dask_graph__())))


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
    return TensorSpec(dtype=array.dtype, shape=shape)
