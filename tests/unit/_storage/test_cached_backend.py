"""Test a store whose chunks are read through a cache: same bytes, and fewer of them from storage."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from dasklake._storage.block_cache import BLOCK, CacheSettings
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, ObjectNotFoundError, StoreError
from tests.support.counting import CountingFileSystem

KEY = f"data/main/run/0-1-{'ab' * 8}-0.arrow"

#: Lengths of an object around the size of a block.
LENGTHS = [1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 17]


@pytest.fixture
def store(tmp_path: Path, counting_files: type[CountingFileSystem]) -> ObjectStore:
    """Make an empty store with a cache."""
    settings = CacheSettings(str(tmp_path / "cache"), 64 * 2**20)
    return ObjectStore("counted://cached", cache=settings)


def _put(store: ObjectStore, length: int) -> bytes:
    data = random.Random(length).randbytes(length)  # noqa: S311 # no secret
    store.put(KEY, data)
    return data


@pytest.mark.parametrize("length", LENGTHS)
def test_ranges_are_those_of_the_storage(
    store: ObjectStore, counting_files: type[CountingFileSystem], length: int
) -> None:
    """Any ranges of an object are the same with and without the cache, also the second time."""
    data, draw = _put(store, length), random.Random(0)  # noqa: S311 # no secret
    for _ in range(20):
        ends = [sorted(draw.choices(range(length + 1), k=2)) for _ in range(draw.randint(1, 4))]
        ranges = [(start, stop) for start, stop in ends]
        expected = [data[start:stop] for start, stop in ranges]
        assert store.cached.get_ranges(KEY, ranges) == expected
        counting_files.reset()
        assert store.cached.get_ranges(KEY, ranges) == expected
        assert not counting_files.reads


@pytest.mark.parametrize("length", LENGTHS)
def test_whole_objects_are_those_of_the_storage(
    store: ObjectStore, counting_files: type[CountingFileSystem], length: int
) -> None:
    """A whole object is fetched once."""
    data = _put(store, length)
    assert store.cached.get(KEY, length) == data
    counting_files.reset()
    assert store.cached.get(KEY, length) == data
    assert not counting_files.reads
    assert store.cached.get(KEY) == data


@pytest.mark.parametrize("length", LENGTHS)
def test_wrong_lengths_are_noticed(store: ObjectStore, length: int) -> None:
    """An object that is longer or shorter than expected is an error, as without the cache."""
    _put(store, length)
    for _ in range(2):
        with pytest.raises(CorruptionError, match="has more"):
            store.cached.get(KEY, length - 1)
        with pytest.raises(CorruptionError, match="truncated"):
            store.cached.get_range(KEY, 0, length + 1)
        with pytest.raises(CorruptionError, match="truncated"):
            store.cached.get_range(KEY, length + BLOCK, length + 2 * BLOCK)


def test_a_truncated_answer_is_not_kept(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a storage delivered too little once, the rest is fetched the next time."""
    data = _put(store, 2 * BLOCK)
    read = CountingFileSystem.cat_file

    def cut(self: Any, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        return read(self, path, start=start, end=end, **kwargs)[: BLOCK + 100]

    monkeypatch.setattr(CountingFileSystem, "cat_file", cut)
    assert store.cached.get_range(KEY, 0, BLOCK + 50) == data[: BLOCK + 50]
    monkeypatch.undo()
    assert store.cached.get_range(KEY, 0, 2 * BLOCK) == data
    assert store.cached.get(KEY, 2 * BLOCK) == data


def test_a_storage_that_refuses_ranges_beyond_the_end(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Object storages refuse a range that begins at the end; the object is read all the same."""
    data = _put(store, 2 * BLOCK)
    read = CountingFileSystem.cat_file

    class BeyondError(OSError):
        status = 416

    def strict(self: Any, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        if start is not None and start >= 2 * BLOCK:
            raise BeyondError("Requested Range Not Satisfiable")
        return read(self, path, start=start, end=end, **kwargs)

    monkeypatch.setattr(CountingFileSystem, "cat_file", strict)
    assert store.cached.get_range(KEY, 0, 2 * BLOCK) == data
    assert store.cached.get(KEY, 2 * BLOCK) == data
    assert store.cached.get_range(KEY, 10, 20) == data[10:20]
    with pytest.raises(CorruptionError, match="truncated"):
        store.cached.get_range(KEY, 2 * BLOCK, 2 * BLOCK + 1)


def test_neighbours_are_one_request(
    store: ObjectStore, counting_files: type[CountingFileSystem]
) -> None:
    """Missing blocks that follow each other are fetched together, at most 8 MiB at once."""
    length = 20 * 2**20
    _put(store, length)
    store.cached.get_range(KEY, 5 * BLOCK, 6 * BLOCK)
    counting_files.reset()
    store.cached.get_range(KEY, BLOCK + 5, 9 * BLOCK)
    assert [size for _, size in counting_files.reads] == [4 * BLOCK, 3 * BLOCK]
    counting_files.reset()
    store.cached.get_range(KEY, 0, length)
    assert max(size for _, size in counting_files.reads) == 8 * 2**20
    assert counting_files.bytes_read() == length - 8 * BLOCK


def test_objects_of_the_log_are_not_cached(store: ObjectStore) -> None:
    """Only chunks, which never change, are kept."""
    for key in ("_lake/log/main/000000/1.json", "data/main/run/other.arrow"):
        for data in (b"first", b"second"):
            store.put(key, data)
            assert store.cached.get(key) == store.cached.get(key, 10) == data
            assert store.cached.get_range(key, 0, 3) == data[:3]


def test_a_missing_object_is_an_error(store: ObjectStore) -> None:
    """An object that does not exist is reported as without the cache."""
    for _ in range(2):
        with pytest.raises(ObjectNotFoundError):
            store.cached.get_range(KEY, 0, 10)
        with pytest.raises(ObjectNotFoundError):
            store.cached.get(KEY, 10)


def test_errors_of_the_storage_are_translated(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the storage is a StoreError, and nothing is kept."""
    data = _put(store, 100)

    def fail(*args: Any, **kwargs: Any) -> bytes:
        raise RuntimeError("no")

    monkeypatch.setattr(CountingFileSystem, "cat_file", fail)
    with pytest.raises(StoreError, match="RuntimeError: no"):
        store.cached.get_range(KEY, 0, 10)
    monkeypatch.undo()
    assert store.cached.get_range(KEY, 0, 10) == data[:10]


def test_a_store_is_pickled_with_its_cache(
    store: ObjectStore, counting_files: type[CountingFileSystem]
) -> None:
    """The cache travels with the store, and only the store that reads through it uses it."""
    data = _put(store, 100)
    copies = pickle.loads(pickle.dumps([store, store.cached]))
    assert copies == [store, store.cached]
    assert store.cached != store
    assert store.cached.cached is store.cached
    assert copies[1].get_range(KEY, 0, 10) == data[:10]
    counting_files.reset()
    assert store.cached.get_range(KEY, 0, 10) == copies[0].cached.get_range(KEY, 0, 10)
    assert not counting_files.reads
    assert copies[0].get_range(KEY, 0, 10) == data[:10]
    assert counting_files.reads


def test_a_store_without_a_cache(counting_files: type[CountingFileSystem]) -> None:
    """Without a cache, the store is its own."""
    store = ObjectStore("counted://plain")
    assert store.cached is store
    assert not store.forget(KEY)


def test_servers_do_not_share_objects(tmp_path: Path) -> None:
    """Two servers with buckets of one name have separate objects in the cache."""
    settings = CacheSettings(str(tmp_path), 64 * 2**20)
    names = set()
    for options in (
        {},
        {"endpoint_url": "http://a"},
        {"client_kwargs": {"endpoint_url": "http://b"}},
        {"key": "secret", "secret": "secret"},
    ):
        store = ObjectStore("s3://bucket/lake", options, cache=settings).cached
        files: Any = store._connection.files
        names.add(files._storage)
    assert len(names) == 3
    assert not any("secret" in name for name in names)
