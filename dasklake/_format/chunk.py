"""Chunks: consecutive samples of one partition, all tensors, as one Arrow IPC file.

::

    ┌ head ─────────────────────────────────────────────┐┌ pages ───────────────────────────┐
    ARROW1··  schema message     batch message            body                 end, footer
              metadata: header   metadata: checksums      buffers of columns   ARROW1

The file holds exactly one record batch and opens in any Arrow reader. Its header is in the schema's
metadata. The batch's metadata holds a crc32c of the head (with its own digits as zeros) and one of
each page after the head. The reference to the chunk holds the length and the crc32c of the head.
Checksums therefore cover every byte, and a part can be checked without the rest.

A reader that has the head can compute the offset of each buffer of each column. Arrow reads the
batch from memory that was never filled, and the addresses of its buffers give their offsets.
"""

from __future__ import annotations

import base64
import json
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._format.arrow_message import (
    BATCH,
    CONTINUATION,
    MAGIC,
    SCHEMA,
    Message,
    read_message,
)
from dasklake._format.documents import FORMAT_VERSION
from dasklake._format.page_checksums import PageChecksums
from dasklake._format.validate import validate
from dasklake._model.receipt import ChunkRef, Failure
from dasklake._model.stored_types import Count
from dasklake._schema.arrow_layout import shape_column
from dasklake.exceptions import CorruptionError, UnsupportedFormatError

#: Bytes of a page, which has its own checksum and is the smallest read. Over 64 MiB, pages of 4 KiB
#: cost 16 to 23 ms and 87 kB of head, 16 KiB 6 to 11 ms and 22 kB, 64 KiB 7 ms and 5 kB; but with
#: 64 KiB, reading a sample of 100 bytes takes four times as many bytes. In smaller chunks, pages of
#: half the size cost less than they save: reading 30 kB of 12 MB takes 57 kB instead of 70 kB.
PAGE = 16_384

#: Size of a chunk up to which its pages have half the size, in bytes.
_SMALL_CHUNK = 24 * 2**20

_HEADER = b"dasklake"
_CHECKSUMS = b"dasklake:crc32c"
_ZERO_CHECKSUM = "00000000"
_INVALID = (
    *(pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError),
    *(IndexError, StopIteration, OverflowError, RecursionError),
)

#: Readers refuse larger pages, because a page is the smallest read.
_MAX_PAGE = 2**20

#: Rows of empty columns take no bytes, so the size of a chunk does not limit them; this does.
_EMPTY_ROWS = 2**24


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """The description in a chunk, which shows from storage alone whether a partition is complete.

    Attributes
    ----------
    branch, run : str
        The run that wrote it.
    epoch, partition : int
        Epoch of the run, number of the partition.
    attempt : str
        Random name of the attempt at the partition.
    chunk : int
        Number of the chunk within the partition.
    last : bool
        Whether it is the last of the partition. Only the last has the fields below.
    inputs : int
        Input samples of the partition, failed ones included.
    failures : tuple of Failure
        The failed samples, if there are few.
    failures_key : str or None
        Object that holds the failures, if there are many.
    failed : int
        Number of failed samples.
    """

    branch: str
    run: str
    epoch: Count
    partition: Count
    attempt: str
    chunk: Count
    last: bool
    inputs: Count = 0
    failures: tuple[Failure, ...] = ()
    failures_key: str | None = None
    failed: Count = 0


class EncodedChunk(NamedTuple):
    """The bytes of a chunk, and the values for its reference."""

    data: memoryview
    head: int
    crc: int
    rows: int


def write_chunk(columns: Sequence[tuple[pa.Field, pa.Array]], header: ChunkHeader) -> EncodedChunk:
    """Return the object of a chunk.

    Parameters
    ----------
    columns : sequence of (pyarrow.Field, pyarrow.Array)
        The columns from the column builders, all of one length.
    header : ChunkHeader
        The chunk's description.

    Returns
    -------
    EncodedChunk
        The chunk, written once into one buffer.
    """
    description = json.dumps({"format": FORMAT_VERSION, **asdict(header)}, separators=(",", ":"))
    schema = pa.schema([field for field, _ in columns], metadata={_HEADER: description})
    batch = pa.RecordBatch.from_arrays([array for _, array in columns], schema=schema)
    counter = pa.MockOutputStream()
    _serialize(counter, batch, "")
    page = PAGE if counter.size() > _SMALL_CHUNK else PAGE // 2
    blank = " " * len(
        _checksums_text(np.zeros(counter.size() // page + 1, "<u4"), _ZERO_CHECKSUM, page)
    )
    data = np.empty(counter.size() + len(blank) + 64, np.uint8)
    sink = pa.FixedSizeBufferWriter(pa.py_buffer(data))
    _serialize(sink, batch, blank)
    data = data[: sink.tell()]
    head, _ = _walk(data)
    offset = data[:head].tobytes().rindex(blank.encode())
    crcs = _page_checksums(data[head:], page)
    _overwrite(data, offset, _checksums_text(crcs, _ZERO_CHECKSUM, page).ljust(len(blank)))
    head_crc = google_crc32c.value(data[:head])
    _overwrite(data, offset, _checksums_text(crcs, f"{head_crc:08x}", page).ljust(len(blank)))
    crc = google_crc32c.value(data[:head])
    return EncodedChunk(data.data.toreadonly(), head, crc, batch.num_rows)


def max_rows(size: Any) -> Any:
    """Return the largest number of rows that a chunk of ``size`` bytes, or each of several, may have."""
    return _EMPTY_ROWS + 8 * size


class ChunkHead:
    """The head of a chunk, and the memory that its columns are views of.

    Attributes
    ----------
    key : str
        Key of the chunk, for messages.
    header : ChunkHeader
        The chunk's description.
    rows : int
        Samples in it.
    length, size : int
        Length of the head and of the whole object, in bytes.
    crc : int
        crc32c of the head.
    memory : numpy.ndarray
        ``size`` bytes, of which only the head is filled. Untouched pages cost nothing.
    batch : pyarrow.RecordBatch
        The columns, as views of ``memory``; valid once their bytes are filled in.
    page : int
        Bytes of one page.
    checksums : PageChecksums
        Checksums of the pages.
    """

    key: str
    header: ChunkHeader
    rows: int
    length: int
    size: int
    crc: int
    memory: npt.NDArray[np.uint8]
    batch: pa.RecordBatch
    page: int
    checksums: PageChecksums

    @classmethod
    def parse(
        cls, data: Any, size: int, key: str, crc: int | None = None, *, sparse: bool = False
    ) -> ChunkHead:
        """Decode the head of a chunk.

        Parameters
        ----------
        data : bytes-like
            The object's bytes, at least up to the end of its head. If it is the whole object, it
            becomes the memory of the columns, and its pages still have to be checked.
        size : int
            Length of the whole object, in bytes.
        key : str
            Its key, for messages.
        crc : int, optional
            crc32c of the head according to the reference.
        sparse : bool, default False
            Whether only small parts of the memory will be filled. Each of them then takes no more
            than its own memory, and filling large parts takes longer.

        Raises
        ------
        CorruptionError
            The bytes are not the head of a chunk of that size.
        UnsupportedFormatError
            The chunk was written by a newer release.
        """
        prefix = np.frombuffer(data, np.uint8)
        try:
            length, messages = _walk(prefix)
        except (IndexError, ValueError) as error:
            raise _damaged(key, f"its head is truncated ({error})") from error
        if length > size:
            raise _damaged(key, "its head is longer than the object")
        self = cls()
        self.key, self.length, self.size = key, length, size
        self.crc = google_crc32c.value(prefix[:length])
        if crc not in (None, self.crc):
            raise _damaged(key, "the checksum of its head differs")
        try:
            # Validate the head before any memory is allocated and before Arrow reads anything.
            self._check_head(prefix[:length].tobytes(), messages)
            # A whole object serves as the memory.
            self.memory = prefix if len(prefix) == size else _allocate(size, sparse=sparse)
            if self.memory is not prefix:
                self.memory[:length] = prefix[:length]
            self._open_batch()
        except _INVALID as error:
            raise _damaged(key, f"its head cannot be read ({error})") from error
        return self

    def _check_head(self, head: bytes, messages: list[tuple[int, int]]) -> None:
        schema, batch = (read_message(head[start:stop]) for start, stop in messages)
        if (schema.kind, batch.kind) != (SCHEMA, BATCH):
            raise ValueError("it is not one record batch")
        self._read_header(schema)
        if self.length + batch.body > self.size:
            raise ValueError("its columns extend past its end")
        if batch.rows > max_rows(self.size):
            raise ValueError(f"{self.size} bytes cannot hold {batch.rows} samples")
        self._read_checksums(batch, head)

    def _read_checksums(self, batch: Message, head: bytes) -> None:
        text = batch.custom[_CHECKSUMS].decode()
        checksums = json.loads(text)
        self.page = checksums["page"]
        self._page_crcs = np.frombuffer(base64.b64decode(checksums["crc32c"], validate=True), "<u4")
        if type(self.page) is not int or not 0 < self.page <= _MAX_PAGE:
            raise ValueError(f"its page size must be 1 to {_MAX_PAGE} bytes, got {self.page!r}")
        if len(self._page_crcs) != -(-(self.size - self.length) // self.page):
            raise ValueError(f"it must have one checksum for each page, got {len(self._page_crcs)}")
        blank = (
            _checksums_text(self._page_crcs, _ZERO_CHECKSUM, self.page).ljust(len(text)).encode()
        )
        offset = head.rindex(text.encode())
        zeroed = head[:offset] + blank + head[offset + len(blank) :]
        if google_crc32c.value(zeroed) != int(checksums["head"], 16):
            raise ValueError("its checksum differs")
        self.checksums = PageChecksums(self._page_crcs, self.page, self.size - self.length)

    def _read_header(self, schema: Message) -> None:
        document = json.loads(schema.custom[_HEADER])
        if document["format"] > FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"Chunk {self.key} was written by a newer release. Upgrade dasklake."
            )
        self.header = validate(document, ChunkHeader)

    def _open_batch(self) -> None:
        reader = pa.ipc.open_stream(pa.py_buffer(self.memory[len(MAGIC) :]))
        self.batch = reader.read_next_batch()
        self.rows = self.batch.num_rows
        self._columns = {name: column for column, name in enumerate(self.batch.schema.names)}
        for start, stop in self._spans(self._columns):
            if not self.length <= start <= stop <= self.size:
                raise ValueError("a column is outside the object")

    def ref(self) -> ChunkRef:
        """Return the reference to the chunk for a segment."""
        return ChunkRef(self.header.chunk, self.rows, self.size, self.length, self.crc)

    def spans(self, name: str) -> list[tuple[int, int]]:
        """Return the byte ranges of the buffers of a tensor.

        Parameters
        ----------
        name : str
            A tensor. Its column of shapes is included if it has one.

        Returns
        -------
        list of (int, int)
            First byte, and the one after the last, of each buffer that is not empty; unordered.
        """
        return self._spans((name, shape_column(name)))

    def _spans(self, columns: Iterable[str]) -> list[tuple[int, int]]:
        base = self.memory.ctypes.data
        return [
            (buffer.address - base, buffer.address - base + buffer.size)
            for column in columns
            if column in self._columns
            for buffer in self.batch.column(self._columns[column]).buffers()
            if buffer is not None and buffer.size
        ]

    def check(self, start: int, data: Any) -> None:
        """Compare whole pages with their checksums.

        Parameters
        ----------
        start : int
            Offset of the first page in the object.
        data : bytes-like
            The pages.

        Raises
        ------
        CorruptionError
            A page does not match its checksum.
        """
        pages = np.frombuffer(data, np.uint8)
        number = self.checksums.first_damaged((start - self.length) // self.page, pages)
        if number is not None:
            begin = self.length + number * self.page
            raise _damaged(self.key, f"bytes {begin} to {begin + self.page} changed")


def _allocate(size: int, *, sparse: bool) -> npt.NDArray[np.uint8]:
    """Allocate memory that is not filled yet."""
    if not sparse or not size:
        return np.empty(size, np.uint8)
    # numpy would use memory again that was filled before, or pages of 2 MiB that one byte fills.
    return np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)


def _serialize(sink: Any, batch: pa.RecordBatch, checksums: str) -> None:
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch, custom_metadata={_CHECKSUMS: checksums})


def _checksums_text(crcs: npt.NDArray[Any], head: str, page: int) -> str:
    encoded = base64.b64encode(crcs.astype("<u4").tobytes()).decode()
    document = {"head": head, "page": page, "crc32c": encoded}
    return json.dumps(document, separators=(",", ":"))


def _page_checksums(data: npt.NDArray[np.uint8], page: int) -> npt.NDArray[Any]:
    value = google_crc32c.value
    offsets = range(0, len(data), page)
    return np.fromiter((value(data[i : i + page]) for i in offsets), "<u4", len(offsets))


def _overwrite(data: npt.NDArray[np.uint8], offset: int, text: str) -> None:
    data[offset : offset + len(text)] = np.frombuffer(text.encode(), np.uint8)


def _walk(data: npt.NDArray[np.uint8]) -> tuple[int, list[tuple[int, int]]]:
    """Return the length of the head and the byte ranges of the metadata of its two messages.

    Raises IndexError if the data end before.
    """
    if data[: len(MAGIC)].tobytes() != MAGIC[: len(data)]:
        raise ValueError("it must begin with ARROW1")
    offset = len(MAGIC)
    ranges = []
    for _ in range(2):
        prefix = data[offset : offset + 8].tobytes()
        if len(prefix) == 8 and prefix[:4] != CONTINUATION:
            raise ValueError("it must have two Arrow messages at its beginning")
        start = offset + 8
        offset = start + int.from_bytes(prefix[4:], "little")
        if len(prefix) < 8 or offset > len(data):
            raise IndexError(f"only {len(data)} bytes")
        ranges.append((start, offset))
    return offset, ranges


def _damaged(key: str, reason: str) -> CorruptionError:
    return CorruptionError(f"Chunk {key} is damaged: {reason}. Restore it from a copy.")
