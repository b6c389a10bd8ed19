"""Validation of Arrow IPC messages, before Arrow reads them.

Arrow trusts the metadata of a message: the offsets, lengths and compression of its buffers. A lake
may come from an untrusted source, so this module checks all of that first. It reads only the few
fields that this takes, from flatbuffers, and checks every offset.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

#: Kinds of messages.
SCHEMA, DICTIONARY, BATCH = 1, 2, 3

#: First bytes of an Arrow file, and of each message in it.
MAGIC = b"ARROW1\0\0"
CONTINUATION = b"\xff\xff\xff\xff"

#: Numbers of the fields of the tables in Arrow's Message.fbs.
_KIND, _HEADER, _BODY, _CUSTOM = 1, 2, 3, 4
_ROWS, _NODES, _BUFFERS, _COMPRESSION = 0, 1, 2, 3
_DICTIONARY_BATCH = 1
_SCHEMA_CUSTOM = 2


class Message(NamedTuple):
    """The metadata of one message.

    Attributes
    ----------
    kind : int
        ``SCHEMA``, ``DICTIONARY`` or ``BATCH``, or another number for another kind.
    body : int
        Length of its body, in bytes.
    rows : int
        Rows of a batch; 0 for a schema.
    custom : dict of bytes to bytes
        Its custom metadata, or that of the schema for a schema message.
    """

    kind: int
    body: int
    rows: int
    custom: dict[bytes, bytes]


def read_message(metadata: bytes) -> Message:
    """Decode and check the metadata of a message.

    Parameters
    ----------
    metadata : bytes
        The flatbuffer, without the eight bytes before it.

    Returns
    -------
    Message
        The metadata. A batch is uncompressed, and its buffers are within its body.

    Raises
    ------
    ValueError
        The metadata are invalid.
    """
    try:
        return _message(_Table(metadata, _u32(metadata, 0)))
    except struct.error as error:
        raise ValueError("an offset points outside its Arrow message") from error


def walk_messages(data: Any) -> list[Message]:
    """Decode and check the metadata of all messages of a small Arrow IPC file.

    Parameters
    ----------
    data : bytes-like
        The whole file.

    Raises
    ------
    ValueError
        It is not an Arrow IPC file, or a message extends past its end.
    """
    view = memoryview(data)
    if view[: len(MAGIC)] != MAGIC:
        raise ValueError("an Arrow file must begin with ARROW1")
    offset = len(MAGIC)
    messages: list[Message] = []
    while True:
        start = offset + 8
        if start > len(view) or view[offset : offset + 4] != CONTINUATION:
            raise ValueError("its Arrow messages are incomplete")
        length = int.from_bytes(view[offset + 4 : start], "little")
        if not length:
            return messages
        message = read_message(bytes(view[start : start + length]))
        offset = start + length + message.body
        if offset > len(view):
            raise ValueError("an Arrow message extends past its end")
        messages.append(message)


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset
        self._fields = offset - struct.unpack_from("<i", data, offset)[0]
        if self._fields < 0:
            raise ValueError("an offset points outside its Arrow message")
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    def at(self, field: int) -> int | None:
        """Return the offset of a field, or None if the table leaves it out."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return None
        offset = struct.unpack_from("<H", self.data, self._fields + entry)[0]
        return self.offset + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """Return a number, or 0 if it is left out."""
        at = self.at(field)
        return 0 if at is None else int(struct.unpack_from(form, self.data, at)[0])

    def table(self, field: int) -> _Table | None:
        """Return a table, or None if it is left out."""
        at = self.at(field)
        return None if at is None else _Table(self.data, at + _u32(self.data, at))

    def vector(self, field: int, width: int) -> tuple[int, int]:
        """Return the offset of the first element of a vector, and the number of elements."""
        at = self.at(field)
        if at is None:
            return 0, 0
        start = at + _u32(self.data, at)
        count = _u32(self.data, start)
        if start + 4 + count * width > len(self.data):
            raise ValueError("an offset points outside its Arrow message")
        return start + 4, count

    def text(self, field: int) -> bytes:
        """Return the bytes of a string."""
        start, count = self.vector(field, 1)
        return self.data[start : start + count]


def _u32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])


def _message(table: _Table) -> Message:
    kind = table.number(_KIND, "<B")
    body = table.number(_BODY, "<q")
    header = table.table(_HEADER)
    if body < 0 or header is None:
        raise ValueError("an Arrow message has no header, or a negative length")
    batch = header.table(_DICTIONARY_BATCH) if kind == DICTIONARY else header
    rows = _check_batch(batch, body) if kind in (BATCH, DICTIONARY) and batch else 0
    custom = (
        _custom_metadata(header, _SCHEMA_CUSTOM)
        if kind == SCHEMA
        else _custom_metadata(table, _CUSTOM)
    )
    return Message(kind, body, rows, custom)


def _check_batch(batch: _Table, body: int) -> int:
    """Check the ranges of the buffers of a batch, and return the number of its rows."""
    if batch.at(_COMPRESSION) is not None:
        raise ValueError("its columns must not be compressed")
    rows = batch.number(_ROWS, "<q")
    nodes, buffers = _pairs(batch, _NODES), _pairs(batch, _BUFFERS)
    if rows < 0 or any(first < 0 or second < 0 for first, second in (*nodes, *buffers)):
        raise ValueError("a column has a negative length")
    if any(offset + length > body for offset, length in buffers):
        raise ValueError("a column extends past its Arrow message")
    return rows


def _pairs(batch: _Table, field: int) -> list[tuple[int, int]]:
    start, count = batch.vector(field, 16)
    return list(struct.iter_unpack("<qq", batch.data[start : start + 16 * count]))


def _custom_metadata(table: _Table, field: int) -> dict[bytes, bytes]:
    start, count = table.vector(field, 4)
    custom = {}
    for offset in range(start, start + 4 * count, 4):
        pair = _Table(table.data, offset + _u32(table.data, offset))
        custom[pair.text(0)] = pair.text(1)
    return custom
