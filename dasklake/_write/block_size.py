"""Choose the number of rows of the blocks that a batched transform gets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dasklake._codecs.sample import StoredValue
from dasklake._schema.values import Blob

#: Rows of the first block, most rows of a block, and the largest growth from one to the next.
FIRST_ROWS, MOST_ROWS, GROWTH = 10, 10_000, 10

#: Bytes of the input or the result of a block, above which the next blocks have fewer rows.
MOST_BYTES = 16 * 2**20

#: Assumed size of a value in memory that has no known size, in bytes.
_SMALL = 64


class BlockSize:
    """The number of rows of the next block of a partition.

    Blocks begin small. They grow while their rows fit in memory, so that a table has long blocks, and
    images have short ones. The number depends only on the rows before, so it is the same in each
    attempt at a partition.

    Parameters
    ----------
    batch_size : int or None
        The number of rows, or None to adapt it.

    Attributes
    ----------
    rows : int
        The number of rows.

    Examples
    --------
    >>> size = BlockSize(None)
    >>> size.adapt(10, 10 * 96)
    >>> size.rows
    100
    >>> size.adapt(100, 100 * 2**20)
    >>> size.rows
    16
    """

    def __init__(self, batch_size: int | None) -> None:
        self._adapts = batch_size is None
        self.rows = FIRST_ROWS if batch_size is None else batch_size

    def adapt(self, rows: int, nbytes: int) -> None:
        """Choose the number for the next block.

        Parameters
        ----------
        rows : int
            Rows of the last block.
        nbytes : int
            Bytes of its input or its result, whichever is larger.
        """
        if self._adapts:
            fitting = MOST_BYTES * rows // max(nbytes, 1)
            self.rows = max(1, min(fitting, MOST_ROWS, GROWTH * self.rows))


def bytes_of_columns(columns: Any) -> int:
    """Return the approximate memory of columns: a mapping of them, a DataFrame, or one column."""
    if isinstance(columns, pd.DataFrame):
        return sum(bytes_of_column(columns.iloc[:, i]) for i in range(columns.shape[1]))
    if isinstance(columns, dict):
        return sum(map(bytes_of_column, dict.values(columns)))
    return bytes_of_column(columns)


def bytes_of_column(column: Any) -> int:
    """Return the approximate memory of a column of numpy, pandas or Arrow, or of a list."""
    if isinstance(column, pd.Series):
        column = column.array if column.dtype != np.dtype(object) else column.to_numpy()
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return int(column.nbytes)
    if isinstance(column, list) or getattr(column, "dtype", None) == np.dtype(object):
        return bytes_of_values(column)
    return int(getattr(column, "nbytes", _SMALL))


def bytes_of_values(values: Collection[Any]) -> int:
    """Return the approximate memory of objects."""
    return sum(map(_size_of, values))


def _size_of(value: Any) -> int:
    if isinstance(value, StoredValue):
        return value.nbytes + _size_of(value.stored)
    if isinstance(value, Blob):
        return len(value.data) + _SMALL
    if isinstance(value, str | bytes | bytearray):
        return len(value) + _SMALL
    if isinstance(value, dict):
        return _SMALL + bytes_of_values(list(dict.values(value)))
    if isinstance(value, list | tuple):
        return _SMALL + bytes_of_values(value)
    return int(getattr(value, "nbytes", 0)) or _SMALL
