"""Test that a forked process can read while threads of its parent were reading."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.bag as db
import pytest

import dasklake
from dasklake import TensorSpec, creds
from dasklake._fork import RenewedLock
from dasklake._lru import LRUCache
from dasklake._storage.fsspec_backend import io_loop
from tests.support.proxy import Proxy
from tests.support.s3 import S3Bucket

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

CHILDREN = 10
SECONDS = 20.0


def fork(work: Callable[[], object]) -> str:
    """Run a function in a forked process, and return how the process ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks in programs with threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "read" if status == 0 else f"failed with {status}"
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


@contextmanager
def busy(work: Callable[[], object], count: int = 4) -> Iterator[None]:
    """Call a function again and again in threads."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            work()

    threads = [threading.Thread(target=repeat, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def write(url: str, **options: Any) -> dasklake.Lake:
    """Write a lake of 60 samples in 6 chunks."""
    bag = db.from_sequence([{"x": x} for x in range(60)], npartitions=6)
    schema = {"x": TensorSpec(dtype="int64", shape=())}
    local = dasklake.WriteOptions(scheduler="sync")
    dasklake.to_lake(bag, url, schema=schema, progress=False, options=local, **options)
    return dasklake.open(url, **options)


def check(lake: dasklake.Lake) -> None:
    """Read samples that are cached, and others."""
    assert int(lake[5]["x"]) == 5
    assert int(lake[37]["x"]) == 37
    assert lake.refresh().max_len == 60


def handles(lake: dasklake.Lake, **options: Any) -> dict[str, Callable[[], object]]:
    """Return the ways in which a child obtains a handle."""
    data, url = pickle.dumps(lake), lake.url
    return {
        "the same": lambda: check(lake),
        "a new one": lambda: check(dasklake.open(url, **options)),
        "an unpickled one": lambda: check(pickle.loads(data)),  # made above
    }


@pytest.mark.parametrize("handle", ["the same", "a new one", "an unpickled one"])
def test_children_read_local_files(tmp_path: Path, handle: str) -> None:
    """Every child reads through the parent's handle, a new one and an unpickled one."""
    lake = write(str(tmp_path / "lake"))
    with busy(lambda: lake[5]):
        ends = [fork(handles(lake)[handle]) for _ in range(CHILDREN)]
    assert ends == ["read"] * CHILDREN


def test_children_of_children(tmp_path: Path) -> None:
    """A child can fork again while its own threads read."""
    lake = write(str(tmp_path / "lake"))

    def child() -> None:
        with busy(lambda: lake[7]):
            assert fork(lambda: check(lake)) == "read"

    with busy(lambda: lake[5]):
        assert [fork(child) for _ in range(3)] == ["read"] * 3


def test_children_read_s3(s3_bucket: S3Bucket) -> None:
    """Children make their own connections to S3, and resolve credentials keys themselves."""
    creds.populate("forked", s3_bucket.options)
    try:
        lake = write(f"{s3_bucket.url}/lake", storage_options="forked")
        with busy(lambda: (lake[5], creds.current("forked")), 2):
            for work in handles(lake, storage_options="forked").values():
                ends = [fork(work) for _ in range(2)]
                assert ends == ["read"] * 2
    finally:
        creds.populate("forked", None)


def test_children_leave_the_connections_of_the_parent_alone(
    s3_bucket: S3Bucket, proxy: Proxy
) -> None:
    """A child whose garbage collector finds a handle of its parent does not disturb the parent.

    The parent's connections are kept, as those to S3 are. Its event loop shares the list of watched
    sockets with the child. The collector runs in any thread, here in that of the child's event loop.
    """
    proxy.keeps_connections = True
    url = f"{s3_bucket.url}/lake"
    write(url, storage_options=s3_bucket.options)
    handles = [dasklake.open(url, storage_options=proxy.options)]

    def read(lake: dasklake.Lake) -> None:
        assert [x for batch in lake.batches(7) for x in batch["x"].tolist()] == [*range(60)]

    def child() -> None:
        read(pickle.loads(pickle.dumps(handles[0])))
        collected = threading.Event()

        def collect() -> None:
            handles.clear()
            gc.collect()
            collected.set()

        io_loop().call_soon_threadsafe(collect)
        collected.wait()
        read(dasklake.open(url, storage_options=proxy.options))

    def requests() -> int:
        before = proxy.requests
        read(dasklake.open(url, storage_options=proxy.options))
        return proxy.requests - before

    read(handles[0])
    needed = requests()
    assert fork(child) == "read"
    # A lost answer would be waited for until a timeout, and its request repeated.
    assert requests() == needed > 0


def test_locks_that_are_held_while_forking() -> None:
    """Locks that another thread holds are free in the child; blocks that fork can be left."""
    cache: LRUCache[int, str] = LRUCache()
    cache.put(1, "one")
    guard = RenewedLock()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with guard.lock, cache._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def child() -> None:
        with guard.lock:
            cache.put(2, "two")
            assert cache.get(2) == "two"

    ends = fork(child)
    done.set()
    thread.join()
    assert ends == "read"
    assert cache.get(1) == "one"
    with guard.lock:
        assert fork(lambda: guard.lock.acquire(timeout=1)) == "read"
