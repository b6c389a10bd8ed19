"""Readers of every kind of object, called as for an untrusted lake."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import google_crc32c
import numpy as np
import pytest

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._format.documents import read_commit, read_schema
from dasklake._format.heartbeat import read_heartbeat
from dasklake._format.segment import read_failures, read_segment
from dasklake._format.statistics import encode_statistics
from dasklake._model.commit import Commit, Kind, SegmentRef, Totals
from dasklake._model.manifest import Manifest
from dasklake._read import chunk_reader
from dasklake._read.axis_index import AxisIndex
from dasklake._read.chunk_reader import OpenChunk
from dasklake._read.crops import CropReader
from dasklake._read.decoded_sizes import decoded_sizes
from dasklake._read.decoder import Decoder
from dasklake._read.measure import measure_chunk
from dasklake._read.origin import Origin
from dasklake._read.partition import read_array, read_frame, read_rows
from dasklake._read.plan import ChunkLocation
from dasklake._read.reader import Reader
from dasklake._read.row_reader import RowReader
from dasklake._read.statistics import VersionStatistics
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, LakeError
from tests.compat.write import SCHEMA
from tests.hostile.sealing import sealed_chunk, sealed_text

__all__ = ["READERS", "SPECS", "sealed"]

SPECS = Schema(SCHEMA)

_KEY = "data/main/run/0-1-abababababababab-0.arrow"

#: Bytes before the text that a commit's checksum covers.
_HEAD = len(b'{"crc32c":"00000000",')

#: Rows that are read one by one.
_ROWS = 8

_VERSION = Commit(
    version=1,
    id="ab" * 8,
    parent=None,
    branch="main",
    kind=Kind.DATA,
    time=datetime(2026, 1, 1, tzinfo=UTC),
    author="",
    message="",
    schema=SPECS,
    totals=Totals(2**40),
)


class _Right(int):
    """A number that equals any other, like one that an attacker guessed correctly."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def sealed(kind: str, data: bytes) -> bytes:
    """Return an object with valid checksums, as an attacker could compute them."""
    if kind == "commit":
        return sealed_text(data[_HEAD:])
    if kind == "chunk":
        with suppress(CorruptionError):  # what does not begin like a chunk has no checksums
            return bytes(sealed_chunk(data).data)
    return data


def _ref(data: bytes) -> SegmentRef:
    return SegmentRef("ab" * 8, _Right(), _Right(), len(data), google_crc32c.value(data))


def _segment(data: bytes) -> object:
    """Read a segment, and the statistics in it."""
    manifest = read_segment(data, _ref(data), statistics=True)
    statistics = VersionStatistics(manifest, SPECS, {})
    for chunk in range(len(statistics)):
        statistics.of(chunk, SPECS)
    return manifest


def _schema_object(data: bytes) -> object:
    return read_schema(data, hashlib.sha256(data).hexdigest()[:32])


@contextmanager
def _by_range() -> Iterator[ObjectStore]:
    """Create a store from which small objects are also read by range."""
    store = ObjectStore("memory://fuzzed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_reader, "_SMALL", 0)
        yield store


def _chunk(data: bytes) -> object:
    """Read a chunk in every way. The head alone decides whether it is valid."""
    head = ChunkHead.parse(data, len(data), _KEY)
    head.check(head.length, data[head.length :])
    # Chunks without rows are never opened by a reader.
    columns = zip(head.batch.schema, head.batch.columns, strict=True)
    encode_statistics(columns, SPECS, trusted=False)
    held = [name for name in SPECS if name in head.batch.schema.names and head.rows]
    location = ChunkLocation(_KEY, 0, head.rows, len(data), head.length, head.crc)
    with _by_range() as store:
        store.put(_KEY, data)
        origin = Origin(store, _VERSION)
        # Each way separately, because an object that one refuses must not break another.
        for name in held:
            readers = (_one_by_one, _shapes, _crops, _whole, _parts, _frame, _array, _measured)
            for read in readers:
                with suppress(LakeError):
                    read(origin, location, name)
    return held


def _one_by_one(origin: Origin, location: ChunkLocation, name: str) -> None:
    specs = {name: SPECS[name]}
    reader, decoder = RowReader(OpenChunk(origin.store, location), specs), Decoder(specs, {})
    for row in range(min(_ROWS, location.rows)):
        with suppress(LakeError):
            decoder.decode(name, reader.read(row, [name])[0], row)
    reader.block(0, location.rows, name)


def _shapes(origin: Origin, location: ChunkLocation, name: str) -> None:
    RowReader(OpenChunk(origin.store, location), {name: SPECS[name]}).shape_table(name)


def _no_manifest() -> Manifest:
    raise AssertionError("the chunk is given")


def _crops(origin: Origin, location: ChunkLocation, name: str) -> None:
    rows = range(min(_ROWS, location.rows))
    for items in ([slice(0, 2)], [..., -1], [0]):
        with suppress(LakeError, IndexError):
            crops = CropReader(Reader(origin, _no_manifest), name, AxisIndex.parse(items))
            chunk = RowReader(OpenChunk(origin.store, location), {name: SPECS[name]})
            crops._read(chunk, rows, rows, "raise")


def _whole(origin: Origin, location: ChunkLocation, name: str) -> None:
    for sample in read_rows(origin, [location], [name]):
        repr(sample[name])  # decoded on first access


def _parts(origin: Origin, location: ChunkLocation, name: str) -> None:
    decoded_sizes(origin, [location], [name], 1, frame=True)
    for row in range(min(_ROWS, location.rows)):
        with suppress(LakeError):
            for sample in read_rows(origin, [location._replace(begin=row, end=row + 1)], [name]):
                repr(sample[name])


def _measured(origin: Origin, location: ChunkLocation, name: str) -> None:
    for offsets in (None, np.array([0, location.rows - 1, 0])):
        measure_chunk(origin, location, [name], offsets)


def _frame(origin: Origin, location: ChunkLocation, name: str) -> None:
    # By series: pandas 2 cannot print a frame that has an Arrow tensor.
    repr(read_frame([location], origin=origin, columns=[name])[name])


def _array(origin: Origin, location: ChunkLocation, name: str) -> None:
    read_array([location], origin, name)


def _any_schema(digest: str) -> Schema:
    """Return the same schema for any digest."""
    object_keys.schema_key(digest)
    return SPECS


#: Reads an object of each kind, or raises.
READERS: Mapping[str, Callable[[bytes], Any]] = {
    "commit": lambda data: read_commit(data, "key", _any_schema),
    "segment": _segment,
    "failures": lambda data: read_failures(data, _ref(data), "key"),
    "chunk": _chunk,
    "heartbeat": read_heartbeat,
    "schema": _schema_object,
}
