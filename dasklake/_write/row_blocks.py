"""Divide a partition into blocks of rows, and pass each to a batched transform as columns.

=====================  ==================================================================
partition              the transform gets
=====================  ==================================================================
frame                  a DataFrame, whose index levels with tensors are columns
aligned arrays         a dict of arrays
one array              an array
bag of mappings        a dict of arrays with one axis: :class:`ItemColumns`
bag of other items     an array with one axis
=====================  ==================================================================

Frames and arrays are copies, so a transform may change them, and a block may be passed again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from dasklake._codecs.sample import Sample, StoredValue, raw_value
from dasklake._write.block_size import BlockSize
from dasklake._write.encoder import Block, blocks_of, frame_columns, rows_of

#: Types of Python and numpy numbers that become an array of their own dtype.
_NUMBERS = {bool: np.bool_, int: np.int64, float: np.float64}


class RowBlock(Protocol):
    """Consecutive rows of a partition."""

    @property
    def count(self) -> int:
        """Number of rows."""

    def columns(self) -> Any:
        """Return the argument of the transform."""

    def part(self, begin: int, end: int) -> Self:
        """Return some of the rows as a block."""

    def item(self) -> Any:
        """Return the first row as an item, as a transform of single items gets it."""


def row_blocks_of(
    kind: str,
    names: tuple[str, ...],
    parts: tuple[Any, ...],
    index: tuple[str, ...],
    size: BlockSize,
) -> Iterator[RowBlock]:
    """Yield the blocks of a partition.

    Parameters
    ----------
    kind, names, parts, index
        As for :func:`dasklake._write.encoder.blocks_of`.
    size : BlockSize
        The number of rows of the next block, which may change after each block.
    """
    if kind == "bag":
        yield from _bag_blocks(parts[0], size)
        return
    whole: RowBlock
    if kind == "dataframe":
        columns = frame_columns(parts[0], index)
        levels = {name: columns[name] for name in columns if name not in parts[0]}
        whole = _FrameBlock(parts[0], levels)
    else:
        whole = _ArrayBlock(kind, names, parts, next(blocks_of(kind, names, parts)))
    begin = 0
    while begin < whole.count:
        block = whole.part(begin, begin + size.rows)
        begin += block.count
        yield block


def _bag_blocks(items: Iterable[Any], size: BlockSize) -> Iterator[RowBlock]:
    """Yield blocks of items; those before an error of the iterator are yielded first."""
    collected: list[Any] = []
    try:
        for item in items:
            collected.append(item)
            if len(collected) >= size.rows:
                yield _BagBlock(collected)
                collected = []
    except Exception:
        if collected:
            yield _BagBlock(collected)
        raise
    if collected:
        yield _BagBlock(collected)


class _FrameBlock:
    """Rows of a frame, and the levels of its index that have tensors."""

    def __init__(self, frame: pd.DataFrame, levels: Mapping[str, pd.Series]) -> None:
        self._frame = frame
        self._levels = levels

    @property
    def count(self) -> int:
        return len(self._frame)

    def columns(self) -> pd.DataFrame:
        """Return a copy whose rows are numbered from 0."""
        frame = self._frame.copy()
        frame.index = pd.RangeIndex(len(frame))
        for name, level in self._levels.items():
            frame[name] = level.array.copy()
        return frame

    def part(self, begin: int, end: int) -> _FrameBlock:
        """Return some of the rows as a block."""
        levels = {name: level.iloc[begin:end] for name, level in self._levels.items()}
        return _FrameBlock(self._frame.iloc[begin:end], levels)

    def item(self) -> Any:
        """Return the first row as a dict."""
        columns = {str(name): self._frame[name].iloc[:1] for name in self._frame.columns}
        return next(rows_of(columns | {n: level.iloc[:1] for n, level in self._levels.items()}))


class _ArrayBlock:
    """Rows of an array, or of aligned arrays.

    Parameters
    ----------
    kind, names, parts
        As for :func:`row_blocks_of`.
    checked : Block
        The same rows; creating it has checked that the arrays have one length.
    """

    def __init__(
        self, kind: str, names: tuple[str, ...], parts: tuple[Any, ...], checked: Block
    ) -> None:
        self._kind, self._names, self._parts, self._checked = kind, names, parts, checked

    @property
    def count(self) -> int:
        return len(self._parts[0])

    def columns(self) -> Any:
        """Return a copy of the array or arrays."""
        arrays = [part.copy() for part in self._parts]
        return arrays[0] if self._kind == "array" else dict(zip(self._names, arrays, strict=True))

    def part(self, begin: int, end: int) -> _ArrayBlock:
        """Return some of the rows as a block."""
        parts = tuple(part[begin:end] for part in self._parts)
        return _ArrayBlock(self._kind, self._names, parts, self._checked)

    def item(self) -> Any:
        """Return the first row."""
        rows = [part[0] for part in self._parts]
        return rows[0] if self._kind == "array" else dict(zip(self._names, rows, strict=True))


class _BagBlock:
    """Items of a bag."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    @property
    def count(self) -> int:
        return len(self._items)

    def columns(self) -> Any:
        """Return the items as columns, if all of them are mappings, and else as an array."""
        if all(isinstance(item, Mapping) for item in self._items):
            return ItemColumns.of(self._items)
        return array_of(self._items)

    def part(self, begin: int, end: int) -> _BagBlock:
        """Return some of the items as a block."""
        return _BagBlock(self._items[begin:end])

    def item(self) -> Any:
        """Return the first item."""
        return self._items[0]


class ItemColumn(list[Any]):
    """The values of a column as the items hold them; stored values are not decoded."""

    __slots__ = ()

    def array(self) -> npt.NDArray[Any]:
        """Return the values, decoded."""
        return array_of([v.get() if type(v) is StoredValue else v for v in self])


class ItemColumns(Sample):
    """The columns of some mappings: a dict of arrays that are made when they are first used.

    A name that only some of the mappings have is None in the others.
    """

    __slots__ = ()
    __hash__ = None

    @classmethod
    def of(cls, items: Sequence[Mapping[str, Any]]) -> ItemColumns:
        """Return the columns of mappings."""
        names = dict.fromkeys(name for item in items for name in item)
        return cls({name: ItemColumn(raw_value(item, name) for item in items) for name in names})

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if type(value) is ItemColumn:
            value = self[name] = value.array()
        return value


def array_of(values: Collection[Any]) -> npt.NDArray[Any]:
    """Return values as an array with one axis.

    Bools, ints, floats and numpy numbers, if all are of one type, become an array of their dtype. All
    other values stay the objects that they are.

    Parameters
    ----------
    values : collection
        The values.

    Examples
    --------
    >>> array_of([1, 2]), array_of([1, None]), array_of([[1], [2]]).shape
    (array([1, 2]), array([1, None], dtype=object), (2,))
    """
    numbers = numbers_of(values)
    return np.fromiter(values, object, len(values)) if numbers is None else numbers


def numbers_of(values: Iterable[Any]) -> npt.NDArray[Any] | None:
    """Return numbers of one type as an array of their dtype; None for all other values."""
    kinds = set(map(type, values))
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None or not (kind in _NUMBERS or issubclass(kind, np.bool_ | np.number)):
        return None
    if issubclass(kind, np.timedelta64):  # a number of numpy, without its unit
        return None
    try:
        return np.array(list(values), _NUMBERS.get(kind, kind))
    except OverflowError:  # an int beyond 64 bits
        return None
