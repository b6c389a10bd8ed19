"""Test that values of the client's configuration reach all processes of a run and of a read."""

from __future__ import annotations

from pathlib import Path

import dask
import dask.array as da
from distributed import Client

import dasklake
from dasklake._storage.store_limits import StoreLimits
from tests.support.clusters import Front


def limits_on_worker(lake: dasklake.Lake) -> tuple[StoreLimits, str]:
    """Return the limits of a lake in a worker, and the worker's own configured size."""
    size = dask.config.get("dasklake.memory-cache-size", default="none")
    return lake._reader.origin.store.limits, size


def test_workers_write_chunks_of_the_configured_size(front: Front, tmp_path: Path) -> None:
    """The chunks have the size that is configured where ``to_lake`` was called."""
    columns = {"x": da.zeros((200, 1000), chunks=(100, 1000))}
    with dask.config.set({"dasklake.chunk-size": "64 KiB"}):
        front.write(columns, tmp_path / "small")
    front.write(columns, tmp_path / "default")
    assert dasklake.read_lake(tmp_path / "small").npartitions > 10
    assert dasklake.read_lake(tmp_path / "default").npartitions == 2


def test_workers_read_with_the_limits_of_the_client(client: Client, tmp_path: Path) -> None:
    """A lake that is sent to workers has the limits configured where it was opened."""
    dasklake.to_lake({"x": da.arange(2)}, tmp_path / "lake")
    values = {"dasklake.memory-cache-size": "1 MiB", "dasklake.retry-time": {"read": "7s"}}
    with dask.config.set(values):
        lake = dasklake.open(tmp_path / "lake")
    results = client.run(limits_on_worker, lake)
    assert results
    for limits, own in results.values():
        assert limits == StoreLimits(read_seconds=7.0, cache_bytes=2**20)
        assert own != "1 MiB"
