"""A chunk: some consecutive samples of one partition, all tensors, as one Arrow IPC file.

::

    ┌ head ─────────────────────────────────────────────┐┌ pages ───────────────────────────┐
    ARROW1··  schema message     batch message            body                 end, footer
              metadata: header   metadata: checksums      buffers of columns   ARROW1

The file holds exactly one record batch and opens in any Arrow reader. Its header lies in the
schema's metadata. The batch's metadata holds a crc32c of the head (with its own digits as zeros)
and one of each page of everything after the head; the reference to the chunk holds the length and
the crc32c of the head. So every byte is covered, and a part can be checked without the rest.

A reader that has the head knows where each buffer of each column lies: Arrow reads the batch from
memory that was never filled, and the addresses of its buffers are places in the file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._format.arrow_message import BATCH, SCHEMA, Message, read_message
from dasklake._format.documents import FORMAT_VERSION
from dasklake._format.validate import validate
from dasklake._model.receipt import ChunkRef, Failure
from dasklake._model.stored_types import Count
from dasklake._schema.values import shape_column
from dasklake.exceptions import CorruptionError, UnsupportedFormatError

__all__ = ["ChunkHead", "ChunkHeader", "EncodedChunk", "head_length", "max_rows", "write_chunk"]

#: Bytes with a checksum of their own, which is also the least that is read. Over 64 MiB: 4 KiB
#: pages cost 16 to 23 ms and 87 kB of head, 16 KiB 6 to 11 ms and 22 kB, 64 KiB 7 ms and 5 kB,
#: but then a sample of 100 bytes is read through four times as many.
PAGE = 16_384

_MAGIC = b"ARROW1\0\0"
_HEADER = b"dasklake"
_SUMS = b"dasklake:crc32c"
_NO_SUM = "00000000"
_CONTINUES = b"\xff\xff\xff\xff"
_DAMAGE = (
    *(pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError),
    *(IndexError, StopIteration, OverflowError, RecursionError),
)

#: Readers take no larger pages: one of them is the least that is read.
_MOST_PAGE = 2**20

#: Rows of columns that hold nothing take no bytes; there is no end to them but this one.
_EMPTY_ROWS = 2**24


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What a chunk says of itself, so that a complete partition is known from storage alone.

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
        Whether it is the last of the partition; only the last knows the fields below.
    inputs : int
        Input samples of the partition, failed ones included.
    failures : tuple of Failure
        The failed samples, where they are few.
    failures_key : str or None
        Object that holds the failures, where they are many.
    failed : int
        How many samples failed.
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
    """The bytes of a chunk, and what its reference says of them."""

    data: memoryview
    head: int
    crc: int
    rows: int


def write_chunk(columns: Sequence[tuple[pa.Field, pa.Array]], header: ChunkHeader) -> EncodedChunk:
    """Return the object of a chunk.

    Parameters
    ----------
    columns : sequence of (pyarrow.Field, pyarrow.Array)
        What the column builders returned, all of one length.
    header : ChunkHeader
        What the chunk says of itself.

    Returns
    -------
    EncodedChunk
        Its bytes, written once into one buffer.
    """
    about = json.dumps({"format": FORMAT_VERSION, **asdict(header)}, separators=(",", ":"))
    schema = pa.schema([field for field, _ in columns], metadata={_HEADER: about})
    batch = pa.RecordBatch.from_arrays([array for _, array in columns], schema=schema)
    counter = pa.MockOutputStream()
    _serialise(counter, batch, "")
    blank = " " * len(_sums_text(np.zeros(counter.size() // PAGE + 1, "<u4"), _NO_SUM, PAGE))
    data = np.empty(counter.size() + len(blank) + 64, np.uint8)
    sink = pa.FixedSizeBufferWriter(pa.py_buffer(data))
    _serialise(sink, batch, blank)
    data = data[: sink.tell()]
    head, _ = _walk(data)
    place = data[:head].tobytes().rindex(blank.encode())
    sums = _page_sums(data[head:])
    _put(data, place, _sums_text(sums, _NO_SUM, PAGE).ljust(len(blank)))
    own = google_crc32c.value(data[:head])
    _put(data, place, _sums_text(sums, f"{own:08x}", PAGE).ljust(len(blank)))
    crc = google_crc32c.value(data[:head])
    return EncodedChunk(data.data.toreadonly(), head, crc, batch.num_rows)


def max_rows(size: Any) -> Any:
    """Return how many rows a chunk of ``size`` bytes, or each of several, may say it has."""
    return _EMPTY_ROWS + 8 * size


def head_length(prefix: Any) -> int | None:
    """Return the length of a chunk's head; None where the prefix does not reach far enough.

    Parameters
    ----------
    prefix : bytes-like
        The first bytes of the object; some hundred are enough for a few tensors.

    Raises
    ------
    CorruptionError
        The object is no chunk.
    """
    try:
        return _walk(np.frombuffer(prefix, np.uint8))[0]
    except IndexError:
        return None
    except ValueError as error:
        raise CorruptionError(f"An object is no chunk: {error}. Restore it from a copy.") from error


class ChunkHead:
    """The head of a chunk, and the still empty memory that its columns are views of.

    Attributes
    ----------
    key : str
        Key of the chunk, for messages.
    header : ChunkHeader
        What the chunk says of itself.
    rows : int
        Samples in it.
    length, size : int
        Length of the head and of the whole object, in bytes.
    crc : int
        crc32c of the head.
    memory : numpy.ndarray
        ``size`` bytes of which only the head is filled; untouched pages cost nothing.
    batch : pyarrow.RecordBatch
        The columns, as views of ``memory``: right once their bytes are filled in.
    page : int
        Bytes of one page.
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

    @classmethod
    def parse(cls, data: Any, size: int, key: str, crc: int | None = None) -> ChunkHead:
        """Read the head of a chunk.

        Parameters
        ----------
        data : bytes-like
            The object's bytes, at least up to the end of its head. The whole object becomes the
            memory of the columns; it then still has to be checked.
        size : int
            Length of the whole object, in bytes.
        key : str
            Its key, for messages.
        crc : int, optional
            crc32c of the head, as the reference has it.

        Raises
        ------
        CorruptionError
            The bytes are not the head of a chunk of that size.
        UnsupportedFormatError
            The chunk was written by a newer release.
        """
        found = np.frombuffer(data, np.uint8)
        try:
            length, messages = _walk(found)
        except (IndexError, ValueError) as error:
            raise _damaged(key, f"its head is cut off ({error})") from error
        if length > size:
            raise _damaged(key, "its head is longer than itself")
        self = cls()
        self.key, self.length, self.size = key, length, size
        self.crc = google_crc32c.value(found[:length])
        if crc not in (None, self.crc):
            raise _damaged(key, "the checksum of its head differs")
        try:
            # Nobody sets memory aside, nor does Arrow look at anything, before the head is sound.
            self._check_head(found[:length].tobytes(), messages)
            # A whole object is its own memory.
            self.memory = found if len(found) == size else np.empty(size, np.uint8)
            if self.memory is not found:
                self.memory[:length] = found[:length]
            self._read()
        except _DAMAGE as error:
            raise _damaged(key, f"its head cannot be read ({error})") from error
        return self

    def _check_head(self, head: bytes, messages: list[tuple[int, int]]) -> None:
        about, batch = (read_message(head[start:stop]) for start, stop in messages)
        if (about.kind, batch.kind) != (SCHEMA, BATCH):
            raise ValueError("it is not one record batch")
        self._read_header(about)
        if self.length + batch.body > self.size:
            raise ValueError("its columns reach beyond it")
        if batch.rows > max_rows(self.size):
            raise ValueError(f"{self.size} bytes cannot hold {batch.rows} samples")
        self._read_sums(batch, head)

    def _read_sums(self, batch: Message, head: bytes) -> None:
        text = batch.custom[_SUMS].decode()
        sums = json.loads(text)
        self.page = sums["page"]
        self._sums = np.frombuffer(base64.b64decode(sums["crc32c"], validate=True), "<u4")
        if type(self.page) is not int or not 0 < self.page <= _MOST_PAGE:
            raise ValueError(f"its pages have {self.page!r} bytes")
        if len(self._sums) != -(-(self.size - self.length) // self.page):
            raise ValueError("its checksums are not those of its pages")
        blank = _sums_text(self._sums, _NO_SUM, self.page).ljust(len(text)).encode()
        at = head.rindex(text.encode())
        whole = head[:at] + blank + head[at + len(blank) :]
        if google_crc32c.value(whole) != int(sums["head"], 16):
            raise ValueError("its checksum differs")

    def _read_header(self, schema: Message) -> None:
        document = json.loads(schema.custom[_HEADER])
        if document["format"] > FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"Chunk {self.key} was written by a newer release. Upgrade dasklake."
            )
        self.header = validate(document, ChunkHeader)

    def _read(self) -> None:
        reader = pa.ipc.open_stream(pa.py_buffer(self.memory[len(_MAGIC) :]))
        self.batch = reader.read_next_batch()
        self.rows = self.batch.num_rows
        self._places = {name: place for place, name in enumerate(self.batch.schema.names)}
        for start, stop in self._spans(self._places):
            if not self.length <= start <= stop <= self.size:
                raise ValueError("a column lies outside of it")

    def ref(self) -> ChunkRef:
        """Return what a segment says of the chunk."""
        return ChunkRef(self.header.chunk, self.rows, self.size, self.length, self.crc)

    def spans(self, name: str) -> list[tuple[int, int]]:
        """Return where the buffers of a tensor lie: first byte and the one after the last.

        Parameters
        ----------
        name : str
            A tensor; its column of shapes is included where it has one.

        Returns
        -------
        list of (int, int)
            Places in the object, in no order; empty buffers are left out.
        """
        return self._spans((name, shape_column(name)))

    def _spans(self, columns: Iterable[str]) -> list[tuple[int, int]]:
        base = self.memory.ctypes.data
        return [
            (buffer.address - base, buffer.address - base + buffer.size)
            for column in columns
            if column in self._places
            for buffer in self.batch.column(self._places[column]).buffers()
            if buffer is not None and buffer.size
        ]

    def check(self, start: int, data: Any) -> None:
        """Compare whole pages with their checksums.

        Parameters
        ----------
        start : int
            Where the first page begins in the object.
        data : bytes-like
            The pages.

        Raises
        ------
        CorruptionError
            A page is not as it was written.
        """
        found = np.frombuffer(data, np.uint8)
        first = (start - self.length) // self.page
        value = google_crc32c.value
        for number, at in enumerate(range(0, len(found), self.page), first):
            if value(found[at : at + self.page]) != self._sums[number]:
                place = self.length + number * self.page
                raise _damaged(self.key, f"bytes {place} to {place + self.page} changed")


def _serialise(sink: Any, batch: pa.RecordBatch, sums: str) -> None:
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch, custom_metadata={_SUMS: sums})


def _sums_text(sums: npt.NDArray[Any], head: str, page: int) -> str:
    encoded = base64.b64encode(sums.astype("<u4").tobytes()).decode()
    document = {"head": head, "page": page, "crc32c": encoded}
    return json.dumps(document, separators=(",", ":"))


def _page_sums(data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    value = google_crc32c.value
    places = range(0, len(data), PAGE)
    return np.fromiter((value(data[at : at + PAGE]) for at in places), "<u4", len(places))


def _put(data: npt.NDArray[np.uint8], place: int, text: str) -> None:
    data[place : place + len(text)] = np.frombuffer(text.encode(), np.uint8)


def _walk(data: npt.NDArray[np.uint8]) -> tuple[int, list[tuple[int, int]]]:
    """Return where the head ends and where the metadata of its two messages lie.

    IndexError where the data end before.
    """
    if data[: len(_MAGIC)].tobytes() != _MAGIC[: len(data)]:
        raise ValueError("it does not begin like one")
    place = len(_MAGIC)
    found = []
    for _ in range(2):
        prefix = data[place : place + 8].tobytes()
        if len(prefix) == 8 and prefix[:4] != _CONTINUES:
            raise ValueError("its messages are torn")
        start = place + 8
        place = start + int.from_bytes(prefix[4:], "little")
        if len(prefix) < 8 or place > len(data):
            raise IndexError(f"{len(data)} bytes are too few")
        found.append((start, place))
    return place, found


def _damaged(key: str, why: str) -> CorruptionError:
    return CorruptionError(f"Chunk {key} is damaged: {why}. Restore it from a copy.")
