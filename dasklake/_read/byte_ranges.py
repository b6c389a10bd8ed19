"""Join the byte ranges of values to ranges of whole pages, so that few reads fetch them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dasklake._format.chunk import ChunkHead
from dasklake._read.column_slices import Range

#: Number of a range, and where a value begins and ends in it.
Part = tuple[int, int, int]

_Offsets = npt.NDArray[np.int64]


def joined(
    begin: _Offsets, end: _Offsets, head: ChunkHead, gap: int, most: int
) -> tuple[list[Range], list[Part]]:
    """Return ranges of whole pages that hold some values, and the part of each value.

    Parameters
    ----------
    begin, end : numpy.ndarray
        int64: first byte of each value in the object, and the one after the last; in any order.
    head : ChunkHead
        The chunk.
    gap : int
        Bytes between two ranges up to which they are joined.
    most : int
        Bytes from which on a range is not extended.

    Returns
    -------
    spans : list of (int, int)
        First byte of each range in the object, and the one after the last, in ascending order.
    parts : list of Part
        The range of each value, and where the value begins and ends in it.
    """
    page = head.page
    filled = np.flatnonzero(end > begin)
    if not len(filled):
        return [], [(0, 0, 0)] * len(begin)
    first = (begin[filled] - head.length) // page
    order = np.argsort(first, kind="stable")
    filled, first = filled[order], first[order]
    last = np.maximum.accumulate((end[filled] - head.length - 1) // page + 1)
    new = np.ones(len(first), np.bool_)
    new[1:] = first[1:] - last[:-1] > gap // page
    # Long ranges are cut between values.
    start = first[new][np.cumsum(new) - 1]
    cut = (first - start) // max(1, most // page)
    new[1:] |= cut[1:] > cut[:-1]
    starts = np.flatnonzero(new)
    numbers = np.zeros(len(begin), np.int64)
    numbers[filled] = np.cumsum(new) - 1
    lower = head.length + first[starts] * page
    upper = head.length + np.maximum.reduceat(last, starts) * page
    spans = list(zip(lower.tolist(), np.minimum(upper, head.size).tolist(), strict=True))
    # Values without bytes are in no range.
    local = np.where(end > begin, begin - lower[numbers], 0)
    ends = local + (end - begin)
    return spans, list(zip(numbers.tolist(), local.tolist(), ends.tolist(), strict=True))


def joined_few(
    begin: _Offsets, end: _Offsets, head: ChunkHead, gap: int, most: int
) -> tuple[list[Range], list[Part]]:
    """Return the same as :func:`joined`, faster for few values."""
    page, length = head.page, head.length
    begins, ends = begin.tolist(), end.tolist()
    parts: list[Part] = [(0, 0, 0)] * len(begins)
    runs: list[list[int]] = []
    base = 0
    for value in sorted(range(len(begins)), key=begins.__getitem__):
        start, stop = begins[value], ends[value]
        if stop <= start:
            continue
        first, last = (start - length) // page, (stop - length - 1) // page + 1
        if runs and first - runs[-1][1] <= gap // page and first - runs[-1][0] < most // page:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            runs.append([first, last])
            base = length + first * page
        parts[value] = len(runs) - 1, start - base, stop - base
    size = head.size
    return [(length + a * page, min(length + b * page, size)) for a, b in runs], parts
