"""Group some samples of a version into partitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dasklake._read.plan import ChunkLocation, ReadPlan
from dasklake._read.rows import Rows

__all__ = ["RowGroup", "near_parts", "row_groups", "whole_groups"]

#: Most samples between two selected ones, and most of their bytes, that are read with them: cheaper
#: than a second slice.
_GAP = 8
_GAP_BYTES = 16 * 2**10

_Numbers = npt.NDArray[np.int64]
_LocateAll = Callable[[_Numbers], tuple[_Numbers, _Numbers]]
_Location = Callable[[int], ChunkLocation]


class RowGroup(NamedTuple):
    """The samples of one partition.

    Attributes
    ----------
    locations : tuple of ChunkLocation
        Parts of chunks that hold them, in the order of the version.
    selected : numpy.ndarray or None
        Numbers of the samples in the version, in the order in which they are read. None for all
        samples of the locations.
    """

    locations: tuple[ChunkLocation, ...] = ()
    selected: _Numbers | None = None

    @property
    def numbers(self) -> Sequence[int] | _Numbers:
        """Numbers of the samples in the version, in order."""
        if self.selected is not None:
            return self.selected
        spans = [location.span for location in self.locations]
        if not spans:
            return range(0)
        if all(a.stop == b.start for a, b in pairwise(spans)):
            return range(spans[0].start, spans[-1].stop)
        return np.concatenate([np.arange(span.start, span.stop) for span in spans])

    def narrowed(self, numbers: _Numbers) -> RowGroup:
        """Return the group of some of its samples, in any order."""
        ordered = np.unique(numbers)
        parts: list[ChunkLocation] = []
        for location in self.locations:
            begin, end = np.searchsorted(ordered, [location.span.start, location.span.stop])
            if begin < end:
                parts += near_parts(location, ordered[begin:end] - location.first)
        exact = sum(len(part.span) for part in parts) == len(numbers)
        ascending = exact and bool((np.diff(numbers) > 0).all())
        return RowGroup(tuple(parts), None if ascending else numbers)

    def __len__(self) -> int:
        if self.selected is not None:
            return len(self.selected)
        return sum(len(location.span) for location in self.locations)


def whole_groups(groups: Sequence[tuple[ChunkLocation, ...]]) -> list[RowGroup]:
    """Return groups of which all samples are read."""
    return [RowGroup(group) for group in groups]


def row_groups(
    plan: ReadPlan, groups: Sequence[tuple[ChunkLocation, ...]], rows: Rows
) -> list[RowGroup]:
    """Return the partitions of some samples.

    Samples in increasing order stay in the partitions of the version. Others are cut into
    partitions of as many samples as the version has on average.

    Parameters
    ----------
    plan : ReadPlan
        The rows of each chunk.
    groups : sequence of tuple of ChunkLocation
        The partitions of the version.
    rows : range or numpy.ndarray
        Numbers of the samples.
    """
    if not groups or not len(rows):
        return []
    stops = np.array([group[-1].span.stop for group in groups], np.int64)
    if isinstance(rows, range) and rows == range(groups[0][0].span.start, int(stops[-1])):
        return whole_groups(groups)
    numbers = np.asarray(rows, np.int64)
    if (np.diff(numbers) > 0).all():
        group = np.searchsorted(stops, numbers, side="right")
        edges = np.flatnonzero(np.diff(group, prepend=-1, append=-1)).tolist()
    else:
        count = math.ceil(int(stops[-1]) / len(groups))
        edges = [*range(0, len(numbers), count), len(numbers)]
    location = lru_cache(maxsize=None)(plan.location)
    parts = (numbers[start:stop] for start, stop in pairwise(edges))
    return [_group(part, plan.locate_all, location) for part in parts]


def _group(part: _Numbers, locate_all: _LocateAll, locate_chunk: _Location) -> RowGroup:
    """Return the group of some samples, with small gaps joined."""
    ascending = bool((np.diff(part) > 0).all())
    ordered = part if ascending else np.unique(part)
    chunks, offsets = locate_all(ordered)
    locations = tuple(_parts(chunks, offsets, locate_chunk))
    exact = ascending and sum(len(location.span) for location in locations) == len(part)
    return RowGroup(locations, None if exact else part)


def _parts(chunks: _Numbers, offsets: _Numbers, location: _Location) -> Iterator[ChunkLocation]:
    """Yield the parts of chunks that hold some rows in increasing order."""
    edges = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), len(chunks)]
    for start, stop in pairwise(edges):
        yield from near_parts(location(int(chunks[start])), offsets[start:stop])


def near_parts(location: ChunkLocation, offsets: _Numbers) -> Iterator[ChunkLocation]:
    """Yield parts of a chunk that hold some rows in increasing order, with small gaps joined."""
    gap = max(1, min(_GAP, _GAP_BYTES * location.rows // max(1, location.size)))
    edges = [0, *(np.flatnonzero(np.diff(offsets) > gap) + 1).tolist(), len(offsets)]
    for start, stop in pairwise(edges):
        begin, end = int(offsets[start]), int(offsets[stop - 1]) + 1
        is_whole = end - begin == location.rows
        yield (
            location._replace(begin=0, end=-1)
            if is_whole
            else location._replace(begin=begin, end=end)
        )
