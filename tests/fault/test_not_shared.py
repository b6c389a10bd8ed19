"""Workers that do not see the lake's storage end the run, and say which and where."""

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
    """A lake in one process's memory is refused by the others, as not shared."""
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
    """One worker of two for which the same path is another place ends the run; it writes nothing."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    if elsewhere == "another lake":
        local = dasklake.WriteOptions(scheduler="sync")
        dasklake.to_lake(BAG, there / "lake", schema=SCHEMA, options=local)
    before = sorted(there.rglob("*"))
    monkeypatch.chdir(here)
    cluster = Cluster(tmp_path / "cluster", here)
    try:
        # The one path that is another place in each process, without any privilege.
        url = "file:///proc/self/cwd/lake"
        cluster.add_worker(here)
        stranger = cluster.add_worker(there)
        with Client(cluster.address, timeout="60s") as client:
            client.wait_for_workers(2, timeout=60)
            options = dasklake.WriteOptions(scheduler=client)
            with pytest.raises(LakeNotSharedError, match=f"process {stranger.pid}"):
                dasklake.to_lake(BAG, url, schema=SCHEMA, coordinator=coordinator, options=options)
    finally:
        cluster.close()
    assert sorted(there.rglob("*")) == before
