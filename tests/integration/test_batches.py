"""Test batches of lakes on object storage, their memory, and their processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np
import pytest

import dasklake
from tests.support.proxy import Fate, Proxy, Request
from tests.support.s3 import S3Bucket

SCHEMA = {
    "data": dasklake.TensorSpec(dtype="uint8", shape=(None,)),
    "id": dasklake.TensorSpec(dtype="int64", shape=()),
}
OPTIONS = dasklake.WriteOptions(scheduler="sync", chunk_size="1 MiB")


def make(number: int) -> dict[str, Any]:
    """Make a sample of about 20 kB."""
    size = 20_000 + number % 100
    return {"data": np.random.default_rng(number).integers(0, 256, size, np.uint8), "id": number}


def write(url: Any, samples: int, **options: Any) -> dasklake.Lake:
    """Write a lake of several chunks."""
    bag = db.from_sequence(range(samples), npartitions=4)
    dasklake.to_lake(
        bag, url, schema=SCHEMA, transform=make, progress=False, options=OPTIONS, **options
    )
    return dasklake.open(url, **options)


def assert_complete(batches: Any, rows: Any) -> None:
    """Compare all samples with those that were written."""
    numbers: list[int] = []
    for batch in batches:
        numbers += batch["id"].tolist()
        for number, data in zip(batch["id"].tolist(), batch["data"], strict=True):
            assert np.array_equal(data, make(number)["data"])
    assert numbers == list(rows)


def test_batches_from_object_storage(s3_bucket: S3Bucket, proxy: Proxy) -> None:
    """Batches read each byte once: few requests, and hardly more bytes than the samples have."""
    write(f"{s3_bucket.url}/lake", 400, storage_options=s3_bucket.options)
    lake = dasklake.open(f"{s3_bucket.url}/lake", storage_options=proxy.options)
    size = sum(len(make(number)["data"]) + 8 for number in range(400))
    proxy.requests = proxy.sent = 0
    assert_complete(lake.batches(32, read_ahead="4 MiB"), range(400))
    assert proxy.sent <= 1.2 * size
    assert proxy.requests <= 60


def test_blocks_of_samples_are_read_together(s3_bucket: S3Bucket, proxy: Proxy) -> None:
    """Shuffled blocks of 16 samples cost one request each, and hardly more bytes."""
    write(f"{s3_bucket.url}/lake", 400, storage_options=s3_bucket.options)
    lake = dasklake.open(f"{s3_bucket.url}/lake", storage_options=proxy.options)
    size = sum(len(make(number)["data"]) + 8 for number in range(400))
    blocks = np.random.default_rng(0).permutation(25)
    rows = (blocks[:, np.newaxis] * 16 + np.arange(16)).ravel()
    proxy.requests = proxy.sent = 0
    assert_complete(lake.batches(32, rows, read_ahead="64 MiB"), rows)
    assert proxy.sent <= 1.2 * size
    assert proxy.requests <= 60


def test_failing_requests_are_repeated(s3_bucket: S3Bucket, proxy: Proxy) -> None:
    """Throttled and reset requests do not change what is read."""
    write(f"{s3_bucket.url}/lake", 100, storage_options=s3_bucket.options)
    lake = dasklake.open(f"{s3_bucket.url}/lake", storage_options=proxy.options)
    fates = iter([Fate.SLOW_DOWN, Fate.ANSWERED, Fate.RESET, Fate.ANSWERED] * 3)

    def decide(_: Request) -> Fate:
        return next(fates, Fate.ANSWERED)

    proxy.decide = decide
    assert_complete(lake.batches(8, read_ahead="1 MiB"), range(100))


_MEASURE = """
import json, sys, threading, time
import dasklake
url, options, read_ahead, shuffle = sys.argv[1], *map(json.loads, sys.argv[2:])
lake = dasklake.open(url, storage_options=options or None)
lake[0]

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

for _ in lake.batches(8, range(64), read_ahead="1 MiB"):
    pass
before, peak, done = resident(), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, resident())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
for batch in lake.batches(16, read_ahead=read_ahead, shuffle=shuffle):
    time.sleep(0.001)
done = True
thread.join()
print((peak - before) / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize(("remote", "shuffle"), [(True, False), (True, True), (False, False)])
def test_memory_is_bounded(
    s3_bucket: S3Bucket,
    tmp_path: Path,
    remote: bool,  # noqa: FBT001 # a parameter
    shuffle: bool,  # noqa: FBT001 # a parameter
) -> None:
    """The memory of a process grows by no more than the read-ahead and a constant."""
    url = f"{s3_bucket.url}/lake" if remote else str(tmp_path / "lake")
    options = {"storage_options": s3_bucket.options} if remote else {}
    write(url, 4000, **options)
    storage = json.dumps(options.get("storage_options", {}))
    arguments = [storage, json.dumps("16 MiB"), json.dumps(shuffle)]
    command = [sys.executable, "-c", _MEASURE, url, *arguments]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    # The lake has 80 MB. A fixed part is the memory of the libraries of the storage.
    assert float(output.stdout) < 16 + 24


def _read_all(lake: dasklake.Lake, queue: Any) -> None:
    queue.put(sum(int(batch["id"].sum()) for batch in lake.batches(16)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_batches(tmp_path: Path, method: str) -> None:
    """A lake that has read batches works in forked and in spawned processes."""
    lake = write(tmp_path / "lake", 100)
    iteration = iter(lake.batches(16))
    next(iteration)
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=_read_all, args=(lake, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [4950, 4950]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sum(len(batch["id"]) for batch in iteration) == 84


def test_no_file_stays_open(tmp_path: Path) -> None:
    """Three passes leave as many open files as before."""
    lake = write(tmp_path / "lake", 100)
    list(lake.batches(16))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # as the system counts
    for _ in range(3):
        assert_complete(lake.batches(7), range(100))
        next(iter(lake.batches(7)))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 # as the system counts


def test_batches_are_pickled_small(tmp_path: Path) -> None:
    """Batches travel as the version of the lake and their options, not with what was read."""
    batches = write(tmp_path / "lake", 100).batches(16, range(50))
    list(batches)
    data = pickle.dumps(batches)
    assert len(data) < 4000
    assert_complete(pickle.loads(data), range(50))
