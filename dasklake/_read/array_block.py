"""Blocks of a Dask Array of a lake, of which only the rows that are used are read."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._read.origin import Origin
from dasklake._read.partition import read_array
from dasklake._read.row_groups import RowGroup

__all__ = ["ArrayBlock"]


class ArrayBlock:
    """One block, as an object that Dask slices.

    Dask joins the slices of a task chain into one, so that ``array[5]`` asks for one row only.

    Parameters
    ----------
    group : RowGroup
        The samples of the block.
    origin : Origin
        The version.
    name : str
        The tensor.
    shape : tuple of int
        Shape of a sample.
    dtype : numpy.dtype
        Its dtype.
    """

    def __init__(
        self,
        group: RowGroup,
        origin: Origin,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self._group = group
        self._origin = origin
        self._name = name
        self.shape = (len(group), *shape)
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        try:
            row = None if isinstance(first, bool | np.bool_) else operator.index(first)
        except TypeError:
            row = None
        if row is not None:
            row += len(self._group) if row < 0 else 0
            array = self._rows(slice(row, row + 1))
            return np.asarray(array[(0, *rest)])
        # One after the other: numpy would combine two lists element by element.
        array = self._rows(first)
        return array[(slice(None), *rest)] if rest else array

    def _rows(self, rows: Any) -> npt.NDArray[Any]:
        """Read some rows of the block."""
        group = self._group
        everything = isinstance(rows, slice) and rows.indices(len(group)) == (0, len(group), 1)
        if not everything:
            numbers = np.asarray(group.numbers, np.int64)
            group = group.narrowed(numbers[rows])
        array = read_array(group.locations, self._origin, self._name)
        if group.selected is None:
            return array
        present = np.asarray(RowGroup(group.locations).numbers)
        selected: npt.NDArray[Any] = array[np.searchsorted(present, group.selected)]
        return selected
