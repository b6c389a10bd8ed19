"""Read single rows of a chunk, fetching only the pages that hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._read.chunk_reader import MALFORMED, OpenChunk
from dasklake._read.column_checks import label_indices
from dasklake._read.column_readers import (
    BlobColumn,
    ColumnReader,
    MissingColumn,
    NumberColumn,
    Span,
)
from dasklake._read.open_column import open_column
from dasklake._read.shape_table import ALL_AXES, ShapeTable
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import InvalidInputError


class RowReader:
    """Reads single rows of some tensors of one chunk.

    Parameters
    ----------
    chunk : OpenChunk
        The chunk.
    specs : mapping of str to TensorSpec
        The tensors.
    stored_name : callable
        Returns the name of a tensor in the chunk, or None if the chunk does not have the tensor.
    """

    def __init__(
        self,
        chunk: OpenChunk,
        specs: Mapping[str, TensorSpec],
        stored_name: Callable[[str], str | None] = lambda name: name,
    ) -> None:
        self.chunk = chunk
        self._specs = specs
        self._stored_name = stored_name
        self._columns: dict[str, ColumnReader] = {}
        #: Of labels with class names of the chunk's own: the index of each in the version.
        self._indices: dict[str, npt.NDArray[np.uint32]] = {}

    def read(self, row: int, names: Sequence[str]) -> list[Any]:
        """Return the stored value of each tensor in a row, copied; None for no value."""
        # The most common read: calling read_many instead would cost a third more.
        columns = [self._columns.get(name) or self._open(name) for name in names]
        load = self.chunk.load
        load([part for column in columns for part in column.fixed_ranges(row)])
        try:
            variable = [part for column in columns for part in column.variable_ranges(row)]
            if variable:
                load(variable)
            values = [column.value(row) for column in columns]
            return self.with_version_indices(values, names) if self._indices else values
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def content(self, row: int, name: str) -> bytes | None:
        """Return the stored bytes of a tensor of files in a row, copied once; None for no value."""
        column = self._columns.get(name) or self._open(name)
        load = self.chunk.load
        load(column.fixed_ranges(row))
        try:
            load(column.variable_ranges(row))
            return column.content(row) if isinstance(column, BlobColumn) else column.value(row)
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def read_many(self, rows: Sequence[int], names: Sequence[str]) -> list[list[Any]]:
        """Return the stored values of some rows, fetched together."""
        columns = [self._columns.get(name) or self._open(name) for name in names]
        load = self.chunk.load
        load([part for column in columns for row in rows for part in column.fixed_ranges(row)])
        try:
            load(
                [part for column in columns for row in rows for part in column.variable_ranges(row)]
            )
            values = [[column.value(row) for column in columns] for row in rows]
            if self._indices:
                return [self.with_version_indices(row, names) for row in values]
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error
        return values

    def with_version_indices(self, values: list[Any], names: Sequence[str]) -> list[Any]:
        """Replace the chunk's indices of labels by those of the version."""
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
        """Return the numbers of consecutive rows, as a view of the chunk.

        None if they are not numbers of fixed shape, or a row has no value.
        """
        column = self._columns.get(name) or self._open(name)
        if not isinstance(column, NumberColumn):
            return None
        self._load_span(column.fixed_ranges, begin, end)
        if not column.all_have(begin, end):
            return None
        try:
            numbers: npt.NDArray[Any] = self.with_version_indices([column.view[begin:end]], [name])[
                0
            ]
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error
        return numbers

    def value_spans(self, rows: Sequence[int], name: str) -> list[Span | None]:
        """Return the bytes of some values, not fetched yet; None for no value."""
        column = self._columns.get(name) or self._open(name)
        if isinstance(column, MissingColumn):
            return [None] * len(rows)
        self.chunk.load([part for row in rows for part in column.span_ranges(row)])
        try:
            return [column.span(row) if column.has(row) else None for row in rows]
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def part(self, name: str, span: Span, dtype: np.dtype[Any], index: Any) -> Any:
        """Return a copied part of an array, whose bytes were fetched; the others may be missing.

        Parameters
        ----------
        name : str
            The tensor.
        span : Span
            The bytes and the shape of the array.
        dtype : numpy.dtype
            Dtype of the array.
        index : tuple of (int or slice)
            One for each axis of the array.
        """
        data = self.chunk.head.memory[span.begin : span.end].view(dtype)
        try:
            part = data.reshape(span.shape)[index].copy()
            return self.with_version_indices([part], [name])[0]
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def shape_table(self, name: str) -> ShapeTable:
        """Return the shape of each row's value without fetching it.

        The shape of a list is its number of items.

        Raises
        ------
        InvalidInputError
            Shapes are not stored.
        """
        column = self._columns.get(name) or self._open(name)
        rows = self.chunk.location.rows
        if isinstance(column, MissingColumn):
            return ShapeTable.of_one_shape((), np.zeros(rows, bool))
        if not column.shaped:
            raise InvalidInputError(
                f"The shapes of tensor {name!r} are not stored. For links, write them with "
                "verify=True."
            )
        self._load_span(column.shape_ranges, 0, rows)
        try:
            return column.shape_table(rows, 1 if self._specs[name].sequence else ALL_AXES)
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def column(self, name: str) -> ColumnReader:
        """Return the reader of a tensor's column."""
        return self._columns.get(name) or self._open(name)

    def indices(self, name: str) -> npt.NDArray[np.uint32] | None:
        """Return the version's index of each of the chunk's own class names of an opened column.

        None if the chunk stores indices of the version.
        """
        return self._indices.get(name)

    def spans(self, name: str) -> list[tuple[int, int]]:
        """Return the byte ranges of all buffers of a tensor; empty if the chunk does not have it."""
        stored = self._stored_name(name)
        return [] if stored is None else self.chunk.head.spans(stored)

    def table_ranges(self, column: ColumnReader, begin: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges of the fixed-size parts of the rows from ``begin`` to before ``end``."""
        pairs = zip(column.fixed_ranges(begin), column.fixed_ranges(end - 1), strict=True)
        return [(first[0], last[1]) for first, last in pairs]

    def _load_span(
        self, ranges: Callable[[int], Sequence[tuple[int, int]]], begin: int, end: int
    ) -> None:
        """Load the ranges of the rows from ``begin`` to before ``end``."""
        pairs = zip(ranges(begin), ranges(end - 1), strict=True)
        self.chunk.load([(first[0], last[1]) for first, last in pairs])

    def _open(self, name: str) -> ColumnReader:
        stored, spec, head = self._stored_name(name), self._specs[name], self.chunk.head
        try:
            if stored is None:
                column: ColumnReader = MissingColumn()
            else:
                column = open_column(self.chunk, stored, spec)
                indices = label_indices(head.batch.schema.field(stored), spec)
                if indices is not None:
                    self._indices[name] = indices
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error
        self._columns[name] = column
        return column
