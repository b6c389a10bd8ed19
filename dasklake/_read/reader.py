"""Samples of one version by their places: which chunk, which bytes, which values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dasklake._model.commit import Commit
from dasklake._model.manifest import Manifest
from dasklake._read.partition import Decoder, Origin, open_chunk, read_rows
from dasklake._read.plan import ChunkPlace, ReadPlan
from dasklake._read.rows import RowReader
from dasklake._read.source import ChunkCache
from dasklake._store.log import Log
from dasklake.exceptions import (
    InvalidInputError,
    ObjectNotFoundError,
    VersionExpiredError,
    VersionNotFoundError,
)

__all__ = ["Reader", "commit_of", "row_asked", "rows_asked"]


class Reader:
    """Reads samples of one version, and keeps the pages that were used last.

    Parameters
    ----------
    origin : Origin
        The version.
    manifest : callable
        Returns its chunks; called when the first sample is asked for.
    """

    def __init__(self, origin: Origin, manifest: Callable[[], Manifest]) -> None:
        self.origin = origin
        self._manifest = manifest
        self._plan: ReadPlan | None = None
        self.schema = origin.schema
        self._decoder = Decoder(self.schema)
        self._cache = ChunkCache(self._open)

    @property
    def plan(self) -> ReadPlan:
        """Which rows lie in which chunk."""
        if self._plan is None:
            self._plan = ReadPlan(self._manifest())
        return self._plan

    def groups(self, blocksize: int | None = None) -> list[tuple[ChunkPlace, ...]]:
        """Return the chunks, joined up to ``blocksize`` bytes."""
        return self.plan.groups(blocksize)

    def stream(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield all samples, chunk by chunk."""
        for group in self.groups():
            yield from read_rows(self.origin, group, names)

    def one(self, row: int, names: Sequence[str]) -> list[Any]:
        """Return the values of one sample."""
        decode = self._decoder.decode
        stored = self.stored(row, names)
        return [decode(name, each, row) for name, each in zip(names, stored, strict=True)]

    def stored(self, row: int, names: Sequence[str]) -> list[Any]:
        """Return what the chunk stores of one sample."""
        plan = self._plan or self.plan
        number, place = plan.locate(row)
        reader = self._cache.get(number)
        try:
            stored: list[Any] = reader.read(place, names)
        except ObjectNotFoundError as error:
            raise self.origin.missing(reader.chunk.place.key) from error
        self._cache.used(number, reader.chunk.resident)
        return stored

    def many(self, rows: Sequence[int], names: Sequence[str]) -> Iterator[list[Any]]:
        """Yield the values of some samples; neighbours of one chunk are fetched together."""
        located = [self.plan.locate(row) for row in rows]
        begin = 0
        while begin < len(rows):
            number = located[begin][0]
            end = begin
            while end < len(rows) and located[end][0] == number:
                end += 1
            reader = self._cache.get(number)
            try:
                found = reader.read_many([place for _, place in located[begin:end]], names)
            except ObjectNotFoundError as error:
                raise self.origin.missing(reader.chunk.place.key) from error
            self._cache.used(number, reader.chunk.resident)
            for row, stored in zip(rows[begin:end], found, strict=True):
                pairs = zip(names, stored, strict=True)
                yield [self._decoder.decode(name, each, row) for name, each in pairs]
            begin = end

    def _open(self, number: int) -> RowReader:
        return RowReader(open_chunk(self.origin, self.plan.place(number)), self.schema)


def row_asked(item: Any, length: int) -> int:
    """Return the place that an index means; negative ones count from the end.

    Raises
    ------
    IndexError
        There is no such sample.
    InvalidInputError
        It is no index.
    """
    try:
        row = operator.index(item)
    except TypeError:
        raise InvalidInputError(
            f"{item!r} is no place of a sample. Use a number, a slice, a list of numbers, or the "
            "name of a tensor."
        ) from None
    if not -length <= row < length:
        raise IndexError(f"There is no sample {row}: there are {length}.")
    return row + length if row < 0 else row


def rows_asked(item: Any, length: int) -> Sequence[int]:
    """Return the places that a slice, a list or a mask means.

    Raises
    ------
    IndexError
        There is no such sample.
    InvalidInputError
        It is no index.
    """
    if isinstance(item, slice):
        return range(*item.indices(length))
    if isinstance(item, np.ndarray) and item.dtype == bool:
        if item.shape != (length,):
            raise InvalidInputError(f"A mask of samples has the shape ({length},).")
        item = np.flatnonzero(item)
    return [row_asked(each, length) for each in item]


def commit_of(log: Log, version: int | None) -> Commit:
    """Return the commit of a version; the newest for None.

    Raises
    ------
    LakeNotFoundError
        There is no lake.
    VersionNotFoundError, VersionExpiredError
        It has no such version, or has it no more.
    InvalidInputError
        ``version`` is no number.
    """
    head = log.require_head()
    if version is None or version == head.version:
        return head
    try:
        number = operator.index(version)
    except TypeError:
        raise InvalidInputError(f"A version is a number, not {version!r}.") from None
    if number < 0 or number > head.version:
        raise VersionNotFoundError(
            f"{log.store.url} has no version {number}; the newest is {head.version}."
        )
    if number in head.expired.get(log.branch, ()):
        raise VersionExpiredError(
            f"Version {number} of {log.store.url} was expired. Open the newest version."
        )
    return log.read(number)
