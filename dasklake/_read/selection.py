"""Select samples of a version, and read them as stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from dasklake._codecs.sample import Sample
from dasklake._read.corruption import warn_once
from dasklake._read.decoder import Decoder
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.partition import read_rows
from dasklake._read.plan import ChunkLocation, ReadPlan
from dasklake._read.row_reader import RowReader
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
        The chunk.
    rows : tuple of int or None
        Their offsets in the chunk, in the order in which they are read; None for all samples.
    """

    location: ChunkLocation
    rows: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Approximate number of stored bytes."""
        rows = self.location.rows if self.rows is None else len(self.rows)
        return rows * self.location.size // max(1, self.location.rows)


def select_rows(plan: ReadPlan, rows: Iterable[int] | None) -> list[tuple[Selected, ...]]:
    """Return the partitions of some samples; None means all samples of the version.

    Parameters
    ----------
    plan : ReadPlan
        The rows of each chunk.
    rows : iterable of int or None
        Numbers of the samples, in the order in which they are read.
    """
    if rows is None:
        return _joined(map(Selected, plan.locations()))
    return _joined(_of_chunks(plan, rows))


def _of_chunks(plan: ReadPlan, rows: Iterable[int]) -> Iterator[Selected]:
    """Yield consecutive rows of one chunk together, up to the size of a partition."""
    for chunk, located in groupby(map(plan.locate, rows), key=itemgetter(0)):
        location = plan.location(chunk)
        most = max(1, _PARTITION_BYTES * location.rows // max(1, location.size))
        offsets = tuple(offset for _, offset in located)
        for begin in range(0, len(offsets), most):
            yield Selected(location, offsets[begin : begin + most])


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
