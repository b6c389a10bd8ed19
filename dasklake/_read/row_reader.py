"""Single samples by byte range: where the parts of one row lie, and what they say.

A row of a column is read in two steps. First the parts whose places are known from the row's
number alone: validity, offsets, shapes, numbers of one shape. Then the bytes that the offsets
point to. Both steps ask the chunk to fetch pages; pages that are there cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._read.chunk_reader import MALFORMED, OpenChunk, column_of_type
from dasklake._read.class_labels import label_indices
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob, Layout, shape_column, storage_of
from dasklake.exceptions import InvalidInputError

__all__ = ["RowReader"]

_Range = tuple[int, int]

Shape = tuple[int, ...]


class _Column(Protocol):
    """The rows of one column."""

    def known(self, row: int) -> list[_Range]:
        """Return the parts whose places follow from the row's number."""

    def pointed(self, row: int) -> Sequence[_Range]:
        """Return the bytes that the known parts point to."""

    def value(self, row: int) -> Any:
        """Return what the row stores, once all its parts are there; None for no value."""


class RowReader:
    """Reads single rows of some tensors of one chunk.

    Parameters
    ----------
    chunk : OpenChunk
        The chunk.
    specs : mapping of str to TensorSpec
        The tensors.
    stored : callable
        Returns what the chunk calls a tensor; None where it does not have it.
    """

    def __init__(
        self,
        chunk: OpenChunk,
        specs: Mapping[str, TensorSpec],
        stored: Callable[[str], str | None] = lambda name: name,
    ) -> None:
        self.chunk = chunk
        self._specs = specs
        self._stored = stored
        self._columns: dict[str, _Column] = {}
        #: Of labels with class names of the chunk's own: the index of each.
        self._indices: dict[str, npt.NDArray[np.uint32]] = {}

    def read(self, row: int, names: Sequence[str]) -> list[Any]:
        """Return what each tensor stores for a row, copied; None for no value."""
        columns = [self._columns.get(name) or self._open(name) for name in names]
        load = self.chunk.load
        load([part for column in columns for part in column.known(row)])
        try:
            pointed = [part for column in columns for part in column.pointed(row)]
            if pointed:
                load(pointed)
            found = [column.value(row) for column in columns]
            return self._labelled(found, names) if self._indices else found
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def read_many(self, rows: Sequence[int], names: Sequence[str]) -> list[list[Any]]:
        """Return what each tensor stores for some rows, fetched together."""
        columns = [self._columns.get(name) or self._open(name) for name in names]
        self.chunk.load([part for c in columns for row in rows for part in c.known(row)])
        try:
            self.chunk.load([part for c in columns for row in rows for part in c.pointed(row)])
            found = [[column.value(row) for column in columns] for row in rows]
            return [self._labelled(each, names) for each in found] if self._indices else found
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def _labelled(self, values: list[Any], names: Sequence[str]) -> list[Any]:
        """Return what a row stores, with the version's indices of its labels."""
        for i, name in enumerate(names):
            indices, value = self._indices.get(name), values[i]
            if indices is None or value is None:
                continue
            if isinstance(value, Blob):
                data = indices[np.frombuffer(value.data, np.uint32)].tobytes()
                values[i] = Blob(memoryview(bytearray(data)), value.shape)
            else:
                values[i] = indices[value]
        return values

    def block(self, begin: int, end: int, name: str) -> npt.NDArray[Any] | None:
        """Return the numbers of consecutive rows, still those of the chunk.

        None where they are not numbers of one shape, or a row has no value.
        """
        column = self._columns.get(name) or self._open(name)
        if not isinstance(column, _Numbers):
            return None
        self.chunk.load(column.span(begin, end))
        if not column.validity.all(begin, end):
            return None
        try:
            return self._labelled([column.view[begin:end]], [name])[0]  # type: ignore[no-any-return] # what it was given
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def shapes(self, name: str) -> list[Shape | None]:
        """Return the shape of each row's value, whose bytes are not fetched; None for no value.

        Raises
        ------
        InvalidInputError
            Shapes are not stored.
        """
        column = self._columns.get(name) or self._open(name)
        rows = range(self.chunk.location.rows)
        if isinstance(column, _Nothing):
            return [None] * len(rows)
        if isinstance(column, _Blobs | _Links | _Numbers) and column.shaped:
            first, last = column.shape_parts(rows[0]), column.shape_parts(rows[-1])
            self.chunk.load([(a[0], b[1]) for a, b in zip(first, last, strict=True)])
            has = column.validity.has
            try:
                return [column.shape(row) if has(row) else None for row in rows]
            except MALFORMED as error:
                raise self.chunk.mismatch_error(error) from error
        raise InvalidInputError(
            f"The shapes of tensor {name!r} are not stored. Those of links are where they were "
            "written with verify=True."
        )

    def _open(self, name: str) -> _Column:
        try:
            column = self._columns[name] = self._column(name)
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error
        return column

    def _column(self, name: str) -> _Column:
        memory = self.chunk.head.memory
        batch = self.chunk.head.batch
        storage = storage_of(self._specs[name])
        stored = self._stored(name)
        if stored is None:
            return _Nothing()
        column = column_of_type(batch, stored, storage.type)
        indices = label_indices(batch.schema.field(stored), self._specs[name])
        if indices is not None:
            self._indices[name] = indices
        if storage.layout is Layout.BLOB:
            shapes = column_of_type(batch, shape_column(stored), storage.shape_type)
            return _Blobs(memory, column, shapes)
        if storage.layout is Layout.TENSOR:
            flat = column.storage.values
            return _Numbers(memory, column.storage, flat, storage.element, storage.shape)
        if pa.types.is_boolean(storage.type):
            return _Bits(memory, column)
        if storage.element is not None:
            return _Numbers(memory, column, column, storage.element, ())
        if pa.types.is_large_string(storage.type):
            return _Strings(memory, column)
        if self._specs[name].linked:
            return _Links(memory, column)
        return _Whole(column, self.chunk.head.spans(stored))


class _Nothing:
    """A tensor that the chunk does not have, because it was added later."""

    def known(self, row: int) -> list[_Range]:  # noqa: ARG002 # nothing lies anywhere
        """Nothing."""
        return []

    def pointed(self, row: int) -> Sequence[_Range]:  # noqa: ARG002 # the same for every row
        """Nothing."""
        return ()

    def value(self, row: int) -> Any:
        """No value."""


class _Validity:
    """The bits that say which rows have a value."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        self.memory = memory
        self.start = _start(memory, column.buffers()[0], -(-len(column) // 8))

    def part(self, row: int) -> list[_Range]:
        """Return where the row's bit lies."""
        if self.start is None:
            return []
        place = self.start + (row >> 3)
        return [(place, place + 1)]

    def has(self, row: int) -> bool:
        """Whether the row has a value."""
        return self.start is None or bool(self.memory[self.start + (row >> 3)] >> (row & 7) & 1)

    def all(self, begin: int, end: int) -> bool:
        """Whether all rows from ``begin`` to before ``end`` have a value."""
        return self.start is None or all(map(self.has, range(begin, end)))


class _Numbers:
    """Numbers of one shape."""

    def __init__(
        self,
        memory: npt.NDArray[np.uint8],
        column: Any,
        flat: Any,
        element: Any,
        shape: tuple[int, ...],
    ) -> None:
        self.validity = _Validity(memory, column)
        self.width = math.prod(shape) * element.itemsize
        self.scalar = not shape
        count = len(column)
        self.start = _start(memory, flat.buffers()[1], count * self.width) or 0
        self.view = memory[self.start : self.start + count * self.width].view(element)
        if shape:
            self.view = self.view.reshape(count, *shape)
        self._shape = shape
        self.shaped = True

    def shape_parts(self, row: int) -> list[_Range]:
        """Return where validity lies."""
        return self.validity.part(row)

    def shape(self, row: int) -> Shape:  # noqa: ARG002 # the same for every row
        """Return the shape of a value."""
        return self._shape

    def known(self, row: int) -> list[_Range]:
        """Return where validity and numbers lie."""
        begin = self.start + row * self.width
        return [*self.validity.part(row), (begin, begin + self.width)]

    def span(self, begin: int, end: int) -> list[_Range]:
        """Return where validity and numbers of all rows from ``begin`` to before ``end`` lie."""
        pairs = zip(self.known(begin), self.known(end - 1), strict=True)
        return [(first[0], last[1]) for first, last in pairs]

    def pointed(self, row: int) -> Sequence[_Range]:  # noqa: ARG002 # the same for every row
        """Nothing."""
        return ()

    def value(self, row: int) -> Any:
        """Return a scalar, or an array of its own."""
        if not self.validity.has(row):
            return None
        return self.view[row] if self.scalar else self.view[row].copy()


class _Bits:
    """Bools."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        self.memory = memory
        self.validity = _Validity(memory, column)
        self.start = _start(memory, column.buffers()[1], -(-len(column) // 8)) or 0

    def known(self, row: int) -> list[_Range]:
        """Return where validity and the bit lie."""
        place = self.start + (row >> 3)
        return [*self.validity.part(row), (place, place + 1)]

    def pointed(self, row: int) -> Sequence[_Range]:  # noqa: ARG002 # the same for every row
        """Nothing."""
        return ()

    def value(self, row: int) -> Any:
        """Return a bool."""
        if not self.validity.has(row):
            return None
        return np.bool_(self.memory[self.start + (row >> 3)] >> (row & 7) & 1)


class _Bytes:
    """Pieces of bytes behind offsets of 32 or 64 bits."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        self.memory = memory
        self.bytes = memory.data
        self.validity = _Validity(memory, column)
        _, offsets, data = column.buffers()
        kind = column.type
        long = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
        self.width = 8 if long else 4
        size = (len(column) + 1) * self.width if len(column) else 0
        self.at = _start(memory, offsets, size) or 0
        self.offsets = memory[self.at : self.at + size].view(np.int64 if long else np.int32)
        self.start = _start(memory, data, 0) or 0
        self.size = 0 if data is None else data.size

    def known(self, row: int) -> list[_Range]:
        """Return where validity and two offsets lie."""
        begin = self.at + row * self.width
        return [*self.validity.part(row), (begin, begin + 2 * self.width)]

    def pointed(self, row: int) -> Sequence[_Range]:
        """Return where the bytes lie."""
        begin, end = self.offsets[row : row + 2].tolist()
        if not 0 <= begin <= end <= self.size:
            raise ValueError("a value lies outside of its column")
        return ((self.start + begin, self.start + end),)

    def piece(self, row: int) -> memoryview:
        """Return the bytes, still those of the chunk."""
        begin, end = self.offsets[row : row + 2].tolist()
        return self.bytes[self.start + begin : self.start + end]


class _Strings(_Bytes):
    """Text."""

    def value(self, row: int) -> Any:
        """Return a string."""
        return str(self.piece(row), "utf-8") if self.validity.has(row) else None


class _Blobs(_Bytes):
    """Bytes with a shape beside them."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any, shapes: Any) -> None:
        super().__init__(memory, column)
        self.shapes: _FixedShapes | _FreeShapes = (
            _FixedShapes(memory, shapes)
            if pa.types.is_fixed_size_list(shapes.type)
            else _FreeShapes(memory, shapes)
        )

        self.shaped = True

    def shape_parts(self, row: int) -> list[_Range]:
        """Return where validity and shape lie."""
        return [*self.validity.part(row), *self.shapes.known(row)]

    def shape(self, row: int) -> Shape:
        """Return the shape of a value."""
        return self.shapes.value(row)

    def known(self, row: int) -> list[_Range]:
        """Return where validity, offsets and shape lie."""
        return [*super().known(row), *self.shapes.known(row)]

    def value(self, row: int) -> Any:
        """Return a blob of its own."""
        if not self.validity.has(row):
            return None
        return Blob(memoryview(bytearray(self.piece(row))), self.shapes.value(row))


class _FixedShapes:
    """Shapes of one rank."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        rank = column.type.list_size
        self.width = 8 * rank
        size = len(column) * self.width
        self.start = _start(memory, column.values.buffers()[1], size) or 0
        axes = memory[self.start : self.start + len(column) * self.width].view(np.int64)
        self.view = axes.reshape(len(column), rank)

    def known(self, row: int) -> list[_Range]:
        """Return where the axes lie."""
        begin = self.start + row * self.width
        return [(begin, begin + self.width)]

    def value(self, row: int) -> tuple[int, ...]:
        """Return the shape."""
        return tuple(self.view[row].tolist())


class _FreeShapes:
    """Shapes of any rank; all of them are fetched, which is little beside their data."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        buffers = [each for each in column.buffers() if each is not None and each.size]
        self.column = column
        self.parts = [_range(memory, each) for each in buffers]
        self.sound = False

    def known(self, row: int) -> list[_Range]:  # noqa: ARG002 # the same for every row
        """Return where all shapes lie."""
        return self.parts

    def value(self, row: int) -> tuple[int, ...]:
        """Return the shape."""
        if not self.sound:
            self.column.validate(full=True)
            self.sound = True
        return tuple(self.column[row].as_py())


class _Links:
    """What links say, and what is known of their targets."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        self.validity = _Validity(memory, column)
        self.fields = {
            field.name: _field(memory, column.field(i)) for i, field in enumerate(column.type)
        }
        self.shaped = "shape" in self.fields

    def shape_parts(self, row: int) -> list[_Range]:
        """Return where validity and shape lie."""
        return [*self.validity.part(row), *self.fields["shape"].known(row)]

    def shape(self, row: int) -> Shape | None:
        """Return the shape of a target; None where nobody knows it."""
        found = self.fields["shape"].value(row)
        return None if found is None else tuple(found)

    def known(self, row: int) -> list[_Range]:
        """Return where validity, offsets, numbers and shapes lie."""
        parts = (part for each in self.fields.values() for part in each.known(row))
        return [*self.validity.part(row), *parts]

    def pointed(self, row: int) -> Sequence[_Range]:
        """Return where the strings lie."""
        return [part for each in self.fields.values() for part in each.pointed(row)]

    def value(self, row: int) -> Any:
        """Return all of it by name."""
        if not self.validity.has(row):
            return None
        return {name: each.value(row) for name, each in self.fields.items()}


def _field(memory: npt.NDArray[np.uint8], column: Any) -> _Column:
    """Return the rows of one field of a link."""
    if pa.types.is_fixed_size_list(column.type):
        return _Axes(memory, column)
    if pa.types.is_list(column.type):
        return _Whole(column, [_range(memory, each) for each in column.buffers() if each])
    if pa.types.is_integer(column.type):
        return _Numbers(memory, column, column, np.dtype("int64"), ())
    return _Strings(memory, column)


class _Axes:
    """Shapes of one rank, where not every target has one."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        self.validity = _Validity(memory, column)
        self.shapes = _FixedShapes(memory, column)

    def known(self, row: int) -> list[_Range]:
        """Return where validity and axes lie."""
        return [*self.validity.part(row), *self.shapes.known(row)]

    def pointed(self, row: int) -> Sequence[_Range]:  # noqa: ARG002 # the same for every row
        """Nothing."""
        return ()

    def value(self, row: int) -> Any:
        """Return the shape; None where it is not known."""
        return self.shapes.value(row) if self.validity.has(row) else None


class _Whole:
    """Any other type of Arrow: the whole column is fetched, and Arrow reads it."""

    def __init__(self, column: Any, spans: list[_Range]) -> None:
        self.column = column
        self.spans = spans
        self.sound = False

    def known(self, row: int) -> list[_Range]:  # noqa: ARG002 # the same for every row
        """Return where the whole column lies."""
        return self.spans

    def pointed(self, row: int) -> Sequence[_Range]:  # noqa: ARG002 # the same for every row
        """Nothing."""
        return ()

    def value(self, row: int) -> Any:
        """Return the value as Python knows it."""
        if not self.sound:
            # Before Arrow follows what the bytes say, it looks whether they can be followed.
            self.column.validate(full=True)
            self.sound = True
        return self.column[row].as_py()


def _start(memory: npt.NDArray[np.uint8], buffer: Any, size: int) -> int | None:
    """Return where a buffer of at least ``size`` bytes begins; None where it is left out."""
    if buffer is None:
        return None
    if buffer.size < size:
        raise ValueError(f"a column has {buffer.size} bytes, not {size}")
    return buffer.address - memory.ctypes.data if buffer.size else None


def _range(memory: npt.NDArray[np.uint8], buffer: Any) -> _Range:
    start = buffer.address - memory.ctypes.data
    return start, start + buffer.size
