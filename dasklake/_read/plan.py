"""Map rows to chunks, and group chunks into partitions."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from dasklake._format.segment import chunk_key_at
from dasklake._model.manifest import Manifest

__all__ = ["ChunkLocation", "ReadPlan"]


class ChunkLocation(NamedTuple):
    """The object of a chunk and its rows in the version, small enough for each task.

    ``first`` is the number of its first sample in the version.
    """

    key: str
    first: int
    rows: int
    size: int
    head: int
    crc: int


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

    def location(self, chunk: int) -> ChunkLocation:
        """Return the location of a chunk."""
        m = self._manifest
        rows, size, head, crc = (int(column[chunk]) for column in (m.rows, m.size, m.head, m.crc))
        return ChunkLocation(
            chunk_key_at(m, chunk), self._ends[chunk] - rows, rows, size, head, crc
        )

    def groups(self, blocksize: int | None = None) -> list[tuple[ChunkLocation, ...]]:
        """Return all chunks with rows, in order, joined up to ``blocksize`` bytes.

        Parameters
        ----------
        blocksize : int or None
            Maximum size of a group of several chunks; None for one chunk per group.
        """
        groups: list[tuple[ChunkLocation, ...]] = []
        group: list[ChunkLocation] = []
        size = 0
        for chunk in np.flatnonzero(self._manifest.rows).tolist():
            location = self.location(chunk)
            if group and (blocksize is None or size + location.size > blocksize):
                groups.append(tuple(group))
                group, size = [], 0
            group.append(location)
            size += location.size
        return [*groups, tuple(group)] if group else groups
