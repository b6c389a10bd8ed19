"""Test lakes that are read through a local cache, from a real S3 server."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import dasklake
from dasklake import Lake, Schema, TensorSpec
from dasklake._storage.block_cache import BLOCK, BlockCache, CacheSettings
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, InvalidInputError
from tests.integration.test_fork import fork
from tests.support.clusters import ROOT
from tests.support.proxy import Fate, Proxy, Request
from tests.support.s3 import SECRET, S3Bucket
from tests.support.samples import Make, same

SCHEMA = Schema(
    {
        "id": TensorSpec(dtype="int64", shape=()),
        "big": TensorSpec(dtype="uint8", shape=(None, 1000)),
        "packed": TensorSpec(dtype="int64", shape=(None,), compression="zstd"),
    }
)


def _rows() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [
        {
            "id": i,
            "big": draw.integers(0, 256, (30 + i, 1000), "u1"),
            "packed": draw.integers(0, 2**62, 2000),
        }
        for i in range(40)
    ]


ROWS = _rows()


class Requests:
    """The requests for chunks."""

    def __init__(self, proxy: Proxy) -> None:
        self.chunks: list[str] = []
        proxy.decide = self._decide

    def _decide(self, request: Request) -> Fate:
        if request.method == "GET" and "/data/" in request.path:
            self.chunks.append(request.path)
        return Fate.ANSWERED


@pytest.fixture
def requests(proxy: Proxy) -> Requests:
    """Count the requests."""
    return Requests(proxy)


@pytest.fixture
def url(s3_bucket: S3Bucket, make_lake: Make) -> str:
    """Write a lake of two chunks and a small one."""
    store = ObjectStore(f"{s3_bucket.url}/lake", s3_bucket.options)
    make_lake(SCHEMA, [[ROWS[:20], ROWS[20:38]], [ROWS[38:]]], store)
    return store.url


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return the directory of the cache; no test leaves a secret in it."""
    yield tmp_path / "cache"
    for path in (tmp_path / "cache").rglob("*"):
        assert SECRET not in str(path)
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def open_lake(url: str, options: Any, folder: Path, **arguments: Any) -> Lake:
    """Open a lake with a cache."""
    return dasklake.open(url, cache=folder, storage_options=options, **arguments)


def check(lake: Lake) -> None:
    """Read every sample in several ways."""
    for row in (0, 39, 25, 3):
        assert all(same(lake[row][name], ROWS[row][name]) for name in SCHEMA)
    for number, sample in enumerate(lake):
        assert all(same(sample[name], ROWS[number][name]) for name in SCHEMA)
    assert lake["id"][:].tolist() == list(range(40))
    assert same(lake["big"][7, 3:9, ::100], ROWS[7]["big"][3:9, ::100])
    assert lake["big"].max_shape == (69, 1000)
    taken = lake.take([31, 4, 38])
    assert all(map(same, taken["big"], [ROWS[row]["big"] for row in (31, 4, 38)]))
    assert same(lake.select([31, 4])["big"][1, :5], ROWS[4]["big"][:5])
    batches = list(lake.batches(16, columns=["id", "packed"]))
    assert [int(number) for batch in batches for number in batch["id"]] == list(range(40))
    assert same(batches[1]["packed"][3], ROWS[19]["packed"])


def test_the_second_epoch_reads_nothing(
    url: str, proxy: Proxy, requests: Requests, folder: Path
) -> None:
    """Samples, slices, loops, parts and Dask collections read from the cache the second time."""
    check(open_lake(url, proxy.options, folder))
    assert requests.chunks
    requests.chunks.clear()
    lake = open_lake(url, proxy.options, folder)
    check(lake)
    for scheduler in ("threads", "processes"):
        with dask.config.set(scheduler=scheduler):
            assert [row["id"] for row in lake.to_dask_bag().compute()] == list(range(40))
            assert lake.to_dask_dataframe(["id"])["id"].sum().compute() == sum(range(40))
    check(pickle.loads(pickle.dumps(lake)))
    lake.refresh()
    check(lake)
    assert fork(lambda: check(lake)) == "read"
    assert fork(lambda: check(open_lake(url, proxy.options, folder))) == "read"
    assert requests.chunks == []


def test_the_first_epoch_reads_each_byte_once(
    url: str, proxy: Proxy, requests: Requests, folder: Path
) -> None:
    """Reading samples in any order fetches no block twice."""
    lake = open_lake(url, proxy.options, folder)
    for row in np.random.default_rng(0).permutation(40):
        assert same(lake[int(row)]["big"], ROWS[row]["big"])
    total = sum(path.stat().st_size for path in folder.rglob("*.blocks"))
    assert len(requests.chunks) <= total // BLOCK + 3


def test_without_a_cache_nothing_is_kept(
    url: str, proxy: Proxy, requests: Requests, folder: Path
) -> None:
    """By default, each reader fetches what it reads."""
    for _ in range(2):
        requests.chunks.clear()
        check(dasklake.open(url, storage_options=proxy.options))
        assert requests.chunks
    assert not folder.exists()


READER = """
import sys
from pathlib import Path
from tests.integration.test_cache import check, open_lake
url, folder, key, secret, endpoint = sys.argv[1:]
options = {"key": key, "secret": secret, "endpoint_url": endpoint}
for _ in range(3):
    check(open_lake(url, options, Path(folder), cache_size="16 MiB"))
"""


def test_processes_share_the_cache(
    url: str, proxy: Proxy, requests: Requests, folder: Path
) -> None:
    """Processes that read at the same time read the right values, and leave a complete cache."""
    options = proxy.options
    values = [options["key"], options["secret"], options["endpoint_url"]]
    command = [sys.executable, "-c", READER, url, str(folder), *values]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    requests.chunks.clear()
    check(open_lake(url, options, folder))
    assert requests.chunks == []


def test_a_damaged_cache_is_filled_again(
    url: str, proxy: Proxy, requests: Requests, folder: Path
) -> None:
    """Changed and truncated files are noticed, and their blocks are fetched again."""
    check(open_lake(url, proxy.options, folder))
    for number, path in enumerate(sorted(folder.rglob("*.blocks"))):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data if number else data[:70_000])
    requests.chunks.clear()
    check(open_lake(url, proxy.options, folder))
    assert requests.chunks
    requests.chunks.clear()
    check(open_lake(url, proxy.options, folder))
    assert requests.chunks == []


@pytest.mark.parametrize("block", [0, 3])
def test_bytes_that_were_damaged_before_they_were_kept(
    url: str, proxy: Proxy, folder: Path, block: int
) -> None:
    """If the network changed a bit, the page checksums find it, and the chunk is fetched again."""
    lake = open_lake(url, proxy.options, folder)
    files: Any = lake._store.cached._connection.files
    cache = BlockCache(CacheSettings(str(folder), 2**30))
    for key, size in ObjectStore(url, proxy.options).walk("data"):
        data = bytearray(ObjectStore(url, proxy.options).get(key))
        begin = min(block, (size - 1) // BLOCK) * BLOCK
        data[begin + min(BLOCK, size - begin) // 2] ^= 1
        cache.write(files._name(key), {begin // BLOCK: memoryview(data)[begin:][:BLOCK]})
    check(lake)


def test_verify_reads_the_storage(url: str, s3_bucket: S3Bucket, folder: Path) -> None:
    """Damage on the storage is found although the cache has the right bytes."""
    lake = open_lake(url, s3_bucket.options, folder)
    check(lake)
    store = ObjectStore(url, s3_bucket.options)
    key, size = max(store.walk("data"), key=lambda entry: entry[1])
    data = bytearray(store.get(key))
    data[size // 2] ^= 1
    s3_bucket.server.request("PUT", f"/{url.removeprefix('s3://')}/{key}", bytes(data))
    check(open_lake(url, s3_bucket.options, folder))
    assert key in str(lake.verify())
    with pytest.raises(CorruptionError):
        check(dasklake.open(url, storage_options=s3_bucket.options))


def test_a_cache_that_cannot_be_used(url: str, proxy: Proxy, folder: Path) -> None:
    """If the disk of the cache fails, one warning is given, and everything is read."""
    lake = open_lake(url, proxy.options, folder)
    shutil.rmtree(folder)
    folder.write_text("not a directory")
    with pytest.warns(UserWarning, match=r"cache in .* cannot be read") as warned:
        check(lake)
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"cache": "s3://bucket/cache"}, "local directory"),
        ({"cache": ""}, "local directory"),
        ({"cache": 5}, "got 5"),
        ({"cache": True}, "got True"),
        ({"cache_size": "much"}, "got 'much'"),
        ({"cache_size": 1000}, "at least 16.00 MiB"),
        ({"cache_size": True}, "got True"),
        ({"cache_size": -(2**40)}, "got -"),
    ],
)
def test_arguments_are_checked(tmp_path: Path, arguments: dict[str, Any], problem: str) -> None:
    """An invalid directory or size is an error of the call."""
    with pytest.raises(InvalidInputError, match=problem):
        dasklake.open(tmp_path / "lake", **{"cache": tmp_path / "cache", **arguments})


def test_a_directory_of_others_is_refused_at_once(tmp_path: Path) -> None:
    """A directory that another user may write to is an error of the call."""
    shared = tmp_path / "cache" / f"dasklake-{os.geteuid()}"
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    with pytest.raises(InvalidInputError, match="chmod 700"):
        dasklake.open(tmp_path / "lake", cache=tmp_path / "cache")
