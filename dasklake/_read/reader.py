"""Read samples of one version by their numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dasklake._codecs.sample import Sample
from dasklake._links.limits import LinkLimits
from dasklake._log.log import Log
from dasklake._lru import LRUCache
from dasklake._model.commit import Commit
from dasklake._model.manifest import Manifest
from dasklake._read.corruption import OnCorrupt, warn_once
from dasklake._read.decoded_sizes import decoded_sizes
from dasklake._read.decoder import Decoder, is_decoded
from dasklake._read.fetch import Fetcher
from dasklake._read.filter_pruning import chunks_to_read
from dasklake._read.filters import Condition
from dasklake._read.frame_plan import FramePlan
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.partition import read_rows
from dasklake._read.plan import ChunkLocation, ReadPlan, split_and_join
from dasklake._read.row_groups import RowGroup, row_groups
from dasklake._read.row_reader import RowReader
from dasklake._read.rows import Rows, as_rows, pack_rows
from dasklake._read.selection import Selected, read_selected, select_rows
from dasklake._read.shape_table import ShapeTable
from dasklake._read.statistics import VersionStatistics
from dasklake._schema.measurable import is_label
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    ObjectNotFoundError,
    UnsupportedFormatError,
    VersionExpiredError,
    VersionNotFoundError,
)

_T = TypeVar("_T")

#: Most chunks that a reader keeps in memory; the store's limits have the bytes of their pages.
_MAX_CHUNKS = 1024

#: Chunks whose shapes are read at the same time.
_THREADS = 8

#: Decoded bytes of a partition from which on a chunk is split. A frame of masks takes two to three
#: times as much while it is built, and a worker builds several at the same time.
DEFAULT_BLOCKSIZE = 128 * 2**20


class Reader:
    """Reads samples of one version and caches the most recent pages.

    Parameters
    ----------
    origin : Origin
        The version.
    manifest : callable
        Returns the chunks of the version. Called when the first sample is read, and with
        ``statistics=True`` when statistics are needed.
    """

    def __init__(self, origin: Origin, manifest: Callable[..., Manifest]) -> None:
        self.origin = origin
        self._manifest = manifest
        self._plan: ReadPlan | None = None
        self.schema = origin.schema
        self._decoder = Decoder(self.schema, origin.keys, origin.limits)
        size = origin.store.limits.cache_bytes
        self._cache = LRUCache[int, RowReader](max_entries=_MAX_CHUNKS, max_size=size)

    def __reduce__(self) -> tuple[Any, ...]:
        origin = self.origin
        version = origin.store, origin.branch, origin.version
        return _reopen, (*version, origin.on_corrupt, origin.limits)

    @cached_property
    def samples(self) -> int:
        """Number of samples that have every tensor of the version."""
        return self.origin.length(self.schema)

    @property
    def plan(self) -> ReadPlan:
        """The rows of each chunk."""
        if self._plan is None:
            self._plan = ReadPlan(self._manifest())
        return self._plan

    @cached_property
    def fetcher(self) -> Fetcher:
        """Reader of many samples at once."""
        return Fetcher(self.origin, lambda: self.plan)

    def statistics(self) -> VersionStatistics:
        """Read the statistics of all chunks, in the order of the plan. They are not cached."""
        manifest = self._manifest(statistics=True)
        return VersionStatistics(manifest, self.schema, self.origin.histories)

    def scalars(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of some class labels without a shape that have one label in each sample.

        The statistics of all chunks must show it; nothing else is read.
        """
        names = [n for n in names if is_label(self.schema[n]) and self.schema[n].shape is None]
        if not names:
            return frozenset()
        statistics = self.statistics()
        single: set[str] = set()
        for chunk in range(len(statistics)):
            entries = statistics.of(chunk, names)
            for name in list(names):
                entry = entries.get(name)
                if entry is None or (entry.present and entry.shape != ((), ())):
                    names.remove(name)
                elif entry.present:
                    single.add(name)
            if not names:
                break
        return frozenset(single & set(names))

    def chunks_to_read(self, condition: Condition) -> npt.NDArray[np.bool_]:
        """Return a mask of the chunks that may have samples that match a filter."""
        return chunks_to_read(self.statistics(), condition)

    def _first_rows(self, condition: Condition) -> frozenset[int]:
        """Return the numbers of the first samples of the chunks that a filter must read."""
        chunks = np.flatnonzero(self.chunks_to_read(condition)).tolist()
        return frozenset(self.plan.location(chunk).first for chunk in chunks)

    def groups(
        self, names: Sequence[str], blocksize: int | None = None, *, frame: bool = False
    ) -> list[tuple[ChunkLocation, ...]]:
        """Return the partitions of some tensors, each the samples of some neighbouring chunks.

        Parameters
        ----------
        names : sequence of str
            The tensors.
        blocksize : int, optional
            Maximum decoded bytes of a partition with more than one sample; small chunks are
            joined. By default, they are not joined, and larger ones than ``DEFAULT_BLOCKSIZE`` are
            split. Shapes of samples that are read one by one are not fetched for that.
        frame : bool, default False
            Whether the partitions are those of a frame, in which files are not decoded.
        """
        if not self.origin.length(names):
            return []
        locations = self.plan.locations()
        limit = blocksize or DEFAULT_BLOCKSIZE
        fetch = frame or blocksize is not None
        sizes = decoded_sizes(self.origin, locations, names, limit, frame=frame, fetch=fetch)
        return split_and_join(locations, sizes, limit, join=blocksize is not None)

    def row_groups(
        self,
        names: Sequence[str],
        rows: Rows,
        blocksize: int | None = None,
        *,
        frame: bool = False,
    ) -> list[RowGroup]:
        """Return the partitions of some samples; the other parameters are those of :meth:`groups`."""
        if not len(rows):
            return []
        return row_groups(self.plan, self.groups(names, blocksize, frame=frame), rows)

    def frame_plan(
        self, names: Sequence[str], rows: Rows, blocksize: int | None = None
    ) -> FramePlan:
        """Return the partitions of a frame of some samples, computed when they are needed."""
        groups = partial(self.row_groups, names, rows, blocksize, frame=True)
        token = (list(names), blocksize, tuple(pack_rows(rows)))
        origin = self.origin.with_scalars(self.scalars(names))
        return FramePlan(origin, len(rows), groups, token, self._first_rows)

    def names(self, columns: Any = None, among: Sequence[str] | None = None) -> list[str]:
        """Validate the names of tensors; None means all.

        Parameters
        ----------
        columns : sequence of str, optional
            The names.
        among : sequence of str, optional
            The tensors of a view. By default, those of the version.

        Raises
        ------
        InvalidInputError
            ``columns`` is not a list of strings.
        VersionNotFoundError
            The version does not have a tensor of ``columns``.
        """
        if isinstance(columns, str) or not isinstance(columns, Iterable | None):
            raise InvalidInputError(f"columns must be a list of tensor names, got {columns!r}.")
        tensors = list(self.schema) if among is None else among
        names = list(tensors if columns is None else columns)
        for name in names:
            if not isinstance(name, str):
                raise InvalidInputError(f"A tensor name must be a string, got {name!r}.")
            if name not in tensors:
                existing = ", ".join(map(repr, tensors)) or "none"
                version = f"Version {self.origin.version} of {self.origin.store.url}"
                owner = version if among is None else f"The view of {version.lower()}"
                raise VersionNotFoundError(
                    f"{owner} has no tensor {name!r}. Its tensors: {existing}."
                )
        return names

    def stream(self, names: Sequence[str]) -> Iterator[Sample]:
        """Return all samples, chunk by chunk.

        The segments are read at once, so that an error in them is raised before a list allocates
        memory for all samples.
        """
        locations = self.plan.locations() if self.origin.length(names) else []
        return read_rows(self.origin, locations, names)

    def select(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> tuple[Selected, ...]:
        """Return the parts of chunks that hold some samples, in their order."""
        return tuple(chain.from_iterable(select_rows(self.plan, as_rows(rows))))

    def selected(self, rows: Rows, names: Sequence[str]) -> Iterator[Sample]:
        """Yield some samples, in their order, chunk by chunk."""
        for parts in select_rows(self.plan, rows):
            yield from read_selected(self.origin, parts, names)

    def one(self, row: int, names: Sequence[str]) -> Sample:
        """Return one sample."""
        return self._decoder.sample(names, self.stored(row, names), row)

    def stored(self, row: int, names: Sequence[str]) -> list[Any]:
        """Return the stored, encoded values of one sample."""
        plan = self._plan or self.plan
        number, offset = plan.locate(row)
        return self.using(number, lambda reader: reader.read(offset, names))

    def content(self, row: int, name: str) -> bytes | None:
        """Return the bytes of a file; None for no value."""
        plan = self._plan or self.plan
        number, offset = plan.locate(row)
        return self.using(number, lambda reader: reader.content(offset, name))

    def many(self, rows: Sequence[int] | Rows, names: Sequence[str]) -> Iterator[Sample]:
        """Yield some samples. Neighbours in one chunk are fetched together.

        With ``on_corrupt="skip"``, samples of damaged chunks, and samples that cannot be decoded,
        are left out.
        """
        for number, offsets, numbers in self.by_chunk(rows):
            read = partial(RowReader.read_many, rows=offsets, names=names)
            stored = self.read_or_skip(number, read)
            decode = partial(self._decoder.sample_or_skip, self.origin, names)
            # A variable would keep each sample alive while the next one is decoded.
            yield from filter(is_decoded, map(decode, stored or (), numbers))

    def by_chunk(
        self, rows: Sequence[int] | Rows
    ) -> Iterator[tuple[int, list[int], Sequence[int]]]:
        """Group neighbours in one chunk.

        Yields
        ------
        tuple of (int, list of int, sequence of int)
            Number of a chunk, offsets in it, and numbers of the samples.
        """
        rows = rows.tolist() if isinstance(rows, np.ndarray) else rows
        located = [self.plan.locate(row) for row in rows]
        begin = 0
        while begin < len(rows):
            number = located[begin][0]
            end = begin
            while end < len(rows) and located[end][0] == number:
                end += 1
            yield number, [offset for _, offset in located[begin:end]], rows[begin:end]
            begin = end

    def block(self, rows: range, name: str) -> npt.NDArray[Any] | None:
        """Return consecutive stored values of a tensor as one array.

        Parameters
        ----------
        rows : range
            Numbers of the samples, at least one, with step 1.
        name : str
            The tensor.

        Returns
        -------
        numpy.ndarray or None
            Axis 0 is the samples. None if they are not stored as numbers of fixed shape, a value is
            missing, or a chunk is skipped.
        """
        parts = []
        row = rows.start
        while row < rows.stop:
            number, begin = self.plan.locate(row)
            end = min(begin + rows.stop - row, self.plan.location(number).rows)
            read = partial(RowReader.block, begin=begin, end=end, name=name)
            part = self.read_or_skip(number, read)
            if part is None:
                return None
            parts.append(part)
            row += end - begin
        return np.concatenate(parts)

    def read_or_skip(self, number: int, read: Callable[[RowReader], _T]) -> _T | None:
        """Read from a chunk, or return None if it is damaged and ``on_corrupt="skip"``."""
        try:
            return self.using(number, read)
        except CorruptionError as error:
            if self.origin.on_corrupt == "raise":
                raise
            warn_once(self.origin.store.url, self.plan.location(number), error)
            return None

    def shape_table(self, name: str, rows: Rows | None = None) -> ShapeTable:
        """Return the shapes of a tensor in all or some samples, without reading the values."""
        if not self.origin.length([name]):
            return ShapeTable.concatenate([])

        def read(part: Selected) -> ShapeTable:
            location = part.location
            table = self._rows(location).shape_table(name)
            if part.rows is None and not location.is_part:
                return table
            return table.take(list(part.rows or range(location.begin, location.stop)))

        parts = chain.from_iterable(select_rows(self.plan, rows))
        with ThreadPoolExecutor(_THREADS) as pool:
            return ShapeTable.concatenate(list(pool.map(read, parts)))

    def using(self, number: int, read: Callable[[RowReader], _T]) -> _T:
        """Read from a chunk; if it is missing, raise the reason."""
        reader = self._cache.get(number)
        if reader is None:
            reader = self._rows(self.plan.location(number))
            # Other threads use it at once, not only after this read.
            self._cache.put(number, reader, reader.chunk.resident)
        resident = reader.chunk.resident
        try:
            result = read(reader)
        except ObjectNotFoundError as error:
            raise self.origin.missing(reader.chunk.location.key) from error
        if reader.chunk.resident != resident:
            self._cache.put(number, reader, reader.chunk.resident)
        return result

    def _rows(self, location: ChunkLocation) -> RowReader:
        stored = partial(self.origin.stored_name, location=location)
        return RowReader(open_chunk(self.origin, location, sparse=True), self.schema, stored)


def make_reader(
    log: Log,
    commit: Commit,
    on_corrupt: OnCorrupt = "raise",
    limits: LinkLimits | None = None,
) -> Reader:
    """Return a reader of a version."""
    origin = Origin(log.store.cached, commit, on_corrupt, limits)
    return Reader(origin, partial(log.manifest, commit))


def _reopen(
    store: ObjectStore,
    branch: str,
    version: int,
    on_corrupt: OnCorrupt,
    limits: LinkLimits | None,
) -> Reader:
    log = Log(store, branch)
    return make_reader(log, resolve_commit(log, version), on_corrupt, limits)


def resolve_commit(log: Log, version: int | None) -> Commit:
    """Return the commit of a version, by default the newest.

    Raises
    ------
    LakeNotFoundError
        The lake does not exist.
    VersionNotFoundError
        The lake does not have this version.
    VersionExpiredError
        The version was expired.
    InvalidInputError
        ``version`` is not an integer.
    """
    if version is None:
        return log.require_head()
    try:
        number = operator.index(version)
    except TypeError:
        raise InvalidInputError(f"version must be a number, got {version!r}.") from None
    newest = log.require_head_version()
    if number < 0 or number > newest:
        raise VersionNotFoundError(
            f"{log.store.url} has no version {number}; the newest is {newest}."
        )
    try:
        head = log.head()
    except (CorruptionError, UnsupportedFormatError):
        if number == newest:
            raise
        # A damaged entry does not affect the versions before it.
        head = log.newest_readable(newest)
    if head is not None and number == head.version:
        return head
    if head is not None and number in head.expired.get(log.branch, ()):
        raise VersionExpiredError(
            f"Version {number} of {log.store.url} was expired. Open the newest version."
        )
    return log.read(number)
