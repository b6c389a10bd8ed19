"""Samples of one version by their places: which chunk, which bytes, which values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._model.manifest import Manifest
from dasklake._read.cache import LRUCache
from dasklake._read.column_readers import Shape
from dasklake._read.corruption import OnCorrupt, warn_once
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.partition import Decoder, read_rows
from dasklake._read.plan import ChunkLocation, ReadPlan
from dasklake._read.row_reader import RowReader
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    ObjectNotFoundError,
    VersionExpiredError,
    VersionNotFoundError,
)

__all__ = ["Reader", "make_reader", "resolve_commit", "resolve_row", "resolve_rows"]


_T = TypeVar("_T")

#: Most chunks, and bytes of their pages, that a reader keeps in memory.
_MAX_CHUNKS = 1024
_MAX_BYTES = 256 * 2**20


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
        self._decoder = Decoder(self.schema, origin.keys)
        self._cache = LRUCache[int, RowReader](_MAX_CHUNKS, _MAX_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        origin = self.origin
        return _again, (origin.store, origin.branch, origin.version, origin.on_corrupt)

    @property
    def plan(self) -> ReadPlan:
        """Which rows lie in which chunk."""
        if self._plan is None:
            self._plan = ReadPlan(self._manifest())
        return self._plan

    def groups(
        self, names: Iterable[str], blocksize: int | None = None
    ) -> list[tuple[ChunkLocation, ...]]:
        """Return the chunks of some tensors, joined up to ``blocksize`` bytes."""
        return self.plan.groups(blocksize) if self.origin.length(names) else []

    def names(self, columns: Any = None) -> list[str]:
        """Return the names of the tensors that were asked for; all for None.

        Raises
        ------
        InvalidInputError
            They are not a list of strings.
        VersionNotFoundError
            There is no such tensor.
        """
        if isinstance(columns, str) or not isinstance(columns, Iterable | None):
            raise InvalidInputError(f"Columns are a list of tensors' names, not {columns!r}.")
        names = list(self.schema if columns is None else columns)
        for name in names:
            if not isinstance(name, str):
                raise InvalidInputError(f"A tensor's name is a string, not {name!r}.")
            if name not in self.schema:
                known = ", ".join(map(repr, self.schema))
                raise VersionNotFoundError(
                    f"Version {self.origin.version} of {self.origin.store.url} has no tensor "
                    f"{name!r}. It has {known}."
                )
        return names

    def stream(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Return all samples, chunk by chunk.

        The segments are read at once: before a list makes room for as many samples as the commit
        says there are.
        """
        groups = self.groups(names)
        return (sample for group in groups for sample in read_rows(self.origin, group, names))

    def one(self, row: int, names: Sequence[str]) -> list[Any]:
        """Return the values of one sample."""
        decode = self._decoder.decode
        stored = self.stored(row, names)
        return [decode(name, each, row) for name, each in zip(names, stored, strict=True)]

    def stored(self, row: int, names: Sequence[str]) -> list[Any]:
        """Return what the chunk stores of one sample."""
        plan = self._plan or self.plan
        number, place = plan.locate(row)
        return self._using(number, lambda reader: reader.read(place, names))

    def many(self, rows: Sequence[int], names: Sequence[str]) -> Iterator[list[Any]]:
        """Yield the values of some samples; neighbours of one chunk are fetched together.

        Those of damaged chunks are left out if they may be.
        """
        located = [self.plan.locate(row) for row in rows]
        begin = 0
        while begin < len(rows):
            number = located[begin][0]
            end = begin
            while end < len(rows) and located[end][0] == number:
                end += 1
            places = [place for _, place in located[begin:end]]
            found = self._kept(number, partial(RowReader.read_many, rows=places, names=names))
            for row, stored in zip(rows[begin:end], found or (), strict=found is not None):
                pairs = zip(names, stored, strict=True)
                yield [self._decoder.decode(name, each, row) for name, each in pairs]
            begin = end

    def block(self, rows: range, name: str) -> npt.NDArray[Any] | None:
        """Return consecutive samples of a tensor as one array, as they are stored.

        Parameters
        ----------
        rows : range
            Places of the samples, at least one, with step 1.
        name : str
            The tensor.

        Returns
        -------
        numpy.ndarray or None
            Axis 0 = samples; None where they are not stored as numbers of one shape, one has no
            value, or some have to be left out.
        """
        parts = []
        row = rows.start
        while row < rows.stop:
            number, begin = self.plan.locate(row)
            end = min(begin + rows.stop - row, self.plan.location(number).rows)
            read = partial(RowReader.block, begin=begin, end=end, name=name)
            part = self._kept(number, read)
            if part is None:
                return None
            parts.append(part)
            row += end - begin
        return np.concatenate(parts)

    def _kept(self, number: int, read: Callable[[RowReader], _T]) -> _T | None:
        """Read from a chunk; None where it is damaged, if it may be."""
        try:
            return self._using(number, read)
        except CorruptionError as error:
            if self.origin.on_corrupt == "raise":
                raise
            warn_once(self.origin.store.url, self.plan.location(number), error)
            return None

    def shapes(self, name: str) -> Iterator[Shape | None]:
        """Yield the shape of each value of a tensor; None for no value."""
        for group in self.groups([name]):
            for location in group:
                yield from self._rows(location).shapes(name)

    def _using(self, number: int, read: Callable[[RowReader], _T]) -> _T:
        """Read from a chunk; if it is missing, raise the reason."""
        reader = self._cache.get(number)
        if reader is None:
            reader = self._rows(self.plan.location(number))
            # Other threads use it at once, not only after this read.
            self._cache.put(number, reader)
        try:
            result = read(reader)
        except ObjectNotFoundError as error:
            raise self.origin.missing(reader.chunk.location.key) from error
        self._cache.put(number, reader, reader.chunk.resident)
        return result

    def _rows(self, location: ChunkLocation) -> RowReader:
        stored = partial(self.origin.stored_name, location=location)
        return RowReader(open_chunk(self.origin, location), self.schema, stored)


def make_reader(log: Log, commit: Commit, on_corrupt: OnCorrupt = "raise") -> Reader:
    """Return a reader of a version."""
    return Reader(Origin(log.store, commit, on_corrupt), partial(log.manifest, commit))


def _again(store: ObjectStore, branch: str, version: int, on_corrupt: OnCorrupt) -> Reader:
    log = Log(store, branch)
    return make_reader(log, resolve_commit(log, version), on_corrupt)


def resolve_row(item: Any, length: int) -> int:
    """Return the place that an index means; negative ones count from the end.

    Raises
    ------
    IndexError
        There is no such sample.
    InvalidInputError
        It is no index.
    """
    try:
        # True is 1 to Python, and part of a mask to everybody else.
        row = None if isinstance(item, bool) else operator.index(item)
    except TypeError:
        row = None
    if row is None:
        raise InvalidInputError(
            f"{item!r} is no place of a sample. Use a number, a slice, a list of numbers, or the "
            "name of a tensor."
        )
    if not -length <= row < length:
        raise IndexError(f"There is no sample {row}: there are {length}.")
    return row + length if row < 0 else row


def resolve_rows(item: Any, length: int) -> Sequence[int]:
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
    if not isinstance(item, np.ndarray) and all(isinstance(each, bool | np.bool_) for each in item):
        item = np.array(item, bool) if len(item) else ()
    if isinstance(item, np.ndarray) and item.dtype == bool:
        if item.shape != (length,):
            raise InvalidInputError(f"A mask of samples has the shape ({length},).")
        item = np.flatnonzero(item)
    return [resolve_row(each, length) for each in item]


def resolve_commit(log: Log, version: int | None) -> Commit:
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
