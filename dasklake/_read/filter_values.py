"""Read the columns that a filter compares from a chunk, and nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._codecs.registry import codec_for
from dasklake._format.columns import iterate_stored
from dasklake._read.chunk_reader import MALFORMED, OpenChunk, column_of_type
from dasklake._read.column_checks import checked_part
from dasklake._read.column_slices import ColumnSlice, load_slices
from dasklake._read.filter_columns import FilterColumn, arrow_type
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.pandas_columns import Part
from dasklake._read.plan import ChunkLocation
from dasklake._schema.arrow_layout import Layout, shape_column, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError, LakeError, ObjectNotFoundError, SampleError

__all__ = ["read_filter_columns"]

#: The integer that numpy shows as NaT.
_NAT = np.iinfo(np.int64).min


def read_filter_columns(
    origin: Origin, location: ChunkLocation, columns: Mapping[str, FilterColumn]
) -> dict[str, pa.Array]:
    """Return the columns of all rows of a chunk.

    Raises
    ------
    CorruptionError
        The chunk is damaged.
    SampleError
        A value cannot be decoded.
    """
    schema = origin.schema
    chunk = open_chunk(origin, location)
    stored_names = {c.tensor: origin.stored_name(c.tensor, location) for c in columns.values()}
    try:
        values = {c.tensor for c in columns.values() if _needs_values(c)}
        stored = {name: stored_names[name] for name in values}
        chunk.load_tensors(name for name in stored.values() if name is not None)
        parts = {
            name: checked_part(chunk, stored_name, schema[name])
            for name, stored_name in stored.items()
            if stored_name is not None
        }
        read = {}
        for name, column in columns.items():
            spec, stored_name = schema[column.tensor], stored_names[column.tensor]
            if stored_name is None:
                read[name] = pa.nulls(location.rows, arrow_type(column, spec))
            elif column.tensor in parts and _needs_values(column):
                read[name] = _compared(column, spec, parts[column.tensor], location.first)
            else:
                read[name] = _lengths(chunk, stored_name, spec, column.axis)
    except ObjectNotFoundError as error:
        raise origin.missing(location.key) from error
    except SampleError as error:
        raise _located(error, location) from error
    except LakeError:
        raise
    except MALFORMED as error:
        raise chunk.mismatch_error(error) from error
    return read


def _needs_values(column: FilterColumn) -> bool:
    return column.part != "axis"


def _located(error: SampleError, location: ChunkLocation) -> SampleError:
    samples = f"{location.first} to {location.first + location.rows - 1}"
    return SampleError(error.message, tensor=error.tensor, sample=error.sample or samples)


def _compared(column: FilterColumn, spec: TensorSpec, part: Part, first: int) -> pa.Array:
    """Return what is compared of the values of a tensor."""
    values, shapes = part
    if column.part == "contains":
        return _contains(column.item, spec, values, shapes)
    if column.part == "characters":
        return pc.cast(pc.utf8_length(values), pa.int64())
    if storage_of(spec).layout is Layout.BLOB:
        values = _scalars(column.tensor, values, shapes, spec, first)
    if column.part == "name":
        return _names(values, spec.class_names or ())
    return _as_type(values, arrow_type(column, spec), spec.numpy_dtype)


def _scalars(tensor: str, values: Any, shapes: Any, spec: TensorSpec, first: int) -> pa.Array:
    """Return scalars that are stored as bytes, because any shape is allowed or they are compressed.

    Raises
    ------
    InvalidInputError
        A value is not a scalar.
    """
    element = np.dtype(storage_of(spec).element)
    missing = values.is_null().to_numpy(zero_copy_only=False).astype(bool)
    if pa.types.is_list(shapes.type):
        several = ~missing & (np.diff(shapes.offsets.to_numpy()) > 0)
        if several.any():
            row = int(np.flatnonzero(several)[0])
            raise InvalidInputError(
                f"Tensor {tensor!r} has the shape {tuple(shapes[row].as_py())} in sample "
                f"{first + row}, so it does not have one value for each sample. Compare its items: "
                f"({tensor!r}, 'contains', item), or its shape: ({tensor + '.n_objects'!r}, '>', 0)."
            )
    numbers = np.zeros(len(values), element)
    if spec.compression is None:
        numbers[~missing] = np.frombuffer(b"".join(values.drop_null().to_pylist()), element)
    else:
        codec = codec_for(spec)
        for row, stored in enumerate(iterate_stored(values, shapes, spec)):
            if stored is not None:
                numbers[row] = np.asarray(codec.decode(stored)).view(element)[()]
    dtype = spec.numpy_dtype
    flags = dtype is not None and dtype.kind == "b"
    return pa.array(numbers.astype(bool) if flags else numbers, mask=missing)


def _names(labels: pa.Array, names: tuple[str, ...]) -> pa.Array:
    """Return the names of classes."""
    indices = labels.cast(pa.int64())
    valid = pc.if_else(pc.less(indices, len(names)), indices, pa.scalar(None, pa.int64()))
    return pa.array(names, pa.string()).take(valid)


def _as_type(values: Any, kind: pa.DataType, dtype: np.dtype[Any] | None) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if dtype is None or dtype.kind not in "mM":
        return values if values.type == kind else values.cast(kind)
    numbers = values.cast(pa.int64())
    times = numbers.fill_null(_NAT).to_numpy().view(dtype)
    unit = {"s": "s", "ms": "ms", "us": "us", "ns": "ns"}[kind.unit]
    converted = times.astype(f"{dtype.kind}8[{unit}]")
    if (converted.astype(dtype) != times)[~np.isnat(times)].any():
        raise OverflowError(f"a time of {dtype} is outside of {converted.dtype}")
    return pa.array(converted, kind)


def _contains(item: Any, spec: TensorSpec, values: Any, shapes: Any) -> pa.Array:
    """Return whether one of the items of each value equals an item."""
    storage = storage_of(spec)
    plain = storage.layout is Layout.BLOB and storage.element is not None
    if plain and not spec.sequence and spec.compression is None and spec.kind.codec == "array":
        occurs = _in_lists(values, spec.numpy_dtype, item)
        return pa.array(occurs, mask=values.is_null().to_numpy(zero_copy_only=False))
    codec = codec_for(spec)
    stored = iterate_stored(values, shapes, spec)
    return pa.array(
        [None if value is None else _has(codec.decode(value), item) for value in stored], pa.bool_()
    )


def _in_lists(values: Any, dtype: Any, item: Any) -> npt.NDArray[np.bool_]:
    """Return whether an item occurs in each value, given their bytes."""
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1]
    data = values.buffers()[2]
    begin, end = (int(offsets[0]), int(offsets[-1])) if len(values) else (0, 0)
    flat = np.frombuffer(data, np.uint8)[begin:end].view(dtype) if end > begin else np.empty(0)
    occurs = np.zeros(len(values), bool)
    owners = np.repeat(np.arange(len(values)), np.diff(offsets) // np.dtype(dtype).itemsize)
    occurs[owners[flat == item]] = True
    return occurs


def _has(value: Any, item: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):
        return bool((value == item).any())
    return any(_has(v, item) if isinstance(v, np.ndarray | list) else v == item for v in value)


def _lengths(chunk: OpenChunk, name: str, spec: TensorSpec, axis: int) -> pa.Array:
    """Return the length of an axis of each value, without the values."""
    storage, batch = storage_of(spec), chunk.head.batch
    rows = chunk.location.rows
    column = column_of_type(batch, name, storage.type)
    missing = ~_validity(chunk, column, rows)
    if storage.layout is Layout.BLOB:
        shapes = column_of_type(batch, shape_column(name), storage.shape_type)
    elif spec.linked:
        shapes = column.field("shape")
    else:
        shape = spec.shape or ()
        return pa.array(np.full(rows, shape[axis], np.int64), mask=missing)
    (loaded,) = load_slices(chunk, [ColumnSlice(shapes, 0, rows)])
    loaded.validate(full=True)
    lengths, unknown = _axis_of(loaded, axis)
    return pa.array(lengths, pa.int64(), mask=missing | unknown)


def _validity(chunk: OpenChunk, column: Any, rows: int) -> npt.NDArray[np.bool_]:
    """Return which rows have a value."""
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    bits = storage.buffers()[0]
    if bits is None:
        return np.ones(rows, bool)
    start = bits.address - chunk.head.memory.ctypes.data
    size = -(-rows // 8)
    if bits.size < size:
        raise ValueError(f"a column has {bits.size} bytes, not {size}")
    chunk.load([(start, start + size)])
    packed = chunk.head.memory[start : start + size]
    return np.unpackbits(packed, count=rows, bitorder="little").astype(bool)


def _axis_of(shapes: Any, axis: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the length of an axis, and which shapes do not have it."""
    unknown = shapes.is_null().to_numpy(zero_copy_only=False).astype(bool)
    if pa.types.is_fixed_size_list(shapes.type):
        rank = shapes.type.list_size
        starts = (np.arange(len(shapes)) + shapes.offset) * rank
        ranks = np.full(len(shapes), rank)
        if not -rank <= axis < rank:
            raise IndexError(f"shapes have {rank} axes")
    else:
        offsets = shapes.offsets.to_numpy()
        starts, ranks = offsets[:-1].astype(np.int64), np.diff(offsets)
    unknown |= (ranks <= axis) if axis >= 0 else (ranks < -axis)
    axes = shapes.values.fill_null(0).to_numpy(zero_copy_only=False)
    positions = np.where(unknown, 0, starts + axis + (ranks if axis < 0 else 0))
    if not len(axes):
        return np.zeros(len(shapes), np.int64), unknown
    return axes[positions].astype(np.int64), unknown
