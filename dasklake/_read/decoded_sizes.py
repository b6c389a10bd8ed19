"""Decoded sizes of the samples of a chunk, from the schema and the stored shapes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._codecs.decoded_size import bytes_of_shape, bytes_of_shapes, expands
from dasklake._read.chunk_reader import MALFORMED, OpenChunk, column_of_type
from dasklake._read.column_slices import ColumnSlice, load_slices, own_ranges
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.plan import ChunkLocation, Sizes
from dasklake._schema.arrow_layout import Layout, shape_column, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import CorruptionError

#: Chunks whose shapes are read at the same time.
_THREADS = 8


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


def _row_bytes(spec: TensorSpec) -> int | None:
    """Return the decoded bytes of any value of a tensor, or None if they differ."""
    if spec.linked or not spec.fixed or spec.numpy_dtype is None or spec.encoded:
        return None
    return bytes_of_shape(spec, spec.shape or ())


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
    return np.maximum(stored, bytes_of_shapes(spec, shapes, stored))
