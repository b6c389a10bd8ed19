"""The columns of a chunk: filled sample by sample or array by array, and read by row.

A tensor is one column, a tensor of blobs two: the bytes, and ``<name>:shape`` beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob, Layout, Named, shape_column, storage_of

__all__ = [
    "ColumnBuilder",
    "iterate_stored",
    "missing_column",
    "read_class_names",
    "renumber_labels",
    "unify_class_names",
    "view_numbers",
]

#: Memory of the user from this size on is borrowed instead of copied, in bytes.
_BORROW = 64 * 2**20

#: From this size on, memory is filled for the first time faster where numpy allocates it, in bytes.
_LARGE = 4 * 2**20

#: How the numbers of labels with discovered names are stored.
_LABEL = np.dtype("<u4")

#: What one row of a column weighs besides its bytes: an offset and a shape, in bytes.
_ROW = 16


class ColumnBuilder:
    """Collects the values of one tensor for one chunk.

    Parameters
    ----------
    name : str
        Name of the tensor.
    spec : TensorSpec
        What it holds.

    Attributes
    ----------
    rows : int
        Samples so far.
    nbytes : int
        About what they will take in the chunk, in bytes.
    borrowed : bool
        Whether it holds memory of the user that is too large to copy: the chunk must be written
        before the user's code runs again.
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
        #: Class names of this chunk, each with its place.
        self._names: dict[str, int] | None = {} if spec.discover else None

    def append(self, encoded: Any) -> None:
        """Add one sample: what the tensor's codec returned, or None for no value."""
        self.rows += 1
        if isinstance(encoded, Named):
            encoded = encoded.stored([self._place(name) for name in encoded.names])
        layout = self._storage.layout
        if encoded is None:
            self._values.append(None)
            if layout is Layout.BLOB:
                self._shapes.append(None)
            self.nbytes += self._storage_size() if layout is Layout.TENSOR else _ROW
        elif layout is Layout.BLOB:
            data = self._own(encoded.data)
            self._values.append(data)
            self._shapes.append(encoded.shape)
            self.nbytes += len(data) + _ROW
        elif layout is Layout.TENSOR:
            data = self._own(np.ascontiguousarray(encoded).reshape(-1).view(np.uint8).data)
            self._values.append(data)
            self.nbytes += len(data)
        else:
            self._values.append(encoded)
            self.nbytes += _weight(encoded)

    def extend(self, column: pa.Array) -> None:
        """Add many samples: what the tensor's codec returned for a whole column."""
        self._seal()
        self._parts.append(column)
        self.rows += len(column)
        self.nbytes += column.nbytes

    def finish(self) -> list[tuple[pa.Field, pa.Array]]:
        """Return the tensor's columns and forget the samples."""
        shapes = self._shapes
        self._seal()
        parts = self._parts or [_array([], self._spec)]
        column = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
        found = [(self._field(), column)]
        if self._storage.layout is Layout.BLOB:
            shape_type = self._storage.shape_type
            found.append(
                (pa.field(shape_column(self.name), shape_type), _shapes_of(shapes, shape_type))
            )
        self._parts, self._shapes = [], []
        self.rows, self.nbytes, self.borrowed = 0, 0, False
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The chunk's own list of class names."""
        return tuple(self._names or ())

    def _place(self, name: str) -> int:
        """Return the place of a class name in the chunk's own list."""
        names = {} if self._names is None else self._names
        if name not in names:
            names[name] = len(names)
            self.nbytes += len(name) + _ROW
        return names[name]

    def _own(self, data: Any) -> Any:
        """Return bytes that nobody can change before the chunk is written."""
        if isinstance(data, bytes):
            return data
        if len(data) >= _BORROW:
            self.borrowed = True
            return data
        return bytes(data)

    def _seal(self) -> None:
        if self._values:
            values, self._values = self._values, []
            self._parts.append(_array(values, self._spec))

    def _storage_size(self) -> int:
        element = self._storage.element
        return int(np.prod(self._storage.shape)) * (element.itemsize if element else 1)

    def _field(self) -> pa.Field:
        about: dict[str, Any] = {"layout": str(self._storage.layout)}
        if not self._spec.linked and self._spec.dtype is not None:
            about["dtype"] = str(self._spec.dtype)
        if self._spec.compression is not None:
            about["compression"] = self._spec.compression
        if self._names is not None:
            about["names"] = list(self._names)
        return pa.field(self.name, self._storage.type, metadata=_metadata(about))


def read_class_names(field: pa.Field) -> tuple[str, ...] | None:
    """Return a chunk's own list of class names of a tensor; None where it has none.

    Raises
    ------
    ValueError
        It is no list of names.
    """
    names = _about(field).get("names")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the class names of column {field.name!r} are no list of names")
    return tuple(names)


def renumber_labels(column: pa.Array, indices: npt.NDArray[np.uint32]) -> pa.Array:
    """Return a column of class labels with other numbers.

    Parameters
    ----------
    column : pyarrow.Array
        Labels in any layout; what their bytes say of rows without a value is kept.
    indices : numpy.ndarray
        uint32; the new number of each old one.

    Raises
    ------
    IndexError
        A label is none of the old numbers.
    """
    if not len(column):
        return column
    if pa.types.is_large_binary(column.type):
        return _renumbered_blobs(column, indices)
    rows = column.storage if isinstance(column, pa.ExtensionArray) else column
    width, flat = 1, rows
    if rows is not column:
        width = rows.type.list_size
        flat = rows.values.slice(rows.offset * width, len(rows) * width)
    old = _plain(flat, _LABEL)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    new = np.zeros(len(old), _LABEL)
    present = np.repeat(~missing, width)
    new[present] = indices[old[present]]
    mask = pa.array(missing) if column.null_count else None
    if rows is column:
        return pa.array(new, column.type, mask=missing if column.null_count else None)
    made = pa.FixedSizeListArray.from_arrays(pa.array(new), width, mask=mask)
    return pa.ExtensionArray.from_storage(column.type, made)


def _renumbered_blobs(column: pa.Array, indices: npt.NDArray[np.uint32]) -> pa.Array:
    if column.offset:
        column = pa.concat_arrays([column])  # its own buffers then begin with it
    validity, places, data = column.buffers()
    offsets = np.frombuffer(places, np.int64, len(column) + 1)
    count = int(offsets[-1] - offsets[0]) // _LABEL.itemsize
    old = np.frombuffer(data, _LABEL, count, int(offsets[0])) if count else np.zeros(0, _LABEL)
    new = indices[old].astype(_LABEL, copy=False)
    buffers = [validity, pa.py_buffer(offsets - offsets[0]), pa.py_buffer(new)]
    return pa.Array.from_buffers(column.type, len(column), buffers, null_count=column.null_count)


def unify_class_names(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return chunks with one list of class names for each tensor that has lists of its own."""
    lists: dict[str, dict[str, int]] = {}
    for batch in batches:
        for field in batch.schema:
            for name in read_class_names(field) or ():
                places = lists.setdefault(field.name, {})
                places.setdefault(name, len(places))
    return [_with_names(batch, lists) for batch in batches] if lists else list(batches)


def _with_names(batch: pa.RecordBatch, lists: Mapping[str, dict[str, int]]) -> pa.RecordBatch:
    fields, columns = list(batch.schema), list(batch.columns)
    for i, field in enumerate(fields):
        own, places = read_class_names(field), lists.get(field.name, {})
        if own is not None:
            about = {**_about(field), "names": list(places)}
            fields[i] = field.with_metadata(_metadata(about))
            columns[i] = renumber_labels(
                columns[i], np.array([places[name] for name in own], _LABEL)
            )
    schema = pa.schema(fields, metadata=batch.schema.metadata)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _about(field: pa.Field) -> dict[str, Any]:
    """Return what a column's field says of it."""
    text = (field.metadata or {}).get(b"dasklake", b"{}")
    about: dict[str, Any] = json.loads(text)
    return about


def _metadata(about: Mapping[str, Any]) -> dict[str, str]:
    return {"dasklake": json.dumps(about, separators=(",", ":"))}


def missing_column(spec: TensorSpec, rows: int) -> tuple[pa.Array, pa.Array | None]:
    """Return the columns of a tensor that has no value in any of some samples."""
    builder = ColumnBuilder("", spec)
    for _ in range(rows):
        builder.append(None)
    columns = [array for _, array in builder.finish()]
    return columns[0], columns[1] if len(columns) > 1 else None


def iterate_stored(column: pa.Array, shapes: pa.Array | None, spec: TensorSpec) -> Iterator[Any]:
    """Yield a copy of what each sample stores, for the tensor's codec to decode; None for no value.

    Parameters
    ----------
    column : pyarrow.Array
        The tensor's column.
    shapes : pyarrow.Array or None
        Its column of shapes, for blobs.
    spec : TensorSpec
        What it holds.
    """
    storage = storage_of(spec)
    if storage.layout is Layout.BLOB:
        yield from _blobs(column, shapes)
    elif storage.element is None:
        yield from column.to_pylist()
    else:
        # Each sample may be changed by its reader, so none may share the memory of the chunk.
        numbers = view_numbers(column, spec).copy()
        if column.null_count:
            present = column.is_valid().to_numpy(zero_copy_only=False)
            yield from (each if ok else None for each, ok in zip(numbers, present, strict=True))
        else:
            yield from numbers


def view_numbers(column: pa.Array, spec: TensorSpec) -> npt.NDArray[Any]:
    """Return a column of numbers of one shape as an array, axis 0 = samples, without a copy.

    Rows without a value hold whatever lies there; bools come out as bools, times as ``int64``.
    """
    storage = storage_of(spec)
    if storage.layout is Layout.TENSOR:
        rows = column.storage
        width = int(np.prod(storage.shape))
        flat = rows.values.slice(rows.offset * width, len(rows) * width)
        return _plain(flat, storage.element).reshape(len(rows), *storage.shape)
    return _plain(column, storage.element)


def _plain(column: pa.Array, element: Any) -> npt.NDArray[Any]:
    """View the numbers of a primitive column; bools are unpacked."""
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
    _, places, data = column.buffers()
    start = column.offset
    offsets = np.frombuffer(places, np.int64, count=len(column) + 1, offset=8 * start).tolist()
    view = memoryview(data) if data is not None else memoryview(b"")
    present = column.is_valid().to_pylist()
    for i, shape in enumerate(shapes.to_pylist()):
        data = bytearray(view[offsets[i] : offsets[i + 1]])
        yield Blob(memoryview(data), tuple(shape)) if present[i] else None


def _array(values: list[Any], spec: TensorSpec) -> pa.Array:
    storage = storage_of(spec)
    if storage.layout is Layout.BLOB:
        return _binary(values)
    if storage.element is None:
        return pa.array(values, type=storage.type, from_pandas=True)
    missing = np.fromiter((value is None for value in values), bool, len(values))
    if storage.layout is Layout.TENSOR:
        return _tensors(values, storage.type, missing)
    mask = missing if missing.any() else None
    numbers = np.array([0 if value is None else value for value in values], storage.element)
    if pa.types.is_boolean(storage.type):
        return pa.array(numbers.astype(bool), mask=mask, from_pandas=False)
    if not pa.types.is_temporal(storage.type):
        return pa.array(numbers, storage.type, mask=mask, from_pandas=False)
    # Through int64: Arrow would make nulls of times that are no times.
    return pa.array(numbers, pa.int64(), mask=mask).view(storage.type)


def _tensors(values: list[Any], column: pa.DataType, missing: npt.NDArray[np.bool_]) -> pa.Array:
    elements = int(np.prod(column.shape))
    if missing.any():
        zeros = bytes(elements * column.value_type.bit_width // 8)
        values = [zeros if value is None else value for value in values]
    data = _joined(values)
    flat = pa.Array.from_buffers(column.value_type, elements * len(missing), [None, data])
    mask = pa.array(missing) if missing.any() else None
    rows = pa.FixedSizeListArray.from_arrays(flat, elements, mask=mask)
    return pa.ExtensionArray.from_storage(column, rows)


def _binary(values: list[Any]) -> pa.Array:
    lengths = [0, *(0 if value is None else len(value) for value in values)]
    offsets = np.cumsum(np.array(lengths, np.int64))
    present = np.fromiter((value is not None for value in values), bool, len(values))
    missing = int(len(values) - present.sum())
    validity = pa.py_buffer(np.packbits(present, bitorder="little")) if missing else None
    data = _joined([value for value in values if value is not None])
    buffers = [validity, pa.py_buffer(offsets), data]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers, null_count=missing)


def _joined(pieces: list[Any]) -> pa.Buffer:
    """Return the bytes of all pieces; a lone piece is not copied."""
    size = sum(map(len, pieces))
    if len(pieces) == 1 or size < _LARGE:
        return pa.py_buffer(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    # Large arrays of numpy lie in large pages: twice as fast to fill for the first time.
    found = np.empty(size, np.uint8)
    view, at = found.data, 0
    for piece in pieces:
        view[at : at + len(piece)] = piece
        at += len(piece)
    return pa.py_buffer(found)


def _shapes_of(shapes: list[tuple[int, ...] | None], shape_type: Any) -> pa.Array:
    if pa.types.is_fixed_size_list(shape_type):
        rank = shape_type.list_size
        flat = [axis for shape in shapes for axis in (shape if shape is not None else (0,) * rank)]
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.int64()), type=shape_type)
    return pa.array([shape or () for shape in shapes], shape_type)


def _weight(value: Any) -> int:
    if isinstance(value, str):
        return len(value) + _ROW
    if isinstance(value, dict):
        return sum(_weight(each) for each in value.values())
    return int(getattr(value, "nbytes", 0)) or _ROW
