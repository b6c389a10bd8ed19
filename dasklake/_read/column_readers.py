"""Read single values of the columns of a chunk by byte range.

A value is read in two steps. The offsets of its fixed-size parts follow from the row number:
validity, offsets, shapes, numbers of fixed shape. They point to the variable-size parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._read.column_slices import Range
from dasklake._read.shape_table import Shape, ShapeTable
from dasklake._schema.values import Blob


class Span(NamedTuple):
    """The bytes of a value in the memory of its chunk, and the stored shape."""

    begin: int
    end: int
    shape: Shape


#: int64: numbers of rows in the chunk.
Rows = npt.NDArray[np.int64]

Memory = npt.NDArray[np.uint8]


class ColumnReader:
    """Reads single rows of one column.

    Parameters
    ----------
    memory : numpy.ndarray
        Bytes of the chunk.
    column : pyarrow.Array
        A view of them.
    """

    #: Whether the shapes of values can be read without the values.
    shaped = False

    #: Offset of the bits of the column's validity, or None if all rows have a value.
    _validity: int | None = None

    def __init__(self, memory: Memory, column: Any) -> None:
        self.memory = memory
        self._validity = _start(memory, column.buffers()[0], -(-len(column) // 8))

    def has(self, row: int) -> bool:
        """Return whether the row has a value."""
        start = self._validity
        return start is None or bool(self.memory[start + (row >> 3)] >> (row & 7) & 1)

    def presence(self, rows: int) -> npt.NDArray[np.bool_]:
        """Return whether each row has a value."""
        if self._validity is None:
            return np.ones(rows, bool)
        bits = self.memory[self._validity : self._validity + -(-rows // 8)]
        return np.unpackbits(bits, count=rows, bitorder="little").view(bool)

    def all_have(self, begin: int, end: int) -> bool:
        """Return whether all rows from ``begin`` to before ``end`` have a value."""
        return self._validity is None or all(map(self.has, range(begin, end)))

    def present(self, rows: Rows) -> npt.NDArray[np.bool_] | None:
        """Return whether each row has a value, or None if all have one."""
        if self._validity is None:
            return None
        octets = self.memory[self._validity + (rows >> 3)]
        bits: npt.NDArray[np.bool_] = (octets >> (rows & 7).astype(np.uint8) & 1).view(np.bool_)
        return bits

    def _bit_ranges(self, row: int) -> list[Range]:
        """Return the range of the row's validity."""
        if self._validity is None:
            return []
        offset = self._validity + (row >> 3)
        return [(offset, offset + 1)]

    def fixed_ranges(self, row: int) -> list[Range]:
        """Return the ranges that follow from the row number."""
        return self._bit_ranges(row)

    def variable_ranges(self, row: int) -> Sequence[Range]:  # noqa: ARG002 # none, by default
        """Return the ranges that the loaded fixed ranges point to."""
        return ()

    def value(self, row: int) -> Any:
        """Return the stored value after all ranges were loaded; None for no value."""
        return self.present_value(row) if self.has(row) else None

    def present_value(self, row: int) -> Any:
        """Return the value of a row that has one."""
        raise NotImplementedError

    def shape_ranges(self, row: int) -> list[Range]:
        """Return the ranges of the validity and the shape of a value."""
        return self._bit_ranges(row)

    def shape_table(self, rows: int, most: int) -> ShapeTable:
        """Return the shapes of all rows after all of their ranges were loaded.

        Parameters
        ----------
        rows : int
            Number of rows.
        most : int
            Number of axes that are read of each shape.
        """
        raise NotImplementedError

    def span_ranges(self, row: int) -> list[Range]:
        """Return the ranges that :meth:`span` needs."""
        return self._bit_ranges(row)

    def span(self, row: int) -> Span:
        """Return the bytes of a value that is stored as bytes."""
        raise NotImplementedError


class MissingColumn(ColumnReader):
    """A tensor that was added after the chunk was written."""

    def __init__(self) -> None:
        """Need no memory."""

    def value(self, row: int) -> Any:
        """Return no value."""


class NumberColumn(ColumnReader):
    """Numbers of fixed shape."""

    shaped = True

    def __init__(
        self,
        memory: Memory,
        column: Any,
        flat: Any,
        element: Any,
        shape: Shape = (),
        axes: int = 0,
    ) -> None:
        super().__init__(memory, column)
        self._shape = shape
        # Without the axis of a pair of floats.
        self._value_shape = shape[:axes]
        self._width = math.prod(shape) * element.itemsize
        size = len(column) * self._width
        self._start = _start(memory, flat.buffers()[1], size) or 0
        #: All rows, whether loaded or not.
        self.view = memory[self._start : self._start + size].view(element)
        if shape:
            self.view = self.view.reshape(len(column), *shape)

    def fixed_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity and numbers."""
        begin = self._start + row * self._width
        return [*self._bit_ranges(row), (begin, begin + self._width)]

    @property
    def width(self) -> int:
        """Bytes of one row."""
        return int(self._width)

    def numbers(self, rows: Rows) -> npt.NDArray[Any]:
        """Return the numbers of some rows, copied; arbitrary ones of rows without a value."""
        numbers: npt.NDArray[Any] = self.view[rows]
        return numbers

    def extents(self, rows: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the first byte of each row in the object, and the one after the last."""
        begin = rows * self._width + self._start
        return begin, begin + self._width

    def present_value(self, row: int) -> Any:
        """Return a scalar, or a copied array."""
        return self.view[row].copy() if self._shape else self.view[row]

    def shape_table(self, rows: int, most: int) -> ShapeTable:  # noqa: ARG002 # one shape
        """Return the shapes of all rows."""
        return ShapeTable.of_one_shape(self._value_shape, self.presence(rows))

    def span(self, row: int) -> Span:
        """Return the bytes of a value."""
        begin = self._start + row * self._width
        return Span(begin, begin + self._width, self._value_shape)


class BoolColumn(ColumnReader):
    """Bools, stored as bits."""

    shaped = True

    def __init__(self, memory: Memory, column: Any) -> None:
        super().__init__(memory, column)
        self._start = _start(memory, column.buffers()[1], -(-len(column) // 8)) or 0

    def fixed_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity and bit."""
        offset = self._start + (row >> 3)
        return [*self._bit_ranges(row), (offset, offset + 1)]

    def numbers(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Return the bools of some rows as 0 and 1; arbitrary ones of rows without a value."""
        octets = self.memory[self._start + (rows >> 3)]
        bits: npt.NDArray[np.uint8] = octets >> (rows & 7).astype(np.uint8) & 1
        return bits

    def present_value(self, row: int) -> np.bool_:
        """Return a bool."""
        return np.bool_(self.memory[self._start + (row >> 3)] >> (row & 7) & 1)

    def shape_table(self, rows: int, most: int) -> ShapeTable:  # noqa: ARG002 # one shape
        """Return the shapes of all rows."""
        return ShapeTable.of_one_shape((), self.presence(rows))


class BytesColumn(ColumnReader):
    """Pieces of bytes, with offsets of 32 or 64 bits."""

    def __init__(self, memory: Memory, column: Any) -> None:
        super().__init__(memory, column)
        self._bytes = memory.data
        _, offsets, data = column.buffers()
        long = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
        self._width = 8 if long else 4
        size = (len(column) + 1) * self._width if len(column) else 0
        self._table = _start(memory, offsets, size) or 0
        table = memory[self._table : self._table + size]
        self._offsets = table.view(np.int64 if long else np.int32)
        self._start = _start(memory, data, 0) or 0
        self._size = 0 if data is None else data.size

    def fixed_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity and two offsets."""
        begin = self._table + row * self._width
        return [*self._bit_ranges(row), (begin, begin + 2 * self._width)]

    def variable_ranges(self, row: int) -> Sequence[Range]:
        """Return the range of the bytes."""
        begin, end = self._offsets[row : row + 2].tolist()
        if not 0 <= begin <= end <= self._size:
            raise ValueError("a value lies outside of its column")
        return ((self._start + begin, self._start + end),)

    def extents(self, rows: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the first byte of each value in the object, and the one after the last.

        Raises
        ------
        ValueError
            An offset points outside of the column.
        """
        begin = self._offsets[rows].astype(np.int64, copy=False)
        end = self._offsets[rows + 1].astype(np.int64, copy=False)
        if ((begin < 0) | (end < begin) | (end > self._size)).any():
            raise ValueError("a value lies outside of its column")
        return begin + self._start, end + self._start

    def _piece(self, row: int) -> memoryview:
        """Return the bytes, as a view of the chunk."""
        begin, end = self._offsets[row : row + 2].tolist()
        return self._bytes[self._start + begin : self._start + end]


class TextColumn(BytesColumn):
    """Texts."""

    def present_value(self, row: int) -> str:
        """Return a string."""
        return str(self._piece(row), "utf-8")


class BlobColumn(BytesColumn):
    """Bytes with a shape."""

    shaped = True

    def __init__(self, memory: Memory, column: Any, shapes: Any) -> None:
        super().__init__(memory, column)
        self._shapes = open_shapes(memory, shapes)

    def fixed_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity, offsets and shape."""
        return [*super().fixed_ranges(row), *self._shapes.fixed_ranges(row)]

    def present_value(self, row: int) -> Blob:
        """Return a copied blob."""
        return Blob(memoryview(bytearray(self._piece(row))), self.shape(row))

    def content(self, row: int) -> bytes | None:
        """Return a copy of the bytes of a row after all ranges were loaded; None for no value."""
        return bytes(self._piece(row)) if self.has(row) else None

    def shape_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity and shape."""
        return [*self._bit_ranges(row), *self._shapes.fixed_ranges(row)]

    def shape_table(self, rows: int, most: int) -> ShapeTable:
        """Return the shapes of all rows."""
        return self._shapes.shape_table(rows, most).where(self.presence(rows))

    def span_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity, offsets and shape."""
        return self.fixed_ranges(row)

    def span(self, row: int) -> Span:
        """Return the bytes of a value."""
        ((begin, end),) = self.variable_ranges(row)
        return Span(begin, end, self.shape(row))

    def shape(self, row: int) -> Shape:
        """Return the shape of a value."""
        return tuple(self._shapes.value(row))

    def shapes(self, rows: Rows) -> npt.NDArray[np.int64] | None:
        """Return the shapes of some values, rows x axes, or None if their ranks may differ."""
        return self._shapes.axes[rows] if isinstance(self._shapes, _AxesColumn) else None


class _AxesColumn(ColumnReader):
    """Shapes of a known number of axes."""

    def __init__(self, memory: Memory, column: Any) -> None:
        super().__init__(memory, column)
        rank = column.type.list_size
        self._width = 8 * rank
        size = len(column) * self._width
        self._start = _start(memory, column.values.buffers()[1], size) or 0
        axes = memory[self._start : self._start + size].view(np.int64)
        #: All rows, whether loaded or not.
        self.axes = axes.reshape(len(column), rank)

    def fixed_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity and axes."""
        begin = self._start + row * self._width
        return [*self._bit_ranges(row), (begin, begin + self._width)]

    def present_value(self, row: int) -> list[int]:
        """Return the shape."""
        axes: list[int] = self.axes[row].tolist()
        return axes

    def shape_table(self, rows: int, most: int) -> ShapeTable:
        """Return all shapes."""
        return ShapeTable.of_axes(self.axes[:, :most], self.presence(rows))


class _WholeColumn(ColumnReader):
    """Shapes of any rank: the whole column is fetched, because it is small, and Arrow reads it."""

    def __init__(self, column: Any, ranges: list[Range]) -> None:
        self._column = column
        self._ranges = ranges
        self._validated = False

    def fixed_ranges(self, row: int) -> list[Range]:  # noqa: ARG002 # the same for every row
        """Return the ranges of the whole column."""
        return self._ranges

    def value(self, row: int) -> Any:
        """Return the value as a Python object."""
        if not self._validated:
            # Arrow must not follow offsets that point outside of the column.
            self._column.validate(full=True)
            self._validated = True
        return self._column[row].as_py()

    def shape_table(self, rows: int, most: int) -> ShapeTable:  # noqa: ARG002 # of the column
        """Return all shapes."""
        self._column.validate(full=True)
        return ShapeTable.of_lists(self._column, most)


def open_shapes(memory: Memory, column: Any) -> ColumnReader:
    """Return a reader of shapes. Those of any rank are fetched at once: they are small."""
    if pa.types.is_fixed_size_list(column.type):
        return _AxesColumn(memory, column)
    ranges = []
    for buffer in filter(None, column.buffers()):
        start = buffer.address - memory.ctypes.data
        ranges.append((start, start + buffer.size))
    return _WholeColumn(column, ranges)


def _start(memory: Memory, buffer: Any, size: int) -> int | None:
    """Return the offset of a buffer of at least ``size`` bytes, or None if it is left out."""
    if buffer is None:
        return None
    if buffer.size < size:
        raise ValueError(f"a column has {buffer.size} bytes, not {size}")
    return buffer.address - memory.ctypes.data if buffer.size else None
