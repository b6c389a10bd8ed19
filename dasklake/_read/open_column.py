"""Open the reader of a column of any type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dasklake._read.chunk_reader import OpenChunk, column_of_type
from dasklake._read.column_readers import (
    BlobColumn,
    BoolColumn,
    ColumnReader,
    Memory,
    NumberColumn,
    TextColumn,
    open_shapes,
)
from dasklake._read.column_slices import ColumnSlice, Range, load_slices, next_level, own_ranges
from dasklake._read.shape_table import ShapeTable
from dasklake._schema.arrow_layout import Layout, shape_column, storage_of
from dasklake._schema.schema import TensorSpec


class _ArrowColumn(ColumnReader):
    """Any other Arrow type, of any depth; Arrow reads the copied row."""

    def __init__(self, chunk: OpenChunk, column: Any) -> None:
        self.memory = chunk.head.memory
        self._chunk = chunk
        self._column = column

    def fixed_ranges(self, row: int) -> list[Range]:
        """Return the ranges that follow from the row number."""
        return own_ranges(self.memory, self._slice(row))

    def variable_ranges(self, row: int) -> Sequence[Range]:
        """Return the ranges that the loaded offsets point to. Deeper ones follow with the value."""
        ranges, children = next_level(self.memory, self._slice(row))
        return [*ranges, *(part for child in children for part in own_ranges(self.memory, child))]

    def value(self, row: int) -> Any:
        """Return the value as a Python object."""
        (copied,) = load_slices(self._chunk, [self._slice(row)])
        copied.validate(full=True)
        return copied[0].as_py()

    def _slice(self, row: int) -> ColumnSlice:
        return ColumnSlice(self._column, row, row + 1)


class _LinkColumn(ColumnReader):
    """Links, and the metadata of their targets."""

    def __init__(self, memory: Memory, column: Any) -> None:
        super().__init__(memory, column)
        self._fields = {
            field.name: _link_field(memory, column.field(i)) for i, field in enumerate(column.type)
        }
        self.shaped = "shape" in self._fields

    def fixed_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity, offsets, numbers and shapes."""
        ranges = (part for field in self._fields.values() for part in field.fixed_ranges(row))
        return [*self._bit_ranges(row), *ranges]

    def variable_ranges(self, row: int) -> Sequence[Range]:
        """Return the ranges of the strings."""
        return [part for field in self._fields.values() for part in field.variable_ranges(row)]

    def present_value(self, row: int) -> dict[str, Any]:
        """Return all fields by name."""
        return {name: field.value(row) for name, field in self._fields.items()}

    def shape_ranges(self, row: int) -> list[Range]:
        """Return the ranges of validity and shape."""
        return [*self._bit_ranges(row), *self._fields["shape"].fixed_ranges(row)]

    def shape_table(self, rows: int, most: int) -> ShapeTable:
        """Return the shapes of all targets."""
        return self._fields["shape"].shape_table(rows, most).where(self.presence(rows))


def _link_field(memory: Memory, column: Any) -> ColumnReader:
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        return open_shapes(memory, column)
    if pa.types.is_integer(column.type):
        return NumberColumn(memory, column, column, np.dtype("int64"))
    return TextColumn(memory, column)


def open_column(chunk: OpenChunk, name: str, spec: TensorSpec) -> ColumnReader:
    """Return the reader of a column.

    Parameters
    ----------
    chunk : OpenChunk
        The chunk.
    name : str
        Name of the tensor in the chunk.
    spec : TensorSpec
        Description of the tensor.

    Raises
    ------
    KeyError, ValueError
        The chunk does not hold what the description says.
    """
    memory, batch, storage = chunk.head.memory, chunk.head.batch, storage_of(spec)
    column = column_of_type(batch, name, storage.type)
    if storage.layout is Layout.BLOB:
        shapes = column_of_type(batch, shape_column(name), storage.shape_type)
        return BlobColumn(memory, column, shapes)
    if storage.layout is Layout.TENSOR:
        array = column.storage
        axes = len(spec.shape)
        return NumberColumn(memory, array, array.values, storage.element, storage.shape, axes)
    if pa.types.is_boolean(storage.type):
        return BoolColumn(memory, column)
    if storage.element is not None:
        return NumberColumn(memory, column, column, storage.element)
    if pa.types.is_large_string(storage.type):
        return TextColumn(memory, column)
    if spec.linked:
        return _LinkColumn(memory, column)
    return _ArrowColumn(chunk, column)
