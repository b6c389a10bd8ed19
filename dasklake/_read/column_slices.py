"""Load some rows of columns of any Arrow type by byte range.

The ranges are found level by level. Those of the first level follow from the row numbers; the
offsets in them point to the rows of the children, and so on. Offsets are validated before they are
followed, so the loaded rows can be copied out of a column that was not loaded as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._read.chunk_reader import OpenChunk

#: First byte, and the one after the last.
Range = tuple[int, int]

_Memory = npt.NDArray[np.uint8]


class ColumnSlice(NamedTuple):
    """Consecutive rows of a column, which is a view of the memory of its chunk."""

    column: Any
    begin: int
    end: int


def load_slices(chunk: OpenChunk, slices: Sequence[ColumnSlice]) -> list[pa.Array]:
    """Fetch the rows of some slices, and return copies that hold nothing else.

    Parameters
    ----------
    chunk : OpenChunk
        The chunk of the columns.
    slices : sequence of ColumnSlice
        The rows.

    Raises
    ------
    ValueError, pyarrow.ArrowException
        A column is shorter than its rows, or an offset points outside of it.
    CorruptionError
        A page is damaged.
    """
    fetch_slices(chunk, slices)
    return [
        pa.concat_arrays([part.column.slice(part.begin, part.end - part.begin)]) for part in slices
    ]


def fetch_slices(chunk: OpenChunk, slices: Sequence[ColumnSlice]) -> None:
    """Fetch the rows of some slices together.

    Raises
    ------
    ValueError, pyarrow.ArrowException
        A column is shorter than its rows, or an offset points outside of it.
    CorruptionError
        A page is damaged.
    """
    memory = chunk.head.memory
    pending: list[ColumnSlice] = list(slices)
    ranges: list[Range] = []
    while pending:
        chunk.load(ranges + [span for part in pending for span in own_ranges(memory, part)])
        levels = [next_level(memory, part) for part in pending]
        ranges = [span for spans, _ in levels for span in spans]
        pending = [child for _, children in levels for child in children]
    chunk.load(ranges)


def own_ranges(memory: _Memory, part: ColumnSlice) -> list[Range]:
    """Return the byte ranges of a slice that follow from its row numbers."""
    column, begin, end = _storage(part)
    if begin == end:
        return []
    kind, buffers = column.type, column.buffers()
    if not _is_known(kind):
        return [span for buffer in buffers for span in _span(memory, buffer, 0, None)]
    ranges = _span(memory, buffers[0], begin >> 3, ((end - 1) >> 3) + 1) if buffers[0] else []
    if pa.types.is_boolean(kind):
        return ranges + _span(memory, buffers[1], begin >> 3, ((end - 1) >> 3) + 1)
    width = _offset_width(kind)
    if width:
        return ranges + _span(memory, buffers[1], begin * width, (end + 1) * width)
    if _is_fixed_width(kind):
        width = kind.bit_width // 8
        return ranges + _span(memory, buffers[1], begin * width, end * width)
    return ranges


def next_level(memory: _Memory, part: ColumnSlice) -> tuple[list[Range], list[ColumnSlice]]:
    """Return what the loaded ranges of a slice point to: bytes, and rows of its children.

    Raises
    ------
    ValueError
        The offsets decrease or point outside of the column.
    """
    column, begin, end = _storage(part)
    kind = column.type
    if begin == end:
        return [], []
    if not _is_known(kind):
        # All of it is loaded, and must be validated before Arrow follows offsets.
        column.validate(full=True)
        return [], []
    if pa.types.is_struct(kind):
        return [], [_child(column.field(i), begin, end) for i in range(kind.num_fields)]
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        return [], [_child(column.values, begin * size, end * size)]
    width = _offset_width(kind)
    if not width:
        return [], []
    first, last = _bounds(memory, column, begin, end, width)
    if _is_list(kind):
        return [], [_child(column.values, first, last)]
    return _span(memory, column.buffers()[2], first, last), []


def _bounds(memory: _Memory, column: Any, begin: int, end: int, width: int) -> tuple[int, int]:
    """Return the first and last offset of some rows after checking all between."""
    start = column.buffers()[1].address - memory.ctypes.data
    table = memory[start + begin * width : start + (end + 1) * width]
    offsets = np.frombuffer(table.tobytes(), np.int64 if width == 8 else np.int32)
    if offsets[0] < 0 or (np.diff(offsets) < 0).any():
        raise ValueError("the offsets of a column decrease")
    return int(offsets[0]), int(offsets[-1])


def _child(column: Any, begin: int, end: int) -> ColumnSlice:
    if end > len(column):
        raise ValueError("a value lies outside of its column")
    return ColumnSlice(column, begin, end)


def _storage(part: ColumnSlice) -> ColumnSlice:
    """Return the slice of the storage of an extension type, counted from the first buffer's start."""
    column = part.column
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return ColumnSlice(column, part.begin + column.offset, part.end + column.offset)


def _span(memory: _Memory, buffer: Any, begin: int, end: int | None) -> list[Range]:
    """Return a range of a buffer as a range of the chunk.

    Raises
    ------
    ValueError
        The buffer is shorter.
    """
    size = 0 if buffer is None else buffer.size
    end = size if end is None else end
    if end > size:
        raise ValueError(f"a column has {size} bytes, not {end}")
    if begin >= end:
        return []
    start = buffer.address - memory.ctypes.data
    return [(start + begin, start + end)]


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind))


def _offset_width(kind: pa.DataType) -> int:
    """Return the width of the offsets of a type in bytes, or 0 if it does not have any."""
    types = pa.types
    if types.is_large_string(kind) or types.is_large_binary(kind) or types.is_large_list(kind):
        return 8
    return 4 if types.is_string(kind) or types.is_binary(kind) or _is_list(kind) else 0


def _is_fixed_width(kind: pa.DataType) -> bool:
    types = pa.types
    fixed = types.is_primitive(kind) or types.is_decimal(kind)
    return bool(fixed or types.is_fixed_size_binary(kind))


def _is_known(kind: pa.DataType) -> bool:
    """Return whether single rows of a type can be located; of others the whole column is read."""
    nested = pa.types.is_struct(kind) or pa.types.is_fixed_size_list(kind)
    return bool(nested or pa.types.is_null(kind) or _is_fixed_width(kind) or _offset_width(kind))
