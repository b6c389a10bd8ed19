"""Bounds-check the columns of a chunk before decoding.

Checksums show that the bytes are those that were written, not that dasklake wrote them. Types,
offsets and shapes are therefore validated before they are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._codecs.compression import max_decoded_size
from dasklake._format.class_names import read_class_names, renumber_labels
from dasklake._read.chunk_reader import MALFORMED, OpenChunk, column_of_type
from dasklake._read.column_slices import ColumnSlice, fetch_slices, load_slices
from dasklake._read.pandas_columns import Part
from dasklake._schema.arrow_layout import Layout, shape_column, storage_of
from dasklake._schema.schema import TensorSpec

#: Maximum product of the axes of a sample without elements, with empty axes counted as 1.
_MOST_EMPTY = 2**28


def checked_part(
    chunk: OpenChunk, name: str, spec: TensorSpec, rows: tuple[int, int] | None = None
) -> Part:
    """Return the validated columns of a tensor, values and shapes.

    Parameters
    ----------
    chunk : OpenChunk
        The chunk.
    name : str
        Name of the tensor in the chunk.
    spec : TensorSpec
        Description of the tensor.
    rows : (int, int), optional
        First row to fetch, and the one after the last. By default, all rows; the tensor must then
        be loaded.

    Raises
    ------
    CorruptionError
        The columns do not match the schema.
    """
    batch = chunk.head.batch
    try:
        columns = _typed_columns(batch, name, spec)
        if rows is not None:
            columns = load_slices(chunk, [ColumnSlice(column, *rows) for column in columns])
        for column in columns:
            column.validate(full=True)
        column, shapes = columns[0], columns[1] if len(columns) > 1 else None
        if shapes is not None:
            _check_shapes(column, shapes, spec)
        indices = label_indices(batch.schema.field(name), spec)
        if indices is not None:
            column = renumber_labels(column, indices)
    except MALFORMED as error:
        raise chunk.mismatch_error(error) from error
    return column, shapes


def fetch_rows(
    chunk: OpenChunk, specs: Mapping[str, TensorSpec], rows: Sequence[tuple[int, int]]
) -> None:
    """Fetch some rows of several tensors together.

    Parameters
    ----------
    chunk : OpenChunk
        The chunk.
    specs : mapping of str to TensorSpec
        The tensors, by their names in the chunk.
    rows : sequence of (int, int)
        First row, and the one after the last, of each part.

    Raises
    ------
    CorruptionError
        The columns do not match the schema.
    """
    batch = chunk.head.batch
    try:
        columns = [c for name, spec in specs.items() for c in _typed_columns(batch, name, spec)]
        fetch_slices(chunk, [ColumnSlice(column, *span) for span in rows for column in columns])
    except MALFORMED as error:
        raise chunk.mismatch_error(error) from error


def _typed_columns(batch: pa.RecordBatch, name: str, spec: TensorSpec) -> list[Any]:
    """Return the column of a tensor, and that of its shapes if it has one."""
    storage = storage_of(spec)
    columns = [column_of_type(batch, name, storage.type)]
    if storage.layout is Layout.BLOB:
        columns.append(column_of_type(batch, shape_column(name), storage.shape_type))
    return columns


def _check_shapes(column: Any, shapes: Any, spec: TensorSpec) -> None:
    """Validate shapes against the sizes of their values."""
    if not len(column):
        return
    if shapes.null_count or shapes.flatten().null_count:
        raise ValueError("a sample has no shape")
    offsets = np.frombuffer(column.buffers()[1], np.int64, len(column) + 1)
    stored = np.diff(offsets)
    axes, elements, spread = _elements(shapes)
    if (axes < 0).any():
        raise ValueError("a sample has a negative length")
    if spec.sequence or spec.encoded or spec.kind.codec not in ("array", "mask"):
        return  # shapes of lists describe items, and files contain their own sizes
    width = spec.numpy_dtype.itemsize if spec.numpy_dtype is not None else 1
    endless = spread[elements == 0] > _MOST_EMPTY
    if endless.any() or (elements * width > max_decoded_size(stored)).any():
        raise ValueError("a sample is far larger than its bytes")
    if spec.compression is None and spec.kind.codec == "array":
        present = column.is_valid().to_numpy(zero_copy_only=False)
        if (np.where(present, elements * width, 0) != stored).any():
            raise ValueError("a sample's bytes are not those of its shape")


def _elements(shapes: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return all axes, the elements of each sample, and its elements with empty axes as 1.

    Products are floats: those beyond the range of integers only have to be large.
    """
    axes = shapes.flatten().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(shapes.type):
        table = axes.reshape(len(shapes), -1).astype(float)
        return axes, table.prod(axis=1), np.maximum(table, 1).prod(axis=1)
    rows = shapes.to_pylist()
    products = [float(min(math.prod(shape), 2**200)) for shape in rows]
    spread = [float(min(math.prod(a or 1 for a in shape), 2**200)) for shape in rows]
    return axes, np.array(products), np.array(spread)


def label_indices(field: pa.Field, spec: TensorSpec) -> npt.NDArray[np.uint32] | None:
    """Return the version's index of each of a chunk's own class names.

    Parameters
    ----------
    field : pyarrow.Field
        Column of the tensor in the chunk.
    spec : TensorSpec
        Description of the tensor in the version.

    Returns
    -------
    numpy.ndarray or None
        None if the chunk stores indices of the version.

    Raises
    ------
    KeyError, ValueError
        A class name of the chunk is not in the version.
    """
    names = read_class_names(field) if spec.discover else None
    if names is None:
        return None
    index = _index(spec.class_names)
    return np.array([index[name] for name in names], np.uint32)


@lru_cache(maxsize=16)
def _index(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name: i for i, name in enumerate(names)}
