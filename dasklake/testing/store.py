# ruff: noqa: S101 - pytest asserts
"""Test that a storage meets the requirements of a lake.

A test class of a backend opens a store, and accesses the objects without the code under test::

    class TestMyBackend(StoreContract):
        @pytest.fixture
        def store(self) -> ObjectStore:
            return ObjectStore("mine://bucket/lake")

        def write_behind(self, store, key, data): ...
        def read_behind(self, store, key): ...
        def delete_behind(self, store, key): ...
"""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dasklake._storage.memory_pool import MemoryPool
from dasklake._storage.object_reader import Request
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, ObjectExistsError, ObjectNotFoundError

__all__ = ["StoreContract"]

#: Number of objects that exceeds one page of a listing on any known storage.
_MANY = 1_003


class StoreContract:
    """Tests of the guarantees of :class:`~dasklake._storage.store.ObjectStore`.

    Attributes
    ----------
    race_rounds : int
        Number of races between threads to create the same object.
    racers : int
        Number of threads.
    """

    race_rounds = 20
    racers = 8

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return a store with an empty root. Subclasses override this fixture."""
        raise NotImplementedError

    def write_behind(self, store: ObjectStore, key: str, data: bytes) -> None:
        """Write an object without the code under test. Subclasses override this method.

        Parameters
        ----------
        store : ObjectStore
            Store under test.
        key : str
            Key of the object.
        data : bytes
            Content of the object.
        """
        raise NotImplementedError

    def read_behind(self, store: ObjectStore, key: str) -> bytes:
        """Read an object without the code under test. Subclasses override this method.

        Parameters
        ----------
        store : ObjectStore
            Store under test.
        key : str
            Key of the object.

        Returns
        -------
        bytes
            Content of the object.

        Raises
        ------
        FileNotFoundError
            The object does not exist.
        """
        raise NotImplementedError

    def delete_behind(self, store: ObjectStore, key: str) -> None:
        """Delete an object without the code under test. Subclasses override this method.

        Parameters
        ----------
        store : ObjectStore
            Store under test.
        key : str
            Key of the object.
        """
        raise NotImplementedError

    @pytest.mark.parametrize(
        "data",
        [
            b"plain",
            b"",
            bytearray(b"mutable"),
            memoryview(b"a view")[2:],
            np.arange(5, dtype="float64"),
            pa.py_buffer(b"an Arrow buffer"),
        ],
        ids=["bytes", "empty", "bytearray", "memoryview", "numpy", "arrow"],
    )
    def test_put_takes_any_buffer(self, store: ObjectStore, data: Any) -> None:
        """Every object with the buffer protocol is stored unchanged."""
        store.put("a/b/c.bin", data)
        assert self.read_behind(store, "a/b/c.bin") == bytes(memoryview(data).cast("B"))
        assert store.get("a/b/c.bin") == bytes(memoryview(data).cast("B"))
        assert store.size("a/b/c.bin") == memoryview(data).nbytes

    def test_put_replaces(self, store: ObjectStore) -> None:
        """A second put replaces the first one, also with shorter content."""
        store.put("key", b"a long first content")
        store.put("key", b"short")
        assert self.read_behind(store, "key") == b"short"

    def test_create_refuses_the_second(self, store: ObjectStore) -> None:
        """A create over an existing object is refused and changes nothing."""
        store.create("log/0.json", b"first")
        with pytest.raises(ObjectExistsError, match=r"log/0\.json"):
            store.create("log/0.json", b"second")
        assert self.read_behind(store, "log/0.json") == b"first"

    def test_create_sees_others(self, store: ObjectStore) -> None:
        """A create over an object of another writer is refused."""
        store.names("log")
        self.write_behind(store, "log/0.json", b"other writer")
        with pytest.raises(ObjectExistsError):
            store.create("log/0.json", b"this writer")
        assert store.get("log/0.json") == b"other writer"

    def test_create_after_delete(self, store: ObjectStore) -> None:
        """A deleted object can be created again."""
        store.create("key", b"first")
        store.delete(["key"])
        store.create("key", b"second")
        assert store.get("key") == b"second"

    def test_create_race(self, store: ObjectStore) -> None:
        """If threads create the same object, exactly one succeeds, and its content is stored."""
        with ThreadPoolExecutor(self.racers) as pool:
            for number in range(self.race_rounds):
                barrier = threading.Barrier(self.racers)
                key = f"race/{number}"
                attempts = pool.map(
                    lambda racer, key=key, barrier=barrier: _race(store, key, racer, barrier),
                    range(self.racers),
                )
                winners = [racer for racer in attempts if racer is not None]
                assert len(winners) == 1
                assert self.read_behind(store, key) == b"%d" % winners[0]

    def test_missing(self, store: ObjectStore) -> None:
        """Every read of a missing object raises ObjectNotFoundError, which names the object."""
        for read in (store.get, store.size, lambda key: store.get_range(key, 0, 1)):
            with pytest.raises(ObjectNotFoundError, match="no/such"):
                read("no/such")
        assert not store.exists("no/such")

    def test_directory_is_no_object(self, store: ObjectStore) -> None:
        """The prefix of an object is not itself an object."""
        store.put("a/b", b"x")
        assert store.exists("a/b")
        assert not store.exists("a")

    def test_ranges(self, store: ObjectStore) -> None:
        """Ranges are returned complete and in order, also empty and overlapping ones."""
        data = bytes(range(256)) * 40
        self.write_behind(store, "key", data)
        assert store.get_range("key", 3, 17) == data[3:17]
        ranges = [(10_000, 10_240), (0, 1), (5, 5), (0, 10_240), (200, 300)]
        assert store.get_ranges("key", ranges) == [data[a:b] for a, b in ranges]
        assert store.get_ranges("key", []) == []

    @pytest.mark.parametrize("bounds", [(3, 6), (5, 6), (90, 100)])
    def test_range_beyond_the_end(self, store: ObjectStore, bounds: tuple[int, int]) -> None:
        """A range that ends beyond the object raises an error."""
        store.put("key", b"12345")
        with pytest.raises(CorruptionError, match="key"):
            store.get_range("key", *bounds)
        with pytest.raises(CorruptionError, match="key"):
            store.get_ranges("key", [(0, 1), bounds])

    def test_parts_of_many_objects(self, store: ObjectStore) -> None:
        """Parts of several objects are returned in order, and each of them is checked."""
        objects = {f"parts/{number}": bytes([number]) * 1000 for number in range(20)}
        for key, data in objects.items():
            store.put(key, data)
        ranges = [(900, 1000), (0, 1), (7, 7), (5, 800)]
        checked: list[tuple[int, int]] = []

        def check(start: int, data: Any) -> None:
            checked.append((start, start + len(data)))

        def damaged(start: int, data: Any) -> None:
            raise CorruptionError(f"{len(data)} bytes at {start} are damaged")

        arena = MemoryPool().arena()
        requests = [Request(key, ranges, check) for key in objects]
        results = store.read_many(requests, arena.empty)
        for parts, data in zip(results, objects.values(), strict=True):
            assert [bytes(part) for part in parts] == [data[a:b] for a, b in ranges]
        assert sorted(checked) == sorted(20 * [(900, 1000), (0, 1), (5, 800)])
        for request in (
            Request("parts/3", [(0, 1001)], check),
            Request("parts/3", [(0, 10)], damaged),
        ):
            with pytest.raises(CorruptionError):
                store.read_many([*requests, request], arena.empty)
        with pytest.raises(ObjectNotFoundError):
            store.read_many([Request("parts/none", [(0, 1)], check)], arena.empty)

    def test_get_many(self, store: ObjectStore) -> None:
        """Objects are returned in the order of their keys; a missing one is an error."""
        for number in range(20):
            store.put(f"many/{number}", b"%d" % number)
        order = [f"many/{number}" for number in (7, 3, 19, 0)]
        assert store.get_many(order) == [b"7", b"3", b"19", b"0"]
        with pytest.raises(ObjectNotFoundError):
            store.get_many([*order, "many/none"])

    def test_names(self, store: ObjectStore) -> None:
        """One level is listed: objects and directories, not those of a similar prefix."""
        for key in ("log/main/000000/1.json", "log/main/x", "log/main2/y", "log/z"):
            self.write_behind(store, key, b"-")
        assert store.names("log") == ["main", "main2", "z"]
        assert store.names("log/main") == ["000000", "x"]
        assert store.names("log/main/000000") == ["1.json"]
        assert store.names("log/none") == []

    def test_walk(self, store: ObjectStore) -> None:
        """All objects under a directory are listed with their sizes, not those of a similar prefix."""
        for key in ("data/run/b", "data/run/deep/er/a", "data/run2/c", "other"):
            self.write_behind(store, key, key.encode())
        assert store.walk("data/run") == [("data/run/b", 10), ("data/run/deep/er/a", 18)]
        assert len(store.walk("")) == 4
        assert store.walk("none") == []

    def test_listings_are_fresh(self, store: ObjectStore) -> None:
        """The next listing shows the objects that other processes wrote and deleted."""
        self.write_behind(store, "log/1", b"1")
        assert (store.names("log"), store.walk("log")) == (["1"], [("log/1", 1)])
        self.write_behind(store, "log/2", b"22")
        assert (store.names("log"), store.walk("log")[1:]) == (["1", "2"], [("log/2", 2)])
        self.delete_behind(store, "log/1")
        assert (store.names("log"), store.walk("log")) == (["2"], [("log/2", 2)])
        assert not store.exists("log/1")

    def test_listings_are_complete(self, store: ObjectStore) -> None:
        """Objects of several listing pages are all listed and all deleted."""
        keys = [f"page/{number:05d}" for number in range(_MANY)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self.write_behind(store, key, b""), keys))
        assert [key for key, _ in store.walk("page")] == keys
        assert store.names("page") == [key.removeprefix("page/") for key in keys]
        store.delete(keys)
        assert store.walk("page") == []

    def test_delete(self, store: ObjectStore) -> None:
        """Only the given objects are deleted, and missing ones are ignored."""
        for key in ("a", "b/c", "b/d"):
            store.put(key, b"-")
        store.delete(["a", "b/c", "never/there"])
        assert [key for key, _ in store.walk("")] == ["b/d"]
        with pytest.raises(FileNotFoundError):
            self.read_behind(store, "a")

    @pytest.mark.parametrize("key", ["../x", "/etc/x", "a/../../x"])
    def test_keys_stay_under_the_root(self, store: ObjectStore, key: str) -> None:
        """A key that leaves the root is refused."""
        with pytest.raises(CorruptionError, match="leaves the root"):
            store.get(key)

    def test_large_object(self, store: ObjectStore) -> None:
        """An object of the size of a chunk is read whole and in parts."""
        data = np.random.default_rng(0).bytes(9_000_001)
        store.put("large", data)
        assert store.get("large") == data
        assert store.get_range("large", 8_999_990, 9_000_001) == data[-11:]

    def test_pickles(self, store: ObjectStore) -> None:
        """A pickled store accesses the same objects, and contains no connection."""
        store.put("key", b"value")
        copy = pickle.loads(pickle.dumps(store))  # noqa: S301 # pickled above
        assert copy.get("key") == b"value"
        assert copy == store
        assert hash(copy) == hash(store)
        assert repr(copy) == repr(store)
        assert len(pickle.dumps(store)) < 1_000

    def test_probe(self, store: ObjectStore) -> None:
        """A storage that creates exclusively passes the probe, which leaves no object."""
        assert store.creates_exclusively
        assert not store.read_only
        store.probe()
        assert store.walk("") == []

    def test_sync(self, store: ObjectStore) -> None:
        """The directory of an object can be flushed at any time."""
        store.put("log/000000/0.json", b"x")
        store.sync("log/000000/0.json")
        assert store.get("log/000000/0.json") == b"x"

    def test_readers_see_whole_objects(self, store: ObjectStore) -> None:
        """A reader concurrent with a writer sees the old or the new content, never a part."""
        contents = [bytes([65 + number]) * 70_000 for number in range(2)]
        store.put("beat", contents[0])
        done = threading.Event()

        def write() -> None:
            for number in range(20):
                store.put("beat", contents[number % 2])
            done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            seen = [store.get("beat")]
            while not done.is_set():
                seen.append(store.get("beat"))
                if writing.done():
                    break
            writing.result()
        assert all(data in contents for data in seen)


def _race(store: ObjectStore, key: str, racer: int, barrier: threading.Barrier) -> int | None:
    barrier.wait(timeout=60)
    try:
        store.create(key, b"%d" % racer)
    except ObjectExistsError:
        return None
    return racer
