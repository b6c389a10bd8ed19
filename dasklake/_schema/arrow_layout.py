"""Layout of a tensor's values in Arrow columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from dasklake._schema.schema import TensorSpec

#: Arrow counts the elements of a child array in 32 bits.
_MAX_ELEMENTS = 2**31 - 1

#: Fields of a link.
_LINK = (("url", pa.large_string()), ("creds_key", pa.string()))

#: Fields that describe the target of a link.
_LINK_INFO = (("size", pa.int64()), ("etag", pa.large_string()), ("format", pa.large_string()))


class Layout(StrEnum):
    """Layouts of a tensor in a chunk."""

    ARROW = "arrow"
    """A column of the value's own Arrow type: scalars, strings, links, columns of tables."""
    TENSOR = "tensor"
    """``arrow.fixed_shape_tensor``: numbers of a fixed shape."""
    BLOB = "blob"
    """A ``large_binary`` column and a column of shapes: ragged or compressed values."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Columns that hold the values of one tensor.

    Attributes
    ----------
    layout : Layout
        Layout of the values.
    type : pyarrow.DataType
        Type of the tensor's column.
    element : numpy.dtype or None
        Stored type of the numbers: bool as ``uint8``, complex as a pair of floats, times as
        ``int64``. None for strings and Arrow's own types.
    shape : tuple of int
        Stored shape, for ``Layout.TENSOR``.
    shape_type : pyarrow.DataType or None
        Type of the column of shapes, for ``Layout.BLOB``.
    """

    layout: Layout
    type: pa.DataType
    element: np.dtype[Any] | None = None
    shape: tuple[int, ...] = ()
    shape_type: pa.DataType | None = None


def python_values(column: pa.Array) -> list[Any]:
    """Return the values of a column as Python has them.

    A time of day with nanoseconds, which Python does not have, stays a scalar of Arrow.
    """
    if column.type != pa.time64("ns"):
        return list(column.to_pylist())
    return [v if v.is_valid and v.value % 1000 else v.as_py() for v in column]


def shape_column(name: str) -> str:
    """Return the name of the column that holds the shapes of a tensor's blobs."""
    return f"{name}:shape"


def storage_of(spec: TensorSpec) -> Storage:
    """Return the storage of a tensor in a chunk, from its spec alone.

    Examples
    --------
    >>> storage_of(TensorSpec(dtype="float32", shape=(2, 3))).layout
    <Layout.TENSOR: 'tensor'>
    >>> storage_of(TensorSpec("binary_mask")).layout
    <Layout.BLOB: 'blob'>
    """
    if spec.linked:
        return Storage(Layout.ARROW, _link_type(spec))
    if spec.sequence or spec.encoded or spec.kind.codec == "json":
        return Storage(Layout.BLOB, pa.large_binary(), shape_type=_shape_type(spec))
    dtype = spec.numpy_dtype
    if dtype is None:
        return Storage(Layout.ARROW, spec.arrow_type)
    element, pair = _stored(dtype)
    packed = spec.compression is not None or spec.kind.codec != "array"
    if spec.shape == () and not packed and not pair:
        return Storage(Layout.ARROW, _scalar(dtype, element), element)
    if spec.fixed and not packed:
        shape = (*(axis for axis in spec.shape or () if axis is not None), *pair)
        if 0 < math.prod(shape) <= _MAX_ELEMENTS:
            column = pa.fixed_shape_tensor(pa.from_numpy_dtype(element), shape)
            return Storage(Layout.TENSOR, column, element, shape)
    return Storage(Layout.BLOB, pa.large_binary(), element, shape_type=_shape_type(spec))


def _shape_type(spec: TensorSpec) -> pa.DataType:
    rank = None if spec.shape is None or spec.sequence else len(spec.shape)
    return pa.list_(pa.int64(), rank) if rank else pa.list_(pa.int64())


def _link_type(spec: TensorSpec) -> pa.DataType:
    fields = list(_LINK)
    if spec.create_shape_tensor:
        axes = pa.list_(pa.int64(), len(spec.shape)) if spec.shape else pa.list_(pa.int64())
        fields.append(("shape", axes))
    return pa.struct([*fields, *(_LINK_INFO if spec.create_sample_info_tensor else ())])


def _stored(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the stored element type, and the extra axis of a pair of floats."""
    if dtype.kind == "b":
        return np.dtype("uint8"), ()
    if dtype.kind == "c":
        return np.dtype(f"f{dtype.itemsize // 2}"), (2,)
    if dtype.kind in "mM":
        return np.dtype("int64"), ()
    return dtype, ()


def _scalar(dtype: np.dtype[Any], element: np.dtype[Any]) -> pa.DataType:
    if dtype.kind == "b":
        return pa.bool_()
    if dtype.kind in "mM" and np.datetime_data(dtype) in {(u, 1) for u in ("s", "ms", "us", "ns")}:
        return pa.from_numpy_dtype(dtype)
    return pa.from_numpy_dtype(element)
