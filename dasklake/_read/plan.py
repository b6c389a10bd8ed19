"""Map rows to chunks, and group chunks into partitions."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dasklake._format.chunk_parts import parts_of
from dasklake._format.segment import chunk_key_at
from dasklake._model.manifest import Manifest


class ChunkLocation(NamedTuple):
    """The object of a chunk and its rows in the version, small enough for each task.

    Attributes
    ----------
    key : str
        Key of the object.
    first : int
        Number of the chunk's first sample in the version.
    rows : int
        Samples in the chunk.
    size, head, crc : int
        Length of the object and of its head in bytes, crc32c of the head.
    begin, end : int
        Samples of the chunk to read, as offsets in it. An ``end`` of -1 means up to the last.
    """

    key: str
    first: int
    rows: int
    size: int
    head: int
    crc: int
    begin: int = 0
    end: int = -1

    @property
    def stop(self) -> int:
        """One after the last sample to read, as an offset in the chunk."""
        return self.rows if self.end < 0 else self.end

    @property
    def span(self) -> range:
        """Numbers of the samples to read in the version."""
        return range(self.first + self.begin, self.first + self.stop)

    @property
    def is_part(self) -> bool:
        """Return whether only some samples of the chunk are read."""
        return len(self.span) < self.rows


class ReadPlan:
    """The rows of each chunk of one version.

    Parameters
    ----------
    manifest : Manifest
        The chunks of the version, in row order.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        ends = np.cumsum(manifest.rows, dtype=np.int64)
        #: One after the last row of each chunk. An empty chunk repeats the value of its neighbour.
        self._ends = array("q", ends.tobytes())

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, row: int) -> tuple[int, int]:
        """Return the chunk of a row, and the offset of the row in it.

        Parameters
        ----------
        row : int
            Number of the row in the version, from 0 to ``len(self) - 1``.
        """
        chunk = bisect_right(self._ends, row)
        return chunk, row - (self._ends[chunk - 1] if chunk else 0)

    def locate_all(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the chunk of each row, and the offset of each row in its chunk; see :meth:`locate`."""
        ends = np.frombuffer(self._ends, np.int64)
        chunks = np.searchsorted(ends, rows, side="right")
        first = np.where(chunks > 0, ends[chunks - 1], 0)
        return chunks, rows - first

    def keys(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the keys of some rows, which never change: run, partition and position in it.

        A run is given by its order number, which no other run of the lake has.
        """
        parts = parts_of(self._manifest)
        ends = np.cumsum(parts.rows)
        first = ends - parts.rows
        is_new = (np.diff(parts.order, prepend=-1) != 0) | (
            np.diff(parts.partition, prepend=-1) != 0
        )
        # Rows of a partition are neighbours, so the first one is the last new one before a row.
        start = np.maximum.accumulate(np.where(is_new, first, 0))
        part = np.searchsorted(ends, rows, side="right")
        return parts.order[part], parts.partition[part], rows - start[part]

    def location(self, chunk: int) -> ChunkLocation:
        """Return the location of a chunk."""
        m = self._manifest
        rows, size, head, crc = (int(column[chunk]) for column in (m.rows, m.size, m.head, m.crc))
        return ChunkLocation(
            chunk_key_at(m, chunk), self._ends[chunk] - rows, rows, size, head, crc
        )

    def locations(self) -> list[ChunkLocation]:
        """Return the locations of all chunks with rows, in order."""
        return [self.location(chunk) for chunk in np.flatnonzero(self._manifest.rows).tolist()]


#: Decoded bytes of a chunk: one number for all of its rows, or one for each row.
Sizes = int | npt.NDArray[np.int64]


def split_and_join(
    locations: Sequence[ChunkLocation], sizes: Sequence[Sizes], blocksize: int, *, join: bool
) -> list[tuple[ChunkLocation, ...]]:
    """Return groups of at most ``blocksize`` decoded bytes; a larger sample is alone.

    Parameters
    ----------
    locations : sequence of ChunkLocation
        Whole chunks, in order.
    sizes : sequence of (int or numpy.ndarray)
        The decoded bytes of each chunk. A chunk with one number is split into equal parts.
    blocksize : int
        Maximum decoded bytes of a group.
    join : bool
        Whether small parts of neighbouring chunks become one group.
    """
    groups: list[tuple[ChunkLocation, ...]] = []
    group: list[ChunkLocation] = []
    filled = 0
    for location, size in zip(locations, sizes, strict=True):
        for begin, end, nbytes in _cuts(location.rows, size, blocksize):
            whole = end - begin == location.rows
            part = location if whole else location._replace(begin=begin, end=end)
            if group and (not join or filled + nbytes > blocksize):
                groups.append(tuple(group))
                group, filled = [], 0
            group.append(part)
            filled += nbytes
    return [*groups, tuple(group)] if group else groups


def _cuts(rows: int, size: Sizes, blocksize: int) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of a chunk: first row, the one after the last, and decoded bytes."""
    if isinstance(size, int):
        count = min(rows, max(1, math.ceil(size / blocksize)))
        edges = [rows * i // count for i in range(count + 1)]
        yield from ((begin, end, size * (end - begin) // rows) for begin, end in pairwise(edges))
        return
    ends = np.cumsum(size)
    begin, before = 0, 0
    while begin < rows:
        end = int(np.searchsorted(ends, before + blocksize, side="right"))
        end = max(end, begin + 1)
        yield begin, end, int(ends[end - 1]) - before
        begin, before = end, int(ends[end - 1])
