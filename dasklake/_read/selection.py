"""Select samples of a version, and read them as stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dasklake._codecs.sample import Sample
from dasklake._read.corruption import warn_once
from dasklake._read.decoder import Decoder
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.partition import read_rows
from dasklake._read.plan import ChunkLocation, ReadPlan
from dasklake._read.row_reader import RowReader
from dasklake._read.rows import Rows
from dasklake.exceptions import CorruptionError

__all__ = ["Selected", "read_selected", "select_rows"]

#: Most stored bytes of a partition with more than one sample, and most samples read at the same time.
_PARTITION_BYTES = 64 * 2**20
_BATCH = 64


class Selected(NamedTuple):
    """Some samples of a chunk.

    Attributes
    ----------
    location : ChunkLocation
        The chunk, or consecutive samples of it.
    rows : tuple of int or None
        Their offsets in the chunk, in the order in which they are read; None for all samples of the
        location.
    """

    location: ChunkLocation
    rows: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Approximate number of stored bytes."""
        rows = len(self.location.span) if self.rows is None else len(self.rows)
        return rows * self.location.size // max(1, self.location.rows)


def select_rows(plan: ReadPlan, rows: Rows | None) -> list[tuple[Selected, ...]]:
    """Return the partitions of some samples; None means all samples of the version.

    Parameters
    ----------
    plan : ReadPlan
        The rows of each chunk.
    rows : range, numpy.ndarray or None
        Numbers of the samples, in the order in which they are read.
    """
    if rows is None:
        return _joined(map(Selected, plan.locations()))
    return _joined(_of_chunks(plan, rows))


def _of_chunks(plan: ReadPlan, rows: Rows) -> Iterator[Selected]:
    """Yield consecutive rows of one chunk together, up to the size of a partition."""
    chunks, offsets = plan.locate_all(np.asarray(rows, np.int64))
    edges = np.flatnonzero(np.diff(chunks, prepend=-1, append=-1))
    for start, stop in pairwise(edges.tolist()):
        location = plan.location(int(chunks[start]))
        most = max(1, _PARTITION_BYTES * location.rows // max(1, location.size))
        for begin in range(start, stop, most):
            yield _selected(location, offsets[begin : min(begin + most, stop)])


def _selected(location: ChunkLocation, offsets: npt.NDArray[np.int64]) -> Selected:
    """Return some samples of a chunk, as a part of it if they are consecutive."""
    begin, end = int(offsets[0]), int(offsets[-1]) + 1
    if (np.diff(offsets) != 1).any():
        return Selected(location, tuple(offsets.tolist()))
    whole = end - begin == location.rows
    return Selected(location if whole else location._replace(begin=begin, end=end))


def _joined(parts: Iterable[Selected]) -> list[tuple[Selected, ...]]:
    groups: list[tuple[Selected, ...]] = []
    group: list[Selected] = []
    size = 0
    for part in parts:
        if group and size + part.nbytes > _PARTITION_BYTES:
            groups.append(tuple(group))
            group, size = [], 0
        group.append(part)
        size += part.nbytes
    return [*groups, tuple(group)] if group else groups


def read_selected(
    origin: Origin, parts: Sequence[Selected], names: Sequence[str]
) -> Iterator[Sample]:
    """Yield the samples of a partition, in order, undecoded."""
    for part in parts:
        if part.rows is None:
            yield from read_rows(origin, [part.location], names)
        else:
            yield from _read_rows_of(origin, part.location, part.rows, names)


def _read_rows_of(
    origin: Origin, location: ChunkLocation, rows: tuple[int, ...], names: Sequence[str]
) -> Iterator[Sample]:
    decoder = Decoder({name: origin.schema[name] for name in names}, origin.keys, origin.limits)
    try:
        stored_name = partial(origin.stored_name, location=location)
        reader = RowReader(open_chunk(origin, location), origin.schema, stored_name)
        for begin in range(0, len(rows), _BATCH):
            batch = rows[begin : begin + _BATCH]
            for row, stored in zip(batch, reader.read_many(batch, names), strict=True):
                yield decoder.sample(names, stored, location.first + row)
    except CorruptionError as error:
        if origin.on_corrupt == "raise":
            raise
        warn_once(origin.store.url, location, error)
