"""Commits and heartbeats are read back unchanged, and invalid ones are refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import google_crc32c
import pytest

from dasklake._format import documents
from dasklake._format.documents import (
    commit_bytes,
    encode_schema,
    now,
    read_commit,
    read_schema,
    schema_digest,
)
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes, read_heartbeat
from dasklake._model.commit import Commit, Kind, Plan, Progress, RunState, SegmentRef, Totals
from dasklake._model.versions import Versions
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import CorruptionError, UnsupportedFormatError

SMALL = Schema({"x": TensorSpec(dtype="int64", shape=())})
LARGE = Schema({f"tensor {n}": TensorSpec(dtype="int64", shape=()) for n in range(1_000)})
FULL = Commit(
    version=1234,
    id="ab" * 8,
    parent="cd" * 8,
    branch="main",
    kind=Kind.DATA,
    time=datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC),
    author="Ünï",
    message="first line\nsecond: 50%",
    schema=SMALL,
    entry={"run": "r", "epoch": 2},
    runs={
        "r": RunState(Plan(3, 100, "ef" * 16, "12" * 16), 0, epoch=2, partitions=2, inputs=60),
        "s": RunState(Plan(1, None, "ef" * 16, None, overwrite=True), 1, closed=1, replaced=True),
    },
    segments=(SegmentRef("ab" * 8, 5, 50, 1000, 2**32 - 1, 1), SegmentRef("cd" * 8, 1, 1, 10, 0)),
    failures=(SegmentRef("ab" * 8, 1, 0, 100, 5),),
    totals=Totals(51, 6, 1, 12345),
    progress=Progress("r", 2, 3, 60, 60.0),
    tags={"v1": ["main", 3]},
    branches={"b": {"source": ["main", 2], "first": 0, "entry": 3}},
    expired={"main": Versions.each([0, 1, 5])},
    first_order=3,
    single_writer=True,
)


def never(digest: str) -> Schema:
    """Fail, because the commit holds its schema."""
    raise AssertionError(digest)


def changed(commit: Commit, **fields: Any) -> bytes:
    """Return a commit with changed fields and a valid checksum."""
    document = json.loads(commit_bytes(commit))
    del document["crc32c"]
    rest = json.dumps(document | fields).encode()[1:]
    return b'{"crc32c":"%08x",' % google_crc32c.value(rest) + rest


def test_commit_comes_back() -> None:
    """Every field of a commit is read back unchanged."""
    assert read_commit(commit_bytes(FULL), "key", never) == FULL
    plain = Commit(0, "00" * 8, None, "b", Kind.INIT, now(), "", "", SMALL)
    assert read_commit(commit_bytes(plain), "key", never) == plain


def test_commit_is_json_with_its_checksum() -> None:
    """A commit is one JSON object that begins with the crc32c of all bytes after it."""
    data = commit_bytes(FULL)
    assert json.loads(data)["version"] == 1234
    assert data[:11] == b'{"crc32c":"'
    assert int(data[11:19], 16) == google_crc32c.value(data[21:])


def test_every_flipped_byte_is_found() -> None:
    """A commit with any byte changed is never read."""
    data = commit_bytes(FULL)
    for offset in range(len(data)):
        bad = bytearray(data)
        bad[offset] ^= 0x01
        with pytest.raises(CorruptionError, match="some/key"):
            read_commit(bytes(bad), "some/key", never)


def test_torn_commit_is_found() -> None:
    """A truncated or empty commit is never read."""
    data = commit_bytes(FULL)
    for end in (0, 5, 20, 21, 22, len(data) // 2, len(data) - 1):
        with pytest.raises(CorruptionError, match="some/key"):
            read_commit(data[:end], "some/key", never)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "dance"},
        {"time": "yesterday"},
        {"runs": {"r": {"order": 0}}},
        {"runs": []},
        {"segments": [{"name": "x"}]},
        {"totals": None},
        {"schema": {}},
        {"schema": {"tensors": {"x": 3}}},
        {"features": None},
        {"format": "1"},
        {"past": {"x": {"since": 3}}},
        {"past": {"x": {"former": []}}},
        {"past": {"x": {"since": 3, "former": [[5, 7]]}}},
        {"creds": {"key": {"managed": True}}},
        {"creds": {"key": {"former": []}}},
        {"creds": {"key": {"managed": 1, "former": []}}},
    ],
)
def test_odd_documents_are_damaged(fields: dict[str, Any]) -> None:
    """An invalid commit with a valid checksum is corruption."""
    with pytest.raises(CorruptionError, match="some/key"):
        read_commit(changed(FULL, **fields), "some/key", never)


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"format": 2}, "format 2"),
        ({"features": {"reader": ["holograms", "smells"], "writer": []}}, "holograms, smells"),
    ],
)
def test_newer_format_is_refused(fields: dict[str, Any], needs: str) -> None:
    """A commit of a newer release is refused, and the error names the missing feature."""
    with pytest.raises(UnsupportedFormatError, match=needs):
        read_commit(changed(FULL, **fields), "some/key", never)


def test_large_schema_has_its_own_object() -> None:
    """A commit names a large schema by its digest, which its bytes must match."""
    assert encode_schema(SMALL).inline
    digest, data = large = encode_schema(LARGE)
    assert not large.inline
    assert digest == schema_digest(LARGE)
    commit = Commit(0, "00" * 8, None, "main", Kind.INIT, now(), "", "", LARGE)
    stored = commit_bytes(commit)
    assert len(stored) < 1_000
    requested = []

    def schema_of(name: str) -> Schema:
        requested.append(name)
        return read_schema(data, name)

    assert read_commit(stored, "key", schema_of) == commit
    assert requested == [digest]
    with pytest.raises(CorruptionError, match=digest):
        read_schema(data + b" ", digest)


def test_digest_is_that_of_the_content() -> None:
    """Equal schemas have equal digests. Another name, type or order changes the digest."""
    one = Schema({"a": TensorSpec("text"), "b": TensorSpec("text")})
    different = [
        Schema({"b": TensorSpec("text"), "a": TensorSpec("text")}),
        Schema({"a": TensorSpec("text"), "c": TensorSpec("text")}),
        Schema({"a": TensorSpec("text"), "b": TensorSpec(dtype="int64")}),
    ]
    assert schema_digest(one) == schema_digest(Schema(dict(one)))
    assert schema_digest(one) not in {schema_digest(schema) for schema in different}


def test_time_is_as_exact_as_it_is_written() -> None:
    """Readers get exactly the time that the writer stored."""
    time = now()
    assert datetime.fromisoformat(time.isoformat(timespec="milliseconds")) == time
    assert abs(datetime.now(UTC) - time) < timedelta(seconds=60)


def test_heartbeat_comes_back() -> None:
    """Every field of a heartbeat is read back unchanged."""
    beat = Heartbeat(3, "ab" * 8, 17, "stopped", 1000, 2)
    assert read_heartbeat(heartbeat_bytes(beat)) == beat


@pytest.mark.parametrize(
    "data",
    [
        b"",
        heartbeat_bytes(Heartbeat(1, "a", 1))[:-5],
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"epoch":"1","coordinator":"a","counter":1}',
        b'{"epoch":1,"coordinator":null,"counter":1}',
        b'{"epoch":1,"coordinator":"a","counter":true}',
        b'{"epoch":1,"coordinator":"a","counter":1,"mood":"good"}',
        b"[" * 100_000,
    ],
    ids=range(11),
)
def test_foreign_heartbeat_is_none(data: bytes) -> None:
    """A torn or foreign heartbeat is None, without an error."""
    assert read_heartbeat(data) is None


def test_schemas_are_inline_up_to_a_size() -> None:
    """The size of its JSON decides whether a schema is inline."""
    for schema in (SMALL, LARGE):
        size = len(json.dumps(schema.to_json(), separators=(",", ":")))
        assert encode_schema(schema).inline == (size <= documents._INLINE_SCHEMA)


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": {"t": 5}},
        {"tags": {"t": ["main"]}},
        {"tags": {"t": ["../x", 1]}},
        {"tags": {"t": ["main", -1]}},
        {"branches": {"b": []}},
        {"branches": {"b": {"source": ["main", 1], "first": 0}}},
        {"branches": {"b": {"source": "main", "first": 0, "entry": 1}}},
        {"branches": {"b": {"source": ["main", 1], "first": True, "entry": 1}}},
        {"branches": {"../b": {"source": ["main", 1], "first": 0, "entry": 1}}},
        {"expired": [[0, 1]]},
        {"expired": {"main": [0, 1]}},
        {"expired": {"main": [[1, 1]]}},
        {"expired": {"main": [[-1, 3]]}},
        {"first_order": -1},
        {"first_order": "1"},
    ],
    ids=str,
)
def test_invalid_marks_are_damaged(fields: dict[str, Any]) -> None:
    """Invalid tags, branches and expired versions are damage of the commit."""
    with pytest.raises(CorruptionError, match="the-key"):
        read_commit(changed(FULL, **fields), "the-key", never)
