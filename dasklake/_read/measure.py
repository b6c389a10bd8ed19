"""Measure the statistics of tensors in a chunk that does not have them, by reading its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._format.statistics import measure, presence
from dasklake._model.statistics import TensorStatistics
from dasklake._read.chunk_reader import MALFORMED, OpenChunk, column_of_type
from dasklake._read.column_checks import checked_part
from dasklake._read.column_slices import ColumnSlice, load_slices, own_ranges
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.plan import ChunkLocation
from dasklake._read.statistics import Converter
from dasklake._schema.arrow_layout import Layout, shape_column, storage_of
from dasklake._schema.measurable import has_values
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import ObjectNotFoundError

#: Offsets of samples in a chunk, in any order; None for all samples.
Offsets = npt.NDArray[np.int64] | None


def measure_chunk(
    origin: Origin, location: ChunkLocation, names: Sequence[str], offsets: Offsets = None
) -> dict[str, TensorStatistics]:
    """Return exact statistics of some tensors in a chunk.

    Of values that are not scalars or labels, only shapes are fetched.

    Parameters
    ----------
    origin : Origin
        The version.
    location : ChunkLocation
        The chunk.
    names : sequence of str
        The tensors.
    offsets : numpy.ndarray, optional
        int64: the samples. By default, all.

    Raises
    ------
    CorruptionError
        The chunk is damaged, or does not match the schema.
    """
    rows = location.rows if offsets is None else len(offsets)
    statistics = {}
    chunk: OpenChunk | None = None
    for name in names:
        stored = origin.stored_name(name, location)
        if stored is None:
            statistics[name] = TensorStatistics(rows, nulls=rows)
            continue
        try:
            chunk = chunk or open_chunk(origin, location)
            statistics[name] = _measure(chunk, stored, origin.schema[name], offsets)
        except ObjectNotFoundError as error:
            raise origin.missing(location.key) from error
    return statistics


def _measure(chunk: OpenChunk, name: str, spec: TensorSpec, offsets: Offsets) -> TensorStatistics:
    if has_values(spec):
        chunk.load_tensors([name])
        column, shapes = checked_part(chunk, name, spec)
    else:
        column, shapes = _presence(chunk, name, spec)
    try:
        if offsets is not None:
            column = _take(column, offsets)
            shapes = None if shapes is None else _take(shapes, offsets)
        entry = measure(column, shapes, spec, exact=True)
        statistics = Converter(spec)(entry, len(column))
        if statistics is None:
            raise ValueError(f"tensor {name!r} has impossible shapes")
    except MALFORMED as error:
        raise chunk.mismatch_error(error) from error
    return statistics


def _presence(chunk: OpenChunk, name: str, spec: TensorSpec) -> tuple[pa.Array, pa.Array | None]:
    """Return a column that shows which samples have a value, and the shapes of the values."""
    batch, storage, rows = chunk.head.batch, storage_of(spec), chunk.head.rows
    try:
        column = column_of_type(batch, name, storage.type)
        chunk.load(own_ranges(chunk.head.memory, ColumnSlice(column, 0, rows)))
        shapes = None
        if storage.layout is Layout.BLOB:
            shapes = column_of_type(batch, shape_column(name), storage.shape_type)
            (shapes,) = load_slices(chunk, [ColumnSlice(shapes, 0, rows)])
            shapes.validate(full=True)
    except MALFORMED as error:
        raise chunk.mismatch_error(error) from error
    return presence(column), shapes


def _take(column: Any, offsets: npt.NDArray[np.int64]) -> pa.Array:
    indices = pa.array(offsets)
    if isinstance(column, pa.ExtensionArray):
        return pa.ExtensionArray.from_storage(column.type, column.storage.take(indices))
    return column.take(indices)
