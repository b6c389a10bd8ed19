"""What an Arrow IPC message says of itself, read before Arrow is let near it.

Arrow believes much of what a message says: where buffers lie, how long they are, that they are
compressed to a fraction of what they hold. Lakes may come from anybody, so all of that is looked at
first. Only the few fields that this takes are read, from flatbuffers whose every offset is checked.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

__all__ = ["BATCH", "DICTIONARY", "SCHEMA", "Message", "read_message", "walk_messages"]

#: Kinds of messages.
SCHEMA, DICTIONARY, BATCH = 1, 2, 3

_MAGIC = b"ARROW1\0\0"
_CONTINUES = b"\xff\xff\xff\xff"

#: Fields of the tables of Arrow's Message.fbs, by their place.
_KIND, _HEADER, _BODY, _CUSTOM = 1, 2, 3, 4
_ROWS, _NODES, _BUFFERS, _COMPRESSION = 0, 1, 2, 3
_DICTIONARY_BATCH = 1
_SCHEMA_CUSTOM = 2


class Message(NamedTuple):
    """What one message says of itself.

    Attributes
    ----------
    kind : int
        ``SCHEMA``, ``DICTIONARY`` or ``BATCH``; other kinds have other numbers.
    body : int
        Length of its body, in bytes.
    rows : int
        Rows of a batch; 0 for a schema.
    custom : dict of bytes to bytes
        Its custom metadata; of a schema, the schema's.
    """

    kind: int
    body: int
    rows: int
    custom: dict[bytes, bytes]


def read_message(metadata: bytes) -> Message:
    """Read the metadata of a message.

    Parameters
    ----------
    metadata : bytes
        The flatbuffer, without the eight bytes before it.

    Returns
    -------
    Message
        Of a batch without compression, whose buffers lie within its body.

    Raises
    ------
    ValueError
        It is no such message.
    """
    try:
        return _message(_Table(metadata, _u32(metadata, 0)))
    except struct.error as error:
        raise ValueError("a message points out of itself") from error


def walk_messages(data: Any) -> list[Message]:
    """Read what all messages of a small Arrow IPC file say, up to the end of its stream.

    Parameters
    ----------
    data : bytes-like
        The whole file.

    Raises
    ------
    ValueError
        It is no such file, or a message reaches beyond it.
    """
    view = memoryview(data)
    if view[: len(_MAGIC)] != _MAGIC:
        raise ValueError("it does not begin like an Arrow file")
    place = len(_MAGIC)
    found: list[Message] = []
    while True:
        start = place + 8
        if start > len(view) or view[place : place + 4] != _CONTINUES:
            raise ValueError("its messages are torn")
        length = int.from_bytes(view[place + 4 : start], "little")
        if not length:
            return found
        message = read_message(bytes(view[start : start + length]))
        place = start + length + message.body
        if place > len(view):
            raise ValueError("a message reaches beyond it")
        found.append(message)


class _Table:
    """A table of a flatbuffer; what it leaves out is None."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data = data
        self.place = place
        self._fields = place - struct.unpack_from("<i", data, place)[0]
        if self._fields < 0:
            raise ValueError("a message points out of itself")
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    def at(self, field: int) -> int | None:
        """Return where a field lies."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return None
        offset = struct.unpack_from("<H", self.data, self._fields + entry)[0]
        return self.place + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """Return a number; 0 where it is left out."""
        at = self.at(field)
        return 0 if at is None else int(struct.unpack_from(form, self.data, at)[0])

    def table(self, field: int) -> _Table | None:
        """Return a table."""
        at = self.at(field)
        return None if at is None else _Table(self.data, at + _u32(self.data, at))

    def vector(self, field: int, width: int) -> tuple[int, int]:
        """Return where the first element of a vector lies, and their number."""
        at = self.at(field)
        if at is None:
            return 0, 0
        start = at + _u32(self.data, at)
        count = _u32(self.data, start)
        if start + 4 + count * width > len(self.data):
            raise ValueError("a message points out of itself")
        return start + 4, count

    def text(self, field: int) -> bytes:
        """Return the bytes of a string."""
        start, count = self.vector(field, 1)
        return self.data[start : start + count]


def _u32(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _message(table: _Table) -> Message:
    kind = table.number(_KIND, "<B")
    body = table.number(_BODY, "<q")
    header = table.table(_HEADER)
    if body < 0 or header is None:
        raise ValueError("a message has no header, or a negative length")
    batch = header.table(_DICTIONARY_BATCH) if kind == DICTIONARY else header
    rows = _batch(batch, body) if kind in (BATCH, DICTIONARY) and batch else 0
    custom = _custom(header, _SCHEMA_CUSTOM) if kind == SCHEMA else _custom(table, _CUSTOM)
    return Message(kind, body, rows, custom)


def _batch(batch: _Table, body: int) -> int:
    """Check where a batch says that its buffers lie; return the number of its rows."""
    if batch.at(_COMPRESSION) is not None:
        raise ValueError("its columns are compressed, which no writer of lakes does")
    rows = batch.number(_ROWS, "<q")
    nodes, buffers = _pairs(batch, _NODES), _pairs(batch, _BUFFERS)
    if rows < 0 or any(first < 0 or second < 0 for first, second in (*nodes, *buffers)):
        raise ValueError("a column has a negative length")
    if any(offset + length > body for offset, length in buffers):
        raise ValueError("a column reaches beyond its message")
    return rows


def _pairs(batch: _Table, field: int) -> list[tuple[int, int]]:
    start, count = batch.vector(field, 16)
    return list(struct.iter_unpack("<qq", batch.data[start : start + 16 * count]))


def _custom(table: _Table, field: int) -> dict[bytes, bytes]:
    start, count = table.vector(field, 4)
    found = {}
    for at in range(start, start + 4 * count, 4):
        pair = _Table(table.data, at + _u32(table.data, at))
        found[pair.text(0)] = pair.text(1)
    return found
