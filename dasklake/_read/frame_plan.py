"""The partitions of a frame and their rows, known without reading a chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._read.filters import Condition
from dasklake._read.origin import Origin
from dasklake._read.plan import ChunkLocation
from dasklake._read.row_groups import RowGroup

#: The samples of each partition.
Groups = Sequence[RowGroup]

#: Ranges of numbers of samples in the version, in order: first, and one after the last.
RowRanges = tuple[tuple[int, int], ...]


class FramePlan:
    """The partitions of a frame, as one operand of its expression.

    They are only computed if they are needed: the number of rows is known from the manifest, but
    the partitions may depend on shapes that are stored in the chunks.

    Parameters
    ----------
    origin : Origin
        The version.
    rows : int
        Number of samples of the frame.
    groups : callable
        Returns the partitions.
    token : object
        Identifies the partitions among those of the version.
    first_rows : callable, optional
        Returns the numbers of the first samples of the chunks that a filter must read. By default, it
        reads all.
    """

    def __init__(
        self,
        origin: Origin,
        rows: int,
        groups: Callable[[], Groups],
        token: Any,
        first_rows: Callable[[Condition], frozenset[int]] | None = None,
    ) -> None:
        self.origin = origin
        self.rows = rows
        self._groups = groups
        self._token = token
        self._first_rows = first_rows
        self._pruned: dict[str, frozenset[int]] = {}

    def __repr__(self) -> str:
        return f"<version {self.origin.version} of {self.origin.store.url}>"

    def __dask_tokenize__(self) -> Any:
        return ("dasklake-frame-plan", self.origin.__dask_tokenize__(), self._token)

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes need not plan again.
        return _with_groups, (self.origin, self.rows, self.groups, self._token)

    @cached_property
    def groups(self) -> Groups:
        """The samples of each partition; one empty partition if there are no samples."""
        return self._groups() or [RowGroup()]

    def numbers(self, partition: int) -> Sequence[int] | npt.NDArray[np.int64]:
        """Return the numbers of the samples of a partition in the version, in order."""
        return self.groups[partition].numbers

    @property
    def divisions(self) -> tuple[int | None, ...]:
        """Number of the first sample of each partition, and of the last sample.

        They are not known if the samples are not in the order of the version.
        """
        unknown = (None,) * (len(self.groups) + 1)
        if not self.rows or not self._is_ordered:
            return unknown
        firsts = [int(group.numbers[0]) for group in self.groups]
        return (*firsts, int(self.groups[-1].numbers[-1]))

    @cached_property
    def _is_ordered(self) -> bool:
        numbers = [group.numbers for group in self.groups]
        edges = all(a[-1] < b[0] for a, b in pairwise(numbers))
        return edges and all(isinstance(n, range) or bool((np.diff(n) > 0).all()) for n in numbers)

    def locations(self, partition: int, ranges: RowRanges | None) -> tuple[ChunkLocation, ...]:
        """Return the parts of chunks of a partition that are in some ranges; None means all."""
        group = self.groups[partition].locations
        if ranges is None:
            return group
        return tuple(
            location._replace(begin=begin - location.first, end=end - location.first)
            for location in group
            for first, stop in ranges
            for begin, end in [(max(first, location.span.start), min(stop, location.span.stop))]
            if begin < end
        )

    def matching(
        self, locations: tuple[ChunkLocation, ...], condition: Condition
    ) -> tuple[ChunkLocation, ...]:
        """Return those of some parts of chunks that may have samples that match a filter."""
        if self._first_rows is None:
            return locations
        text = repr(condition.__dask_tokenize__())
        if text not in self._pruned:
            self._pruned[text] = self._first_rows(condition)
        return tuple(part for part in locations if part.first in self._pruned[text])

    def first(self, partitions: Sequence[int], count: int) -> RowRanges:
        """Return the first samples of some partitions."""
        ranges: RowRanges = ()
        for partition in partitions:
            numbers = self.numbers(partition)[:count]
            ranges += ranges_of(numbers)
            count -= len(numbers)
            if count <= 0:
                break
        return ranges

    def last(self, partitions: Sequence[int], count: int) -> RowRanges:
        """Return the last samples of the last one of some partitions."""
        numbers = self.numbers(partitions[-1])
        return ranges_of(numbers[max(0, len(numbers) - count) :])

    def selected(self, partition: int, ranges: RowRanges | None) -> npt.NDArray[np.int64] | None:
        """Return the samples of a partition in some ranges; None for all of its locations."""
        numbers = self.groups[partition].selected
        if numbers is None or ranges is None:
            return numbers
        inside = np.zeros(len(numbers), bool)
        for first, stop in ranges:
            inside |= (numbers >= first) & (numbers < stop)
        return numbers[inside]


def _with_groups(origin: Origin, rows: int, groups: Groups, token: Any) -> FramePlan:
    return FramePlan(origin, rows, lambda: groups, token)


def ranges_of(rows: Sequence[int] | npt.NDArray[np.int64]) -> RowRanges:
    """Return consecutive numbers as ranges."""
    if isinstance(rows, range):
        return ((rows.start, rows.stop),) if rows else ()
    numbers = sorted({int(row) for row in rows})
    if not numbers:
        return ()
    starts = [numbers[0], *(b for a, b in pairwise(numbers) if b != a + 1)]
    stops = [*(a + 1 for a, b in pairwise(numbers) if b != a + 1), numbers[-1] + 1]
    return tuple(zip(starts, stops, strict=True))
