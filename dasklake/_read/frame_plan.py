"""The partitions of a frame and their rows, known without reading a chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from dasklake._read.origin import Origin
from dasklake._read.plan import ChunkLocation

#: The chunks, or parts of chunks, of each partition.
Groups = Sequence[tuple[ChunkLocation, ...]]

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
    """

    def __init__(self, origin: Origin, rows: int, groups: Callable[[], Groups], token: Any) -> None:
        self.origin = origin
        self.rows = rows
        self._groups = groups
        self._token = token

    def __repr__(self) -> str:
        return f"<version {self.origin.version} of {self.origin.store.url}>"

    def __dask_tokenize__(self) -> Any:
        return ("dasklake-frame-plan", self.origin.__dask_tokenize__(), self._token)

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes need not plan again.
        return _with_groups, (self.origin, self.rows, self.groups, self._token)

    @cached_property
    def groups(self) -> Groups:
        """The chunks of each partition; one empty partition if there are no samples."""
        return self._groups() or [()]

    @property
    def spans(self) -> list[range]:
        """The samples of each partition."""
        return [
            range(group[0].span.start, group[-1].span.stop) if group else range(0)
            for group in self.groups
        ]

    @property
    def divisions(self) -> tuple[int | None, ...]:
        """Number of the first sample of each partition, and of the last sample."""
        if not self.rows:
            return (None, None)
        spans = self.spans
        return (*(span.start for span in spans), spans[-1].stop - 1)

    def locations(self, partition: int, ranges: RowRanges | None) -> tuple[ChunkLocation, ...]:
        """Return the samples of a partition that are in some ranges; None means all."""
        group = self.groups[partition]
        if ranges is None:
            return group
        return tuple(
            location._replace(begin=begin - location.first, end=end - location.first)
            for location in group
            for first, stop in ranges
            for begin, end in [(max(first, location.span.start), min(stop, location.span.stop))]
            if begin < end
        )


def _with_groups(origin: Origin, rows: int, groups: Groups, token: Any) -> FramePlan:
    return FramePlan(origin, rows, lambda: groups, token)


def ranges_of(rows: Sequence[int]) -> RowRanges:
    """Return consecutive numbers as ranges."""
    numbers = sorted(set(rows))
    if not numbers:
        return ()
    starts = [numbers[0], *(b for a, b in pairwise(numbers) if b != a + 1)]
    stops = [*(a + 1 for a, b in pairwise(numbers) if b != a + 1), numbers[-1] + 1]
    return tuple(zip(starts, stops, strict=True))
