"""The columns of a chunk: built from samples or whole arrays, and read by row.

A tensor has one column. A tensor of blobs has two: the bytes, and their shapes in ``<name>:shape``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._schema.arrow_layout import Layout, python_values, shape_column, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob, UnresolvedLabels

#: Values of at least this size are borrowed instead of copied, in bytes.
_BORROW_BYTES = 64 * 2**20

#: Memory of at least this size is filled faster the first time if numpy allocates it, in bytes.
_LARGE_BYTES = 4 * 2**20

#: The stored type of labels with discovered names.
_LABEL = np.dtype("<u4")

#: Bytes of a row besides its value: an offset and a shape.
_ROW_BYTES = 16


class ColumnBuilder:
    """A collector of the values of one tensor for one chunk.

    Parameters
    ----------
    name : str
        Name of the tensor.
    spec : TensorSpec
        Its description.

    Attributes
    ----------
    rows : int
        Number of samples so far.
    nbytes : int
        Approximate size of the samples in the chunk, in bytes.
    borrowed : bool
        Whether it refers to the user's memory, which is too large to copy. The chunk must then be
        written before the user's code runs again.
    """

    name: str
    rows: int
    nbytes: int
    borrowed: bool

    def __init__(self, name: str, spec: TensorSpec) -> None:
        self.name = name
        self.rows = 0
        self.nbytes = 0
        self.borrowed = False
        self._spec = spec
        self._storage = storage_of(spec)
        self._values: list[Any] = []
        self._shapes: list[tuple[int, ...] | None] = []
        self._parts: list[pa.Array] = []
        #: Class names of this chunk, each with its position.
        self._names: dict[str, int] | None = {} if spec.may_discover else None

    def append(self, encoded: Any) -> None:
        """Add one sample, as the tensor's codec returned it, or None for no value."""
        self.rows += 1
        if isinstance(encoded, UnresolvedLabels):
            encoded = encoded.stored([self._position(name) for name in encoded.names])
        layout = self._storage.layout
        if encoded is None:
            self._values.append(None)
            if layout is Layout.BLOB:
                self._shapes.append(None)
            self.nbytes += self._fixed_size() if layout is Layout.TENSOR else _ROW_BYTES
        elif layout is Layout.BLOB:
            data = self._own_bytes(encoded.data)
            self._values.append(data)
            self._shapes.append(encoded.shape)
            self.nbytes += len(data) + _ROW_BYTES
        elif layout is Layout.TENSOR:
            data = self._own_bytes(np.ascontiguousarray(encoded).reshape(-1).view(np.uint8).data)
            self._values.append(data)
            self.nbytes += len(data)
        else:
            self._values.append(encoded)
            self.nbytes += _size_of(encoded)

    def extend(self, column: pa.Array) -> None:
        """Add many samples, as the tensor's codec returned them for a whole column."""
        self._seal()
        self._parts.append(column)
        self.rows += len(column)
        self.nbytes += column.nbytes

    def finish(self) -> list[tuple[pa.Field, pa.Array]]:
        """Return the tensor's columns and clear the samples."""
        shapes = self._shapes
        self._seal()
        parts = self._parts or [_array([], self._spec)]
        column = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
        columns = [(self._field(), column)]
        if self._storage.layout is Layout.BLOB:
            shape_type = self._storage.shape_type
            field = pa.field(shape_column(self.name), shape_type)
            columns.append((field, _shapes_array(shapes, shape_type)))
        self._parts, self._shapes = [], []
        self.rows, self.nbytes, self.borrowed = 0, 0, False
        return columns

    @property
    def names(self) -> tuple[str, ...]:
        """Return the chunk's own list of class names."""
        return tuple(self._names or ())

    def _position(self, name: str) -> int:
        """Return the position of a class name in the chunk's own list, to which it is added."""
        names = {} if self._names is None else self._names
        if name not in names:
            names[name] = len(names)
            self.nbytes += len(name) + _ROW_BYTES
        return names[name]

    def _own_bytes(self, data: Any) -> Any:
        """Return bytes that the user cannot change before the chunk is written."""
        if isinstance(data, bytes):
            return data
        if len(data) >= _BORROW_BYTES:
            self.borrowed = True
            return data
        return bytes(data)

    def _seal(self) -> None:
        if self._values:
            values, self._values = self._values, []
            self._parts.append(_array(values, self._spec))

    def _fixed_size(self) -> int:
        element = self._storage.element
        return int(np.prod(self._storage.shape)) * (element.itemsize if element else 1)

    def _field(self) -> pa.Field:
        metadata: dict[str, Any] = {"layout": str(self._storage.layout)}
        if not self._spec.linked and self._spec.dtype is not None:
            metadata["dtype"] = str(self._spec.dtype)
        if self._spec.compression is not None:
            metadata["compression"] = self._spec.compression
        if self._names or self._spec.discover:
            metadata["names"] = list(self._names or ())
        return pa.field(self.name, self._storage.type, metadata=encode_metadata(metadata))


def decode_metadata(field: pa.Field) -> dict[str, Any]:
    text = (field.metadata or {}).get(b"dasklake", b"{}")
    metadata: dict[str, Any] = json.loads(text)
    return metadata


def encode_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {"dasklake": json.dumps(metadata, separators=(",", ":"))}


def missing_column(spec: TensorSpec, rows: int) -> tuple[pa.Array, pa.Array | None]:
    """Return the columns of a tensor without a value in any of ``rows`` samples."""
    builder = ColumnBuilder("", spec)
    for _ in range(rows):
        builder.append(None)
    columns = [array for _, array in builder.finish()]
    return columns[0], columns[1] if len(columns) > 1 else None


def iterate_stored(column: pa.Array, shapes: pa.Array | None, spec: TensorSpec) -> Iterator[Any]:
    """Yield a copy of each sample's stored value for the tensor's codec, or None for no value.

    Parameters
    ----------
    column : pyarrow.Array
        The tensor's column.
    shapes : pyarrow.Array or None
        Its column of shapes, for blobs.
    spec : TensorSpec
        Its description.
    """
    storage = storage_of(spec)
    if storage.layout is Layout.BLOB:
        yield from _blobs(column, shapes)
    elif storage.element is None:
        yield from python_values(column)
    else:
        # A reader may change its sample, so samples must not share the memory of the chunk.
        numbers = view_numbers(column, spec).copy()
        if column.null_count:
            present = column.is_valid().to_numpy(zero_copy_only=False)
            yield from (row if ok else None for row, ok in zip(numbers, present, strict=True))
        else:
            yield from numbers


def view_numbers(column: pa.Array, spec: TensorSpec) -> npt.NDArray[Any]:
    """View a column of numbers of one shape as an array with samples on axis 0.

    Rows without a value have arbitrary numbers. Bools are unpacked, times are ``int64``.
    """
    storage = storage_of(spec)
    if storage.layout is Layout.TENSOR:
        rows = column.storage
        width = int(np.prod(storage.shape))
        flat = rows.values.slice(rows.offset * width, len(rows) * width)
        return view_primitive(flat, storage.element).reshape(len(rows), *storage.shape)
    return view_primitive(column, storage.element)


def view_primitive(column: pa.Array, element: Any) -> npt.NDArray[Any]:
    """View the numbers of a primitive column, without a copy unless they are bools."""
    data = column.buffers()[1]
    if data is None or not len(column):
        return np.zeros(len(column), bool if pa.types.is_boolean(column.type) else element)
    if pa.types.is_boolean(column.type):
        stop = column.offset + len(column)
        bits = np.frombuffer(data, np.uint8)[: -(-stop // 8)]
        return np.unpackbits(bits, count=stop, bitorder="little")[column.offset :].view(bool)
    return np.frombuffer(data, element, count=len(column), offset=column.offset * element.itemsize)


def _blobs(column: pa.Array, shapes: Any) -> Iterator[Blob | None]:
    if not len(column):
        return
    _, offset_buffer, data = column.buffers()
    start = column.offset
    offsets = np.frombuffer(
        offset_buffer, np.int64, count=len(column) + 1, offset=8 * start
    ).tolist()
    view = memoryview(data) if data is not None else memoryview(b"")
    present = column.is_valid().to_pylist()
    for i, shape in enumerate(shapes.to_pylist()):
        data = bytearray(view[offsets[i] : offsets[i + 1]])
        yield Blob(memoryview(data), tuple(shape)) if present[i] else None


def _array(values: list[Any], spec: TensorSpec) -> pa.Array:
    storage = storage_of(spec)
    if storage.layout is Layout.BLOB:
        return _blob_array(values)
    if storage.element is None:
        return _arrow_array(values, storage.type)
    missing = np.fromiter((value is None for value in values), bool, len(values))
    if storage.layout is Layout.TENSOR:
        return _tensor_array(values, storage.type, missing)
    mask = missing if missing.any() else None
    numbers = np.array([0 if value is None else value for value in values], storage.element)
    if pa.types.is_boolean(storage.type):
        return pa.array(numbers.astype(bool), mask=mask, from_pandas=False)
    if not pa.types.is_temporal(storage.type):
        return pa.array(numbers, storage.type, mask=mask, from_pandas=False)
    # Through int64, because Arrow would convert NaT to null.
    return pa.array(numbers, pa.int64(), mask=mask).view(storage.type)


def _tensor_array(
    values: list[Any], column: pa.DataType, missing: npt.NDArray[np.bool_]
) -> pa.Array:
    elements = int(np.prod(column.shape))
    if missing.any():
        zeros = bytes(elements * column.value_type.bit_width // 8)
        values = [zeros if value is None else value for value in values]
    data = _join_bytes(values)
    flat = pa.Array.from_buffers(column.value_type, elements * len(missing), [None, data])
    mask = pa.array(missing) if missing.any() else None
    rows = pa.FixedSizeListArray.from_arrays(flat, elements, mask=mask)
    return pa.ExtensionArray.from_storage(column, rows)


def _blob_array(values: list[Any]) -> pa.Array:
    lengths = [0, *(0 if value is None else len(value) for value in values)]
    offsets = np.cumsum(np.array(lengths, np.int64))
    present = np.fromiter((value is not None for value in values), bool, len(values))
    missing = int(len(values) - present.sum())
    validity = pa.py_buffer(np.packbits(present, bitorder="little")) if missing else None
    data = _join_bytes([value for value in values if value is not None])
    buffers = [validity, pa.py_buffer(offsets), data]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers, null_count=missing)


def _join_bytes(pieces: list[Any]) -> pa.Buffer:
    """Join bytes. A single piece is not copied."""
    size = sum(map(len, pieces))
    if len(pieces) == 1 or size < _LARGE_BYTES:
        return pa.py_buffer(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    # numpy allocates large arrays in large pages, which are filled twice as fast the first time.
    joined = np.empty(size, np.uint8)
    view, offset = joined.data, 0
    for piece in pieces:
        view[offset : offset + len(piece)] = piece
        offset += len(piece)
    return pa.py_buffer(joined)


def _shapes_array(shapes: list[tuple[int, ...] | None], shape_type: Any) -> pa.Array:
    if pa.types.is_fixed_size_list(shape_type):
        rank = shape_type.list_size
        flat = [axis for shape in shapes for axis in (shape if shape is not None else (0,) * rank)]
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.int64()), type=shape_type)
    return pa.array([shape or () for shape in shapes], shape_type)


def _size_of(value: Any) -> int:
    if isinstance(value, str):
        return len(value) + _ROW_BYTES
    if isinstance(value, dict):
        return sum(_size_of(item) for item in value.values())
    if isinstance(value, pa.Scalar):
        return _size_of_scalar(value)
    return int(getattr(value, "nbytes", 0)) or _ROW_BYTES


def _size_of_scalar(value: pa.Scalar) -> int:
    """Return the size of an Arrow scalar of any type, in bytes."""
    if isinstance(value, pa.BinaryScalar):
        data = value.as_buffer()
        return _ROW_BYTES + (0 if data is None else int(data.size))
    if not pa.types.is_nested(value.type):
        return _ROW_BYTES
    return int(_arrow_array([value], value.type).nbytes)


def _arrow_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return values or Arrow scalars as an array. NaN is a number, not a missing value."""
    if isinstance(kind, pa.BaseExtensionType):
        stored = [v.value if isinstance(v, pa.ExtensionScalar) else v for v in values]
        return pa.ExtensionArray.from_storage(kind, _arrow_array(stored, kind.storage_type))
    try:
        return pa.array(values, kind, from_pandas=False)
    except NotImplementedError:  # scalars with parts of some types, such as null
        plain = [v.as_py() if isinstance(v, pa.Scalar) else v for v in values]
        return pa.array(plain, kind, from_pandas=False)
