"""Fetch and verify the pages of a chunk on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._format.chunk import ChunkHead
from dasklake._read.plan import ChunkLocation
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError

#: Errors from a column that matches its checksums and not the schema. Only a writer that is not
#: dasklake can cause them.
MALFORMED = (
    *(pa.ArrowException, KeyError, ValueError, TypeError, AttributeError),
    *(IndexError, OverflowError, RecursionError),
)

#: Objects up to this size in bytes are fetched whole: one request instead of two or three.
_SMALL = 128 * 2**10

#: Gaps up to this size in bytes are fetched with their neighbours: cheaper than a second request.
_GAP = 64 * 2**10

#: Most bytes of one request, and most requests at the same time:
#: a sample of gigabytes is fetched without a second copy in memory.
_PIECE = 8 * 2**20
_PIECES = 8

#: Bytes at both ends of a chunk that are fetched with its head, at most and as a share of the chunk:
#: they often hold the tables of large tensors, and all of the small ones.
_AHEAD = 64 * 2**10
_AHEAD_SHARE = 128

#: Largest head without its checksums, and size from which on the size of the object is verified
#: first, in bytes. 5,000 tensors have a head of 3 MB, and chunks are about 64 MB.
_MOST_HEAD = 64 * 2**20
_LARGE = 2**30

#: Share of a chunk from which on the whole object is fetched.
_MOST = 0.7


class OpenChunk:
    """One chunk. Its columns are views of memory that is filled on demand.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    location : ChunkLocation
        The chunk.
    whole : bool, default False
        Fetch everything at once.
    sparse : bool, default False
        Whether only small parts will be loaded. Their memory is then taken in small pages.
    ahead : bool, default False
        Whether pages beside the head are fetched with it, except from a disk.

    Raises
    ------
    CorruptionError
        The object is damaged.
    ObjectNotFoundError
        The object is missing.
    """

    def __init__(
        self,
        store: ObjectStore,
        location: ChunkLocation,
        *,
        whole: bool = False,
        sparse: bool = False,
        ahead: bool = False,
    ) -> None:
        self.location = location
        self._store = store
        self._sparse = sparse
        self._ahead = ahead
        if whole or location.size <= _SMALL:
            self._read_whole()
            return
        if location.head > _MOST_HEAD + location.size // 1000:
            raise self._damaged(f"its head cannot have {location.head} bytes")
        if location.size > _LARGE and store.size(location.key) != location.size:
            # Memory is not allocated for a size that only a segment claims.
            raise self._damaged(f"its size is not {location.size} bytes")
        self._verified(self._read_head)

    def _read_head(self) -> None:
        """Fetch, verify and keep the head, and the pages that are fetched with it."""
        location, store = self.location, self._store
        ahead = 0
        if self._ahead and not store.local:
            ahead = min(_AHEAD, location.size // _AHEAD_SHARE)
        spans = [(0, location.head + ahead), (location.size - ahead, location.size)]
        begin, end = store.get_ranges(location.key, spans)
        self._parse_head(begin[: location.head])
        self._present = bytearray(-(-(location.size - self.head.length) // self.head.page))
        self.resident = location.head
        if ahead:
            self._keep_pages(location.head, begin[location.head :])
            self._keep_pages(location.size - ahead, end)

    def _verified(self, read: Callable[[], None]) -> None:
        """Read and verify bytes; if a local cache holds damaged ones, read them again."""
        try:
            read()
        except CorruptionError:
            if not self._store.forget(self.location.key):
                raise
            read()

    def _read_whole(self) -> None:
        """Fetch, verify and keep the whole object."""
        self._verified(lambda: self._accept(self._get()))

    def _get(self) -> bytes:
        try:
            return self._store.get(self.location.key, self.location.size)
        except CorruptionError as error:
            raise self._damaged(f"it has more than {self.location.size} bytes") from error

    def _accept(self, data: bytes) -> None:
        """Verify and keep the whole object."""
        if len(data) != self.location.size:
            raise self._damaged(f"it has {len(data)} bytes, not {self.location.size}")
        self._parse_head(data)
        self.check(self.head.length, self.head.memory[self.head.length :])
        self._present = bytearray(b"\1") * len(range(self.head.length, len(data), self.head.page))
        self.resident = len(data)

    def _parse_head(self, data: bytes) -> None:
        location = self.location
        try:
            self.head = ChunkHead.parse(
                data, location.size, location.key, location.crc, sparse=self._sparse
            )
        except CorruptionError as error:
            raise self._with_rows(error) from error
        if self.head.rows != location.rows:
            raise self._damaged(f"it holds {self.head.rows} samples, not {location.rows}")

    def load_tensors(self, names: Iterable[str]) -> None:
        """Fetch the complete columns of some tensors."""
        spans = [span for name in names for span in self.head.spans(name)]
        if sum(stop - start for start, stop in spans) >= _MOST * self.location.size:
            if not all(self._present):
                self._read_whole()
        else:
            self.load(spans)

    def load(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch the missing pages of some byte ranges."""
        first, page, present = self.head.length, self.head.page, self._present
        missing = [
            (begin, end)
            for start, stop in ranges
            if start < stop
            for begin, end in [((start - first) // page, (stop - 1 - first) // page + 1)]
            if 0 in present[begin:end]
        ]
        if not missing:
            return
        spans = self._spans(missing)
        for at in range(0, len(spans), _PIECES):
            self._verified(partial(self._fetch, spans[at : at + _PIECES]))

    def has(self, ranges: Iterable[tuple[int, int]]) -> bool:
        """Return whether some byte ranges are loaded."""
        first, page, present = self.head.length, self.head.page, self._present
        return all(
            0 not in present[(start - first) // page : (stop - 1 - first) // page + 1]
            for start, stop in ranges
        )

    def _keep_pages(self, start: int, data: bytes) -> None:
        """Verify and keep the whole pages in some bytes of the object."""
        first, page, size = self.head.length, self.head.page, self.head.size
        stop = start + len(data)
        begin = -(-(start - first) // page)
        end = len(self._present) if stop == size else (stop - first) // page
        if begin < end:
            low, high = first + begin * page, min(first + end * page, size)
            self._keep(low, high, data[low - start : high - start])

    def _fetch(self, spans: list[tuple[int, int]]) -> None:
        """Fetch, verify and keep some sequences of whole pages."""
        parts = self._store.get_ranges(self.location.key, spans)
        for (start, stop), data in zip(spans, parts, strict=True):
            self._keep(start, stop, data)

    def _keep(self, start: int, stop: int, data: bytes) -> None:
        """Verify and keep a sequence of whole pages."""
        first, page = self.head.length, self.head.page
        pages = np.frombuffer(data, np.uint8)
        self.check(start, pages)
        self.head.memory[start:stop] = pages
        begin, end = (start - first) // page, -(-(stop - first) // page)
        self._present[begin:end] = b"\1" * (end - begin)
        self.resident += stop - start

    def _spans(self, missing: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Join sequences of pages with small gaps, split long ones; return offsets in the object."""
        head = self.head
        near, most = _GAP // head.page, max(1, _PIECE // head.page)
        runs: list[list[int]] = []
        for begin, end in sorted(missing):
            if runs and begin - runs[-1][1] <= near:
                runs[-1][1] = max(runs[-1][1], end)
            else:
                runs.append([begin, end])
        return [
            (
                head.length + at * head.page,
                min(head.length + min(at + most, end) * head.page, head.size),
            )
            for begin, end in runs
            for at in range(begin, end, most)
        ]

    def check(self, start: int, data: npt.NDArray[np.uint8]) -> None:
        """Compare whole pages, which begin at an offset, with their checksums.

        Raises
        ------
        CorruptionError
            A page is damaged.
        """
        head = self.head
        # This is called for each range of a fast read.
        if head.checksums.first_damaged((start - head.length) // head.page, data) is None:
            return
        try:
            head.check(start, data)
        except CorruptionError as error:
            raise self._with_rows(error) from error

    def mismatch_error(self, error: Exception) -> CorruptionError:
        """Return the error for a column that does not match the schema."""
        return self._damaged(f"its contents do not match the schema ({error})")

    def _damaged(self, why: str) -> CorruptionError:
        key = self.location.key
        error = CorruptionError(f"Chunk {key} is damaged: {why}. Restore it from a copy.")
        return self._with_rows(error)

    def _with_rows(self, error: CorruptionError) -> CorruptionError:
        location = self.location
        return CorruptionError(
            f"Samples {location.first} to {location.first + location.rows - 1} are affected. {error}"
        )


def column_of_type(batch: Any, name: str, kind: Any) -> Any:
    """Return a column of a chunk after checking its type.

    Raises
    ------
    KeyError, ValueError
        The column is missing, or of another type.
    """
    column = batch.column(name)
    if column.type != kind:
        raise ValueError(f"its column {name!r} must be of type {kind}, got {column.type}")
    return column
