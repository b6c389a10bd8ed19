"""Workers that cannot access the lake's storage end the run; the error names them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import dask.bag as db
import pytest
from distributed import Client

import dasklake
from dasklake.exceptions import LakeNotSharedError
from tests.support._work import SCHEMA, content
from tests.support.clusters import Cluster

BAG = db.from_sequence(range(40), npartitions=8).map(content)


def test_memory_is_not_shared_by_processes(client: Client) -> None:
    """A lake in the memory of one process is refused by other processes as not shared."""
    options = dasklake.WriteOptions(scheduler=client)
    with pytest.raises(LakeNotSharedError, match=r"memory://not-shared.*every worker reaches"):
        dasklake.to_lake(
            BAG, "memory://not-shared", schema=SCHEMA, coordinator="client", options=options
        )


@pytest.mark.parametrize(
    ("elsewhere", "coordinator"), [("nothing", "scheduler"), ("another lake", "client")]
)
def test_worker_with_another_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: str,
    coordinator: Literal["scheduler", "client"],
) -> None:
    """If a path is another folder on one of two workers, the run ends before that worker writes."""
    shared, separate = tmp_path / "shared", tmp_path / "separate"
    shared.mkdir()
    separate.mkdir()
    if elsewhere == "another lake":
        local = dasklake.WriteOptions(scheduler="sync")
        dasklake.to_lake(BAG, separate / "lake", schema=SCHEMA, options=local)
    before = sorted(separate.rglob("*"))
    monkeypatch.chdir(shared)
    cluster = Cluster(tmp_path / "cluster", shared)
    try:
        # This path is another folder in each process, and needs no privilege.
        url = "file:///proc/self/cwd/lake"
        cluster.add_worker(shared)
        stranger = cluster.add_worker(separate)
        with Client(cluster.address, timeout="60s") as client:
            client.wait_for_workers(2, timeout=60)
            options = dasklake.WriteOptions(scheduler=client)
            with pytest.raises(LakeNotSharedError, match=f"process {stranger.pid}"):
                dasklake.to_lake(BAG, url, schema=SCHEMA, coordinator=coordinator, options=options)
    finally:
        cluster.close()
    assert sorted(separate.rglob("*")) == before
