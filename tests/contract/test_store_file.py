"""The contract of a storage, over files of a local disk."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from dasklake._storage.store import ObjectStore
from dasklake.exceptions import ObjectExistsError
from dasklake.testing.store import StoreContract

ROUNDS = 200
PROCESSES = 4


def root(store: ObjectStore) -> Path:
    """Return the directory of a local store."""
    return Path(store.url.removeprefix("file://"))


class TestFileStore(StoreContract):
    race_rounds = ROUNDS

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        """Return a store whose directory does not exist yet."""
        return ObjectStore(tmp_path / "not" / "there" / "yet")

    def write_behind(self, store: ObjectStore, key: str, data: bytes) -> None:
        """Write a file."""
        path = root(store) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def read_behind(self, store: ObjectStore, key: str) -> bytes:
        """Read a file."""
        return (root(store) / key).read_bytes()

    def delete_behind(self, store: ObjectStore, key: str) -> None:
        """Remove a file."""
        (root(store) / key).unlink()

    def test_create_race_of_processes(self, store: ObjectStore) -> None:
        """If processes create the same object concurrently, exactly one succeeds."""
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(PROCESSES)
        wins = context.SimpleQueue()
        racers = [
            context.Process(target=race, args=(store, number, barrier, wins))
            for number in range(PROCESSES)
        ]
        for racer in racers:
            racer.start()
        won = [wins.get() for _ in racers]
        for racer in racers:
            racer.join(timeout=60)
            assert racer.exitcode == 0
        assert sorted(key for keys in won for key in keys) == list(range(ROUNDS))

    def test_nothing_is_left_beside_the_objects(self, store: ObjectStore) -> None:
        """A create leaves no temporary file, whether it succeeds or fails."""
        store.create("log/0", b"first")
        with pytest.raises(ObjectExistsError):
            store.create("log/0", b"second")
        store.put("log/0", b"third")
        assert [path.name for path in (root(store) / "log").iterdir()] == ["0"]


def race(
    store: ObjectStore, number: int, barrier: Barrier, wins: multiprocessing.SimpleQueue[list[int]]
) -> None:
    """Create each object concurrently with the other processes; report which creates succeeded."""
    won = []
    for key in range(ROUNDS):
        barrier.wait(timeout=60)
        try:
            store.create(f"race/{key}", b"%d" % number)
        except ObjectExistsError:
            continue
        won.append(key)
    wins.put(won)
