"""Single samples by byte range: where the parts of one row lie, and what they say.

A row of a column is read in two steps. First the parts whose places are known from the row's
number alone: validity, offsets, shapes, numbers of one shape. Then the bytes that the offsets
point to. Both steps ask the chunk to fetch pages; pages that are there cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._model.schema import TensorSpec
from dasklake._model.values import Blob, Layout, shape_column, storage_of
from dasklake._read.source import OpenChunk

__all__ = ["RowReader"]

_Range = tuple[int, int]


class _Column(Protocol):
    """The rows of one column."""

    def known(self, row: int) -> list[_Range]:
        """Return the parts whose places follow from the row's number."""

    def pointed(self, row: int) -> _Range | None:
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
    """

    def __init__(self, chunk: OpenChunk, specs: Mapping[str, TensorSpec]) -> None:
        self.chunk = chunk
        self._specs = specs
        self._columns: dict[str, _Column] = {}

    def read(self, row: int, names: Sequence[str]) -> list[Any]:
        """Return what each tensor stores for a row, copied; None for no value."""
        columns = [self._columns.get(name) or self._open(name) for name in names]
        load = self.chunk.load
        load([part for column in columns for part in column.known(row)])
        pointed = [part for column in columns if (part := column.pointed(row)) is not None]
        if pointed:
            load(pointed)
        return [column.value(row) for column in columns]

    def read_many(self, rows: Sequence[int], names: Sequence[str]) -> list[list[Any]]:
        """Return what each tensor stores for some rows, fetched together."""
        columns = [self._columns.get(name) or self._open(name) for name in names]
        self.chunk.load([part for c in columns for row in rows for part in c.known(row)])
        pointed = [part for c in columns for row in rows if (part := c.pointed(row)) is not None]
        self.chunk.load(pointed)
        return [[column.value(row) for column in columns] for row in rows]

    def block(self, begin: int, end: int, name: str) -> npt.NDArray[Any] | None:
        """Return the numbers of consecutive rows, still those of the chunk.

        None where they are not numbers of one shape, or a row has no value.
        """
        column = self._columns.get(name) or self._open(name)
        if not isinstance(column, _Numbers):
            return None
        self.chunk.load(column.span(begin, end))
        return column.view[begin:end] if column.validity.all(begin, end) else None

    def _open(self, name: str) -> _Column:
        column = self._columns[name] = self._column(name)
        return column

    def _column(self, name: str) -> _Column:
        memory = self.chunk.head.memory
        batch = self.chunk.head.batch
        storage = storage_of(self._specs[name])
        column = batch.column(name)
        if storage.layout is Layout.BLOB:
            return _Blobs(memory, column, batch.column(shape_column(name)))
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
        return _Whole(column, self.chunk.head.spans(name))


class _Validity:
    """The bits that say which rows have a value."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        self.memory = memory
        self.start = _start(memory, column.buffers()[0])

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
        self.start = _start(memory, flat.buffers()[1]) or 0
        self.width = int(np.prod(shape)) * element.itemsize
        self.scalar = not shape
        count = len(column)
        self.view = memory[self.start : self.start + count * self.width].view(element)
        if shape:
            self.view = self.view.reshape(count, *shape)

    def known(self, row: int) -> list[_Range]:
        """Return where validity and numbers lie."""
        begin = self.start + row * self.width
        return [*self.validity.part(row), (begin, begin + self.width)]

    def span(self, begin: int, end: int) -> list[_Range]:
        """Return where validity and numbers of all rows from ``begin`` to before ``end`` lie."""
        pairs = zip(self.known(begin), self.known(end - 1), strict=True)
        return [(first[0], last[1]) for first, last in pairs]

    def pointed(self, row: int) -> _Range | None:
        """Nothing."""

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
        self.start = _start(memory, column.buffers()[1]) or 0

    def known(self, row: int) -> list[_Range]:
        """Return where validity and the bit lie."""
        place = self.start + (row >> 3)
        return [*self.validity.part(row), (place, place + 1)]

    def pointed(self, row: int) -> _Range | None:
        """Nothing."""

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
        self.at = _start(memory, offsets) or 0
        end = self.at + (len(column) + 1) * self.width
        self.offsets = memory[self.at : end].view(np.int64 if long else np.int32)
        self.start = _start(memory, data) or 0

    def known(self, row: int) -> list[_Range]:
        """Return where validity and two offsets lie."""
        begin = self.at + row * self.width
        return [*self.validity.part(row), (begin, begin + 2 * self.width)]

    def pointed(self, row: int) -> _Range | None:
        """Return where the bytes lie."""
        begin, end = self.offsets[row : row + 2].tolist()
        return (self.start + begin, self.start + end)

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
        self.start = _start(memory, column.values.buffers()[1]) or 0
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

    def known(self, row: int) -> list[_Range]:  # noqa: ARG002 # the same for every row
        """Return where all shapes lie."""
        return self.parts

    def value(self, row: int) -> tuple[int, ...]:
        """Return the shape."""
        return tuple(self.column[row].as_py())


class _Links:
    """A URL and the name of its credentials."""

    def __init__(self, memory: npt.NDArray[np.uint8], column: Any) -> None:
        self.validity = _Validity(memory, column)
        self.url = _Strings(memory, column.field(0))
        self.key = _Strings(memory, column.field(1))

    def known(self, row: int) -> list[_Range]:
        """Return where validity and offsets lie."""
        return [*self.validity.part(row), *self.url.known(row), *self.key.known(row)]

    def pointed(self, row: int) -> _Range | None:
        """Return where the bytes of both lie, and what is between them in the column."""
        parts = [p for p in (self.url.pointed(row), self.key.pointed(row)) if p and p[0] < p[1]]
        return (min(p[0] for p in parts), max(p[1] for p in parts)) if parts else None

    def value(self, row: int) -> Any:
        """Return both."""
        if not self.validity.has(row):
            return None
        return {"url": self.url.value(row), "creds_key": self.key.value(row)}


class _Whole:
    """Any other type of Arrow: the whole column is fetched, and Arrow reads it."""

    def __init__(self, column: Any, spans: list[_Range]) -> None:
        self.column = column
        self.spans = spans

    def known(self, row: int) -> list[_Range]:  # noqa: ARG002 # the same for every row
        """Return where the whole column lies."""
        return self.spans

    def pointed(self, row: int) -> _Range | None:
        """Nothing."""

    def value(self, row: int) -> Any:
        """Return the value as Python knows it."""
        return self.column[row].as_py()


def _start(memory: npt.NDArray[np.uint8], buffer: Any) -> int | None:
    return None if buffer is None or not buffer.size else buffer.address - memory.ctypes.data


def _range(memory: npt.NDArray[np.uint8], buffer: Any) -> _Range:
    start = buffer.address - memory.ctypes.data
    return start, start + buffer.size
