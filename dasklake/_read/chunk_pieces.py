"""Read many rows of one chunk.

The fixed-size parts of a chunk (validity, offsets, shapes) and its small tensors are loaded once into
the memory of the chunk, and kept for later reads. Larger values are read into memory of their own,
which is freed together with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dasklake._read.byte_ranges import Part, joined, joined_few
from dasklake._read.chunk_reader import MALFORMED
from dasklake._read.column_readers import (
    BlobColumn,
    BoolColumn,
    BytesColumn,
    ColumnReader,
    MissingColumn,
    NumberColumn,
    Rows,
    TextColumn,
)
from dasklake._read.column_slices import Range
from dasklake._read.fetched import Column, Form, Numbers, Tensors
from dasklake._read.row_reader import RowReader
from dasklake._schema.values import Blob

#: Tensors of a chunk up to this size in bytes, or this share of the chunk, are loaded as a whole.
_SMALL_COLUMN = 64 * 2**10
_SMALL_SHARE = 64

#: Tables of up to this many rows are loaded as a whole. Of larger ones, the part between the first
#: and the last row that is read, if it has at most so many rows for each of them.
_FEW_ROWS = 8192
_ROWS_PER_ROW = 16

#: Numbers of at least this size in bytes are read like bytes: they would fill the chunk's memory.
_LARGE_NUMBERS = 1024

#: Values whose ranges are joined one by one.
_FEW_VALUES = 24

#: Arrays up to this size in bytes are copied: they would keep the memory of their whole range.
_COPIED = 64 * 2**10


class _Kind(Enum):
    """Ways to read a tensor of a chunk."""

    #: The chunk does not have the tensor.
    MISSING = auto()
    #: All of it is loaded.
    LOADED = auto()
    #: The fixed-size parts are loaded, and the values are read by byte range.
    BY_RANGE = auto()
    #: Each read loads what it needs into the memory of the chunk.
    BY_ROW = auto()


_LOADED_ONCE = (_Kind.LOADED, _Kind.MISSING)


class PiecesPlan(NamedTuple):
    """The byte ranges of some rows of a chunk.

    Attributes
    ----------
    offsets : numpy.ndarray
        int64: the rows.
    parts : mapping of str to list of Part
        The values of the tensors that are read by byte range.
    spans : list of (int, int)
        Ranges of whole pages that hold them.
    """

    offsets: Rows
    parts: Mapping[str, list[Part]]
    spans: list[Range]

    @property
    def nbytes(self) -> int:
        """Bytes of the ranges."""
        return sum(stop - start for start, stop in self.spans)


class ChunkPieces:
    """Reads many rows of a chunk.

    Parameters
    ----------
    reader : RowReader
        Reader of the chunk.
    tensors : Tensors
        The tensors of the version.
    """

    def __init__(self, reader: RowReader, tensors: Tensors) -> None:
        self.reader = reader
        self.chunk = reader.chunk
        self._tensors = tensors
        self._kinds: dict[str, _Kind] = {}
        #: Tensors read by range whose tables are loaded completely.
        self._complete: set[str] = set()

    def is_loaded(self, names: Iterable[str]) -> bool:
        """Return whether the tables of all rows of some tensors are loaded."""
        kinds, complete = self._kinds, self._complete
        return all(kinds.get(name) in _LOADED_ONCE or name in complete for name in names)

    def plan(self, offsets: Rows, names: Sequence[str], gap: int, most: int) -> PiecesPlan:
        """Load the tables of some rows, and return the byte ranges of the rest.

        Parameters
        ----------
        offsets : numpy.ndarray
            int64: the rows.
        names : sequence of str
            The tensors.
        gap : int
            Bytes between two ranges up to which they are joined.
        most : int
            Bytes of a range from which on it is not extended.
        """
        self._load(offsets, names)
        by_range = [name for name in names if self._kinds[name] is _Kind.BY_RANGE]
        if not by_range:
            return PiecesPlan(offsets, {}, [])
        try:
            begins, ends = zip(
                *(self._column_by_range(name).extents(offsets) for name in by_range), strict=True
            )
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error
        begin, end = np.concatenate(begins), np.concatenate(ends)
        join = joined_few if len(begin) <= _FEW_VALUES else joined
        spans, parts = join(begin, end, self.chunk.head, gap, most)
        count = len(offsets)
        by_name = {name: parts[i * count : (i + 1) * count] for i, name in enumerate(by_range)}
        return PiecesPlan(offsets, by_name, spans)

    def _column_by_range(self, name: str) -> BytesColumn | NumberColumn:
        column = self.reader.column(name)
        if not isinstance(column, BytesColumn | NumberColumn):
            raise TypeError(f"column {name!r} is not read by range")
        return column

    def _load(self, offsets: Rows, names: Sequence[str]) -> None:
        """Load the tables and the small tensors of some rows."""
        kinds: dict[str, _Kind] = {}
        ranges: list[Range] = []
        by_row: list[ColumnReader] = []
        for name in names:
            kind = self._kinds.get(name)
            if kind in _LOADED_ONCE or name in self._complete:
                continue
            column = self.reader.column(name)
            if kind is None:
                kind = kinds[name] = self._kind(name, column)
                if kind is _Kind.LOADED:
                    ranges += self.reader.spans(name)
            if kind is _Kind.BY_RANGE:
                ranges += self._table(column, offsets)
            elif kind is _Kind.BY_ROW:
                by_row.append(column)
                ranges += self._rows_of(column, offsets)
        if not ranges and not kinds:
            return
        self.chunk.load(ranges)
        # Other threads rely on the kinds: what these promise is loaded now.
        self._kinds.update(kinds)
        if self.chunk.location.rows <= _FEW_ROWS:
            self._complete.update(n for n in names if self._kinds[n] is _Kind.BY_RANGE)
        if by_row:
            try:
                rows = offsets.tolist()
                parts = [part for c in by_row for row in rows for part in c.variable_ranges(row)]
            except MALFORMED as error:
                raise self.chunk.mismatch_error(error) from error
            self.chunk.load(parts)

    def _kind(self, name: str, column: ColumnReader) -> _Kind:
        if isinstance(column, MissingColumn):
            return _Kind.MISSING
        spans = self.reader.spans(name)
        size = sum(stop - start for start, stop in spans)
        if size <= max(_SMALL_COLUMN, self.chunk.location.size // _SMALL_SHARE):
            return _Kind.LOADED
        large = isinstance(column, NumberColumn) and column.width >= _LARGE_NUMBERS
        return _Kind.BY_RANGE if large or isinstance(column, BytesColumn) else _Kind.BY_ROW

    def _table(self, column: ColumnReader, offsets: Rows) -> list[Range]:
        """Return the ranges of the fixed-size parts of some rows."""
        if isinstance(column, NumberColumn):
            # Its numbers are read by range: only the validity is left.
            ends = column.shape_ranges(0), column.shape_ranges(self.chunk.location.rows - 1)
            return [(first[0], last[1]) for first, last in zip(*ends, strict=True)]
        rows = self.chunk.location.rows
        if rows <= _FEW_ROWS:
            return self.reader.table_ranges(column, 0, rows)
        begin, end = int(offsets.min()), int(offsets.max()) + 1
        if end - begin <= _ROWS_PER_ROW * len(offsets):
            return self.reader.table_ranges(column, begin, end)
        return [part for row in offsets.tolist() for part in column.fixed_ranges(row)]

    def _rows_of(self, column: ColumnReader, offsets: Rows) -> list[Range]:
        """Return the ranges that follow from the row numbers, for a tensor that is read by row."""
        if isinstance(column, NumberColumn | BoolColumn):
            begin, end = int(offsets.min()), int(offsets.max()) + 1
            if end - begin <= _ROWS_PER_ROW * len(offsets):
                return self.reader.table_ranges(column, begin, end)
        return [part for row in offsets.tolist() for part in column.fixed_ranges(row)]

    def fill(
        self,
        plan: PiecesPlan,
        memories: Sequence[npt.NDArray[np.uint8]],
        where: slice | Rows,
        columns: Mapping[str, Column],
        forms: Mapping[str, Form],
    ) -> None:
        """Put the values of some rows into columns.

        Parameters
        ----------
        plan : PiecesPlan
            The rows.
        memories : sequence of numpy.ndarray
            uint8: the checked bytes of each of its ranges.
        where : slice or numpy.ndarray
            Positions of the rows in the columns.
        columns : mapping of str to Column
            The columns of the tensors.
        forms : mapping of str to Form
            The forms of their values.

        Raises
        ------
        CorruptionError
            The chunk does not match the schema.
        """
        memories = memories or [np.empty(0, np.uint8)]
        try:
            for name, form in forms.items():
                kind, target = self._kinds[name], columns[name]
                if kind is _Kind.MISSING:
                    continue
                column = self.reader.column(name)
                present = column.present(plan.offsets)
                if isinstance(target, Numbers):
                    target.present[where] = True if present is None else present
                    target.values[where] = self._numbers(name, column, plan, memories, present)
                    continue
                values = self._values(name, column, plan, memories, form)
                if present is not None:
                    pairs = zip(values, present.tolist(), strict=True)
                    values = [value if ok else None for value, ok in pairs]
                if isinstance(where, slice):
                    target[where] = values
                else:
                    for position, value in zip(where.tolist(), values, strict=True):
                        target[position] = value
        except MALFORMED as error:
            raise self.chunk.mismatch_error(error) from error

    def _numbers(
        self,
        name: str,
        column: ColumnReader,
        plan: PiecesPlan,
        memories: Sequence[npt.NDArray[np.uint8]],
        present: npt.NDArray[np.bool_] | None,
    ) -> npt.NDArray[Any]:
        """Return numbers of one shape, rows on axis 0."""
        if not isinstance(column, NumberColumn | BoolColumn):
            raise TypeError(f"column {name!r} does not hold numbers")
        parts = plan.parts.get(name)
        if parts is None or isinstance(column, BoolColumn):
            numbers = column.numbers(plan.offsets)
        else:
            view = column.view
            numbers = np.empty((len(plan.offsets), *view.shape[1:]), view.dtype)
            octets = numbers.reshape(len(numbers), -1).view(np.uint8)
            for row, (run, begin, end) in enumerate(parts):
                octets[row] = memories[run][begin:end]
        indices = self.reader.indices(name)
        if indices is None:
            return numbers
        if present is None:
            return indices[numbers]
        # The numbers of rows without a value are arbitrary.
        renumbered = np.zeros_like(numbers)
        renumbered[present] = indices[numbers[present]]
        return renumbered

    def _values(
        self,
        name: str,
        column: ColumnReader,
        plan: PiecesPlan,
        memories: Sequence[npt.NDArray[np.uint8]],
        form: Form,
    ) -> list[Any]:
        """Return values that are not numbers of one shape."""
        tensor, offsets = self._tensors[name], plan.offsets
        spec = tensor.spec
        if isinstance(column, BlobColumn):
            if tensor.is_array:
                arrays = self._arrays(name, column, plan, memories)
                if arrays is not None:
                    return arrays
            elif form is not Form.DECODED and not spec.sequence and name in plan.parts:
                return _pieces(plan, name, memories)
        if isinstance(column, TextColumn | BlobColumn) and name in plan.parts:
            pieces = _pieces(plan, name, memories)
            if isinstance(column, TextColumn):
                return [str(piece, "utf-8") for piece in pieces]
            blobs: list[Any] = [
                Blob(piece, column.shape(row))
                for piece, row in zip(pieces, offsets.tolist(), strict=True)
            ]
        else:
            blobs = [column.value(row) for row in offsets.tolist()]
        if self.reader.indices(name) is not None:
            return [self.reader.with_version_indices([blob], [name])[0] for blob in blobs]
        if form is Form.DECODED or spec.sequence or not isinstance(column, BlobColumn):
            return blobs
        return [None if blob is None else blob.data.toreadonly() for blob in blobs]

    def _arrays(
        self,
        name: str,
        column: BlobColumn,
        plan: PiecesPlan,
        memories: Sequence[npt.NDArray[np.uint8]],
    ) -> list[Any] | None:
        """Return arrays of different shapes, or None if their ranks may differ."""
        dtype = self._tensors[name].dtype
        shapes = column.shapes(plan.offsets)
        if shapes is None or dtype is None:
            return None
        parts = plan.parts.get(name)
        if parts is None:
            whole = self.chunk.head.memory.data
            begin, end = column.extents(plan.offsets)
            pieces = [whole[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
        else:
            views = [memory.data for memory in memories]
            pieces = [views[run][a:b] for run, a, b in parts]
        present = column.present(plan.offsets)
        if present is not None:
            # Rows without a value may have any shape.
            shapes = shapes * present[:, np.newaxis]
            pairs = zip(pieces, present.tolist(), strict=True)
            pieces = [piece if ok else piece[:0] for piece, ok in pairs]
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
        if (shapes < 0).any() or (shapes.prod(axis=1) * dtype.itemsize != sizes).any():
            return None  # the decoder reports the sample
        if sizes.max() <= _COPIED:
            arrays = _copied(pieces, shapes, dtype)
        else:
            # Repeated rows must not share memory.
            own = parts is not None and len(set(parts)) == len(parts)
            arrays = [
                np.frombuffer(
                    piece if own and not piece.readonly else bytearray(piece), dtype
                ).reshape(shape)
                for piece, shape in zip(pieces, shapes.tolist(), strict=True)
            ]
        indices = self.reader.indices(name)
        return arrays if indices is None else [indices[labels] for labels in arrays]


def _copied(
    pieces: Sequence[memoryview], shapes: npt.NDArray[np.int64], dtype: np.dtype[Any]
) -> list[npt.NDArray[Any]]:
    """Return small arrays in common memory: one copy is faster than many."""
    numbers = np.frombuffer(bytearray().join(pieces), dtype)
    ends = shapes.prod(axis=1).cumsum().tolist()
    return [
        numbers[begin:end].reshape(shape)
        for begin, end, shape in zip([0, *ends[:-1]], ends, shapes.tolist(), strict=True)
    ]


def _pieces(
    plan: PiecesPlan, name: str, memories: Sequence[npt.NDArray[np.uint8]]
) -> list[memoryview]:
    """Return the bytes of each value of a tensor, as views that cannot be written."""
    views = [memory.data.toreadonly() for memory in memories]
    return [views[run][begin:end] for run, begin, end in plan.parts[name]]
