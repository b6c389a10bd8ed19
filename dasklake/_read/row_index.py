"""Resolve what users give as the index of samples to the numbers of samples."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from dasklake._read.axis_index import check_slice
from dasklake.exceptions import InvalidInputError


def resolve_row(item: Any, length: int) -> int:
    """Return the number of the sample at an index. Negative indices count from the end.

    Raises
    ------
    IndexError
        The index is out of range.
    InvalidInputError
        ``item`` is not an index.
    """
    try:
        # True would be 1, but is probably part of a mask.
        row = None if isinstance(item, bool) else operator.index(item)
    except TypeError:
        row = None
    if row is None:
        raise InvalidInputError(
            f"An index must be an integer, a slice, a list of integers, a mask, or the name of a "
            f"tensor, got {item!r}."
        )
    if not -length <= row < length:
        raise IndexError(f"Sample {row} is out of range for {length} samples.")
    return row + length if row < 0 else row


def resolve_rows(item: Any, length: int) -> Sequence[int]:
    """Return the numbers of the samples in a slice, a list or a mask.

    Raises
    ------
    IndexError
        The index is out of range.
    InvalidInputError
        ``item`` is not an index.
    """
    if isinstance(item, slice):
        return range(*check_slice(item).indices(length))
    if not isinstance(item, np.ndarray) and all(isinstance(i, bool | np.bool_) for i in item):
        item = np.array(item, bool) if len(item) else ()
    if isinstance(item, np.ndarray) and item.dtype == bool:
        if item.shape != (length,):
            raise InvalidInputError(f"A mask must have the shape ({length},), got {item.shape}.")
        item = np.flatnonzero(item)
    return [resolve_row(i, length) for i in item]


def resolve_selection(rows: Any, length: int) -> Sequence[int]:
    """Return the numbers of the samples that an argument ``rows`` selects.

    Raises
    ------
    IndexError
        A number is out of range.
    InvalidInputError
        ``rows`` is not a slice, a list of numbers or a mask.
    """
    if hasattr(rows, "__array__"):
        rows = np.asarray(rows)
    if not isinstance(rows, slice | range | list | tuple | np.ndarray):
        raise InvalidInputError(
            f"rows must be a slice, a list of numbers or a mask, got {rows!r}. Use [{rows!r}] for "
            "one sample."
        )
    return resolve_rows(rows, length)
