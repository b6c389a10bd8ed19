"""Read many samples of a version: group rows by chunk, and read the byte ranges of each chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dasklake._fork import renew_after_fork
from dasklake._lru import LRUCache
from dasklake._read.chunk_pieces import ChunkPieces, PiecesPlan
from dasklake._read.corruption import warn_once
from dasklake._read.fetched import Column, Fetched, Form, Numbers, Tensors
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.plan import ReadPlan
from dasklake._read.row_reader import RowReader
from dasklake._read.rows import Rows
from dasklake._storage.memory_pool import MemoryPool
from dasklake._storage.object_reader import Request
from dasklake.exceptions import CorruptionError, ObjectNotFoundError

_A = TypeVar("_A")
_T = TypeVar("_T")

_Rows = npt.NDArray[np.int64]
_Memories = list[npt.NDArray[np.uint8]]

#: Most chunks, and bytes of their tables and small tensors, that are kept.
_MAX_CHUNKS = 1024
_MAX_TABLES = 64 * 2**20

#: Gap between two ranges that is read with them, and most bytes of a range. On a disk, ranges should
#: stay in the processor's cache; on other storage, each of them is a request.
_LOCAL_GAP, _LOCAL_RANGE = 16 * 2**10, 2**19
_REMOTE_GAP, _REMOTE_RANGE = 64 * 2**10, 8 * 2**20

#: Chunks that are opened or read at the same time.
_CHUNKS = 8

#: Memory of all lakes of the process: the next lake that is opened uses that of the last one.
_MEMORY = MemoryPool()


class _Group(NamedTuple):
    """The rows of one chunk: its number, their positions, and their offsets in the chunk."""

    number: int
    where: slice | _Rows
    offsets: _Rows


class _GroupPlan(NamedTuple):
    """The byte ranges of one chunk; None for a damaged chunk that is left out."""

    group: _Group
    ranges: tuple[ChunkPieces, PiecesPlan] | None


def _request(pieces: ChunkPieces, plan: PiecesPlan) -> Request:
    """Return the byte ranges of a chunk as a request."""
    return Request(pieces.chunk.location.key, plan.spans, pieces.chunk.check)


class FetchPlan(NamedTuple):
    """The byte ranges of some samples.

    Attributes
    ----------
    rows : numpy.ndarray
        int64: numbers of the samples in the version.
    groups : list
        Their chunks.
    nbytes : int
        Bytes of memory that the values take.
    """

    rows: _Rows
    groups: list[_GroupPlan]
    nbytes: int


class Fetcher:
    """Reads the stored values of many samples of a version.

    Parameters
    ----------
    origin : Origin
        The version.
    plan : callable
        Returns the rows of each chunk.
    """

    def __init__(self, origin: Origin, plan: Callable[[], ReadPlan]) -> None:
        self._origin = origin
        self._plan = plan
        self.tensors = Tensors(origin.schema)
        self._chunks = LRUCache[int, ChunkPieces](max_entries=_MAX_CHUNKS, max_size=_MAX_TABLES)
        self._locks: dict[int, Lock] = {}
        self._guard = Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        """Replace the locks."""
        self._locks = {}
        self._guard = Lock()

    @property
    def local(self) -> bool:
        """True if the samples are on a disk."""
        return self._origin.store.local

    def fetch(self, rows: _Rows, forms: Mapping[str, Form]) -> Fetched:
        """Return the stored values of some samples.

        Parameters
        ----------
        rows : numpy.ndarray
            int64: numbers of the samples in the version.
        forms : mapping of str to Form
            The tensors, and the forms of their values.

        Raises
        ------
        CorruptionError
            A chunk is damaged.
        """
        return self.read(self.plan(rows, list(forms)), forms)

    def bytes_per_row(self, rows: Rows, names: Sequence[str]) -> float:
        """Return the stored bytes of a sample of some tensors, as in the chunk of the first sample."""
        if not len(rows):
            return 1.0
        number, _ = self._plan().locate(int(rows[0]))
        if len(names) == len(self._origin.schema):
            location = self._plan().location(number)
            return max(1.0, location.size / location.rows)

        def open_first() -> ChunkPieces:
            with self._lock_of(number):
                return self._opened(number)

        pieces = self._or_skip(number, open_first)
        if pieces is None:
            return 1.0
        spans = [span for name in names for span in pieces.reader.spans(name)]
        return max(1.0, sum(stop - start for start, stop in spans) / max(1, pieces.chunk.head.rows))

    def plan(self, rows: _Rows, names: Sequence[str]) -> FetchPlan:
        """Open the chunks of some samples, load their tables, and return the byte ranges.

        Parameters
        ----------
        rows : numpy.ndarray
            int64: numbers of the samples in the version.
        names : sequence of str
            The tensors.
        """
        groups = self._map(partial(self._plan_group, names=names), list(self._groups(rows)))
        read = sum(group.ranges[1].nbytes for group in groups if group.ranges is not None)
        columns = [self._column(name, 1) for name in names]
        width = sum(column.values.nbytes for column in columns if isinstance(column, Numbers))
        return FetchPlan(rows, groups, read + width * len(rows))

    def read(self, plan: FetchPlan, forms: Mapping[str, Form]) -> Fetched:
        """Read the byte ranges of some samples; see :meth:`fetch`."""
        columns = {name: self._column(name, len(plan.rows)) for name in forms}
        damaged: npt.NDArray[np.bool_] | None = None
        for group, memories in zip(plan.groups, self._read_groups(plan.groups), strict=True):
            fill = partial(self._fill, group, memories, columns, forms)
            if not self._or_skip(group.group.number, fill):
                damaged = np.zeros(len(plan.rows), np.bool_) if damaged is None else damaged
                damaged[group.group.where] = True
        return Fetched(plan.rows, columns, damaged)

    def _read_groups(self, groups: Sequence[_GroupPlan]) -> Sequence[_Memories | None]:
        """Read the byte ranges of all chunks; None for each if one cannot be read."""
        requests = [_request(*group.ranges) for group in groups if group.ranges is not None]
        try:
            memories = iter(self._origin.store.read_many(requests, _MEMORY.arena().empty))
        except (CorruptionError, ObjectNotFoundError):
            return [None] * len(groups)  # each chunk is read alone, to find the damaged one
        return [None if group.ranges is None else next(memories) for group in groups]

    def _fill(
        self,
        group: _GroupPlan,
        memories: _Memories | None,
        columns: Mapping[str, Column],
        forms: Mapping[str, Form],
    ) -> bool:
        """Put the values of a chunk into columns; return False if it is left out."""
        if group.ranges is None:
            return False
        pieces, ranges = group.ranges
        if memories is None:
            arena = _MEMORY.arena()
            (memories,) = self._origin.store.read_many([_request(pieces, ranges)], arena.empty)
        pieces.fill(ranges, memories, group.group.where, columns, forms)
        return True

    def _groups(self, rows: _Rows) -> Iterator[_Group]:
        """Yield the rows of each chunk, in the order of the chunks unless neighbours are in order."""
        if not len(rows):
            return
        chunks, offsets = self._plan().locate_all(rows)
        steps = np.diff(chunks)
        order: _Rows | None = None
        if (steps < 0).any():
            order = np.argsort(chunks, kind="stable")
            chunks, offsets = chunks[order], offsets[order]
            steps = np.diff(chunks)
        edges = [0, *(np.flatnonzero(steps) + 1).tolist(), len(rows)]
        for begin, end in pairwise(edges):
            where = slice(begin, end) if order is None else order[begin:end]
            yield _Group(int(chunks[begin]), where, offsets[begin:end])

    def _plan_group(self, group: _Group, names: Sequence[str]) -> _GroupPlan:
        gap, most = (_LOCAL_GAP, _LOCAL_RANGE) if self.local else (_REMOTE_GAP, _REMOTE_RANGE)

        def plan() -> tuple[ChunkPieces, PiecesPlan]:
            pieces = self._chunks.get(group.number)
            if pieces is not None and pieces.is_loaded(names):
                return pieces, pieces.plan(group.offsets, names, gap, most)
            # Threads that need the same chunk wait, instead of reading the same bytes.
            with self._lock_of(group.number):
                pieces = self._opened(group.number)
                ranges = pieces.plan(group.offsets, names, gap, most)
                self._chunks.put(group.number, pieces, pieces.chunk.resident)
            return pieces, ranges

        return _GroupPlan(group, self._or_skip(group.number, plan))

    def _or_skip(self, number: int, action: Callable[[], _T]) -> _T | None:
        """Call an action on a chunk; None if the chunk is damaged and ``on_corrupt="skip"``."""
        try:
            return action()
        except ObjectNotFoundError as error:
            missing = self._origin.missing(self._plan().location(number).key)
            if not isinstance(missing, CorruptionError) or self._origin.on_corrupt == "raise":
                raise missing from error
            damage = missing
        except CorruptionError as error:
            if self._origin.on_corrupt == "raise":
                raise
            damage = error
        warn_once(self._origin.store.url, self._plan().location(number), damage)
        return None

    def _opened(self, number: int) -> ChunkPieces:
        """Return a chunk from the cache, or open it."""
        pieces = self._chunks.get(number)
        if pieces is None:
            location = self._plan().location(number)
            chunk = open_chunk(self._origin, location, sparse=True, ahead=True)
            stored = partial(self._origin.stored_name, location=location)
            pieces = ChunkPieces(RowReader(chunk, self._origin.schema, stored), self.tensors)
            self._chunks.put(number, pieces, chunk.resident)
        return pieces

    def _lock_of(self, number: int) -> Lock:
        """Return the lock of a chunk."""
        with self._guard:
            return self._locks.setdefault(number, Lock())

    def _map(self, action: Callable[[_A], _T], items: Sequence[_A]) -> list[_T]:
        """Call an action for several chunks, at the same time if a call waits for requests."""
        if len(items) < 2 or self.local:
            return [action(item) for item in items]
        with ThreadPoolExecutor(min(_CHUNKS, len(items))) as pool:
            return list(pool.map(action, items))

    def _column(self, name: str, count: int) -> Column:
        """Return an empty column."""
        tensor = self.tensors[name]
        if tensor.element is None:
            return [None] * count
        values = np.zeros((count, *tensor.shape), tensor.element)
        return Numbers(values, np.zeros(count, np.bool_))
