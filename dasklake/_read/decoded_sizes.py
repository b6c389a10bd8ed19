"""Decoded sizes of the samples of a chunk, from the schema and the stored shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._codecs.sequence import item_locations
from dasklake._read.chunk_reader import MALFORMED, OpenChunk, column_of_type
from dasklake._read.column_slices import ColumnSlice, load_slices, own_ranges
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.plan import ChunkLocation, Sizes
from dasklake._schema.arrow_layout import Layout, shape_column, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import CorruptionError

#: Chunks whose shapes are read at the same time.
_THREADS = 8

#: Sizes beyond this number of bytes only have to be large.
_MAX_SIZE = 2**50


def decoded_sizes(
    origin: Origin,
    locations: Sequence[ChunkLocation],
    names: Sequence[str],
    blocksize: int,
    *,
    frame: bool,
    fetch: bool = True,
) -> list[Sizes]:
    """Return the decoded bytes of some tensors in some chunks.

    The shapes of a chunk are read only if the schema and the size of the chunk do not show that it
    has at most ``blocksize`` decoded bytes.

    Parameters
    ----------
    origin : Origin
        The version.
    locations : sequence of ChunkLocation
        Whole chunks.
    names : sequence of str
        The tensors.
    blocksize : int
        Size up to which the exact size is not needed, in bytes.
    frame : bool
        Whether the values are those of a frame, in which files are not decoded.
    fetch : bool, default True
        Whether shapes may be fetched. Else the stored size counts.

    Returns
    -------
    list of (int or numpy.ndarray)
        One number for each chunk, or one for each of its rows.
    """
    specs = {name: origin.schema[name] for name in names}
    widths = {name: _row_bytes(spec) for name, spec in specs.items()}
    fixed = sum(width for width in widths.values() if width is not None)
    ragged = {name: specs[name] for name, width in widths.items() if width is None}
    expanding = any(expands(spec, frame=frame) for spec in ragged.values())

    def size(location: ChunkLocation) -> Sizes:
        bound = fixed * location.rows + (location.size if ragged else 0)
        if not (fetch and ragged) or (bound <= blocksize and not expanding):
            return bound
        try:
            return fixed + _row_sizes(origin, location, ragged, frame=frame)
        except CorruptionError:
            return bound  # raised or skipped when the chunk is read

    if not (fetch and ragged) or len(locations) < 2:
        return [size(location) for location in locations]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(size, locations))


def expands(spec: TensorSpec, *, frame: bool) -> bool:
    """Return whether values can be larger in memory than in a chunk.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    frame : bool
        Whether the values are those of a frame, in which files are not decoded.
    """
    item = spec.item if spec.sequence else spec
    if item.linked:
        return False
    if item.kind.codec == "image":
        return not (frame and item.encoded)
    if item.kind.codec == "mask":
        return True
    return item.kind.codec == "array" and item.compression is not None and not item.encoded


def _row_bytes(spec: TensorSpec) -> int | None:
    """Return the decoded bytes of any value of a tensor, or None if they differ."""
    if spec.linked or not spec.fixed or spec.numpy_dtype is None or spec.encoded:
        return None
    return _decoded(spec, spec.shape or ())


def _decoded(spec: TensorSpec, shape: Sequence[Any]) -> int:
    """Return the decoded bytes of a value of some shape."""
    width = 1 if spec.numpy_dtype is None else spec.numpy_dtype.itemsize
    elements: int = math.prod(max(0, axis) for axis in shape)
    return min(_MAX_SIZE, elements * width)


def _row_sizes(
    origin: Origin, location: ChunkLocation, specs: dict[str, TensorSpec], *, frame: bool
) -> npt.NDArray[np.int64]:
    """Return the decoded bytes of each row of a chunk, without reading values."""
    chunk = open_chunk(origin, location)
    sizes = np.zeros(location.rows, np.int64)
    for name, spec in specs.items():
        stored = origin.stored_name(name, location)
        if stored is not None:
            try:
                sizes += _column_sizes(chunk, stored, spec, frame=frame)
            except MALFORMED as error:
                raise chunk.mismatch_error(error) from error
    return sizes


def _column_sizes(
    chunk: OpenChunk, name: str, spec: TensorSpec, *, frame: bool
) -> npt.NDArray[np.int64]:
    rows, batch, storage = chunk.head.rows, chunk.head.batch, storage_of(spec)
    column = column_of_type(batch, name, storage.type)
    kind = storage.type
    if not (pa.types.is_large_binary(kind) or pa.types.is_large_string(kind)):
        # Of other types, an average is enough: they are hardly larger in memory.
        total = sum(stop - start for start, stop in chunk.head.spans(name))
        return np.full(rows, -(-total // max(rows, 1)), np.int64)
    chunk.load(own_ranges(chunk.head.memory, ColumnSlice(column, 0, rows)))
    offsets = np.frombuffer(column.buffers()[1], np.int64, rows + 1)
    stored: npt.NDArray[np.int64] = offsets[1:] - offsets[:-1]
    if (stored < 0).any() or stored.sum() > chunk.head.size:
        raise ValueError("the offsets of a column decrease")
    if storage.layout is not Layout.BLOB or not expands(spec, frame=frame):
        return stored
    shapes = column_of_type(batch, shape_column(name), storage.shape_type)
    (shapes,) = load_slices(chunk, [ColumnSlice(shapes, 0, rows)])
    shapes.validate(full=True)
    return np.maximum(stored, _shaped_sizes(shapes, stored, spec))


def _shaped_sizes(
    shapes: pa.Array, stored: npt.NDArray[np.int64], spec: TensorSpec
) -> npt.NDArray[np.int64]:
    """Return the decoded bytes of values from their shapes, or from the directories of lists."""
    if pa.types.is_fixed_size_list(shapes.type):
        axes = shapes.flatten().to_numpy(zero_copy_only=False).reshape(len(shapes), -1)
        products = np.maximum(axes, 0).astype(float).prod(axis=1) * _decoded(spec, ())
        sizes: npt.NDArray[np.int64] = np.minimum(products, _MAX_SIZE).astype(np.int64)
        return sizes
    rows = shapes.to_pylist()
    if not spec.sequence:
        return np.array([_decoded(spec, shape or ()) for shape in rows], np.int64)
    item = spec.item
    lists = [
        item_locations(tuple(row), size) if size and row else []
        for row, size in zip(rows, stored.tolist(), strict=True)
    ]
    return np.array([sum(_decoded(item, one.shape) for one in items) for items in lists], np.int64)
