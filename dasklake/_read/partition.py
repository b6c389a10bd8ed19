"""Read some tensors of consecutive chunks on a worker, as samples, frames or arrays."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, pairwise, repeat
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from dasklake._codecs.compression import max_decoded_size
from dasklake._codecs.registry import codec_for
from dasklake._codecs.sample import Sample
from dasklake._format.columns import iterate_stored, missing_column, view_numbers
from dasklake._read.chunk_reader import MALFORMED
from dasklake._read.column_checks import checked_part, fetch_rows
from dasklake._read.corruption import warn_once
from dasklake._read.decoder import Decoder, is_decoded
from dasklake._read.frame_index import stored_index
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.pandas_columns import Part, dtype_of, scalar_part, series_of
from dasklake._read.plan import ChunkLocation
from dasklake._read.tensor_columns import is_inexact, tensor_column
from dasklake._read.tensor_dtype import TensorDtype
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    LakeError,
    ObjectNotFoundError,
    SampleError,
)

#: Kinds of dtypes that can represent a missing value.
_NULLABLE_KINDS = "fcmM"


def _columns(
    origin: Origin, parts: Sequence[ChunkLocation], names: Sequence[str]
) -> list[dict[str, Part | None]]:
    """Fetch some tensors of some parts of one chunk; None for tensors that it does not have."""
    schema, location = origin.schema, parts[0]
    stored_names = {name: origin.stored_name(name, location) for name in names}
    specs = {stored: schema[name] for name, stored in stored_names.items() if stored is not None}
    if not specs:
        return [dict.fromkeys(names)] * len(parts)
    whole = not any(part.is_part for part in parts)
    chunk = open_chunk(origin, location, whole=whole and len(names) == len(schema))
    try:
        if whole:
            chunk.load_tensors(specs)
        else:
            fetch_rows(chunk, specs, [(part.begin, part.stop) for part in parts])
        return [
            {
                name: None if stored is None else checked_part(chunk, stored, schema[name], rows)
                for name, stored in stored_names.items()
            }
            for part in parts
            for rows in [(part.begin, part.stop) if part.is_part else None]
        ]
    except ObjectNotFoundError as error:
        raise origin.missing(location.key) from error


def _read_chunks(
    origin: Origin, locations: Sequence[ChunkLocation], names: Sequence[str]
) -> Iterator[tuple[ChunkLocation, dict[str, Part | None]]]:
    """Yield chunks with their columns. With ``on_corrupt="skip"``, skip damaged chunks."""
    for _, group in groupby(locations, key=attrgetter("key")):
        parts = list(group)
        try:
            columns = _columns(origin, parts, names)
        except CorruptionError as error:
            if origin.on_corrupt == "raise":
                raise
            warn_once(origin.store.url, parts[0], error)
            continue
        yield from zip(parts, columns, strict=True)


def _values(part: Part | None, spec: TensorSpec, rows: int) -> Iterable[Any]:
    """Return the stored values of a tensor in a chunk; None for no value."""
    return repeat(None, rows) if part is None else iterate_stored(*part, spec)


def read_rows(
    origin: Origin, locations: Sequence[ChunkLocation], names: Sequence[str] | None = None
) -> Iterator[Sample]:
    """Yield the samples of some chunks, in order. Values are decoded on first access."""
    schema = origin.schema
    names = list(schema) if names is None else names
    decoder = Decoder({name: schema[name] for name in names}, origin.keys, origin.limits)
    for location, columns in _read_chunks(origin, locations, names):
        stored = [_values(columns[name], schema[name], len(location.span)) for name in names]
        rows = zip(*stored, strict=True) if stored else repeat((), len(location.span))
        decode = partial(decoder.sample_or_skip, origin, names)
        # A variable would keep each sample alive while the next one is decoded.
        yield from filter(is_decoded, map(decode, rows, location.span))


def read_frame(
    locations: Sequence[ChunkLocation],
    *,
    origin: Origin,
    columns: Sequence[str] | None = None,
    index: Sequence[str] = (),
    stored: Collection[str] = (),
) -> pd.DataFrame:
    """Return one partition of a frame, indexed by some tensors or by the row number.

    Columns of ``stored`` tensors hold stored values if pandas cannot hold them exactly.
    """
    schema = origin.frame_schema
    shown = list(schema) if columns is None else list(columns)
    names = list(dict.fromkeys((*shown, *index)))
    read = list(_read_chunks(origin, locations, names))
    if not read:
        return empty_frame(schema, shown, index, stored)
    series = {}
    for name in names:
        spec = origin.schema[name]
        parts = [
            columns[name] or missing_column(spec, len(location.span)) for location, columns in read
        ]
        try:
            exact = name in stored and name not in index
            if name in origin.scalars and not exact:
                parts, spec = [scalar_part(part, spec) for part in parts], schema[name]
            column = tensor_column(parts, spec, origin.keys, origin.limits) if exact else None
            series[name] = series_of(parts, spec) if column is None else column
        except LakeError:
            raise
        except MALFORMED as error:
            raise _mismatch_error(error, name, [location for location, _ in read]) from error
    labels = stored_index(series, schema, index)
    # Without columns=, with which pandas before 3 would decode all values.
    frame = pd.DataFrame({name: series[name] for name in shown}, copy=False)
    if not shown:
        frame = pd.DataFrame(columns=pd.Index(shown))
    frame.index = _index([location for location, _ in read]) if labels is None else labels
    return frame


def _index(locations: Sequence[ChunkLocation]) -> pd.Index:
    """Return the row numbers of some chunks in the version."""
    spans = [location.span for location in locations]
    if all(a.stop == b.start for a, b in pairwise(spans)):
        return pd.RangeIndex(spans[0].start, spans[-1].stop)
    return pd.Index(np.concatenate([np.array(span, np.int64) for span in spans]))


def _mismatch_error(
    error: Exception, name: str, locations: Sequence[ChunkLocation]
) -> CorruptionError:
    """Return the error for chunks that do not match the schema."""
    return CorruptionError(
        f"Tensor {name!r} of samples {locations[0].span[0]} to {locations[-1].span[-1]} "
        f"does not match the schema ({error}). Restore {locations[0].key} and the chunks after it."
    )


def empty_frame(
    schema: Mapping[str, TensorSpec],
    names: Sequence[str],
    index: Sequence[str] = (),
    stored: Collection[str] = (),
) -> pd.DataFrame:
    """Return a frame without rows, with the dtypes of the schema. See :func:`read_frame`."""
    columns = {
        name: _empty_column(_dtype(schema[name], exact=name in stored and name not in index))
        for name in (*names, *index)
    }
    labels = stored_index(columns, schema, index)
    frame = pd.DataFrame(columns, columns=pd.Index(names), index=pd.RangeIndex(0))
    return frame if labels is None else frame.set_axis(labels, axis=0)


def _empty_column(dtype: Any) -> pd.Series:
    """Return a column without rows."""
    if isinstance(dtype, pd.ArrowDtype):
        # Arrow converts no list to arrays of a fixed shape with a permutation, not even an empty one.
        return pd.Series(
            pd.arrays.ArrowExtensionArray(pa.chunked_array([], type=dtype.pyarrow_dtype))
        )
    return pd.Series([], dtype=dtype)


def _dtype(spec: TensorSpec, *, exact: bool) -> Any:
    return TensorDtype(spec) if exact and is_inexact(spec) else dtype_of(spec)


def read_array(locations: Sequence[ChunkLocation], origin: Origin, name: str) -> npt.NDArray[Any]:
    """Return one block of an array; axis 0 is the samples.

    Raises
    ------
    InvalidInputError
        A sample has no value, and the dtype cannot represent that.
    """
    spec = origin.spec_of(name)
    shape = array_shape(name, spec)
    dtype = np.dtype(str(spec.dtype))
    rows = sum(len(location.span) for location in locations)
    size = rows * math.prod(shape) * dtype.itemsize
    if size > max_decoded_size(sum(location.size for location in locations)):
        raise _mismatch_error(ValueError(f"{size} bytes"), name, locations)
    array = np.empty((rows, *shape), dtype)
    begin = 0
    for _, group in groupby(locations, key=attrgetter("key")):
        parts = list(group)
        end = begin + sum(len(part.span) for part in parts)
        _fill_chunk(array[begin:end], origin, parts, name)
        begin = end
    return array


def _fill_chunk(
    rows: npt.NDArray[Any], origin: Origin, parts: Sequence[ChunkLocation], name: str
) -> None:
    """Copy the values of some parts of one chunk into some rows of an array."""
    spec = origin.schema[name]
    try:
        columns = _columns(origin, parts, [name])
    except CorruptionError as error:
        # The shape is fixed, so rows cannot be left out, only be marked as missing.
        if origin.on_corrupt == "raise" or rows.dtype.kind not in _NULLABLE_KINDS:
            raise
        warn_once(origin.store.url, parts[0], error)
        rows[...] = _missing_value(rows.dtype)
        return
    begin = 0
    for location, values in zip(parts, columns, strict=True):
        count = len(location.span)
        block, part = rows[begin : begin + count], values[name]
        begin += count
        column, shapes = missing_column(spec, count) if part is None else part
        try:
            _fill(block, column, shapes, spec, location.span.start)
        except SampleError as error:
            raise SampleError(error.message, tensor=name, sample=error.sample) from error
        except LakeError:
            raise
        except MALFORMED as error:
            raise _mismatch_error(error, name, [location]) from error
        _mark_missing(block, column, location, name)


def _fill(block: npt.NDArray[Any], column: Any, shapes: Any, spec: TensorSpec, first: int) -> None:
    """Copy the values of a chunk into a block."""
    if storage_of(spec).layout is not Layout.BLOB:
        flat = np.ascontiguousarray(view_numbers(column, spec)).reshape(len(block), -1)
        block[...] = flat.view(block.dtype).reshape(block.shape)
        return
    codec = codec_for(spec)
    for i, stored in enumerate(iterate_stored(column, shapes, spec)):
        if stored is not None:
            try:
                value: Any = codec.decode(stored)
            except SampleError as error:
                raise SampleError(error.message, sample=str(first + i)) from error
            if value.shape != block.shape[1:]:
                # numpy would broadcast a smaller value.
                raise ValueError(f"a sample has the shape {value.shape}")
            block[i] = value


def array_shape(name: str, spec: TensorSpec) -> tuple[int, ...]:
    """Return the fixed shape of the samples of a tensor.

    Raises
    ------
    InvalidInputError
        The tensor does not contain numbers of fixed shape.
    """
    if spec.linked or spec.numpy_dtype is None or spec.shape is None or None in spec.shape:
        raise InvalidInputError(
            f"Tensor {name!r} cannot be an array: its samples are not numbers of fixed shape. Use "
            "to_dask_bag() or to_dask_dataframe()."
        )
    return tuple(axis for axis in spec.shape if axis is not None)


def _mark_missing(block: npt.NDArray[Any], column: Any, location: ChunkLocation, name: str) -> None:
    """Mark the rows without a value as missing."""
    if not column.null_count:
        return
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if block.dtype.kind not in _NULLABLE_KINDS:
        row = location.span[int(np.flatnonzero(missing)[0])]
        raise InvalidInputError(
            f"Tensor {name!r} has no value in sample {row}, and {block.dtype} cannot represent that. "
            "Use to_dask_bag() or to_dask_dataframe()."
        )
    block[missing] = _missing_value(block.dtype)


def _missing_value(dtype: np.dtype[Any]) -> Any:
    """Return the representation of a missing value."""
    return "NaT" if dtype.kind in "mM" else math.nan
