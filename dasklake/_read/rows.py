"""The numbers of the samples that are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["PackedRows", "Rows", "as_rows", "numbers_at", "pack_rows", "unpack_rows"]

#: Numbers of samples in a version, in the order in which they are read. A range has step 1.
Rows = range | npt.NDArray[np.int64]


class PackedRows(NamedTuple):
    """Numbers of samples in their smallest form, to be sent to other processes.

    Attributes
    ----------
    first, length : int
        The first number, and how many numbers there are.
    bits : bytes or None
        A bit for each number from ``first`` on, for rows in increasing order.
    numbers : numpy.ndarray or None
        All numbers, for rows in any order.
    """

    first: int
    length: int
    bits: bytes | None = None
    numbers: npt.NDArray[Any] | None = None


def as_rows(numbers: Sequence[int] | npt.NDArray[Any]) -> Rows:
    """Return numbers of samples as a range if they are consecutive, else as an array."""
    if len(numbers) == 0:
        return range(0)
    if isinstance(numbers, range) and numbers.step == 1:
        return numbers
    array = np.asarray(numbers, np.int64)
    first, last = int(array[0]), int(array[-1])
    if last - first == len(array) - 1 and bool((np.diff(array) == 1).all()):
        return range(first, last + 1)
    return array


def numbers_at(rows: Rows, positions: Sequence[int] | npt.NDArray[Any]) -> Rows:
    """Return the numbers of the samples at some valid positions."""
    if isinstance(rows, range):
        if isinstance(positions, range):
            start, stop = rows.start + positions.start, rows.start + positions.stop
            return as_rows(range(start, stop, positions.step))
        return as_rows(np.asarray(positions, np.int64) + rows.start)
    return as_rows(rows[np.asarray(positions, np.int64)])


def pack_rows(rows: Rows) -> PackedRows:
    """Return the smallest of a range, a bitmap and an array."""
    if isinstance(rows, range):
        return PackedRows(rows.start, len(rows))
    first, last = int(rows[0]), int(rows[-1])
    numbers = rows.astype(np.min_scalar_type(int(rows.max())))
    if (last - first) // 8 < numbers.nbytes and (np.diff(rows) > 0).all():
        present = np.zeros(last - first + 1, bool)
        present[rows - first] = True
        return PackedRows(first, len(rows), bits=np.packbits(present).tobytes())
    return PackedRows(first, len(rows), numbers=numbers)


def unpack_rows(packed: PackedRows) -> Rows:
    """Return the rows of :func:`pack_rows`."""
    if packed.numbers is not None:
        return packed.numbers.astype(np.int64)
    if packed.bits is not None:
        bits = np.unpackbits(np.frombuffer(packed.bits, np.uint8))
        return np.flatnonzero(bits).astype(np.int64) + packed.first
    return range(packed.first, packed.first + packed.length)
