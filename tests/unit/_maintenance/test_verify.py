"""Tests of verify: an intact lake passes, and each kind of damage is found and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._maintenance.verify import Damage, VerifyReport, verify
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import LakeNotFoundError
from tests.support.lakes import SmallLake, failure

#: Partitions of the lake, each with its chunks.
CONTENT: list[list[list[int]]] = [[[0, 1, 2]], [[3], [4, 5]], [[]], [[6, 7]]]


def check(lake: SmallLake, *, quick: bool = False) -> VerifyReport:
    """Verify with a log of its own."""
    return verify(lake.store, Log(lake.store), quick=quick)


@pytest.fixture
def lake(small_lake: SmallLake) -> SmallLake:
    """Make a lake of two commits, with failures and a leftover."""
    writer = small_lake.begin("run", 5)
    receipts = [small_lake.write(writer, n, chunks) for n, chunks in enumerate(CONTENT)]
    writer.commit(receipts[:2], [failure("run", 1, 0)])
    writer.commit(receipts[2:], [])
    small_lake.write(writer, 4)
    return small_lake


def path(lake: SmallLake, key: str) -> Path:
    """Return the file of an object."""
    return Path(lake.store.url.removeprefix("file://")) / key


def chunk(lake: SmallLake, partition: int, number: int = 0) -> str:
    """Return the key of a chunk."""
    [key] = [
        key
        for key, _ in lake.store.walk("data")
        if key.startswith(f"data/main/run/{partition}-") and key.endswith(f"-{number}.arrow")
    ]
    return key


def flip(file: Path, place: int) -> None:
    """Change one byte of a file."""
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def only(report: VerifyReport) -> Damage:
    """Return the only damage."""
    assert not report.ok
    [found] = report.damaged
    return found


@pytest.mark.parametrize("quick", [True, False])
def test_sound_lake(lake: SmallLake, *, quick: bool) -> None:
    """An intact lake passes with correct counts; leftovers are ignored."""
    report = check(lake, quick=quick)
    assert report.ok
    assert (report.versions, report.segments, report.chunks, report.samples) == (4, 3, 5, 8)
    assert report.bytes == lake.head.totals.size
    assert report.quick is quick


def test_every_byte_of_a_chunk(lake: SmallLake) -> None:
    """One changed byte in a chunk is found, with the affected rows."""
    key = chunk(lake, 1, 1)
    size = path(lake, key).stat().st_size
    for place in [*range(0, size, 97), size - 1]:
        flip(path(lake, key), place)
        found = only(check(lake))
        assert (found.key, found.branch, found.version, found.rows) == (key, "main", 3, (4, 6))
        flip(path(lake, key), place)
    assert check(lake).ok


def test_quick_reads_heads(lake: SmallLake) -> None:
    """The quick mode finds wrong sizes and heads only."""
    key = chunk(lake, 0)
    flip(path(lake, key), -1)
    assert check(lake, quick=True).ok
    flip(path(lake, key), -1)
    flip(path(lake, key), 40)
    assert only(check(lake, quick=True)).rows == (0, 3)


def test_missing_and_cut_chunks(lake: SmallLake) -> None:
    """A missing or truncated chunk is found, even without rows."""
    path(lake, chunk(lake, 3)).unlink()
    file = path(lake, chunk(lake, 2))
    file.write_bytes(file.read_bytes()[:-1])
    damaged = {found.rows: found.problem for found in check(lake, quick=True).damaged}
    assert damaged[6, 8] == "it is missing"
    assert "bytes, got" in damaged[6, 6]


def test_exchanged_chunks(lake: SmallLake) -> None:
    """An intact chunk under the key of another is found."""
    file = path(lake, chunk(lake, 0))
    file.write_bytes(path(lake, chunk(lake, 3)).read_bytes())
    assert only(check(lake)).rows == (0, 3)


def test_older_versions_are_read(lake: SmallLake) -> None:
    """A chunk that only an older version names is checked, and reported for that version."""
    new = lake.begin("new", 1, overwrite=True)
    new.commit([lake.write(new, 0)], [])
    path(lake, chunk(lake, 3)).unlink()
    found = only(check(lake))
    assert (found.version, found.rows) == (4, (6, 8))


@pytest.mark.parametrize("gone", [True, False])
def test_segments(lake: SmallLake, *, gone: bool) -> None:
    """A missing or changed segment is named, with the number of its samples."""
    key = object_keys.segment_key(lake.head.segments[0].name)
    if gone:
        path(lake, key).unlink()
    else:
        flip(path(lake, key), 100)
    found = only(check(lake))
    assert (found.key, found.version, found.rows) == (key, 3, None)
    assert "6 samples" in found.problem


@pytest.mark.parametrize("gone", [True, False])
def test_failures(lake: SmallLake, *, gone: bool) -> None:
    """A missing or changed table of failures is named."""
    key = object_keys.failures_key(lake.head.failures[0].name)
    if gone:
        path(lake, key).unlink()
    else:
        flip(path(lake, key), 100)
    assert only(check(lake)).key == key


@pytest.mark.parametrize(
    ("version", "gone"), [(0, True), (2, True), (0, False), (2, False), (3, False)]
)
def test_commits(lake: SmallLake, *, version: int, gone: bool) -> None:
    """A changed or missing commit is named; the others are still read."""
    key = object_keys.commit_key("main", version)
    if gone:
        path(lake, key).unlink()
    else:
        flip(path(lake, key), 100)
    report = check(lake)
    found = only(report)
    assert (found.key, found.version) == (key, version)
    assert report.versions == 3


def test_exchanged_commits(lake: SmallLake) -> None:
    """A commit whose parent is another one is named."""
    other = SmallLake(ObjectStore(lake.store.url + "-other"))
    other.begin("run", 5)
    for version in (0, 1):
        key = object_keys.commit_key("main", version)
        path(lake, key).write_bytes(path(other, key).read_bytes())
    found = only(check(lake))
    assert (found.key, found.problem) == (
        object_keys.commit_key("main", 2),
        "its parent is not version 1",
    )


def test_no_lake(tmp_path: Path) -> None:
    """A missing lake is an error."""
    store = ObjectStore(tmp_path / "none")
    with pytest.raises(LakeNotFoundError):
        verify(store, Log(store))
